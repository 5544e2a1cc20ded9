//! When a system doesn't fit: who is to blame, and what helps.

use proptest::prelude::*;
use terrane_layout::*;

use crate::common::*;

fn told(host: &HostMap, request: &SystemRequest) -> Outcome {
    let mut outcome = plan(host, request);
    let before = outcome.clone();
    diagnose(host, request, &mut outcome);
    check_invariants(host, request, &outcome);
    assert_eq!(
        (&before.plan, &before.refused),
        (&outcome.plan, &outcome.refused)
    );
    outcome
}

fn is_about_room(code: Code) -> bool {
    [
        Code::MemoryTooLarge,
        Code::NoContiguousRoom,
        Code::KernelBounds,
    ]
    .contains(&code)
}

fn lacks_room(host: &HostMap, request: &SystemRequest, set: &[usize]) -> bool {
    let mut part = request.clone();
    part.domains = set.iter().map(|at| request.domains[*at].clone()).collect();
    let refused = plan(host, &part).refused;
    refused
        .iter()
        .any(|it| is_about_room(it.code) || it.code == Code::NoRoomForHypervisor)
}

/// The domains that a conflict names, each once.
fn named(conflict: &Conflict) -> Vec<usize> {
    let mut named: Vec<usize> = conflict
        .sides
        .iter()
        .filter_map(|side| side.domain)
        .collect();
    named.sort_unstable();
    named.dedup();
    named
}

fn guest(name: &str, size: u64, direct: bool) -> DomainRequest {
    let mut guest = domain(name, MemoryRequest::Size(size), 1, false);
    guest.direct_map = Some(direct.into());
    guest
}

/// Makes the change that a help proposes for domain `at`.
fn apply(request: &SystemRequest, at: usize, change: &str) -> SystemRequest {
    let mut request = request.clone();
    let (change, whose) = change.split_once(" for domain ").unwrap_or((change, ""));
    let names = request
        .domains
        .iter()
        .map(|it| format!("\"{}\"", it.name.value));
    let at = names
        .into_iter()
        .position(|name| name == whose)
        .unwrap_or(at);
    let domain = &mut request.domains[at];
    let size = |text: &str| {
        let units = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];
        let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
        let (digits, unit) = unit.map_or((text, 1), |(name, unit)| {
            (text.trim_end_matches(name), *unit)
        });
        digits.parse::<u64>().expect("a size") * unit
    };
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex");
    if let Some(memory) = change.strip_prefix("memory = ") {
        domain.memory.value = MemoryRequest::Size(size(memory.trim_matches('"')));
    } else if change == "direct-map = false" {
        domain.direct_map = Some(false.into());
    } else if let Some(limit) = change.strip_prefix("memory-below = ") {
        domain.memory_below = Some(hex(limit).into());
    } else if change == "no memory-below" {
        domain.memory_below = None;
    } else if let Some(range) = change.strip_prefix("static-mem = [{ start = ") {
        let start = hex(range.split(',').next().expect("a start"));
        let text = range.split_once("size = ").expect("a size").1;
        let text = text.trim_end_matches(" }]").trim_matches('"');
        domain.static_mem = vec![fixed(start, size(text))];
    } else {
        panic!("no known change: {change}");
    }
    request
}

#[test]
fn the_set_names_only_those_who_are_in_the_way() {
    let mut host = virt(2 * GIB, 8);
    host.ram.push(RamBank {
        node: None,
        range: bytes(8 * GIB, 2 * GIB),
        origin: Origin(1),
    });
    let mut low = guest("low", 1792 * MIB, false);
    low.memory_below = Some((4 * GIB).into());
    let mut second = guest("second", 512 * MIB, false);
    second.memory_below = Some((4 * GIB).into());
    let high = guest("high", GIB, false);
    let request = system(vec![high, low, second]);
    let outcome = told(&host, &request);
    assert_eq!(codes(&outcome), ["memory-too-large"]);
    let found = &outcome.conflicts[0];
    assert_eq!(named(found), [1, 2], "{found:#?}");
    assert!(
        found.why.contains("without either of the two"),
        "{}",
        found.why
    );
    let changes: Vec<&str> = found.help.split("; or ").collect();
    assert!(changes.len() >= 3, "{changes:?}");
    for change in changes {
        let mended = apply(&request, 2, change);
        assert_eq!(codes(&plan(&host, &mended)), [""; 0], "{change}");
    }
}

#[test]
fn a_static_range_in_the_middle_is_moved() {
    let host = virt(2 * GIB, 2);
    let mut fixed_guest = guest("static", 0, true);
    fixed_guest.memory.value = MemoryRequest::SumOfStatic;
    fixed_guest.static_mem = vec![fixed(0x7000_0000, 256 * MIB)];
    // Its kernel needs one piece of more than a GiB, which the range cuts.
    let mut large = guest("large", 1280 * MIB, true);
    large.kernel = Some(KernelRequest {
        memory_size: 1152 * MIB,
        ..kernel(0x4a20_0000, 10 * MIB)
    });
    let request = system(vec![fixed_guest, large]);
    let outcome = told(&host, &request);
    assert_eq!(codes(&outcome), ["no-contiguous-room"]);
    let found = &outcome.conflicts[0];
    assert_eq!(named(found), [0, 1]);
    let changes: Vec<&str> = found.help.split("; or ").collect();
    assert!(
        changes.iter().any(|it| it.starts_with("static-mem = [")),
        "{changes:?}"
    );
    for change in changes {
        let mended = apply(&request, 1, change);
        assert_eq!(codes(&plan(&host, &mended)), [""; 0], "{change}");
    }
}

/// A direct-mapped guest with the virtio device, which reaches the first GiB of RAM.
fn driver(size: u64) -> DomainRequest {
    let mut driver = guest("driver", size, true);
    driver.devices = vec![DeviceRequest {
        path: "/virtio_mmio@a000000".into(),
        dma_mask: Some(2 * GIB - 1),
        origin: Origin(80),
    }];
    driver
}

/// The one conflict is about reach, and each change that is proposed puts an end to it.
fn reach_is_mended(domains: Vec<DomainRequest>, proposed: &[&str]) {
    let host = virt(4 * GIB, 4);
    let request = system(domains);
    let outcome = told(&host, &request);
    assert_eq!(codes(&outcome), ["dma-mask"]);
    let found = &outcome.conflicts[0];
    let changes: Vec<&str> = found.help.split("; or ").collect();
    assert_eq!(changes, proposed);
    let index = found.sides[0].domain.unwrap();
    for change in changes {
        let mended = apply(&request, index, change);
        assert_eq!(codes(&plan(&host, &mended)), [""; 0], "{change}");
    }
}

#[test]
fn the_rest_gives_way_to_what_a_device_reaches() {
    let rest = || domain("control", MemoryRequest::Rest, 0, true);
    let mut far = driver(0);
    far.memory.value = MemoryRequest::SumOfStatic;
    far.static_mem = vec![fixed(3 * GIB, 256 * MIB)];
    reach_is_mended(
        vec![rest(), far],
        &["static-mem = [{ start = 0x70000000, size = \"256MiB\" }]"],
    );
    // The hypervisor gives way, too.
    reach_is_mended(vec![rest(), driver(1536 * MIB)], &["memory = \"1GiB\""]);
    let mut own = rest();
    own.devices = driver(0).devices;
    reach_is_mended(vec![own], &["memory-below = 0x80000000"]);
}

#[test]
fn a_static_range_gives_way_to_what_a_device_reaches() {
    let mut wide = guest("wide", 0, false);
    wide.memory.value = MemoryRequest::SumOfStatic;
    wide.static_mem = vec![fixed(0x4e00_0000, 800 * MIB)];
    let changes = [
        "memory = \"224MiB\"",
        "static-mem = [{ start = 0x80000000, size = \"800MiB\" }] for domain \"wide\"",
    ];
    reach_is_mended(vec![driver(512 * MIB), wide], &changes);
}

#[test]
fn nothing_is_planned_again_for_what_fits() {
    let host = virt(2 * GIB, 2);
    let request = system(vec![domain("control", MemoryRequest::Rest, 0, true)]);
    let mut outcome = plan(&host, &request);
    let before = outcome.clone();
    diagnose(&host, &request, &mut outcome);
    assert_eq!(before, outcome);
}

fn systems() -> impl Strategy<Value = SystemRequest> {
    let one = (
        8_u64..96,
        any::<bool>(),
        prop::option::weighted(0.3, 1_u64..16),
        prop::option::weighted(0.2, 0_u64..15),
        prop::option::weighted(0.2, 1_u64..40),
    );
    prop::collection::vec(one, 2..5).prop_map(|all| {
        let domains = all.into_iter().enumerate();
        let domains = domains.map(|(at, (mib, direct, limit, place, kernel_mib))| {
            let mut guest = guest(&format!("g{at}"), (mib + 34) * MIB, direct);
            guest.memory_below = limit.map(|it| (GIB + it * 16 * MIB).into());
            if let Some(place) = place {
                guest.memory.value = MemoryRequest::SumOfStatic;
                guest.memory_below = None;
                guest.static_mem = vec![fixed(GIB + place * 16 * MIB, (mib + 34) * MIB)];
            }
            if let Some(kernel_mib) = kernel_mib {
                guest.kernel = Some(KernelRequest {
                    memory_size: (kernel_mib + 4) * MIB,
                    ..kernel(0x4000_0000 + 300 * MIB, MIB)
                });
            }
            guest
        });
        system(domains.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 25 }))]

    /// Who is named can't have room together, and has it without any one; what is proposed works.
    #[test]
    fn the_diagnosis_is_true(request in systems()) {
        let mut host = virt(256 * MIB, 8);
        host.boot.truncate(1);
        // Modules lie in RAM that nobody may have.
        let modules = bytes(0x4800_0000 + 256 * MIB, GIB);
        host.ram.push(RamBank { node: None, range: modules, origin: Origin(1) });
        host.reserved.push(Reserved {
            range: modules,
            name: "modules".into(),
            kind: Reservation::Kept,
            origin: Origin(2),
        });
        let mut request = request;
        for domain in &mut request.domains {
            if let Some(kernel) = &mut domain.kernel {
                kernel.module = bytes(modules.start().raw(), MIB);
            }
            domain.ramdisk = None;
        }
        let outcome = told(&host, &request);
        let refused: Vec<usize> = outcome.refused.iter().map(|it| it.domain).collect();
        for conflict in outcome.conflicts.iter().filter(|it| is_about_room(it.code)).take(4) {
            let index = conflict.sides[0].domain.unwrap();
            if conflict.why.contains(": without ") {
                let set = named(conflict);
                prop_assert!(lacks_room(&host, &request, &set));
                for left_out in &set {
                    let rest: Vec<usize> = set.iter().filter(|at| *at != left_out).copied().collect();
                    prop_assert!(!lacks_room(&host, &request, &rest), "{:?} without {}", set, left_out);
                }
            }
            for change in conflict.help.split("; or ").filter(|it| {
                it.starts_with("memory") || it.starts_with("static-mem = [{") || it.starts_with("direct")
            }) {
                if change.ends_with("or less") || change.contains(" or ") {
                    continue;
                }
                let mended = plan(&host, &apply(&request, index, change));
                let mut still = mended.refused.iter().map(|it| it.domain);
                prop_assert!(still.all(|it| it != index && refused.contains(&it)), "{}", change);
            }
        }
    }
}
