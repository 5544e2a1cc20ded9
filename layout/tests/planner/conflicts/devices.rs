//! Devices that a domain cannot have, or that do not reach it.

use terrane_layout::*;

use super::*;

#[test]
fn devices_in_one_page() {
    let mut host = virt(2 * GIB, 2);
    let mut neighbour = host.devices[2].clone();
    neighbour.path = "/virtio_mmio@a000200".into();
    neighbour.ranges = vec![bytes(0xa00_0200, 0x200)];
    neighbour.interrupts = vec![49];
    host.devices.push(neighbour);
    let asking = |paths: &[&str]| {
        let mut guest = sized(256 * MIB);
        guest.direct_map = Some(true.into());
        guest.devices = paths
            .iter()
            .map(|path| DeviceRequest {
                path: (*path).into(),
                dma_mask: None,
                origin: Origin(80),
            })
            .collect();
        system(vec![guest, domain("control", MemoryRequest::Rest, 0, true)])
    };
    let outcome = plan(&host, &asking(&["/virtio_mmio@a000000"]));
    assert_eq!(codes(&outcome), ["device-shares-page"]);
    let found = &outcome.conflicts[0];
    assert_eq!(found.sides[0].origin, Origin(80));
    assert!(found.sides[1].what.contains("\"control\""), "{found:?}");
    assert!(
        found
            .help
            .contains("devices = [\"/virtio_mmio@a000000\", \"/virtio_mmio@a000200\"]"),
        "{}",
        found.help
    );
    // The mend.
    let both = asking(&["/virtio_mmio@a000000", "/virtio_mmio@a000200"]);
    assert!(plan(&host, &both).conflicts.is_empty());
}

/// A direct-mapped guest with this device beside a hardware domain with all others.
fn beside_control(path: &str) -> SystemRequest {
    let mut guest = sized(256 * MIB);
    guest.direct_map = Some(true.into());
    guest.devices = vec![DeviceRequest {
        path: path.into(),
        dma_mask: None,
        origin: Origin(80),
    }];
    system(vec![guest, domain("control", MemoryRequest::Rest, 0, true)])
}

#[test]
fn devices_that_cannot_be_told_apart() {
    let good = virt(2 * GIB, 2);
    assert_eq!(
        codes(&plan(&good, &beside_control("/virtio_mmio@a000000"))),
        [""; 0]
    );
    let mut host = good.clone();
    host.devices[3].interrupts = vec![7, 48];
    let found = conflict(&host, &beside_control("/virtio_mmio@a000000"));
    assert_eq!(found.code, Code::DeviceSharesInterrupt);
    assert_eq!(found.sides[0].origin, Origin(80));
    assert_eq!(
        found.help,
        "give all of them to one domain: devices = [\"/virtio_mmio@a000000\", \"/pcie@10000000\"]"
    );
    let mut host = good;
    host.devices[2].group = Some(3);
    host.devices[3].group = Some(3);
    host.devices[1].group = Some(4);
    let found = conflict(&host, &beside_control("/virtio_mmio@a000000"));
    assert_eq!(found.code, Code::DeviceSharesGroup);
    assert!(found.sides[1].what.contains("\"control\""), "{found:?}");
}

#[test]
fn an_iommu_that_is_there_need_not_help() {
    let mut host = virt(2 * GIB, 2);
    let mut request = beside_control("/virtio_mmio@a000000");
    request.domains[0].direct_map = None;
    let why = |host: &HostMap| {
        let found = conflict(host, &request);
        assert_eq!(found.code, Code::DmaWithoutIommu);
        found.why
    };
    assert!(why(&host).contains("no IOMMU translates"));
    host.iommus = vec![Iommu {
        path: "/iommu@9050000".into(),
        ranges: vec![],
        usable: false,
        origin: Origin(82),
    }];
    assert!(why(&host).contains("no second stage"));
    host.iommus[0].usable = true;
    assert!(why(&host).contains("outside of it"));
    host.devices[2].private_iommu = true;
    assert!(why(&host).contains("its driver's own"));
}

#[test]
fn devices_and_their_dma() {
    let host = virt(2 * GIB, 2);
    let device = |path: &str, mask| DeviceRequest {
        path: path.into(),
        dma_mask: mask,
        origin: Origin(80),
    };
    let with = |device| {
        let mut guest = sized(256 * MIB);
        guest.devices = vec![device];
        guest
    };
    let found = one(with(device("/pl061@9040000", None)));
    assert_eq!(found.code, Code::DeviceUnknown);
    assert_eq!(found.help, "the nearest is \"/pl061@9030000\"");
    assert_eq!(named(with(device("/pl011@9000000", None))), "device-twice");
    let mut other = with(device("/pl061@9030000", None));
    other.name.value = "other".into();
    let twice = system(vec![with(device("/pl061@9030000", None)), other]);
    assert_eq!(code(&host, &twice), "device-twice");
    let mut request = system(vec![sized(256 * MIB)]);
    request.hypervisor.console = Some(Located::new("/serial".into(), Origin(81)));
    assert_eq!(code(&host, &request), "device-unknown");

    // DMA of a domain whose frames are elsewhere.
    let master = || with(device("/virtio_mmio@a000000", None));
    let found = one(master());
    assert_eq!(found.code, Code::DmaWithoutIommu);
    assert!(found.sides[1].what.contains("/virtio_mmio@a000000"));
    let mut allowed = master();
    allowed.allow_dma_without_iommu = true;
    let found = one(allowed);
    assert_eq!(
        (found.code, found.severity),
        (Code::DmaWithoutIommu, Severity::Warning)
    );
    let mut behind = host.clone();
    behind.devices[2].behind_iommu = true;
    assert_eq!(code(&behind, &system(vec![master()])), "not-built-yet");
    let mut indirect = domain("control", MemoryRequest::Rest, 0, true);
    indirect.direct_map = Some(Located::new(false, Origin(82)));
    let found = one(indirect);
    assert_eq!(
        (found.code, found.sides[0].origin),
        (Code::DmaWithoutIommu, Origin(82))
    );
    let mut direct = master();
    direct.direct_map = Some(true.into());
    assert!(plan(&host, &system(vec![direct])).conflicts.is_empty());

    // A device that can't reach the memory: edu, with its 28 bits.
    let mut edu = with(device("/virtio_mmio@a000000", Some(0xfff_ffff)));
    edu.direct_map = Some(true.into());
    let found = one(edu);
    assert_eq!(
        (found.code, found.severity),
        (Code::DmaMask, Severity::Error)
    );
    let mut partly = with(device("/virtio_mmio@a000000", Some(0xbfff_0000)));
    partly.direct_map = Some(true.into());
    partly.memory.value = MemoryRequest::SumOfStatic;
    partly.static_mem = vec![fixed(0xb000_0000, 256 * MIB)];
    let request = system(vec![partly]);
    let mut outcome = plan(&host, &request);
    diagnose(&host, &request, &mut outcome);
    let [found] = outcome.conflicts.as_slice() else {
        panic!("{:#?}", outcome.conflicts);
    };
    assert_eq!(
        (found.code, found.severity),
        (Code::DmaMask, Severity::Warning)
    );
    assert_eq!(
        found.help,
        "static-mem = [{ start = 0xafe00000, size = \"256MiB\" }]"
    );
}

#[test]
fn the_consoles_page_and_interrupt_are_the_hypervisors() {
    // As on a Raspberry Pi 4: the mini UART and an SPI controller.
    let mut host = virt(2 * GIB, 2);
    host.devices[0].ranges = vec![bytes(0xfe21_5040, 0x40)];
    host.devices[1].ranges = vec![bytes(0xfe21_5080, 0x40)];
    host.devices[1].interrupts = host.devices[0].interrupts.clone();
    let control = domain("control", MemoryRequest::Rest, 0, true);
    let outcome = plan(&host, &system(vec![control]));
    let expected = ["device-shares-page", "device-shares-interrupt"];
    assert_eq!(codes(&outcome), expected);
    assert!(outcome.refused.is_empty());
    // A guest isn't given it at all.
    let outcome = plan(&host, &beside_control("/pl061@9030000"));
    assert_eq!(codes(&outcome), expected);
    assert_eq!(outcome.refused.len(), 1);
}

#[test]
fn a_page_of_the_interrupt_controller_or_of_an_iommu_is_nobodys() {
    let mut host = virt(2 * GIB, 2);
    host.iommus = vec![Iommu {
        path: "/smmu".into(),
        ranges: vec![bytes(0xfe21_6000, 0x1000)],
        usable: true,
        origin: Origin(2),
    }];
    for page in [0x800_0800, 0xfe21_6800] {
        host.devices[1].ranges = vec![bytes(page, 0x40)];
        let outcome = plan(&host, &beside_control("/pl061@9030000"));
        assert_eq!(codes(&outcome), ["device-shares-page"]);
        assert_eq!(outcome.conflicts[0].sides[1].origin, Origin(2));
    }
}

#[test]
fn a_mask_says_that_a_device_does_dma() {
    let host = virt(2 * GIB, 2);
    let mut guest = sized(256 * MIB);
    guest.devices = vec![DeviceRequest {
        path: "/pl061@9030000".into(),
        dma_mask: Some(u64::from(u32::MAX)),
        origin: Origin(80),
    }];
    let outcome = plan(&host, &system(vec![guest]));
    assert_eq!(codes(&outcome), ["dma-without-iommu"]);
    assert_eq!(outcome.refused.len(), 1);
}

#[test]
fn the_override_warns_of_a_device_behind_an_iommu_too() {
    let mut host = virt(2 * GIB, 2);
    for behind in [false, true] {
        host.devices[2].behind_iommu = behind;
        let mut guest = sized(256 * MIB);
        guest.allow_dma_without_iommu = true;
        guest.devices = vec![DeviceRequest {
            path: "/virtio_mmio@a000000".into(),
            dma_mask: None,
            origin: Origin(80),
        }];
        let outcome = plan(&host, &system(vec![guest]));
        assert_eq!(codes(&outcome), ["dma-without-iommu"]);
        assert_eq!(outcome.conflicts[0].severity, Severity::Warning);
        assert!(outcome.refused.is_empty());
    }
}

#[test]
fn a_device_is_not_shown_over_the_domains_ram() {
    let mut host = virt(4 * GIB, 2);
    host.ram[0].range = bytes(8 * GIB, 4 * GIB);
    host.boot.clear();
    host.devices[1].ranges = vec![bytes(0x401c_8000, 0x1000)];
    let asking = |direct: bool| {
        let mut guest = sized(256 * MIB);
        guest.direct_map = Some(direct.into());
        guest.kernel = Some(kernel(8 * GIB + 64 * MIB, 20 * MIB));
        guest.ramdisk = None;
        guest.devices = vec![DeviceRequest {
            path: "/pl061@9030000".into(),
            dma_mask: None,
            origin: Origin(80),
        }];
        system(vec![guest])
    };
    let outcome = plan(&host, &asking(false));
    assert_eq!(codes(&outcome), ["overlap-domain-mmio"]);
    assert_eq!(outcome.refused.len(), 1);
    // The mend.
    assert!(plan(&host, &asking(true)).conflicts.is_empty());
}

#[test]
fn memory_that_is_proposed_holds_the_kernel() {
    let host = virt(2 * GIB, 2);
    let asking = |mask: u64| {
        let mut guest = sized(256 * MIB);
        guest.direct_map = Some(true.into());
        guest.devices = vec![DeviceRequest {
            path: "/virtio_mmio@a000000".into(),
            dma_mask: Some(mask),
            origin: Origin(80),
        }];
        let request = system(vec![guest]);
        let mut outcome = plan(&host, &request);
        diagnose(&host, &request, &mut outcome);
        outcome
    };
    let little = asking(GIB + 512 * KIB - 1);
    assert_eq!(codes(&little), ["dma-mask"]);
    let help = &little.conflicts[0].help;
    let whose = "leave /virtio_mmio@a000000 out of devices, or ";
    assert!(help.starts_with(whose), "{help}");
    let enough = asking(GIB + 96 * MIB - 1);
    assert_eq!(codes(&enough), ["dma-mask"]);
    let help = &enough.conflicts[0].help;
    assert!(help.starts_with("memory = "), "{help}");
}

/// A device with these registers, which raises this interrupt and does no DMA.
fn plain(path: &str, start: u64, interrupt: u32) -> HostDevice {
    HostDevice {
        path: path.into(),
        ranges: vec![bytes(start, 0x100)],
        interrupts: vec![interrupt],
        origin: Origin(100),
        ..HostDevice::default()
    }
}

/// A chain of devices: each shares a page with the next or raises its interrupt.
fn chain(host: &mut HostMap, length: u64) -> Vec<String> {
    let mut paths = Vec::new();
    for at in 0..length {
        let path = format!("/chain@{at}");
        let start = 0xb00_0000 + at / 2 * 0x1000 + at % 2 * 0x100;
        let interrupt = 100 + u32::try_from(at.div_ceil(2)).unwrap();
        host.devices.push(plain(&path, start, interrupt));
        paths.push(path);
    }
    paths
}

#[test]
fn what_hangs_together_is_proposed_at_once() {
    let mut host = virt(2 * GIB, 2);
    let paths = chain(&mut host, 20);
    let mut request = beside_control(&paths[0]);
    request.domains[0].devices.push(DeviceRequest {
        path: "/virtio_mmio@a000000".into(),
        dma_mask: Some(0xffff_ffff),
        origin: Origin(81),
    });
    let found = conflict(&host, &request);
    assert_eq!(found.code, Code::DeviceSharesPage);
    // The mask stays.
    let rest: Vec<String> = paths[1..]
        .iter()
        .map(|path| format!("\"{path}\""))
        .collect();
    let list = format!(
        "devices = [\"/chain@0\", {{ path = \"/virtio_mmio@a000000\", dma-mask = 0xffffffff }}, {}]",
        rest.join(", ")
    );
    assert!(found.help.ends_with(&list), "{}", found.help);
    // The mend.
    let more = paths[1..].iter().map(|path| DeviceRequest {
        path: path.clone(),
        dma_mask: None,
        origin: Origin(82),
    });
    request.domains[0].devices.extend(more);
    assert_eq!(codes(&plan(&host, &request)), [""; 0]);
}

#[test]
fn the_other_owners_mask_goes_along() {
    let mut host = virt(2 * GIB, 2);
    host.devices[3].interrupts = vec![48];
    let mut request = beside_control("/virtio_mmio@a000000");
    request.domains[1].devices = vec![DeviceRequest {
        path: "/pcie@10000000".into(),
        dma_mask: Some(0xffff_ffff),
        origin: Origin(81),
    }];
    let found = plan(&host, &request).conflicts;
    let item = "{ path = \"/pcie@10000000\", dma-mask = 0xffffffff }";
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().all(|one| one.help.contains(item)),
        "{found:#?}"
    );
}

#[test]
fn who_hangs_on_the_console_is_left_out() {
    let mut host = virt(2 * GIB, 2);
    // By way of another: its page is the console's.
    host.devices.push(plain("/near@9000800", 0x900_0800, 48));
    host.devices[0].ranges = vec![bytes(0x900_0000, 0x800)];
    let found = plan(&host, &beside_control("/virtio_mmio@a000000")).conflicts;
    assert_eq!(found[0].code, Code::DeviceSharesInterrupt);
    assert_eq!(
        found[0].help,
        "leave /virtio_mmio@a000000 out of devices, or name another console for the hypervisor: \
         what it shares leads to /pl011@9000000"
    );
    // Likewise with what the hypervisor drives itself.
    host.devices[4].ranges = vec![bytes(0x800_0800, 0x100)];
    let found = plan(&host, &beside_control("/virtio_mmio@a000000")).conflicts;
    assert_eq!(
        found[0].help,
        "leave /virtio_mmio@a000000 out of devices: what it shares leads to the interrupt \
         controller, which no domain has"
    );
}

#[test]
fn a_page_with_a_device_that_nobody_has() {
    let mut host = virt(2 * GIB, 2);
    let idle = plain("/idle@a000800", 0xa00_0800, 90);
    host.devices.push(idle);
    let mut request = beside_control("/virtio_mmio@a000000");
    request.domains.truncate(1);
    let found = conflict(&host, &request);
    assert_eq!(
        (found.code, found.severity),
        (Code::DeviceSharesPage, Severity::Warning)
    );
    assert!(
        found.sides[1].what.contains("which nobody has"),
        "{found:?}"
    );
    assert!(
        found
            .help
            .ends_with("devices = [\"/virtio_mmio@a000000\", \"/idle@a000800\"]"),
        "{}",
        found.help
    );
    // An interrupt that nobody else listens to goes where it belongs.
    host.devices[4].ranges = vec![bytes(0xa01_0000, 0x100)];
    host.devices[4].interrupts = vec![48];
    assert_eq!(codes(&plan(&host, &request)), [""; 0]);
}

#[test]
fn devices_over_what_a_domain_is_shown() {
    let shown = |kind, start, change: &dyn Fn(&mut DomainRequest)| {
        let mut host = virt(2 * GIB, 2);
        host.controller.kind = kind;
        host.devices.push(plain("/there", start, 90));
        let mut request = beside_control("/there");
        request.domains[0].direct_map = None;
        change(&mut request.domains[0]);
        plan(&host, &request).conflicts
    };
    let as_it_is = &|_: &mut DomainRequest| ();
    let with_uart = &|guest: &mut DomainRequest| guest.vpl011 = true;
    let (v2, v3) = (ControllerKind::GicV2, ControllerKind::GicV3);
    for (kind, start) in [
        (v2, 0x300_1000),
        (v2, 0x300_3000),
        (v3, 0x300_f000),
        (v3, 0x401_f000),
    ] {
        let found = shown(kind, start, as_it_is);
        assert_eq!(found.len(), 1, "{start:#x}: {found:#?}");
        assert_eq!(found[0].code, Code::OverlapDomainMmio);
        assert_eq!(found[0].sides[0].origin, Origin(80));
        assert!(found[0].why.contains("interrupt controller"), "{found:?}");
    }
    let found = shown(v3, 0x2200_0000, with_uart);
    assert_eq!(found[0].code, Code::OverlapDomainMmio);
    assert!(
        found[0].sides[0].what.contains("virtual PL011"),
        "{found:?}"
    );
    // Nothing is there.
    assert!(shown(v2, 0x300_4000, as_it_is).is_empty());
    assert!(shown(v2, 0x302_0000, as_it_is).is_empty());
    assert!(shown(v3, 0x402_0000, as_it_is).is_empty());
    assert!(shown(v3, 0x2200_0000, as_it_is).is_empty());
    // The mend.
    let direct = &|guest: &mut DomainRequest| guest.direct_map = Some(true.into());
    assert!(shown(v3, 0x300_1000, direct).is_empty());
}

#[test]
fn a_reserved_region_goes_with_the_devices_that_use_it() {
    let mut host = virt(2 * GIB, 2);
    let region = "/reserved-memory/video@b0000000";
    host.devices[2].regions = vec![7];
    host.devices.push(HostDevice {
        path: region.into(),
        ranges: vec![bytes(0xb000_0000, 0x10_0000)],
        regions: vec![7],
        origin: Origin(100),
        ..HostDevice::default()
    });
    let device = "/virtio_mmio@a000000";
    for (one, other) in [(device, region), (region, device)] {
        let mut request = beside_control(one);
        let found = conflict(&host, &request);
        assert_eq!(found.code, Code::DeviceSharesMemory);
        assert_eq!(found.severity, Severity::Error);
        assert_eq!(found.sides.len(), 2);
        let list = format!("devices = [\"{one}\", \"{other}\"]");
        assert!(found.help.ends_with(&list), "{}", found.help);
        // Without a hardware domain nobody writes there, and the driver finds nothing.
        let mut alone = request.clone();
        alone.domains.truncate(1);
        let found = conflict(&host, &alone);
        assert_eq!(found.code, Code::DeviceSharesMemory);
        assert_eq!(found.severity, Severity::Warning);
        // The mend of both.
        for request in [&mut request, &mut alone] {
            request.domains[0].devices.push(DeviceRequest {
                path: other.into(),
                dma_mask: None,
                origin: Origin(82),
            });
            assert_eq!(codes(&plan(&host, request)), [""; 0]);
        }
    }
}

#[test]
fn an_interrupt_goes_with_the_controller_that_it_goes_through() {
    let mut host = virt(2 * GIB, 2);
    let (device, gpio) = ("/virtio_mmio@a000000", "/pl061@9030000");
    host.devices[2].other_controller = Some(gpio.into());
    for (one, other) in [(device, gpio), (gpio, device)] {
        let mut request = beside_control(one);
        let found = conflict(&host, &request);
        assert_eq!(found.code, Code::DeviceInterruptLost);
        assert_eq!(found.severity, Severity::Warning);
        let whats: Vec<&str> = found.sides.iter().map(|it| it.what.as_str()).collect();
        assert!(
            whats[0].contains(device) && whats[1].contains(gpio),
            "{whats:?}"
        );
        // The mend.
        request.domains[0].devices.push(DeviceRequest {
            path: other.into(),
            dma_mask: None,
            origin: Origin(82),
        });
        assert_eq!(codes(&plan(&host, &request)), [""; 0]);
    }
    // What has no registers is the hardware domain's.
    host.devices[2].other_controller = Some("/icu".into());
    let found = conflict(&host, &beside_control(device));
    assert_eq!(found.sides[1].what, "the controller /icu");
    assert_eq!(codes(&plan(&host, &beside_control(gpio))), [""; 0]);
}

#[test]
fn devices_behind_one_controller_are_one_warning_for_each_owner() {
    let mut host = virt(2 * GIB, 3);
    let gpio = "/pl061@9030000";
    let path = |at: u64| format!("/dev@{at}");
    for at in 0..60 {
        host.devices.push(HostDevice {
            path: path(at),
            ranges: vec![bytes(0xb00_0000 + at * 0x1000, 0x1000)],
            other_controller: Some(gpio.into()),
            origin: Origin(200),
            ..HostDevice::default()
        });
    }
    let found = conflict(&host, &beside_control(gpio));
    assert_eq!(found.code, Code::DeviceInterruptLost);
    let whats: Vec<&str> = found.sides.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(whats.len(), 9, "{whats:?}");
    assert!(whats[0].contains("/dev@0") && whats[8].contains(gpio));
    assert!(
        found.why.starts_with("interrupts of 60 devices"),
        "{found:?}"
    );
    // One of them is another's.
    let mut request = beside_control(gpio);
    let mut other = domain("other", MemoryRequest::Size(128 * MIB), 2, false);
    other.direct_map = Some(true.into());
    other.devices = vec![DeviceRequest {
        path: path(30),
        dma_mask: None,
        origin: Origin(83),
    }];
    request.domains.push(other);
    let found = plan(&host, &request).conflicts;
    let sides: Vec<usize> = found.iter().map(|it| it.sides.len()).collect();
    assert_eq!(sides, [9, 2], "{found:?}");
}
