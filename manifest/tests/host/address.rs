//! Registers through the windows of buses.

use super::*;

/// A device with that `reg` on a bus of one cell an address and size, its `ranges` with two for the root's.
fn on_bus(ranges: &[u32], reg: &[u32]) -> Host {
    read(&tree(|root| {
        root.node("soc", |soc| {
            soc.string("compatible", "simple-bus");
            soc.cells("#address-cells", &[1]);
            soc.cells("#size-cells", &[1]);
            soc.cells("ranges", ranges);
            soc.node("ethernet@1000", |device| {
                device.string("compatible", "x,ethernet");
                device.cells("reg", reg);
            });
        });
    }))
}

/// How often addresses are said to be cut.
fn cuts(host: &Host) -> usize {
    let problems = host.problems.iter();
    problems
        .filter(|it| it.sides[0].what == "addresses that are cut short")
        .inspect(|it| assert!(!it.is_error()))
        .count()
}

#[test]
fn an_entry_of_reg_ends_where_its_window_does() {
    let host = on_bus(
        &[0x1000, 0, 0x900_1000, 0x1000],
        &[0x1800, 0x1000, 0x1000, 0x1000],
    );
    let device = &host.map.devices[0];
    assert_eq!(
        device.ranges,
        [range(0x900_1800, 0x800), range(0x900_1000, 0x1000)]
    );
    // With registers it can be told addresses.
    assert_eq!(device.dma, Dma::Possible { mask: u64::MAX });
    assert_eq!(cuts(&host), 1);
}

#[test]
fn windows_that_go_on_are_one() {
    let joined = [
        0x2000, 0, 0x900_2000, 0x1000, 0x1000, 0, 0x900_1000, 0x1000, 0x3000, 0, 0x900_3000, 0x1000,
    ];
    let host = on_bus(&joined, &[0x1000, 0x2800]);
    assert_eq!(host.map.devices[0].ranges, [range(0x900_1000, 0x2800)]);
    assert_eq!(cuts(&host), 0);
    // The second goes on on the bus only.
    let apart = [0x1000, 0, 0x900_1000, 0x1000, 0x2000, 0, 0xa00_2000, 0x1000];
    let host = on_bus(&apart, &[0x1000, 0x2000]);
    assert_eq!(host.map.devices[0].ranges, [range(0x900_1000, 0x1000)]);
    assert_eq!(cuts(&host), 1);
}

#[test]
fn a_pci_window_ends_where_the_window_above_does() {
    let host = read(&tree(|root| {
        root.node("soc", |soc| {
            soc.string("compatible", "simple-bus");
            soc.cells("#address-cells", &[2]);
            soc.cells("#size-cells", &[2]);
            soc.numbers("ranges", &[0x1000_0000, 0x1000_0000, 0x100_0000]);
            soc.node("pcie@10000000", |bridge| {
                bridge.string("compatible", "pci-host-ecam-generic");
                bridge.string("device_type", "pci");
                bridge.cells("#address-cells", &[3]);
                bridge.cells("#size-cells", &[2]);
                bridge.numbers("reg", &[0x1000_0000, 0x10_0000]);
                bridge.cells(
                    "ranges",
                    &[0x200_0000, 0, 0x1080_0000, 0, 0x1080_0000, 0, 0x100_0000],
                );
            });
        });
    }));
    let ranges = [range(0x1000_0000, 0x10_0000), range(0x1080_0000, 0x80_0000)];
    assert_eq!(host.map.devices[0].ranges, ranges);
    assert_eq!(cuts(&host), 1);
}

fn simple(writer: &mut Writer, name: &str, compatible: &[&str], reg: &[u64], children: &[&[u64]]) {
    writer.node(name, |bus| {
        bus.strings("compatible", compatible);
        bus.cells("#address-cells", &[2]);
        bus.cells("#size-cells", &[2]);
        bus.numbers("reg", reg);
        bus.flag("ranges");
        for (at, reg) in children.iter().enumerate() {
            bus.node(&format!("device{at}"), |device| {
                device.string("compatible", "x,device");
                device.numbers("reg", reg);
            });
        }
    });
}

#[test]
fn a_bus_whose_reg_only_holds_its_children_is_no_device() {
    // The second goes through another window too, the third is listed on the wrong bus.
    let children: [&[u64]; 3] = [
        &[0x1000, 0x1000],
        &[0xf000, 0x1000, 0x10_0000, 0x1000],
        &[0x6_0000, 0x1000],
    ];
    let host = read(&tree(|root| {
        // As i.MX8M's AIPS: one in the other.
        root.node("bus@0", |outer| {
            outer.strings("compatible", &["fsl,aips-bus", "simple-bus"]);
            outer.cells("#address-cells", &[2]);
            outer.cells("#size-cells", &[2]);
            outer.numbers("reg", &[0, 0x4_0000]);
            outer.flag("ranges");
            let names = ["fsl,spba-bus", "simple-bus"];
            simple(outer, "spba-bus@0", &names, &[0, 0x1_0000], &children);
        });
        // The first holds the children, the second is its own.
        let reg = [0, 0x1_0000, 0x20_0000, 0x1000];
        simple(root, "two@0", &["simple-pm-bus"], &reg, &children);
        // Registers of its own, whatever its first child.
        let apart: [&[u64]; 2] = [&[0x1800, 0x100], &[0x3000, 0x1000]];
        simple(
            root,
            "apart@1000",
            &["x,bsc", "simple-pm-bus"],
            &[0x1000, 0x1000],
            &apart,
        );
        simple(root, "empty@4000", &["simple-bus"], &[0x4000, 0x1000], &[]);
        simple(root, "glue@0", &["x,glue"], &[0, 0x1_0000], &children);
    }));
    let devices = host.map.devices.iter();
    let own: Vec<(&str, &[MachineRange])> = devices
        .filter(|device| !device.path.contains("/device"))
        .map(|device| (device.path.as_str(), &device.ranges[..]))
        .collect();
    let expected: [(&str, &[MachineRange]); 4] = [
        ("/two@0", &[range(0x20_0000, 0x1000)]),
        ("/apart@1000", &[range(0x1000, 0x1000)]),
        ("/empty@4000", &[range(0x4000, 0x1000)]),
        ("/glue@0", &[range(0, 0x1_0000)]),
    ];
    assert_eq!(own, expected);
}
