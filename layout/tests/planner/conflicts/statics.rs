//! Static memory that is wrong.

use terrane_layout::*;

use super::*;

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
        kind: Reservation::NoMap,
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
        node: None,
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
fn a_range_across_two_banks() {
    let mut host = virt(2 * GIB, 2);
    host.ram.push(RamBank {
        node: None,
        range: bytes(0x1_0000_0000, GIB),
        origin: Origin(9),
    });
    let found = conflict(&host, &system(vec![direct(&[(0xb000_0000, 0x6000_0000)])]));
    assert_eq!(found.code, Code::StaticAcrossBanks);
    let banks: Vec<_> = found.sides.iter().map(|side| side.origin).collect();
    assert_eq!(banks, [Origin(30), Origin(1), Origin(9)]);
    // Banks that touch are one.
    host.ram[1].range = bytes(0xc000_0000, GIB);
    let request = system(vec![direct(&[(0xb000_0000, 0x2000_0000)])]);
    assert_eq!(codes(&plan(&host, &request)), [""; 0]);
}

#[test]
fn a_better_place_is_below_the_domains_own_limit() {
    let host = virt(2 * GIB, 2);
    let named = |name: &str, slot, start| {
        let mut domain = domain(name, MemoryRequest::SumOfStatic, slot, false);
        domain.static_mem = vec![fixed(start, 128 * MIB)];
        domain
    };
    let mut second = named("second", 1, 0x5000_0000);
    second.memory_below = Some(0x5800_0000.into());
    let request = system(vec![named("first", 0, 0x5000_0000), second.clone()]);
    let outcome = plan(&host, &request);
    let help = &outcome.conflicts[0].help;
    assert!(!help.contains("0x58000000"), "{help}");
}

#[test]
fn many_bad_ranges_cost_no_more_each() {
    let mut host = virt(2 * GIB, 4);
    host.reserved.push(Reserved {
        range: bytes(0x6000_0000, GIB / 2),
        name: "firmware".into(),
        kind: Reservation::Kept,
        origin: Origin(60),
    });
    let mut guest = domain("guest", MemoryRequest::SumOfStatic, 0, false);
    guest.static_mem = (0..4000)
        .map(|at| fixed(0x6000_0000 + at * 8192, 4096))
        .collect();
    let outcome = plan(&host, &system(vec![guest]));
    let bad = |found: &&Conflict| found.code == Code::OverlapDomainReserved;
    let bad: Vec<_> = outcome.conflicts.iter().filter(bad).collect();
    assert!(bad.len() > 64);
    assert!(bad[0].help.contains("nearest"), "{}", bad[0].help);
    assert_eq!(bad[bad.len() - 1].help, "mend the others first");
}

#[test]
fn registers_that_are_reserved_memory_are_told_once() {
    let mut host = virt(2 * GIB, 2);
    let kept = bytes(0x7000_0000, MIB);
    host.reserved.push(Reserved {
        range: kept,
        name: "rproc".into(),
        kind: Reservation::NoMap,
        origin: Origin(90),
    });
    host.devices[1].ranges.push(kept);
    let found = |host: &HostMap| conflict(host, &system(vec![direct(&[(0x7000_0000, 256 * MIB)])]));
    assert_eq!(found(&host).code, Code::OverlapDomainReserved);
    // Registers in RAM that nobody reserves are a device's.
    host.reserved.clear();
    assert_eq!(found(&host).code, Code::OverlapDomainMmio);
}

#[test]
fn many_registers_are_one_finding() {
    let mut host = virt(2 * GIB, 2);
    for at in 0..20 {
        host.devices.push(HostDevice {
            path: format!("/there@{at}"),
            ranges: vec![bytes(0xc000_0000 + at * MIB, MIB)],
            ..HostDevice::default()
        });
    }
    let found = conflict(&host, &system(vec![direct(&[(0xb000_0000, 276 * MIB)])]));
    assert_eq!(found.code, Code::OverlapDomainMmio);
    assert_eq!(found.sides.len(), 9);
    assert!(found.why.contains("20 ranges of them"), "{found:?}");
}
