//! Several things at once.

use terrane_layout::*;

use super::*;

/// Modules that lie in each other's way, with no RAM to put one aside.
#[test]
fn modules_that_go_round_in_a_circle() {
    let mut host = virt(2 * GIB, 2);
    host.boot.clear();
    host.ram = vec![
        RamBank {
            node: None,
            range: bytes(0x4000_0000, 4 * MIB),
            origin: Origin(1),
        },
        RamBank {
            node: None,
            range: bytes(0x5000_0000, 4 * MIB),
            origin: Origin(1),
        },
        RamBank {
            node: None,
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
