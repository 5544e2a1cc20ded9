//! The host map of QEMU's trees, of made-up ones, and of damaged ones.

mod address;
mod controllers;
mod dma;
mod interrupts;
mod memory;

use layout::{Dma, DmaWindow, MachineAddress, MachineRange, Reservation};
use proptest::prelude::*;
use terrane_manifest::origin::Origins;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::host::{self, BootFacts, GicVersion, Host, PsciConduit};
use terrane_manifest::tree::writer::Writer;

const V2: &[u8] = include_bytes!("../trees/virt-gicv2.dtb");
const V3: &[u8] = include_bytes!("../trees/virt-gicv3.dtb");
const V3_NO_ITS: &[u8] = include_bytes!("../trees/virt-gicv3-noits.dtb");
const V3_SMMU: &[u8] = include_bytes!("../trees/virt-gicv3-smmu.dtb");

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::new(MachineAddress::new(start), size).unwrap()
}

fn boot() -> BootFacts {
    BootFacts {
        hypervisor: range(0x4020_0000, 0x8_0000),
        host_tree: range(0x4800_0000, 0x10_0000),
        container: Some(range(0x5000_0000, 0x400_0000)),
    }
}

/// A tree of two cells an address and size at the root, whose interrupts go to the node with phandle 1.
fn tree(inside: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.cells("#address-cells", &[2]);
        root.cells("#size-cells", &[2]);
        root.cells("interrupt-parent", &[1]);
        inside(root);
    });
    writer.finish(&[], 2 << 20).unwrap()
}

fn read(bytes: &[u8]) -> Host {
    let tree = Tree::read(bytes).unwrap();
    let console = host::resolve_console(&tree, None);
    host::read(&tree, &boot(), console.as_deref(), &mut Origins::new())
}

#[test]
fn qemu_virt_with_gicv3() {
    let host = read(V3);
    assert_eq!(host.problems, []);
    assert_eq!(host.map.ram[0].range, range(0x4000_0000, 0x8000_0000));
    let ids: Vec<u64> = host.map.cpus.iter().map(|cpu| cpu.hardware_id).collect();
    assert_eq!(ids, [0, 1]);
    assert_eq!(host.psci, Some(PsciConduit::Smc));
    let timer = host.timer.unwrap();
    assert_eq!(
        (timer.physical, timer.virtual_, timer.hypervisor),
        (30, 27, 26)
    );
    let gic = host.gic.unwrap();
    assert_eq!(gic.distributor, range(0x800_0000, 0x1_0000));
    assert_eq!((gic.max_cpus(), gic.maintenance), (123, Some(25)));
    let its = vec![range(0x808_0000, 0x2_0000)];
    assert!(matches!(gic.version, GicVersion::V3 { its: ref found, .. } if *found == its));
    assert_eq!(host.map.controller.ranges.len(), 3);
    assert_eq!(host.map.controller.its, its);
    let console = host.console.unwrap();
    assert_eq!(
        (console.path.as_str(), console.interrupt),
        ("/pl011@9000000", Some(33))
    );
    assert_eq!(host.map.boot.len(), 3);
    assert_eq!(host.map.iommus, []);
}

#[test]
fn qemu_virt_devices() {
    let host = read(V3);
    let device = |path: &str| {
        host.map
            .devices
            .iter()
            .find(|device| device.path == path)
            .unwrap()
    };
    let pcie = device("/pcie@10000000");
    assert_eq!(pcie.interrupts, [35, 36, 37, 38]);
    assert_eq!(pcie.dma, Dma::Possible { mask: u64::MAX });
    let windows = [
        range(0x40_1000_0000, 0x1000_0000),
        range(0x3eff_0000, 0x1_0000),
        range(0x1000_0000, 0x2eff_0000),
        range(0x80_0000_0000, 0x80_0000_0000),
    ];
    assert_eq!(pcie.ranges, windows);
    let gpio = device("/pl061@9030000");
    assert_eq!((gpio.dma, &gpio.interrupts[..]), (Dma::None, &[39][..]));
    let disk = device("/virtio_mmio@a003e00");
    assert_eq!(
        (disk.dma, &disk.interrupts[..]),
        (Dma::Possible { mask: u64::MAX }, &[79][..])
    );
    assert!(host.map.devices.iter().all(|device| !device.behind_iommu));
    assert!(host.map.devices.iter().all(|device| device.group.is_none()));
    let masters = || {
        host.map
            .devices
            .iter()
            .filter(|device| device.dma != Dma::None)
    };
    assert!(masters().all(|device| device.coherent && device.dma_windows.is_empty()));
    let paths: Vec<&str> = host
        .map
        .devices
        .iter()
        .map(|device| device.path.as_str())
        .collect();
    for hidden in [
        "/intc@8000000",
        "/timer",
        "/pmu",
        "/psci",
        "/memory@40000000",
    ] {
        assert!(!paths.contains(&hidden), "{hidden}");
    }
    assert_eq!(host.device_nodes.len(), host.map.devices.len());
}

#[test]
fn qemu_virt_with_gicv2() {
    let host = read(V2);
    let gic = host.gic.unwrap();
    assert_eq!(gic.max_cpus(), 8);
    assert!(matches!(
        gic.version,
        GicVersion::V2 {
            hypervisor_interface: Some(_),
            virtual_interface: Some(_),
            ..
        }
    ));
    assert_eq!(gic.v2m.len(), 1);
    assert!(
        host.map
            .devices
            .iter()
            .any(|device| device.path == "/intc@8000000/v2m@8020000")
    );
}

#[test]
fn an_iommu_is_apart() {
    let host = read(V3_SMMU);
    assert_eq!(host.map.iommus[0].path, "/smmuv3@9050000");
    assert!(host.map.iommus[0].usable);
    let behind: Vec<&str> = host
        .map
        .devices
        .iter()
        .filter(|device| device.behind_iommu)
        .map(|d| d.path.as_str())
        .collect();
    assert_eq!(behind, ["/pcie@10000000"]);
    assert!(
        matches!(read(V3_NO_ITS).gic.unwrap().version, GicVersion::V3 { its, .. } if its.is_empty())
    );
}

#[test]
fn nested_buses_are_translated() {
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.cells("#address-cells", &[2]);
        root.cells("#size-cells", &[2]);
        root.node("memory@80000000", |memory| {
            memory.string("device_type", "memory");
            memory.numbers(
                "reg",
                &[
                    0x8000_0000,
                    0x1000_0000,
                    0x9000_0000,
                    0,
                    0x1_0000_0000,
                    0x1000_0000,
                ],
            );
        });
        root.node("reserved-memory", |reserved| {
            reserved.cells("#address-cells", &[2]);
            reserved.cells("#size-cells", &[2]);
            reserved.flag("ranges");
            reserved.node("remoteproc@88000000", |node| {
                node.numbers("reg", &[0x8800_0000, 0x10_0000]);
                node.flag("no-map");
            });
            reserved.node("linux,cma", |node| node.numbers("size", &[0x100_0000]));
        });
        root.node("soc", |soc| {
            soc.cells("#address-cells", &[1]);
            soc.cells("#size-cells", &[1]);
            soc.string("compatible", "simple-bus");
            soc.cells("ranges", &[0x7e00_0000, 0, 0xfe00_0000, 0x180_0000]);
            soc.cells("dma-ranges", &[0xc000_0000, 0, 0, 0x4000_0000]);
            soc.node("dma@7e007000", |dma| {
                dma.string("compatible", "brcm,bcm2835-dma");
                dma.cells("reg", &[0x7e00_7000, 0xb00, 0x1000, 0x10]);
            });
            soc.node("bad@0", |bad| {
                bad.string("compatible", "x,bad");
                bad.cells("reg", &[0x7e00_0000]);
            });
            soc.node("i2c@7e205000", |bus| {
                bus.string("compatible", "brcm,bcm2835-i2c");
                bus.cells("reg", &[0x7e20_5000, 0x200]);
                bus.cells("#address-cells", &[1]);
                bus.cells("#size-cells", &[0]);
                bus.node("sensor@48", |sensor| {
                    sensor.string("compatible", "x,sensor");
                    sensor.cells("reg", &[0x48]);
                });
            });
        });
    });
    let blob = writer
        .finish(&[(0x4800_0000, 0x1000), (0x8000_0000, 0x8_0000)], 1 << 16)
        .unwrap();
    let host = read(&blob);
    let ram: Vec<MachineRange> = host.map.ram.iter().map(|bank| bank.range).collect();
    assert_eq!(
        ram,
        [
            range(0x8000_0000, 0x1000_0000),
            range(0x1_0000_0000, 0x1000_0000)
        ]
    );
    let reserved: Vec<(&str, MachineRange, Reservation)> = host
        .map
        .reserved
        .iter()
        .map(|r| (r.name.as_str(), r.range, r.kind))
        .collect();
    // The entry over the host's tree is known from the boot facts.
    let expected = [
        (
            "remoteproc",
            range(0x8800_0000, 0x10_0000),
            Reservation::NoMap,
        ),
        (
            "memreserve",
            range(0x8000_0000, 0x8_0000),
            Reservation::Kept,
        ),
    ];
    assert_eq!(reserved, expected);
    let paths: Vec<&str> = host
        .map
        .devices
        .iter()
        .map(|device| device.path.as_str())
        .collect();
    assert_eq!(paths, ["/soc/dma@7e007000", "/soc/i2c@7e205000"]);
    assert_eq!(host.map.devices[0].ranges, [range(0xfe00_7000, 0xb00)]);
    assert_eq!(host.map.devices[0].dma, Dma::Possible { mask: u64::MAX });
    let window = DmaWindow {
        bus: 0xc000_0000,
        machine: range(0, 0x4000_0000),
    };
    assert_eq!(host.map.devices[0].dma_windows, [window]);
    let whats: Vec<&str> = host
        .problems
        .iter()
        .map(|problem| problem.sides[0].what.as_str())
        .collect();
    let expected = [
        "no interrupt controller",
        "no CPUs",
        "registers that can't be placed",
    ];
    assert_eq!(whats, expected);
}

proptest! {
    #[test]
    fn damaged_trees_do_not_panic(
        which in 0..4usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
    ) {
        let mut bytes = [V2, V3, V3_NO_ITS, V3_SMMU][which].to_vec();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(tree) = Tree::read(&bytes) {
            let _ = host::read(&tree, &boot(), None, &mut Origins::new());
        }
    }
}

#[test]
fn an_interrupt_number_beyond_the_controllers_is_left_out() {
    let tree = Tree::read(V3).unwrap();
    let gpio = tree.find("/pl061").unwrap();
    let value = gpio.value("interrupts").unwrap();
    let at = V3
        .windows(value.len())
        .position(|window| window == value)
        .unwrap();
    let mut bytes = V3.to_vec();
    bytes[at + 4..at + 8].fill(0xff);
    let host = read(&bytes);
    let gpio = host
        .map
        .devices
        .iter()
        .find(|device| device.path == "/pl061@9030000")
        .unwrap();
    assert!(gpio.interrupts.is_empty());
}
