//! Interrupt controllers and CPUs of every kind, and the architecture that they tell.

use layout::{Architecture, Code, ControllerKind};

use super::*;

fn warnings(host: &Host) -> Vec<Code> {
    let warnings = host.problems.iter().filter(|problem| !problem.is_error());
    warnings.map(|problem| problem.code).collect()
}

fn controller(root: &mut Writer, compatible: &[&str], frames: u64, more: impl FnOnce(&mut Writer)) {
    root.node("intc@1000000", |node| {
        node.strings("compatible", compatible);
        node.flag("interrupt-controller");
        node.cells("#interrupt-cells", &[3]);
        node.cells("phandle", &[1]);
        let reg: Vec<u64> = (0..frames)
            .flat_map(|at| [0x100_0000 + at * 0x10_0000, 0x1_0000])
            .collect();
        node.numbers("reg", &reg);
        more(node);
    });
    root.node("uart@5000000", |node| {
        node.string("compatible", "x,uart");
        node.numbers("reg", &[0x500_0000, 0x1000]);
        node.cells("interrupts", &[0, 5, 4]);
    });
}

fn gic(compatible: &[&str], frames: u64) -> Host {
    read(&tree(|root| {
        controller(root, compatible, frames, |gic| {
            gic.cells("interrupts", &[1, 9, 4]);
        });
    }))
}

#[test]
fn gics_of_every_generation() {
    let v2 = [
        "arm,gic-400",
        "arm,cortex-a15-gic",
        "arm,cortex-a7-gic",
        "brcm,brahma-b15-gic",
        "qcom,msm-qgic2",
    ];
    for compatible in v2 {
        let host = gic(&["maker,own", compatible], 4);
        assert_eq!(
            host.map.controller.kind,
            ControllerKind::GicV2,
            "{compatible}"
        );
        assert_eq!(warnings(&host), [], "{compatible}");
        assert_eq!(host.map.devices[0].interrupts, [37]);
    }
    for compatible in ["arm,gic-v3", "qcom,msm8996-gic-v3"] {
        let host = gic(&[compatible], 2);
        assert_eq!(
            host.map.controller.kind,
            ControllerKind::GicV3,
            "{compatible}"
        );
        assert_eq!(warnings(&host), [], "{compatible}");
    }
    for compatible in ["arm,pl390", "arm,cortex-a9-gic", "arm,arm11mp-gic"] {
        let host = gic(&[compatible], 2);
        let found = &host.map.controller;
        assert_eq!(
            (found.kind, found.max_cpus),
            (ControllerKind::GicOther, 8),
            "{compatible}"
        );
        assert_eq!(warnings(&host), [Code::ControllerNotDriven], "{compatible}");
        assert!(host.gic.is_none());
        assert_eq!(host.map.devices[0].interrupts, [37]);
    }
}

#[test]
fn a_gic_that_the_hypervisor_does_not_drive_is_planned_with() {
    let host = gic(&["qcom,msm-qgic2"], 2);
    assert_eq!(host.map.controller.kind, ControllerKind::GicV2);
    assert_eq!(warnings(&host), [Code::ControllerNotDriven]);
    let unmaintained = read(&tree(|root| controller(root, &["arm,gic-v3"], 2, |_| {})));
    assert_eq!(warnings(&unmaintained), [Code::ControllerNotDriven]);
    assert!(host.problems[0].sides[0].what.contains("qcom,msm-qgic2"));
}

#[test]
fn controllers_that_are_no_gic_are_found_at_the_end_of_the_interrupt_tree() {
    let apple = read(&tree(|root| {
        controller(root, &["apple,t8103-aic", "apple,aic"], 1, |_| {})
    }));
    assert_eq!(apple.map.controller.kind, ControllerKind::Other);
    assert_eq!(apple.map.controller.ranges, [range(0x100_0000, 0x1_0000)]);
    assert_eq!(warnings(&apple), [Code::ControllerNotDriven]);
    // Nobody knows what its specifiers mean.
    assert!(apple.map.devices[0].interrupts.is_empty());
    assert!(
        apple
            .map
            .devices
            .iter()
            .all(|device| device.path != "/intc@1000000")
    );

    let broadcom = read(&tree(|root| {
        controller(root, &["brcm,bcm2836-armctrl-ic"], 1, |armctrl| {
            armctrl.cells("interrupt-parent", &[2]);
            armctrl.cells("interrupts", &[8, 4]);
        });
        root.node("local@40000000", |local| {
            local.string("compatible", "brcm,bcm2836-l1-intc");
            local.flag("interrupt-controller");
            local.cells("#interrupt-cells", &[2]);
            local.cells("interrupt-parent", &[2]);
            local.cells("phandle", &[2]);
            local.numbers("reg", &[0x4000_0000, 0x100]);
        });
    }));
    assert_eq!(broadcom.map.controller.kind, ControllerKind::Other);
    assert_eq!(broadcom.map.controller.ranges, [range(0x4000_0000, 0x100)]);
    assert_eq!(broadcom.map.architecture, Architecture::Aarch64);
}

/// `harts` RISC-V CPUs whose local controllers have the phandles from 10 on.
fn harts(root: &mut Writer, harts: u32, isa: &str) {
    root.node("cpus", |cpus| {
        cpus.cells("#address-cells", &[1]);
        cpus.cells("#size-cells", &[0]);
        for hart in 0..harts {
            cpus.node(&format!("cpu@{hart}"), |cpu| {
                cpu.string("device_type", "cpu");
                cpu.string("compatible", "riscv");
                cpu.cells("reg", &[hart]);
                cpu.string("riscv,isa", isa);
                cpu.node("interrupt-controller", |local| {
                    local.string("compatible", "riscv,cpu-intc");
                    local.flag("interrupt-controller");
                    local.cells("#interrupt-cells", &[1]);
                    local.cells("phandle", &[10 + hart]);
                });
            });
        }
    });
}

fn external(harts: u32, interrupts: &[u32]) -> Vec<u32> {
    let of_hart = |hart| {
        interrupts
            .iter()
            .flat_map(move |&interrupt| [10 + hart, interrupt])
    };
    (0..harts).flat_map(of_hart).collect()
}

fn device(root: &mut Writer, parent: u32, interrupts: &[u32]) {
    root.node("serial@10000000", |node| {
        node.string("compatible", "x,serial");
        node.numbers("reg", &[0x1000_0000, 0x100]);
        node.cells("interrupt-parent", &[parent]);
        node.cells("interrupts", interrupts);
    });
}

#[test]
fn riscv_with_a_plic() {
    let host = read(&tree(|root| {
        harts(root, 2, "rv64imafdch");
        root.node("clint@2000000", |clint| {
            clint.strings("compatible", &["sifive,clint0", "riscv,clint0"]);
            clint.cells("interrupts-extended", &external(2, &[3, 7]));
            clint.numbers("reg", &[0x200_0000, 0x1_0000]);
        });
        root.node("plic@c000000", |plic| {
            plic.strings("compatible", &["sifive,plic-1.0.0", "riscv,plic0"]);
            plic.flag("interrupt-controller");
            plic.cells("#interrupt-cells", &[1]);
            plic.cells("#address-cells", &[0]);
            plic.cells("phandle", &[3]);
            plic.cells("interrupts-extended", &external(2, &[11, 9]));
            plic.numbers("reg", &[0xc00_0000, 0x60_0000]);
        });
        device(root, 3, &[10]);
    }));
    assert_eq!(host.map.architecture, Architecture::Riscv64);
    let found = &host.map.controller;
    assert_eq!((found.kind, found.max_cpus), (ControllerKind::Plic, 2));
    assert_eq!(found.ranges, [range(0xc00_0000, 0x60_0000)]);
    let ids: Vec<u64> = host.map.cpus.iter().map(|cpu| cpu.hardware_id).collect();
    assert_eq!(ids, [0, 1]);
    assert_eq!(host.map.devices.len(), 1);
    assert_eq!(host.map.devices[0].interrupts, [10]);
    // RISC-V's masters are coherent unless the tree says otherwise.
    assert!(host.map.devices[0].coherent);
    assert_eq!(warnings(&host), [Code::ControllerNotDriven]);
}

#[test]
fn riscv_with_the_advanced_architecture() {
    let imsic = |root: &mut Writer, start: u64, phandle: u32, interrupt: u32| {
        root.node(&format!("imsics@{start:x}"), |node| {
            node.strings("compatible", &["qemu,imsics", "riscv,imsics"]);
            node.flag("interrupt-controller");
            node.flag("msi-controller");
            node.cells("#interrupt-cells", &[0]);
            node.cells("phandle", &[phandle]);
            node.cells("interrupts-extended", &external(4, &[interrupt]));
            node.numbers("reg", &[start, 0x4000]);
        });
    };
    let aplic = |root: &mut Writer, start: u64, phandle: u32, parent: u32| {
        root.node(&format!("aplic@{start:x}"), |node| {
            node.strings("compatible", &["qemu,aplic", "riscv,aplic"]);
            node.flag("interrupt-controller");
            node.cells("#interrupt-cells", &[2]);
            node.cells("phandle", &[phandle]);
            node.cells("msi-parent", &[parent]);
            node.numbers("reg", &[start, 0x8000]);
        });
    };
    let with_messages = read(&tree(|root| {
        harts(root, 4, "rv64imafdch_smaia_ssaia");
        imsic(root, 0x2400_0000, 1, 11);
        imsic(root, 0x2800_0000, 2, 9);
        aplic(root, 0xc00_0000, 3, 1);
        aplic(root, 0xd00_0000, 4, 2);
        device(root, 4, &[10, 4]);
    }));
    let found = &with_messages.map.controller;
    assert_eq!((found.kind, found.max_cpus), (ControllerKind::Imsic, 4));
    let mut starts: Vec<u64> = found
        .ranges
        .iter()
        .map(|range| range.start().raw())
        .collect();
    assert_eq!(starts[0], 0x2800_0000);
    starts.sort_unstable();
    assert_eq!(starts, [0xc00_0000, 0xd00_0000, 0x2400_0000, 0x2800_0000]);
    // Machine mode's APLIC has the same numbers; the operating system's devices name supervisors'.
    assert_eq!(with_messages.map.devices.len(), 1);
    assert_eq!(with_messages.map.devices[0].interrupts, [10]);

    let wired = read(&tree(|root| {
        harts(root, 1, "rv64imafdch_ssaia");
        root.node("aplic@d000000", |node| {
            node.string("compatible", "riscv,aplic");
            node.flag("interrupt-controller");
            node.cells("#interrupt-cells", &[2]);
            node.cells("phandle", &[4]);
            node.cells("interrupts-extended", &external(1, &[9]));
            node.numbers("reg", &[0xd00_0000, 0x8000]);
        });
    }));
    assert_eq!(wired.map.controller.kind, ControllerKind::Aplic);
}

#[test]
fn cpus_that_the_hypervisor_cannot_start_are_planned_with() {
    let cpus = |methods: &[Option<&str>]| {
        read(&tree(|root| {
            controller(root, &["arm,gic-400"], 4, |gic| {
                gic.cells("interrupts", &[1, 9, 4])
            });
            root.node("cpus", |cpus| {
                cpus.cells("#address-cells", &[1]);
                cpus.cells("#size-cells", &[0]);
                for (id, method) in (0..).zip(methods) {
                    cpus.node(&format!("cpu@{id}"), |cpu| {
                        cpu.string("device_type", "cpu");
                        cpu.cells("reg", &[id]);
                        method
                            .iter()
                            .for_each(|method| cpu.string("enable-method", method));
                    });
                }
            });
        }))
    };
    let good = cpus(&[None, Some("psci")]);
    assert_eq!((good.map.cpus.len(), warnings(&good)), (2, vec![]));
    let spinning = cpus(&[Some("spin-table"), Some("spin-table"), None]);
    assert_eq!(spinning.map.cpus.len(), 3);
    assert_eq!(warnings(&spinning), [Code::CpuNotStarted]);
    let what = &spinning
        .problems
        .iter()
        .find(|it| !it.is_error())
        .unwrap()
        .sides[0]
        .what;
    assert_eq!(what, "2 of 3 CPUs, enable-method = \"spin-table\"");
    assert_eq!(warnings(&cpus(&[None, None])), [Code::CpuNotStarted]);
}

#[test]
fn what_is_no_64_bit_machine_is_said() {
    let narrow = read(&tree(|root| harts(root, 1, "rv32imac")));
    assert!(narrow.map.cpus.is_empty());
    let whys: Vec<&str> = narrow.problems.iter().map(|it| it.why.as_str()).collect();
    assert!(whys.contains(&"it is a 32-bit CPU"), "{whys:?}");
}
