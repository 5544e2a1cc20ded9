//! A bad configuration for every code, and the words that mend it.

use terrane_layout::*;

use crate::common::*;

/// Plans a system that has exactly one thing wrong with it, and gives that back.
fn conflict(host: &HostMap, request: &SystemRequest) -> Conflict {
    let outcome = plan(host, request);
    check_invariants(host, request, &outcome);
    assert_eq!(outcome.conflicts.len(), 1, "{:#?}", outcome.conflicts);
    outcome.conflicts.into_iter().next().expect("one conflict")
}

fn code(host: &HostMap, request: &SystemRequest) -> &'static str {
    conflict(host, request).code.as_str()
}

fn direct(static_mem: &[(u64, u64)]) -> DomainRequest {
    let mut guest = domain("guest", MemoryRequest::SumOfStatic, 0, false);
    guest.direct_map = Some(true.into());
    guest.static_mem = static_mem
        .iter()
        .map(|(start, size)| fixed(*start, *size))
        .collect();
    guest
}

fn sized(size: u64) -> DomainRequest {
    domain("guest", MemoryRequest::Size(size), 0, false)
}

fn one(guest: DomainRequest) -> Conflict {
    conflict(&virt(2 * GIB, 2), &system(vec![guest]))
}

fn named(guest: DomainRequest) -> &'static str {
    one(guest).code.as_str()
}

/// Static memory that is wrong by itself: the code, and what the help must say.
#[test]
fn static_memory_that_no_domain_can_have() {
    const SIZE: u64 = 256 * MIB;
    let cases: &[(u64, u64, &str, &str)] = &[
        (
            0x4010_0000 + MIB,
            SIZE,
            "overlap-domain-hypervisor",
            "start = 0x4e000000",
        ),
        (0x47e0_0000, 64 * MIB, "overlap-domain-host-tree", ""),
        (
            0x3000_0000,
            SIZE,
            "static-outside-ram",
            "start = 0x4e000000",
        ),
        (
            0xb800_0000,
            SIZE,
            "static-outside-ram",
            "start = 0xb0000000",
        ),
        (
            0x7000_0800,
            SIZE,
            "static-misaligned-page",
            "start = 0x70000000",
        ),
        (
            0x7000_0000,
            SIZE + 1,
            "static-misaligned-page",
            "size = \"262148KiB\"",
        ),
        (
            0x7000_1000,
            SIZE,
            "static-misaligned-kernel",
            "start = 0x70000000",
        ),
        (
            0x701f_f000,
            SIZE,
            "static-misaligned-kernel",
            "start = 0x70200000",
        ),
        (0x7000_0000, 0, "memory-zero", "size = \"256MiB\""),
        (
            u64::MAX - 0xfff,
            0x2000,
            "static-wraps",
            "memory = \"8KiB\"",
        ),
        (
            u64::MAX - 0xffff,
            0xf000,
            "static-outside-ram",
            "start = 0xbfe00000",
        ),
        (
            0x7000_0000,
            20 * MIB,
            "too-small-for-modules",
            "size = \"27MiB\"",
        ),
    ];
    for (start, size, code, help) in cases {
        let outcome = plan(&virt(2 * GIB, 2), &system(vec![direct(&[(*start, *size)])]));
        let conflict = outcome
            .conflicts
            .iter()
            .find(|conflict| conflict.code.as_str() == *code);
        let conflict = conflict.unwrap_or_else(|| panic!("{start:#x}: {:#?}", outcome.conflicts));
        assert!(
            conflict.help.contains(help),
            "{start:#x}: {}",
            conflict.help
        );
        assert!(conflict.sides.iter().any(|side| side.domain == Some(0)));
        assert!(outcome.plan.domains.is_empty());
        // The range that the help names is good.
        if let Some((_, range)) = conflict.help.split_once("{ start = 0x") {
            let (start, size) = range.split_once(", size = \"").expect("a size");
            let start = u64::from_str_radix(start, 16).expect("an address");
            // What asks for less than a kernel takes is too small wherever it is.
            let Some((mib, _)) = size.split_once("MiB") else {
                continue;
            };
            let mib: u64 = mib.parse().expect("a number");
            let mended = system(vec![direct(&[(start, mib * MIB)])]);
            assert_eq!(
                codes(&plan(&virt(2 * GIB, 2), &mended)),
                [""; 0],
                "{start:#x}"
            );
        }
    }
}

#[test]
fn static_memory_over_a_module() {
    let outcome = plan(
        &virt(2 * GIB, 2),
        &system(vec![direct(&[(0x4800_0000, 256 * MIB)])]),
    );
    assert_eq!(codes(&outcome), ["overlap-domain-module"]);
    assert_eq!(outcome.conflicts[0].sides.len(), 2);
    assert!(outcome.conflicts[0].help.contains("start = 0x4e000000"));
    // Without a container the module itself is named, with its owner.
    let mut host = virt(2 * GIB, 2);
    host.boot.pop();
    let outcome = plan(&host, &system(vec![direct(&[(0x4980_0000, 256 * MIB)])]));
    assert!(codes(&outcome).contains(&"overlap-domain-module"));
    assert!(
        outcome.conflicts[0].sides[1].what.contains("ramdisk"),
        "{:?}",
        outcome.conflicts[0]
    );
}

#[test]
fn static_memory_over_devices_and_reserved_memory() {
    let mut host = virt(2 * GIB, 2);
    host.reserved.push(Reserved {
        range: bytes(0x9000_0000, 16 * MIB),
        name: "remoteproc".into(),
        no_map: true,
        origin: Origin(40),
    });
    let found = conflict(&host, &system(vec![direct(&[(0x8000_0000, 512 * MIB)])]));
    assert_eq!(found.code, Code::OverlapDomainReserved);
    assert!(found.sides[1].what.contains("remoteproc") && found.sides[1].origin == Origin(40));
    let found = plan(&host, &system(vec![direct(&[(0x900_0000, 2 * MIB)])]));
    assert!(codes(&found).contains(&"overlap-domain-mmio"));
    assert!(found.conflicts[0].sides[1].what.contains("/pl011@9000000"));
}

#[test]
fn two_domains_at_one_place() {
    let mut other = direct(&[(0x7800_0000, 256 * MIB)]);
    other.name.value = "other".into();
    let mut healthy = direct(&[(0x9000_0000, 256 * MIB)]);
    healthy.name.value = "healthy".into();
    let mut host = virt(2 * GIB, 3);
    host.cpus.push(HostCpu {
        hardware_id: 9,
        origin: Origin(3),
    });
    let request = system(vec![direct(&[(0x7000_0000, 256 * MIB)]), other, healthy]);
    let outcome = plan(&host, &request);
    check_invariants(&host, &request, &outcome);
    assert_eq!(codes(&outcome), ["overlap-domain-domain"]);
    let found = &outcome.conflicts[0];
    assert!(found.sides[0].what.contains("guest") && found.sides[1].what.contains("other"));
    assert!(found.why.contains("0x78000000-0x7fffffff"), "{}", found.why);
    assert_eq!(outcome.plan.domains.len(), 1, "the healthy one starts");
    assert_eq!(
        named(direct(&[
            (0x7000_0000, 256 * MIB),
            (0x7800_0000, 256 * MIB)
        ])),
        "overlap-domain-domain"
    );
}

#[test]
fn memory_and_static_memory_disagree() {
    for memory in [512 * MIB, 128 * MIB] {
        let mut guest = direct(&[(0x7000_0000, 256 * MIB)]);
        guest.memory.value = MemoryRequest::Size(memory);
        let found = one(guest);
        assert_eq!(found.code, Code::MemorySumMismatch);
        assert_eq!(found.sides.len(), 2);
        assert!(found.help.contains("memory = \"256MiB\""), "{}", found.help);
    }
    let mut guest = direct(&[(0x7000_0000, 256 * MIB)]);
    guest.memory.value = MemoryRequest::Rest;
    assert_eq!(named(guest), "memory-sum-mismatch");
}

#[test]
fn memory_that_is_not_there() {
    let found = one(sized(8 * GIB));
    assert_eq!(found.code, Code::MemoryTooLarge);
    assert!(
        found.help.contains("memory = \"2044MiB\""),
        "{}",
        found.help
    );
    assert_eq!(named(sized(0)), "memory-zero");
    assert_eq!(
        named(domain("guest", MemoryRequest::SumOfStatic, 0, false)),
        "memory-zero"
    );
    assert_eq!(named(sized(64 * MIB + 1)), "memory-misaligned-page");
    let found = one(sized(16 * MIB));
    assert_eq!(found.code, Code::TooSmallForModules);
    assert!(found.help.contains("memory = \"27MiB\""), "{}", found.help);
    // What the help says works.
    let mut largest = sized(2044 * MIB);
    largest.direct_map = Some(true.into());
    assert!(
        plan(&virt(2 * GIB, 2), &system(vec![largest]))
            .conflicts
            .is_empty()
    );
    assert!(
        plan(&virt(2 * GIB, 2), &system(vec![sized(27 * MIB)]))
            .conflicts
            .is_empty()
    );
}

#[test]
fn two_that_are_too_large_together() {
    let mut other = sized(GIB);
    other.name.value = "other".into();
    let request = system(vec![sized(GIB + 512 * MIB), other]);
    let found = conflict(&virt(2 * GIB, 2), &request);
    assert_eq!(found.code, Code::MemoryTooLarge);
    assert!(found.sides.iter().any(|side| side.what.contains("guest")));
    assert!(found.help.contains("memory = \"506MiB\""), "{}", found.help);
}

#[test]
fn limits_on_addresses() {
    let mut guest = sized(256 * MIB);
    guest.memory_below = Some(Located::new(0x4800_0000, Origin(50)));
    let found = one(guest);
    assert_eq!(found.code, Code::MemoryTooLarge);
    assert!(found.sides.iter().any(|side| side.origin == Origin(50)));
    let mut guest = direct(&[(0x7000_0000, 256 * MIB)]);
    guest.memory_below = Some(Located::new(0x7800_0000, Origin(50)));
    assert_eq!(named(guest), "static-above-limit");
}

#[test]
fn pieces_too_small_for_a_kernel() {
    let mut host = virt(2 * GIB, 2);
    for at in 0..(2 * GIB / (16 * MIB)) {
        let range = bytes(GIB + at * 16 * MIB, 4 * KIB);
        host.reserved.push(Reserved {
            range,
            name: "fence".into(),
            no_map: false,
            origin: Origin(8),
        });
    }
    host.boot.clear();
    let mut guest = sized(256 * MIB);
    guest.direct_map = Some(true.into());
    let found = conflict(&host, &system(vec![guest]));
    assert_eq!(found.code, Code::NoContiguousRoom);
    assert!(found.help.contains("14MiB"), "{}", found.help);
    let ranges: Vec<_> = (0..16)
        .map(|at| (0x7000_0000 + at * 32 * MIB, 16 * MIB))
        .collect();
    assert_eq!(named(direct(&ranges)), "no-contiguous-room");
}

#[test]
fn a_guest_beyond_its_layout() {
    let mut host = virt(2 * GIB, 2);
    host.ram.push(RamBank {
        range: bytes(1 << 40, 2 << 40),
        origin: Origin(1),
    });
    let found = conflict(&host, &system(vec![sized(1 << 40)]));
    assert_eq!(found.code, Code::BeyondGuestLayout);
    assert!(found.help.contains("1019GiB"), "{}", found.help);
}

#[test]
fn the_hypervisor_needs_room_too() {
    let host = virt(2 * MIB, 2);
    let outcome = plan(&host, &system(vec![sized(MIB)]));
    assert!(
        codes(&outcome).contains(&"no-room-for-hypervisor"),
        "{:?}",
        codes(&outcome)
    );
    assert!(outcome.plan.domains.is_empty());
}

#[test]
fn hosts_that_are_none() {
    let mut host = virt(2 * GIB, 2);
    host.ram.clear();
    assert!(codes(&plan(&host, &system(vec![sized(MIB)]))).contains(&"host-invalid"));
    let mut host = virt(2 * GIB, 2);
    host.cpus.clear();
    assert!(codes(&plan(&host, &system(vec![sized(64 * MIB)]))).contains(&"host-invalid"));
}

#[test]
fn kernels_and_modules() {
    let mut guest = sized(256 * MIB);
    guest.kernel = None;
    assert_eq!(named(guest), "kernel-missing");
    for (alignment, offset) in [(0, 0), (3 * MIB, 0), (2 * MIB, 1 << 40)] {
        let mut guest = sized(256 * MIB);
        let kernel = guest.kernel.as_mut().unwrap();
        (kernel.alignment, kernel.text_offset) = (alignment, offset);
        assert_eq!(named(guest), "kernel-header");
    }
    let mut guest = sized(256 * MIB);
    guest.kernel = Some(kernel(0x1000_0000, 20 * MIB));
    assert_eq!(named(guest), "module-outside-ram");
    let mut guest = sized(256 * MIB);
    guest.kernel = Some(kernel(0x4020_0000, 20 * MIB));
    assert_eq!(named(guest), "module-outside-ram");
    let mut guest = sized(256 * MIB);
    guest.tree_bytes = 3 * MIB;
    assert_eq!(named(guest), "tree-too-large");
}

#[test]
fn cpus_that_are_not_there() {
    let guest = |cpus: u32, affinity: Option<&[u32]>| {
        let mut guest = sized(256 * MIB);
        guest.cpus.value = cpus;
        guest.affinity = affinity.map(|cpus| Located::new(cpus.to_vec(), Origin(60)));
        guest
    };
    assert_eq!(named(guest(0, None)), "cpus-zero");
    let found = one(guest(3, None));
    assert_eq!(
        (found.code, found.help.as_str()),
        (Code::CpusTooMany, "cpus = 2")
    );
    assert_eq!(named(guest(1, Some(&[2]))), "affinity-invalid");
    assert_eq!(named(guest(2, Some(&[1]))), "affinity-invalid");
    let found = one(guest(2, Some(&[1, 1])));
    assert_eq!(
        (found.code, found.help.as_str()),
        (Code::AffinityInvalid, "affinity = [0, 1]")
    );
    let mut host = virt(2 * GIB, 4);
    host.controller.max_cpus = 1;
    let mut wide = guest(2, None);
    wide.direct_map = Some(true.into());
    assert_eq!(code(&host, &system(vec![wide])), "cpus-beyond-controller");

    let other = |cpus: u32, affinity: Option<&[u32]>| {
        let mut other = guest(cpus, affinity);
        other.name.value = "other".into();
        other
    };
    let host = virt(2 * GIB, 2);
    let found = conflict(
        &host,
        &system(vec![guest(1, Some(&[1])), other(1, Some(&[1]))]),
    );
    assert_eq!((found.code, found.sides.len()), (Code::CpuShared, 2));
    assert_eq!(found.help, "CPU 0 is free");
    let found = conflict(&host, &system(vec![guest(2, None), other(1, None)]));
    assert_eq!((found.code, found.sides.len()), (Code::CpuShared, 2));
    // The one that names its CPU gets it, though it comes second.
    let outcome = plan(&host, &system(vec![guest(1, None), other(1, Some(&[0]))]));
    assert!(outcome.conflicts.is_empty());
    assert_eq!(outcome.plan.domains[0].cpus, [1]);
}

#[test]
fn names_and_roles() {
    let mut nameless = sized(256 * MIB);
    nameless.name.value.clear();
    assert_eq!(named(nameless), "name-empty");
    let host = virt(2 * GIB, 2);
    let twins = system(vec![sized(256 * MIB), sized(256 * MIB)]);
    assert_eq!(code(&host, &twins), "name-duplicate");
    let hardware = |name| domain(name, MemoryRequest::Size(256 * MIB), 0, true);
    let found = conflict(&host, &system(vec![hardware("one"), hardware("two")]));
    assert_eq!(
        (found.code, found.sides.len()),
        (Code::HardwareDomainTwice, 2)
    );
    let rest = |name| domain(name, MemoryRequest::Rest, 0, false);
    let found = conflict(&host, &system(vec![rest("one"), rest("two")]));
    assert_eq!((found.code, found.sides.len()), (Code::MemoryTwoRests, 2));
    let mut limited = sized(256 * MIB);
    limited.limits.max_event_channels = 4096;
    let found = one(limited);
    assert_eq!(
        (found.code, found.help.as_str()),
        (Code::LimitInvalid, "max-event-channels = 4095")
    );
}

#[test]
fn kinds() {
    let of_kind = |kind| {
        let mut guest = sized(256 * MIB);
        guest.kind = Some(Located::new(kind, Origin(70)));
        guest
    };
    let mut pc = virt(2 * GIB, 2);
    pc.architecture = Architecture::X86_64;
    for kind in [Kind::Pv, Kind::Hvm] {
        assert_eq!(named(of_kind(kind)), "kind-foreign");
        assert_eq!(code(&pc, &system(vec![of_kind(kind)])), "not-built-yet");
    }
    let mut pv = of_kind(Kind::Pv);
    pv.direct_map = Some(Located::new(true, Origin(71)));
    assert!(codes(&plan(&pc, &system(vec![pv]))).contains(&"pv-direct-map"));
}

#[test]
fn devices_in_one_page() {
    let mut host = virt(2 * GIB, 2);
    let mut neighbour = host.devices[2].clone();
    neighbour.path = "/virtio_mmio@a000200".into();
    neighbour.ranges = vec![bytes(0xa00_0200, 0x200)];
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
    assert_eq!(found.help, "give /virtio_mmio@a000200 to the same domain");
    // The mend.
    let both = asking(&["/virtio_mmio@a000000", "/virtio_mmio@a000200"]);
    assert!(plan(&host, &both).conflicts.is_empty());
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
    assert_eq!(found.help, "the nearest is /pl061@9030000");
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
    let found = one(partly);
    assert_eq!(
        (found.code, found.severity),
        (Code::DmaMask, Severity::Warning)
    );
    assert_eq!(found.help, "memory-below = 0xbfff0001");
}

/// Modules that lie in each other's way, with no RAM to put one aside.
#[test]
fn modules_that_go_round_in_a_circle() {
    let mut host = virt(2 * GIB, 2);
    host.boot.clear();
    host.ram = vec![
        RamBank {
            range: bytes(0x4000_0000, 4 * MIB),
            origin: Origin(1),
        },
        RamBank {
            range: bytes(0x5000_0000, 4 * MIB),
            origin: Origin(1),
        },
        RamBank {
            range: bytes(0x6000_0000, 4 * MIB),
            origin: Origin(1),
        },
    ];
    // Each kernel fills the only room that the other can run in.
    let guest = |name: &str, at: u64, below: u64| {
        let mut guest = domain(name, MemoryRequest::Size(4 * MIB), 0, false);
        guest.direct_map = Some(true.into());
        guest.memory_below = Some(below.into());
        guest.kernel = Some(kernel(at, 4 * MIB - 64 * KIB));
        guest.kernel.as_mut().unwrap().memory_size = 0;
        guest.ramdisk = None;
        guest
    };
    let one = guest("one", 0x6000_0000, 0x5800_0000);
    let two = guest("two", 0x5000_0000, 0x7000_0000);
    let mut request = system(vec![one, two]);
    request.hypervisor.image_bytes = 64 * KIB;
    let outcome = plan(&host, &request);
    check_invariants(&host, &request, &outcome);
    assert_eq!(codes(&outcome), ["module-cycle"]);
    assert_eq!(outcome.plan.domains.len(), 1);
}

#[test]
fn every_conflict_is_found_at_once() {
    let mut first = sized(0);
    first.cpus.value = 0;
    let mut second = direct(&[(0x7000_0800, 256 * MIB)]);
    second.kernel = None;
    let outcome = plan(&virt(2 * GIB, 2), &system(vec![first, second]));
    let mut found = codes(&outcome);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "cpus-zero",
            "kernel-missing",
            "memory-zero",
            "name-duplicate",
            "static-misaligned-page"
        ]
    );
    assert_eq!(outcome.refused.len(), 2);
}
