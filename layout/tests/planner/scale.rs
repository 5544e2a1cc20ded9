//! Large machines: cost grows with extents, not with pages.

use terrane_layout::*;

use crate::common::*;

/// 10,000 pieces of RAM of different sizes, and 1,000 domains.
fn large() -> (HostMap, SystemRequest) {
    let (pieces, count) = if cfg!(miri) {
        (100, 10)
    } else {
        (10_000, 1_000)
    };
    let mut host = virt(2 * GIB, count + 1);
    let mut at = 1 << 40;
    for piece in 0..pieces {
        let size = (1 + piece * 7919 % 64) * 2 * MIB + piece % 3 * 4 * KIB;
        host.ram.push(RamBank {
            node: None,
            range: bytes(at, size),
            origin: Origin(1),
        });
        at += size + 64 * KIB;
    }
    let mut domains = vec![domain("control", MemoryRequest::Rest, 0, true)];
    for index in 0..u64::from(count) {
        let size = (32 + index * 31 % 160) * MIB;
        let mut guest = domain("", MemoryRequest::Size(size), 1, false);
        guest.name.value = format!("guest{index}");
        guest.direct_map = Some((index % 2 == 0).into());
        guest.limits.max_grant_frames = 1;
        if index % 5 == 0 {
            guest.memory_below = Some(((1 << 40) + (200 + index) * GIB / 4).into());
        }
        domains.push(guest);
    }
    (host, system(domains))
}

#[test]
fn a_thousand_domains_on_ten_thousand_pieces() {
    let (host, request) = large();
    let start = std::time::Instant::now();
    let outcome = plan(&host, &request);
    let took = start.elapsed();
    check_invariants(&host, &request, &outcome);
    println!("planned in {took:?}");
    assert_eq!(codes(&outcome), [""; 0]);
}

#[test]
fn the_largest_machine_costs_no_more_than_a_small_one() {
    let mut host = virt(2 * GIB, 2);
    host.ram.push(RamBank {
        node: None,
        range: bytes(1 << 44, 1 << 47),
        origin: Origin(1),
    });
    let mut guest = domain("guest", MemoryRequest::Size(1 << 46), 0, false);
    guest.direct_map = Some(true.into());
    let outcome = plan(&host, &system(vec![guest]));
    assert_eq!(outcome.plan.domains[0].banks.len(), 1);
}

/// Everybody names the same range: the answer stays readable.
#[test]
fn a_thousand_times_the_same_mistake() {
    let host = virt(2 * GIB, 1_000);
    let guests = (0..if cfg!(miri) { 20 } else { 1_000 }).map(|index| {
        let mut guest = domain("", MemoryRequest::SumOfStatic, 0, false);
        guest.name.value = format!("guest{index}");
        guest.static_mem = vec![fixed(0x7000_0000, 256 * MIB)];
        guest
    });
    let request = system(guests.collect());
    let outcome = plan(&host, &request);
    assert!(outcome.conflicts.len() <= 8 * request.domains.len());
    assert_eq!(outcome.refused.len(), request.domains.len());
}
