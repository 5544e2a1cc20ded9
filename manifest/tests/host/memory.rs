//! RAM, and what is kept of it.

use layout::{
    Capabilities, Code, DomainRequest, KernelRequest, Located, MemoryRequest, Origin, Reservation,
    SystemRequest,
};

use super::*;

fn memory(root: &mut Writer, ranges: &[u64], node: Option<u32>) {
    root.node(&format!("memory@{:x}", ranges[0]), |memory| {
        memory.string("device_type", "memory");
        memory.numbers("reg", ranges);
        node.iter()
            .for_each(|&node| memory.cells("numa-node-id", &[node]));
    });
}

fn reserved(root: &mut Writer, inside: impl FnOnce(&mut Writer)) {
    root.node("reserved-memory", |node| {
        node.cells("#address-cells", &[2]);
        node.cells("#size-cells", &[2]);
        node.flag("ranges");
        inside(node);
    });
}

#[test]
fn banks_and_cpus_have_nodes() {
    let blob = tree(|root| {
        memory(root, &[0x8000_0000, 0x1000_0000], Some(0));
        memory(
            root,
            &[0x9000_0000, 0x1000_0000, 0x1_0000_0000, 0x1000_0000],
            Some(3),
        );
        memory(root, &[0x2_0000_0000, 0x1000_0000], None);
        root.node("cpus", |cpus| {
            cpus.cells("#address-cells", &[1]);
            cpus.cells("#size-cells", &[0]);
            for cpu in 0..2 {
                cpus.node(&format!("cpu@{cpu}"), |node| {
                    node.string("device_type", "cpu");
                    node.cells("reg", &[cpu]);
                    node.string("enable-method", "psci");
                    node.cells("numa-node-id", &[cpu * 3]);
                });
            }
        });
    });
    let host = read(&blob);
    let nodes: Vec<Option<u32>> = host.map.ram.iter().map(|bank| bank.node).collect();
    assert_eq!(nodes, [Some(0), Some(3), Some(3), None]);
    let nodes: Vec<Option<u32>> = host.map.cpus.iter().map(|cpu| cpu.node).collect();
    assert_eq!(nodes, [Some(0), Some(3)]);
}

#[test]
fn memory_that_the_boot_loader_fills_in_is_told() {
    let told = |blob: &[u8]| {
        let problems = read(blob).problems;
        let found = problems
            .into_iter()
            .find(|it| it.code == Code::MemoryNotDescribed);
        found.map(|found| (found.sides[0].what.clone(), found.help))
    };
    let none = told(&tree(|_| {})).unwrap();
    assert_eq!(none.0, "no memory node");
    let empty = told(&tree(|root| memory(root, &[0x4000_0000, 0], None))).unwrap();
    assert_eq!(empty.0, "a memory node of no bytes");
    assert!(empty.1.contains("start = 0x40000000"), "{}", empty.1);
    let one = |root: &mut Writer| memory(root, &[0x4000_0000, 0, 0x8000_0000, 0x1000], None);
    assert_eq!(told(&tree(one)), None);
}

/// What a driver asks for is a device of whoever has it; what firmware alone uses is nobody's.
#[test]
fn reserved_memory_of_drivers_is_reached_like_a_device() {
    let blob = tree(|root| {
        memory(root, &[0x8000_0000, 0x1000_0000], None);
        reserved(root, |node| {
            node.node("secmon@80000000", |region| {
                region.numbers("reg", &[0x8000_0000, 0x10_0000]);
                region.flag("no-map");
                region.cells("phandle", &[1]);
            });
            node.node("ramoops@81000000", |region| {
                region.string("compatible", "ramoops");
                region.numbers("reg", &[0x8100_0000, 0x10_0000]);
            });
            node.node("firmware@82000000", |region| {
                region.numbers("reg", &[0x8200_0000, 0x10_0000]);
                region.flag("no-map");
                region.cells("phandle", &[2]);
            });
            node.node("off@83000000", |region| {
                region.string("status", "disabled");
                region.numbers("reg", &[0x8300_0000, 0x10_0000]);
            });
        });
        root.node("remoteproc@90000000", |node| {
            node.string("compatible", "x,remoteproc");
            node.numbers("reg", &[0x9000_0000, 0x1000]);
            node.cells("memory-region", &[7, 2]);
        });
        root.node("disabled", |node| {
            node.string("status", "disabled");
            node.cells("memory-region", &[1]);
        });
    });
    let host = read(&blob);
    let kept: Vec<(&str, Reservation)> = host
        .map
        .reserved
        .iter()
        .map(|it| (it.name.as_str(), it.kind))
        .collect();
    assert_eq!(
        kept,
        [
            ("secmon", Reservation::NoMap),
            ("ramoops", Reservation::Kernel),
            ("firmware", Reservation::NoMap)
        ]
    );
    let devices: Vec<(&str, Dma)> = host
        .map
        .devices
        .iter()
        .map(|device| (device.path.as_str(), device.dma))
        .collect();
    let expected = [
        ("/remoteproc@90000000", Dma::Possible { mask: u64::MAX }),
        ("/reserved-memory/ramoops@81000000", Dma::None),
        ("/reserved-memory/firmware@82000000", Dma::None),
    ];
    assert_eq!(devices, expected);
    assert_eq!(host.map.devices[2].ranges, [range(0x8200_0000, 0x10_0000)]);
    let regions = host.map.devices.iter().map(|device| &device.regions[..]);
    let regions: Vec<&[u32]> = regions.collect();
    assert_eq!(regions, [&[2][..], &[], &[2]]);
    let tree = Tree::read(&blob).unwrap();
    for (device, &node) in host.map.devices.iter().zip(&host.device_nodes) {
        assert_eq!(tree.node(node).unwrap().path(), device.path);
    }
}

/// Linux ignores such regions; whoever wrote them meant them.
#[test]
fn regions_that_linux_ignores_are_kept() {
    let blob = |cells: u32, ranges: bool| {
        tree(|root| {
            root.node("reserved-memory", |node| {
                node.cells("#address-cells", &[cells]);
                node.cells("#size-cells", &[cells]);
                if ranges {
                    node.flag("ranges");
                }
                node.node("secmon@80000000", |region| {
                    region.bytes("reg", &reg(cells, &[0x8000_0000, 0x10_0000]));
                });
                node.node("nothing", |_| {});
            });
        })
    };
    for (cells, ranges, kind, warned) in [
        (2, false, Reservation::Kept, true),
        (1, true, Reservation::Kept, true),
        (2, true, Reservation::Kernel, false),
    ] {
        let host = read(&blob(cells, ranges));
        let [region] = host.map.reserved.as_slice() else {
            panic!("{:?}", host.map.reserved);
        };
        assert_eq!(region.range, range(0x8000_0000, 0x10_0000));
        assert_eq!(region.kind, kind, "{cells} {ranges}");
        let whats: Vec<&str> = host
            .problems
            .iter()
            .map(|it| it.sides[0].what.as_str())
            .collect();
        let unknown = whats.contains(&"a reserved region of an unknown bus");
        assert_eq!(unknown, warned, "{whats:?}");
        assert!(
            whats.contains(&"a reserved region that is left out"),
            "{whats:?}"
        );
    }
}

fn reg(cells: u32, numbers: &[u32]) -> Vec<u8> {
    let cell = |number: &u32| number.to_be_bytes();
    let one = |number| [vec![0; 4 * (cells as usize - 1)], cell(number).to_vec()].concat();
    numbers.iter().flat_map(one).collect()
}

fn with_dynamic() -> Vec<u8> {
    tree(|root| {
        memory(root, &[0x8000_0000, 0x2000_0000], None);
        root.node("cpus", |cpus| {
            cpus.cells("#address-cells", &[1]);
            cpus.cells("#size-cells", &[0]);
            cpus.node("cpu@0", |node| {
                node.string("device_type", "cpu");
                node.cells("reg", &[0]);
            });
        });
        reserved(root, |node| {
            node.node("linux,cma", |region| {
                region.numbers("size", &[0x800_0000]);
                region.numbers("alignment", &[0x40_0000]);
                region.flag("reusable");
            });
            node.node("wcnss", |region| {
                region.numbers("size", &[0x60_0000]);
                region.numbers("alignment", &[0x10_0000]);
                region.numbers(
                    "alloc-ranges",
                    &[0x9800_0000, 0x800_0000, 0x8600_0000, 0x10_0000],
                );
                region.flag("no-map");
            });
        });
    })
}

#[test]
fn regions_that_a_kernel_places_need_room_in_the_hardware_domain() {
    let host = read(&with_dynamic());
    assert_eq!(host.map.reserved, []);
    let [cma, wcnss] = host.dynamic.as_slice() else {
        panic!("{:?}", host.dynamic);
    };
    assert_eq!(
        (cma.size, cma.alignment, cma.places.len()),
        (0x800_0000, 0x40_0000, 0)
    );
    assert_eq!(wcnss.places[0], range(0x9800_0000, 0x800_0000));

    let request = |below: Option<u64>| SystemRequest {
        domains: vec![DomainRequest {
            name: String::from("control").into(),
            capabilities: Capabilities::all().into(),
            cpus: 1.into(),
            memory: Located::from(MemoryRequest::Rest),
            memory_below: below.map(Located::from),
            tree_bytes: 0x1_0000,
            kernel: Some(KernelRequest {
                module: range(0x8800_0000, 0x10_0000),
                memory_size: 0x10_0000,
                alignment: 2 << 20,
                text_offset: 0,
                bounds: None,
                entry: None,
                origin: Origin::NONE,
            }),
            ..DomainRequest::default()
        }],
        ..SystemRequest::default()
    };
    let mut map = host.map.clone();
    map.boot.clear();
    let plan = |below| {
        let outcome = layout::plan(&map, &request(below));
        assert!(!outcome.has_errors(), "{:?}", outcome.conflicts);
        outcome.plan
    };
    assert_eq!(host::without_room(&host.dynamic, &plan(None)), []);
    let [found] = host::without_room(&host.dynamic, &plan(Some(0x9000_0000)))
        .try_into()
        .unwrap();
    assert_eq!(found.code, Code::ReservedNoRoom);
    assert!(!found.is_error());
    assert!(
        found.sides[0].what.contains("/reserved-memory/wcnss"),
        "{found:?}"
    );
    assert_eq!(found.sides[1].domain, Some(0));
    assert!(found.help.contains("0x98000000"), "{}", found.help);
}
