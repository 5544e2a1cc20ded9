use super::*;
use crate::origin::Origins;
use alloc::borrow::ToOwned;
use alloc::vec;
use layout::Dma;

/// QEMU's q35 with 2 GiB, as far as a plan needs it.
pub(crate) fn q35() -> Description {
    let bar = |start, size| vec![range(start, size)];
    let function = |device, function, class, bars| Function {
        address: PciAddress {
            segment: 0,
            bus: 0,
            device,
            function,
        },
        vendor: 0x8086,
        device: 0x29c0,
        class,
        bars,
        behind_iommu: false,
        isolated: false,
    };
    Description {
        memory: vec![
            Memory::new(0, 0x9_fc00, MemoryKind::Ram),
            Memory::new(0x9_fc00, 0x400, MemoryKind::Reserved),
            Memory::new(0xf_0000, 0x1_0000, MemoryKind::Reserved),
            Memory::new(0x10_0000, 0x7fee_0000, MemoryKind::Ram),
            Memory::new(0x7ffe_0000, 0x2_0000, MemoryKind::Reserved),
            Memory::new(0xb000_0000, 0x1000_0000, MemoryKind::Reserved),
            Memory::new(0xfed1_c000, 0x4000, MemoryKind::Reserved),
            Memory::new(0xfffc_0000, 0x4_0000, MemoryKind::Reserved),
            Memory::new(0xfd_0000_0000, 0x3_0000_0000, MemoryKind::Reserved),
        ],
        cpus: vec![0, 1],
        local_apic: 0xfee0_0000,
        io_apics: vec![IoApic {
            id: 0,
            address: 0xfec0_0000,
            first_interrupt: 0,
            pins: 24,
        }],
        ecam: vec![Ecam {
            base: 0xb000_0000,
            segment: 0,
            first_bus: 0,
            last_bus: 255,
        }],
        iommus: vec![Iommu {
            path: "acpi:DMAR:0xfed90000".to_owned(),
            kind: IommuKind::VtD,
            range: range(0xfed9_0000, 0x1000),
        }],
        functions: vec![
            function(0, 0, 0x06_0000, vec![]),
            function(2, 0, 0x01_0802, bar(0xfebf_0000, 0x4000)),
            function(31, 0, 0x06_0100, vec![]),
            function(31, 2, 0x01_0601, bar(0xfebd_1000, 0x1000)),
        ],
        console: Some(0x3f8),
        tsc_khz: Some(1_000_000),
        address_bits: 40,
        ..Description::default()
    }
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

fn boot() -> BootFacts {
    BootFacts {
        hypervisor: range(0x20_0000, 0x10_0000),
        container: Some(range(0x30_0000, 0x400_0000)),
    }
}

#[test]
fn a_pc_in_the_planners_terms() {
    let mut origins = Origins::new();
    let host = host_map(&q35(), &boot(), &mut origins);
    assert_eq!(host.problems, []);
    assert_eq!(host.console.as_deref(), Some("com1"));
    let map = &host.map;
    assert_eq!(
        (map.ram.len(), map.reserved.len(), map.cpus.len()),
        (2, 7, 2)
    );
    let paths: Vec<&str> = map
        .devices
        .iter()
        .map(|device| device.path.as_str())
        .collect();
    let functions = [
        "pci:0000:00:00.0",
        "pci:0000:00:02.0",
        "pci:0000:00:1f.0",
        "pci:0000:00:1f.2",
    ];
    assert_eq!(paths[..2], ["com1", "pci:0000"]);
    assert_eq!(paths[2..], functions);
    assert_eq!(map.devices[2].dma, Dma::None);
    assert_eq!(map.devices[3].dma, Dma::Possible { mask: u64::MAX });
    assert_eq!(map.devices[4].dma, Dma::Possible { mask: 0xff_ffff });
    let said = origins.describe(map.devices[3].origin);
    assert_eq!(said.as_deref(), Some("host description, pci:0000:00:02.0"));
}

#[test]
fn the_host_bridge_has_what_nothing_else_does() {
    let host = host_map(&q35(), &boot(), &mut Origins::new());
    let bridge = &host.map.devices[1];
    let starts: Vec<(u64, u64)> = bridge
        .ranges
        .iter()
        .map(|range| (range.start().raw(), range.end().raw()))
        .collect();
    assert_eq!(starts[0], (0xb000_0000, 0xc000_0000));
    assert_eq!(
        starts[1..4],
        [
            (0xa_0000, 0xf_0000),
            (0x8000_0000, 0xb000_0000),
            (0xc000_0000, 0xfebd_1000)
        ]
    );
    assert_eq!(starts.last(), Some(&(0xfee0_1000, 0xfffc_0000)));
    for device in host
        .map
        .devices
        .iter()
        .filter(|device| device.path != "pci:0000")
    {
        for own in &device.ranges {
            assert!(bridge.ranges.iter().all(|window| !window.overlaps(own)));
        }
    }
}

#[test]
fn a_cpu_that_is_there_twice_counts_once() {
    let mut pc = q35();
    pc.cpus = vec![0, 1, 0];
    let host = host_map(&pc, &boot(), &mut Origins::new());
    assert_eq!((host.map.cpus.len(), host.problems.len()), (2, 1));
}

#[test]
fn memory_and_cpus_have_nodes() {
    let mut pc = q35();
    let node = |start, size, node| MemoryNode {
        range: range(start, size),
        node,
    };
    // The second overlaps the first, and names more than there is.
    pc.memory_nodes = vec![
        node(0x3000_0000, 0x8000_0000, 1),
        node(0x20_0000, 0x3fe0_0000, 0),
    ];
    pc.cpu_nodes = vec![CpuNode { cpu: 1, node: 1 }];
    let host = host_map(&pc, &boot(), &mut Origins::new());
    let banks: Vec<_> = host
        .map
        .ram
        .iter()
        .map(|bank| (bank.range, bank.node))
        .collect();
    let expected = [
        (range(0, 0x9_fc00), None),
        (range(0x10_0000, 0x10_0000), None),
        (range(0x20_0000, 0x3fe0_0000), Some(0)),
        (range(0x4000_0000, 0x3ffe_0000), Some(1)),
    ];
    assert_eq!(banks, expected);
    let nodes: Vec<_> = host.map.cpus.iter().map(|cpu| cpu.node).collect();
    assert_eq!(nodes, [None, Some(1)]);
}

#[test]
fn functions_that_reach_each_other_are_a_group() {
    let mut pc = q35();
    pc.functions[3].address.device = 2;
    let host = host_map(&pc, &boot(), &mut Origins::new());
    let groups: Vec<_> = host.map.devices.iter().map(|device| device.group).collect();
    assert_eq!(groups, [None, None, None, Some(0), None, Some(0)]);
    assert!(host.map.devices.iter().all(|device| device.coherent));
}

#[test]
fn ecam_counts_from_bus_zero() {
    let ecam = Ecam {
        base: 0xb000_0000,
        segment: 0,
        first_bus: 2,
        last_bus: 3,
    };
    assert_eq!(ecam.range(), range(0xb020_0000, 0x20_0000));
}

/// Hostile descriptions, and the JSON line.
#[cfg(feature = "std")]
mod with_std {
    use super::*;
    use proptest::prelude::*;

    fn any_range() -> impl Strategy<Value = MachineRange> {
        (any::<u64>(), any::<u64>()).prop_map(|(start, size)| range(start, size))
    }

    fn any_memory() -> impl Strategy<Value = Memory> {
        (any_range(), 0u32..7).prop_map(|(range, kind)| Memory {
            range,
            kind: MemoryKind::of(kind),
        })
    }

    fn any_address() -> impl Strategy<Value = PciAddress> {
        (any::<u16>(), any::<u8>(), 0u8..32, 0u8..8).prop_map(|(segment, bus, device, function)| {
            PciAddress {
                segment,
                bus,
                device,
                function,
            }
        })
    }

    fn any_function() -> impl Strategy<Value = Function> {
        let bars = prop::collection::vec(any_range(), 0..3);
        let ids = (any::<u16>(), any::<u16>(), 0u32..1 << 24);
        (any_address(), ids, bars, any::<[bool; 2]>()).prop_map(
            |(address, (vendor, device, class), bars, [behind_iommu, isolated])| Function {
                address,
                vendor,
                device,
                class,
                bars,
                behind_iommu,
                isolated,
            },
        )
    }

    fn any_bridge() -> impl Strategy<Value = Bridge> {
        (any_address(), any::<u8>(), any::<u8>(), any::<bool>()).prop_map(
            |(address, secondary, subordinate, isolates)| Bridge {
                address,
                secondary,
                subordinate,
                isolates,
            },
        )
    }

    fn any_nodes() -> impl Strategy<Value = (Vec<MemoryNode>, Vec<CpuNode>)> {
        let memory = (any_range(), any::<u32>());
        let memory = memory.prop_map(|(range, node)| MemoryNode { range, node });
        let cpu = (0u32..8, any::<u32>()).prop_map(|(cpu, node)| CpuNode { cpu, node });
        (
            prop::collection::vec(memory, 0..4),
            prop::collection::vec(cpu, 0..4),
        )
    }

    fn any_chips() -> impl Strategy<Value = (Vec<IoApic>, Vec<Ecam>, Vec<Iommu>)> {
        let io_apic = (any::<u8>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
            |(id, address, first_interrupt, pins)| IoApic {
                id,
                address,
                first_interrupt,
                pins,
            },
        );
        let ecam = (any::<u64>(), any::<u16>(), any::<u8>(), any::<u8>()).prop_map(
            |(base, segment, first_bus, last_bus)| Ecam {
                base,
                segment,
                first_bus,
                last_bus,
            },
        );
        let iommu = (".*", any::<bool>(), any_range()).prop_map(|(path, amd, range)| Iommu {
            path,
            kind: if amd {
                IommuKind::AmdVi
            } else {
                IommuKind::VtD
            },
            range,
        });
        (
            prop::collection::vec(io_apic, 0..3),
            prop::collection::vec(ecam, 0..3),
            prop::collection::vec(iommu, 0..3),
        )
    }

    fn any_description() -> impl Strategy<Value = Description> {
        let lists = (
            prop::collection::vec(any_memory(), 0..8),
            prop::collection::vec(any::<u32>(), 0..4),
            any_chips(),
            prop::collection::vec(any_function(), 0..4),
            prop::collection::vec(any_bridge(), 0..4),
            any_nodes(),
        );
        let numbers = (
            any::<u64>(),
            any::<Option<u16>>(),
            any::<Option<u64>>(),
            any::<u8>(),
        );
        (lists, numbers).prop_map(
            |((memory, cpus, (io_apics, ecam, iommus), functions, bridges, nodes), numbers)| {
                Description {
                    memory,
                    bridges,
                    memory_nodes: nodes.0,
                    cpu_nodes: nodes.1,
                    cpus,
                    local_apic: numbers.0,
                    io_apics,
                    ecam,
                    iommus,
                    functions,
                    console: numbers.1,
                    tsc_khz: numbers.2,
                    address_bits: numbers.3,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pc in any_description()) {
            let line = write(&pc);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(read(&line).unwrap(), pc);
        }

        #[test]
        fn any_description_becomes_a_map_and_a_plan(pc in any_description()) {
            let host = host_map(&pc, &boot(), &mut Origins::new());
            let ram = pc.memory.iter().filter(|entry| entry.kind == MemoryKind::Ram);
            let bytes: u128 = ram.map(|entry| u128::from(entry.range.size())).sum();
            let banks = host.map.ram.iter().map(|bank| u128::from(bank.range.size()));
            prop_assert_eq!(banks.sum::<u128>(), bytes);
            let _ = layout::plan(&host.map, &layout::SystemRequest::default());
        }

        #[test]
        fn any_text_is_no_panic(text in ".*") {
            prop_assert!(read(&text).is_err());
        }
    }

    #[test]
    fn other_versions_and_keys_are_refused() {
        let line = write(&q35());
        assert!(read(&line).is_ok());
        let older = line.replacen("\"version\":2", "\"version\":1", 1);
        assert_eq!(read(&older).unwrap(), read(&line).unwrap());
        let newer = line.replacen("\"version\":2", "\"version\":3", 1);
        assert!(matches!(read(&newer), Err(ReadError::Version(3))));
        for (good, bad) in [
            ("\"cpus\"", "\"cpu\""),
            ("\"0xfee00000\"", "\"0x+ee00000\""),
            ("\"0000:00:02.0\"", "\"0000:00:20.0\""),
            ("\"0x3f8\"", "\"0x103f8\""),
            ("\"ram\"", "\"RAM\""),
            ("x86_64", "aarch64"),
        ] {
            assert!(
                matches!(read(&line.replacen(good, bad, 1)), Err(ReadError::Json(_))),
                "{bad}"
            );
        }
    }
}
