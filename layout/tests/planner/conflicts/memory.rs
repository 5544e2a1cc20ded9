//! Memory that is not there, or not in the right pieces.

use terrane_layout::*;

use super::*;

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
            kind: Reservation::Kept,
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
        node: None,
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
fn a_domain_in_many_pieces_has_tables_for_them() {
    let mut host = virt(64 * MIB, 4);
    host.boot.truncate(1);
    // Each across a border of 1 GiB, odd at both ends: two tables at each of two levels.
    let pieces = (0..63).map(|at| {
        let odd = 4 * KIB * (1 + at % 3);
        RamBank {
            range: bytes((4 + 2 * at) * GIB - 3 * MIB - odd, 6 * MIB + 2 * odd),
            node: None,
            origin: Origin(1),
        }
    });
    host.ram.extend(pieces);
    let mut guest = sized(370 * MIB);
    guest.direct_map = Some(true.into());
    guest.kernel = Some(KernelRequest {
        memory_size: 2 * MIB,
        ..kernel(GIB + 8 * MIB, 2 * MIB)
    });
    guest.ramdisk = None;
    let outcome = plan(&host, &system(vec![guest]));
    assert_eq!(codes(&outcome), [""; 0]);
    let domain = &outcome.plan.domains[0];
    assert!(domain.banks.len() > 8);
    let needed = 4 * domain.banks.len() as u64;
    assert!(
        domain.tables.frames() > needed,
        "{}",
        domain.tables.frames()
    );
}
