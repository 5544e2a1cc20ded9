//! What bus masters reach.

use super::*;

fn windows(host: &Host, path: &str) -> Vec<DmaWindow> {
    device(host, path).dma_windows.clone()
}

fn device<'h>(host: &'h Host, path: &str) -> &'h layout::HostDevice {
    let mut devices = host.map.devices.iter();
    devices.find(|device| device.path == path).unwrap()
}

fn window(bus: u64, start: u64, size: u64) -> DmaWindow {
    DmaWindow {
        bus,
        machine: range(start, size),
    }
}

fn bus(writer: &mut Writer, name: &str, dma_ranges: &[u64], inside: impl FnOnce(&mut Writer)) {
    writer.node(name, |bus| {
        bus.cells("#address-cells", &[2]);
        bus.cells("#size-cells", &[2]);
        bus.string("compatible", "simple-bus");
        bus.flag("ranges");
        bus.numbers("dma-ranges", dma_ranges);
        inside(bus);
    });
}

fn master(writer: &mut Writer, name: &str) {
    writer.node(name, |node| {
        node.string("compatible", "x,master");
        node.numbers("reg", &[0x1000, 0x1000]);
    });
}

#[test]
fn windows_of_all_buses_above_are_joined() {
    let blob = tree(|root| {
        let outer = [
            0x1000_0000,
            0x8000_0000,
            0x1000_0000,
            0x4000_0000,
            0,
            0x1000_0000,
        ];
        bus(root, "outer", &outer, |outer| {
            bus(outer, "inner", &[0, 0x1800_0000, 0x3000_0000], |inner| {
                master(inner, "both@1000")
            });
            bus(outer, "plain", &[], |plain| master(plain, "one@1000"));
            bus(outer, "nowhere", &[0, 0x9000_0000, 0x1000], |it| {
                master(it, "none@1000")
            });
        });
        bus(root, "free", &[], |free| master(free, "all@1000"));
    });
    let host = read(&blob);
    let both = [
        window(0, 0x8800_0000, 0x800_0000),
        window(0x2800_0000, 0, 0x800_0000),
    ];
    assert_eq!(windows(&host, "/outer/inner/both@1000"), both);
    let one = [
        window(0x1000_0000, 0x8000_0000, 0x1000_0000),
        window(0x4000_0000, 0, 0x1000_0000),
    ];
    assert_eq!(windows(&host, "/outer/plain/one@1000"), one);
    // Reaching nothing isn't the same as having no windows.
    assert_eq!(
        windows(&host, "/outer/nowhere/none@1000"),
        [window(0, 0, 0)]
    );
    assert_eq!(windows(&host, "/free/all@1000"), []);
}

#[test]
fn an_interconnect_may_be_the_bus_of_dma() {
    let blob = tree(|root| {
        bus(root, "soc", &[], |soc| {
            soc.node("mbus@0", |mbus| {
                mbus.string("compatible", "x,mbus");
                mbus.numbers("reg", &[0, 0x1000]);
                mbus.cells("#address-cells", &[1]);
                mbus.cells("#size-cells", &[1]);
                mbus.cells("dma-ranges", &[0, 0, 0x4000_0000, 0xc000_0000]);
                mbus.cells("#interconnect-cells", &[1]);
                mbus.cells("phandle", &[5]);
            });
            soc.node("display@2000", |node| {
                node.string("compatible", "x,display");
                node.numbers("reg", &[0x2000, 0x1000]);
                node.cells("interconnects", &[5, 4, 5, 3]);
                node.strings("interconnect-names", &["other", "dma-mem"]);
            });
            // In a circle.
            soc.node("odd@3000", |node| {
                node.string("compatible", "x,odd");
                node.numbers("reg", &[0x3000, 0x1000]);
                node.cells("phandle", &[6]);
                node.cells("#interconnect-cells", &[0]);
                node.cells("interconnects", &[6]);
                node.string("interconnect-names", "dma-mem");
            });
        });
    });
    let host = read(&blob);
    let found = windows(&host, "/soc/display@2000");
    assert_eq!(found, [window(0, 0x4000_0000, 0xc000_0000)]);
    assert_eq!(windows(&host, "/soc/odd@3000"), []);
}

fn bridge(root: &mut Writer, name: &str, inside: impl FnOnce(&mut Writer)) {
    root.node(name, |pcie| {
        pcie.string("device_type", "pci");
        pcie.string("compatible", "pci-host-ecam-generic");
        pcie.cells("#address-cells", &[3]);
        pcie.cells("#size-cells", &[2]);
        pcie.numbers("reg", &[0x4000_0000, 0x1000_0000]);
        inside(pcie);
    });
}

#[test]
fn a_host_bridge_has_its_own_windows_and_what_is_below_it() {
    let blob = tree(|root| {
        root.node("intc", |gic| {
            gic.string("compatible", "arm,gic-400");
            gic.flag("interrupt-controller");
            gic.cells("#interrupt-cells", &[3]);
            gic.cells("interrupts", &[1, 9, 4]);
            gic.cells("phandle", &[1]);
            gic.numbers(
                "reg",
                &[
                    0x1000, 0x1000, 0x2000, 0x1000, 0x4000, 0x1000, 0x6000, 0x1000,
                ],
            );
        });
        bridge(root, "pcie@40000000", |pcie| {
            let io = [0x0100_0000, 0, 0, 0, 0x3000_0000, 0, 0x1_0000];
            pcie.cells("ranges", &io);
            let memory = [0x4300_0000, 0, 0x8000_0000, 0, 0, 0, 0x8000_0000];
            pcie.cells("dma-ranges", &[memory, io].concat());
            pcie.flag("dma-coherent");
            pcie.node("wifi@0,0", |node| {
                node.string("compatible", "pci14e4,1");
                node.cells("reg", &[0, 0, 0, 0, 0]);
                node.cells("interrupts", &[0, 7, 4]);
            });
        });
        bridge(root, "pcie@50000000", |_| {});
    });
    let host = read(&blob);
    let first = device(&host, "/pcie@40000000");
    assert_eq!(first.dma_windows, [window(0x8000_0000, 0, 0x8000_0000)]);
    assert_eq!(first.ranges[1], range(0x3000_0000, 0x1_0000));
    assert!(first.coherent);
    let wifi = device(&host, "/pcie@40000000/wifi@0,0");
    assert_eq!((first.group, wifi.group), (Some(0), Some(0)));
    let second = device(&host, "/pcie@50000000");
    assert_eq!((second.group, second.coherent), (None, false));
}

#[test]
fn coherence_is_what_the_nearest_node_says() {
    let blob = tree(|root| {
        bus(root, "soc", &[], |soc| {
            soc.flag("dma-coherent");
            master(soc, "yes@1000");
            soc.node("no@2000", |node| {
                node.string("compatible", "x,master");
                node.numbers("reg", &[0x2000, 0x1000]);
                node.flag("dma-noncoherent");
            });
        });
        master(root, "plain@1000");
    });
    let host = read(&blob);
    let coherent = |path| device(&host, path).coherent;
    assert!(coherent("/soc/yes@1000"));
    assert!(!coherent("/soc/no@2000") && !coherent("/plain@1000"));
}

#[test]
fn only_a_second_stage_counts_and_nothing_goes_past_it() {
    let iommu = |root: &mut Writer, name: &str, compatible: &str, phandle: u32, status: &str| {
        root.node(name, |node| {
            node.string("compatible", compatible);
            node.numbers("reg", &[u64::from(phandle) << 16, 0x1000]);
            node.cells("#iommu-cells", &[1]);
            node.cells("phandle", &[phandle]);
            node.string("status", status);
        });
    };
    let behind = |root: &mut Writer, name: &str, iommus: &[u32]| {
        root.node(name, |node| {
            node.string("compatible", "x,master");
            node.numbers("reg", &[0x1000, 0x1000]);
            node.cells("iommus", iommus);
        });
    };
    let mapped = |root: &mut Writer, name: &str, map: &[u32], mask: u32| {
        bridge(root, name, |pcie| {
            pcie.cells("iommu-map", map);
            pcie.cells("iommu-map-mask", &[mask]);
        });
    };
    let blob = tree(|root| {
        iommu(root, "smmu@10000", "arm,smmu-v3", 1, "okay");
        iommu(root, "own@20000", "rockchip,rk3568-iommu", 2, "okay");
        iommu(root, "off@30000", "arm,mmu-500", 3, "disabled");
        behind(root, "a@1000", &[1, 9]);
        behind(root, "b@1000", &[2, 0]);
        behind(root, "c@1000", &[3, 0]);
        behind(root, "d@1000", &[2, 0, 1, 5]);
        behind(root, "e@1000", &[77, 0]);
        mapped(
            root,
            "whole@0",
            &[0, 1, 0, 0x8000, 0x8000, 1, 0x8000, 0x8000],
            0xffff,
        );
        mapped(root, "part@0", &[0, 1, 0, 0x100], 0xffff);
        mapped(root, "masked@0", &[0, 1, 0, 0x100], 0xff);
        mapped(root, "odd@0", &[0, 2, 0, 0x1_0000], 0xffff);
    });
    let host = read(&blob);
    let usable: Vec<bool> = host.map.iommus.iter().map(|iommu| iommu.usable).collect();
    assert_eq!(usable, [true, false]);
    let stands = |path| {
        let device = device(&host, path);
        (device.behind_iommu, device.private_iommu)
    };
    let expected = [
        ("/a@1000", (true, false)),
        ("/b@1000", (false, true)),
        ("/c@1000", (false, false)),
        ("/d@1000", (true, true)),
        ("/e@1000", (false, false)),
        ("/whole@0", (true, false)),
        ("/part@0", (false, false)),
        ("/masked@0", (true, false)),
        ("/odd@0", (false, true)),
    ];
    for (path, expected) in expected {
        assert_eq!(stands(path), expected, "{path}");
    }
}

/// An address on the innermost bus, level by level.
fn by_hand(levels: &[Vec<(u64, u64, u64)>], address: u64) -> Vec<u64> {
    let mut at = vec![address];
    for level in levels.iter().filter(|level| !level.is_empty()) {
        let through = |address: &u64| -> Vec<u64> {
            let entries = level.iter();
            let inside = entries.filter(|(bus, _, size)| (*bus..bus + size).contains(address));
            inside
                .map(|(bus, above, _)| address - bus + above)
                .collect()
        };
        at = at.iter().flat_map(through).collect();
    }
    at.sort_unstable();
    at.dedup();
    at
}

proptest! {
    #[test]
    fn joined_windows_are_what_each_level_does(
        levels in prop::collection::vec(prop::collection::vec((0..40u64, 0..40u64, 1..20u64), 0..4), 1..4),
        address in 0..64u64,
    ) {
        fn nest(writer: &mut Writer, levels: &[Vec<(u64, u64, u64)>]) {
            let Some((last, rest)) = levels.split_last() else {
                return master(writer, "master@1000");
            };
            let numbers: Vec<u64> = last.iter().flat_map(|&(bus, above, size)| [bus, above, size]).collect();
            bus(writer, "bus", &numbers, |writer| nest(writer, rest));
        }
        let blob = tree(|root| nest(root, &levels));
        let host = read(&blob);
        let windows = &host.map.devices.last().unwrap().dma_windows;
        let mut found: Vec<u64> = windows
            .iter()
            .filter_map(|window| {
                let offset = address.checked_sub(window.bus)?;
                (offset < window.machine.size()).then(|| window.machine.start().raw() + offset)
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        let expected = if windows.is_empty() { vec![address] } else { found };
        prop_assert_eq!(expected, by_hand(&levels, address));
    }
}

#[test]
fn shared_registers_are_harmless_by_the_name_beside_them_only() {
    let harmless: [&[&str]; 9] = [
        &["syscon"],
        &["syscon", "simple-mfd"],
        &["x,soc-syscon", "syscon"],
        &["rockchip,rk3399-pmugrf", "syscon", "simple-mfd"],
        &["fsl,ls1043a-scfg", "syscon"],
        &["mediatek,mt8195-pericfg_ao", "syscon"],
        &["qcom,tcsr-msm8916", "syscon"],
        &[
            "samsung,exynos850-peri-sysreg",
            "samsung,exynos850-sysreg",
            "syscon",
        ],
        &["arm,pl011", "arm,primecell"],
    ];
    let masters: [&[&str]; 5] = [
        &["mediatek,mt7622-wed", "syscon"],
        &["x,offload", "simple-mfd"],
        // Whichever is first.
        &["syscon", "x,offload"],
        &["x,soc-syscon", "x,offload", "syscon"],
        // Nothing says that others write it too.
        &["x,dma-cfg"],
    ];
    let named = |root: &mut Writer, at: usize, names: &[&str], flag: Option<&str>| {
        root.node(&format!("node{at}@1000"), |node| {
            node.strings("compatible", names);
            node.numbers("reg", &[0x1000, 0x1000]);
            if let Some(flag) = flag {
                node.cells(flag, &[1]);
            }
        });
    };
    let found = |names: &[&[&str]], flag: Option<&str>| -> Vec<bool> {
        let host = read(&tree(|root| {
            for (at, names) in names.iter().enumerate() {
                named(root, at, names, flag);
            }
        }));
        let devices = host.map.devices.iter();
        devices.map(|device| device.dma != Dma::None).collect()
    };
    assert_eq!(found(&harmless, None), [false; 9]);
    assert_eq!(found(&masters, None), [true; 5]);
    // Whatever its name, it has what only masters have.
    for flag in ["memory-region", "iommus", "dma-coherent", "iommu-map"] {
        assert_eq!(found(&harmless, Some(flag)), [true; 9], "{flag}");
    }
}
