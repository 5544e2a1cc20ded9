//! Which controller or nexus a node's interrupts go to.

use super::*;

/// A GICv3 with the phandle 1, which the root's interrupts go to.
fn gic(root: &mut Writer, address_cells: u32) {
    root.node("intc@1000000", |node| {
        node.string("compatible", "arm,gic-v3");
        node.flag("interrupt-controller");
        node.cells("#interrupt-cells", &[3]);
        node.cells("#address-cells", &[address_cells]);
        node.cells("phandle", &[1]);
        node.numbers("reg", &[0x100_0000, 0x1_0000, 0x110_0000, 0x10_0000]);
        node.cells("interrupts", &[1, 9, 4]);
    });
}

fn bus(root: &mut Writer, name: &str, inside: impl FnOnce(&mut Writer)) {
    root.node(name, |bus| {
        bus.string("compatible", "simple-bus");
        bus.cells("#address-cells", &[1]);
        bus.cells("#size-cells", &[1]);
        bus.flag("ranges");
        inside(bus);
    });
}

fn device(bus: &mut Writer, address: u32, interrupts: &[u32]) {
    bus.node(&format!("device@{address:x}"), |device| {
        device.string("compatible", "x,device");
        device.cells("reg", &[address, 0x1000]);
        device.cells("interrupts", interrupts);
    });
}

/// Every device's path and lines.
fn lines(host: &Host) -> Vec<(&str, &[u32])> {
    let devices = host.map.devices.iter();
    devices
        .map(|device| (device.path.as_str(), device.interrupts.as_slice()))
        .collect()
}

#[test]
fn a_controller_above_takes_its_childrens_interrupts() {
    let host = read(&tree(|root| {
        gic(root, 0);
        bus(root, "soc", |soc| {
            soc.node("spmi@2000000", |spmi| {
                spmi.string("compatible", "qcom,spmi-pmic-arb");
                spmi.cells("reg", &[0x200_0000, 0x1000]);
                spmi.cells("interrupts", &[0, 5, 4]);
                spmi.flag("interrupt-controller");
                spmi.cells("#interrupt-cells", &[4]);
                spmi.cells("#address-cells", &[2]);
                spmi.cells("#size-cells", &[0]);
                spmi.node("pmic@0", |pmic| {
                    pmic.string("compatible", "qcom,spmi-pmic");
                    pmic.cells("reg", &[0, 0]);
                    pmic.node("rtc", |rtc| {
                        rtc.string("compatible", "qcom,rtc");
                        // As a GIC's, this would be the other device's SPI 97.
                        rtc.cells("interrupts", &[0, 97, 1, 0]);
                    });
                });
            });
            device(soc, 0x300_0000, &[0, 97, 4]);
        });
    }));
    assert_eq!(host.gic.as_ref().unwrap().maintenance, Some(25));
    let expected: [(&str, &[u32]); 2] = [
        ("/soc/spmi@2000000", &[37]),
        ("/soc/device@3000000", &[129]),
    ];
    assert_eq!(lines(&host), expected);
}

#[test]
fn a_controller_in_between_is_named() {
    let host = read(&tree(|root| {
        gic(root, 0);
        second(root, &["marvell,cp110-icu-nsr"], 2, 1, 2);
        second(root, &["ti,sci-intr"], 3, 1, 1);
        bus(root, "soc", |soc| {
            device(soc, 0x300_0000, &[0, 5, 4]);
            soc.node("device@4000000", |node| {
                node.string("compatible", "x,device");
                node.cells("reg", &[0x400_0000, 0x1000]);
                node.cells("interrupts-extended", &[1, 0, 6, 4, 3, 1, 2, 8, 4]);
            });
            // Its own.
            soc.node("pcie@5000000", |node| {
                node.string("compatible", "x,pcie");
                node.cells("reg", &[0x500_0000, 0x1000]);
                node.cells("interrupts-extended", &[9, 0]);
                node.node("intc", |intc| {
                    intc.flag("interrupt-controller");
                    intc.cells("#interrupt-cells", &[1]);
                    intc.cells("phandle", &[9]);
                });
            });
        });
    }));
    let devices = host.map.devices.iter();
    let others: Vec<Option<&str>> = devices.map(|it| it.other_controller.as_deref()).collect();
    assert_eq!(others, [None, Some("/second@3000000"), None]);
    assert_eq!(host.map.devices[1].interrupts, [38]);
}

/// As Arm's Versatile Express: a bus with a map, and one below it without.
#[test]
fn lines_of_a_nexus_are_those_of_the_devices_on_it() {
    let host = read(&tree(|root| {
        gic(root, 0);
        bus(root, "motherboard", |bus| {
            bus.cells("phandle", &[2]);
            bus.cells("#interrupt-cells", &[1]);
            bus.cells("interrupt-map-mask", &[0, 63]);
            let map = [
                [0, 4, 1, 0, 40, 4],
                [0, 5, 1, 0, 41, 4],
                [0, 6, 1, 0, 42, 4],
            ];
            bus.cells("interrupt-map", &map.concat());
            device(bus, 0x300_0000, &[4]);
            self::bus(bus, "iofpga", |inner| {
                device(inner, 0x400_0000, &[5, 64 + 6]);
                device(inner, 0x500_0000, &[7]);
            });
            bus.node("extended@6000000", |node| {
                node.string("compatible", "x,device");
                node.cells("reg", &[0x600_0000, 0x1000]);
                node.cells("interrupts-extended", &[2, 6, 1, 0, 50, 4]);
            });
        });
    }));
    let expected: [(&str, &[u32]); 4] = [
        ("/motherboard/device@3000000", &[72]),
        ("/motherboard/iofpga/device@4000000", &[73, 74]),
        ("/motherboard/iofpga/device@5000000", &[]),
        ("/motherboard/extended@6000000", &[74, 82]),
    ];
    assert_eq!(lines(&host), expected);
}

#[test]
fn a_map_goes_by_unit_addresses_and_through_maps_above() {
    let host = read(&tree(|root| {
        gic(root, 2);
        bus(root, "outer", |outer| {
            outer.cells("phandle", &[2]);
            outer.cells("#interrupt-cells", &[2]);
            outer.cells("interrupt-map-mask", &[0xf00, 0xff, 0]);
            // To a controller with an address of two cells.
            let map = [
                [0x100, 1, 0, 1, 0, 0, 0, 10, 4],
                [0x200, 1, 0, 1, 0, 0, 0, 11, 4],
            ];
            outer.cells("interrupt-map", &map.concat());
            bus(outer, "inner", |inner| {
                inner.cells("#interrupt-cells", &[1]);
                // Without a mask all bits count; the parent's unit address is the map's.
                let map = [
                    [0x300_0000, 9, 2, 0x100, 1, 8],
                    [0x400_0000, 9, 2, 0x200, 1, 8],
                ];
                inner.cells("interrupt-map", &map.concat());
                device(inner, 0x300_0000, &[9]);
                device(inner, 0x400_0000, &[9]);
                device(inner, 0x500_0000, &[9]);
            });
        });
    }));
    let expected: [(&str, &[u32]); 3] = [
        ("/outer/inner/device@3000000", &[42]),
        ("/outer/inner/device@4000000", &[43]),
        ("/outer/inner/device@5000000", &[]),
    ];
    assert_eq!(lines(&host), expected);
}

#[test]
fn circles_end() {
    let host = read(&tree(|root| {
        gic(root, 0);
        for (name, own, other) in [("a", 2, 3), ("b", 3, 2)] {
            bus(root, name, |bus| {
                bus.cells("phandle", &[own]);
                bus.cells("interrupt-parent", &[other]);
                device(bus, 0x300_0000 + own * 0x1000, &[0, 5, 4]);
            });
        }
        for (name, own, other) in [("c", 4, 5), ("d", 5, 4)] {
            bus(root, name, |bus| {
                bus.cells("phandle", &[own]);
                bus.cells("#interrupt-cells", &[1]);
                bus.cells("interrupt-map-mask", &[0, 0]);
                bus.cells("interrupt-map", &[0, 0, other, 0, 0]);
                device(bus, 0x300_0000 + own * 0x1000, &[1]);
            });
        }
    }));
    assert_eq!(host.map.devices.len(), 4);
    let mut devices = host.map.devices.iter();
    assert!(devices.all(|device| device.interrupts.is_empty()));
}

/// A controller that is no GIC and has no children.
fn second(root: &mut Writer, compatible: &[&str], phandle: u32, above: u32, cells: u32) {
    root.node(&format!("second@{phandle:x}000000"), |node| {
        node.strings("compatible", compatible);
        node.flag("interrupt-controller");
        node.cells("#interrupt-cells", &[cells]);
        node.cells("phandle", &[phandle]);
        node.cells("interrupt-parent", &[above]);
    });
}

fn extended(root: &mut Writer, name: &str, interrupts: &[u32]) {
    root.node(name, |node| {
        node.string("compatible", "x,device");
        node.cells("interrupts-extended", interrupts);
    });
}

#[test]
fn a_controller_before_the_gic_passes_its_specifiers_on() {
    let host = read(&tree(|root| {
        gic(root, 0);
        second(root, &["nvidia,tegra210-ictlr"], 2, 1, 3);
        // Over another one; i.MX's has an interrupt of its own.
        root.node("gpc@3000000", |node| {
            node.string("compatible", "fsl,imx8mq-gpc");
            node.flag("interrupt-controller");
            node.cells("#interrupt-cells", &[3]);
            node.cells("phandle", &[3]);
            node.cells("interrupt-parent", &[2]);
            node.cells("interrupts", &[0, 87, 4]);
        });
        let sysirq = ["mediatek,mt8183-sysirq", "mediatek,mt6577-sysirq"];
        second(root, &sysirq, 4, 1, 3);
        second(root, &["allwinner,sun50i-h6-r-intc"], 5, 1, 3);
        // Three cells of another meaning, and the older binding's two.
        second(root, &["ti,irq-crossbar"], 6, 1, 3);
        second(root, &["allwinner,sun50i-a64-r-intc"], 7, 1, 2);
        // In a circle, and to nobody.
        second(root, &["nvidia,tegra210-ictlr"], 8, 9, 3);
        second(root, &["nvidia,tegra210-ictlr"], 9, 8, 3);
        second(root, &["nvidia,tegra210-ictlr"], 10, 77, 3);
        bus(root, "soc", |soc| {
            soc.cells("interrupt-parent", &[2]);
            // The second is a CPU's own, which the controller hasn't.
            device(soc, 0x400_0000, &[0, 39, 4, 1, 3, 4, 0, 40, 4]);
        });
        extended(root, "gpc", &[3, 0, 5, 4]);
        extended(root, "sysirq", &[4, 0, 6, 4, 1, 0, 7, 4]);
        extended(root, "r-intc", &[5, 0, 8, 4]);
        for controller in [6, 8, 10] {
            let interrupts = [controller, 0, 9, 4, 1, 0, 10, 4];
            extended(root, &format!("other{controller}"), &interrupts);
        }
        extended(root, "old", &[7, 0, 9, 1, 0, 10, 4]);
    }));
    let expected: [(&str, &[u32]); 9] = [
        ("/gpc@3000000", &[119]),
        ("/soc/device@4000000", &[71, 72]),
        ("/gpc", &[37]),
        ("/sysirq", &[38, 39]),
        ("/r-intc", &[40]),
        ("/other6", &[42]),
        ("/other8", &[42]),
        ("/other10", &[42]),
        ("/old", &[42]),
    ];
    assert_eq!(lines(&host), expected);
}

#[test]
fn a_pdc_goes_by_its_ranges() {
    let pdc = |root: &mut Writer, phandle: u32, above: u32, ranges: &[u32]| {
        root.node(&format!("pdc@{phandle}"), |node| {
            node.strings("compatible", &["qcom,sdm845-pdc", "qcom,pdc"]);
            node.flag("interrupt-controller");
            node.cells("#interrupt-cells", &[2]);
            node.cells("phandle", &[phandle]);
            node.cells("interrupt-parent", &[above]);
            node.cells("qcom,pdc-ranges", ranges);
        });
    };
    let host = read(&tree(|root| {
        gic(root, 0);
        pdc(
            root,
            2,
            1,
            &[0, 480, 94, 94, 609, 15, 115, u32::MAX, 2, 118],
        );
        pdc(root, 3, 2, &[0, 480, 94]);
        let pins = [
            2, 26, 4, 2, 94, 1, 2, 108, 1, 2, 109, 1, 2, 116, 1, 2, 118, 1,
        ];
        extended(root, "device", &[&pins[..], &[1, 0, 5, 4]].concat());
        // Not before the GIC.
        extended(root, "other", &[3, 0, 4, 1, 0, 6, 4]);
    }));
    let expected: [(&str, &[u32]); 2] = [("/device", &[37, 538, 641, 655]), ("/other", &[38])];
    assert_eq!(lines(&host), expected);
}

/// Controllers in a row, each with as many properties as there is room for, and devices whose interrupts take the whole way.
fn long_way(interrupts: u32) -> Host {
    const NODES: u32 = 30;
    read(&tree(|root| {
        gic(root, 0);
        for node in 0..NODES {
            root.node(&format!("bus{node}"), |bus| {
                for property in 0..2000 {
                    bus.flag(&format!("x,{property}"));
                }
                bus.cells("#interrupt-cells", &[3]);
                bus.cells("phandle", &[100 + node]);
                let above = if node == 0 { 1 } else { 99 + node };
                bus.cells("interrupt-parent", &[above]);
            });
        }
        bus(root, "soc", |soc| {
            soc.cells("interrupt-parent", &[99 + NODES]);
            let all: Vec<u32> = (0..interrupts).flat_map(|it| [0, it % 900, 4]).collect();
            device(soc, 0x400_0000, &all);
        });
    }))
}

fn is_cut(host: &Host) -> bool {
    let mut problems = host.problems.iter();
    problems.any(|found| found.is_error() && found.why.contains("more steps"))
}

/// Walked anew for each interrupt, this would take minutes.
#[test]
fn what_a_node_does_with_interrupts_is_read_once() {
    let host = long_way(8000);
    assert_eq!(host.map.devices[0].interrupts.len(), 900);
    assert!(!is_cut(&host));
}

#[test]
fn a_way_that_no_machine_has_is_not_walked_to_its_end() {
    assert!(is_cut(&long_way(16_000)));
}
