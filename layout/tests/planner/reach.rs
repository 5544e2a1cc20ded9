//! What DMA can touch, and that placement keeps devices and their domains' RAM together.

use terrane_layout::reach::{self, Isolation};
use terrane_layout::*;

use crate::common::*;

fn outcome(host: &HostMap, request: &SystemRequest) -> Outcome {
    let outcome = plan(host, request);
    check_invariants(host, request, &outcome);
    outcome
}

#[test]
fn who_drives_a_master_reaches_everything() {
    let mut host = virt(2 * GIB, 2);
    host.devices[2].behind_iommu = true;
    host.devices[3].private_iommu = true;
    let guest = domain("guest", MemoryRequest::Size(256 * MIB), 1, false);
    let control = domain("control", MemoryRequest::Rest, 0, true);
    let request = system(vec![control, guest]);
    let plan = outcome(&host, &request).plan;
    let reach = reach::of_plan(&host, &request, &plan);
    let kinds: Vec<_> = reach
        .devices
        .iter()
        .map(|it| (it.device, it.domain, it.isolation))
        .collect();
    assert_eq!(
        kinds,
        [
            (2, Some(0), Isolation::Bypassed),
            (3, Some(0), Isolation::Private)
        ]
    );
    assert_eq!((reach.classes.len(), reach.domains.len()), (1, 1));
    let control = &reach.domains[0];
    assert!(control.reaches_hypervisor());
    assert_eq!(control.reach.bytes_of(Owner::Domain(1)), 256 * MIB);
    let all: u64 = control.reach.reached.iter().map(|it| it.bytes).sum();
    assert_eq!(all, 2 * GIB);
    let line = control.statement(&plan);
    assert!(line.contains("the hypervisor ("), "{line}");
    assert!(line.contains("domain \"guest\" (256 MiB)"), "{line}");
    assert!(!line.contains("control"), "{line}");
    assert_eq!(reach.trusted(&plan), [0]);
    assert!(reach.statement(&plan).ends_with("trusts \"control\""));
}

#[test]
fn a_machine_without_masters_needs_no_trust() {
    let mut host = virt(2 * GIB, 2);
    for device in &mut host.devices {
        device.dma = Dma::None;
    }
    let request = system(vec![domain("control", MemoryRequest::Rest, 0, true)]);
    let plan = outcome(&host, &request).plan;
    let reach = reach::of_plan(&host, &request, &plan);
    assert!(reach.devices.is_empty() && reach.domains.is_empty());
    assert!(reach.statement(&plan).starts_with("no domain drives"));
}

/// A board with 2 GiB from 1 GiB on and 6 GiB far above, as many have it.
fn high_and_low() -> HostMap {
    let mut host = virt(2 * GIB, 4);
    host.ram.push(RamBank {
        node: None,
        range: bytes(8 * GIB, 6 * GIB),
        origin: Origin(1),
    });
    host
}

fn end(plan: &DomainPlan) -> u64 {
    let ends = plan
        .banks
        .iter()
        .map(|bank| bank.machine().bytes().end().raw());
    ends.max().unwrap_or(0)
}

/// A direct-mapped guest with the virtio device, which reaches addresses up to `mask`.
fn driver(size: u64, mask: u64) -> DomainRequest {
    let mut guest = domain("driver", MemoryRequest::Size(size), 1, false);
    guest.direct_map = Some(true.into());
    guest.devices = vec![DeviceRequest {
        path: "/virtio_mmio@a000000".into(),
        dma_mask: Some(mask),
        origin: Origin(80),
    }];
    guest
}

#[test]
fn a_limited_master_gets_memory_that_it_reaches() {
    let host = high_and_low();
    let below = u64::from(u32::MAX);
    // Without the device the planner would put it where it fits best, above.
    let mut plain = driver(2 * GIB, u64::MAX);
    plain.memory.value = MemoryRequest::Size(1536 * MIB);
    let free = outcome(&host, &system(vec![plain.clone()]));
    assert!(free.conflicts.is_empty());
    let mut others = Vec::new();
    for at in 0..2 {
        let mut other = domain("", MemoryRequest::Size(1536 * MIB), at, false);
        other.name.value = format!("other{at}");
        others.push(other);
    }
    others.push(driver(1536 * MIB, below));
    let found = outcome(&host, &system(others));
    assert_eq!(codes(&found), [""; 0]);
    assert!(end(&found.plan.domains[2]) <= 4 * GIB);
}

#[test]
fn a_window_counts_as_a_limit() {
    let mut host = high_and_low();
    // The bus shows the second GiB of the low RAM only.
    host.devices[2].dma_windows = vec![DmaWindow {
        bus: 0,
        machine: bytes(2 * GIB, GIB),
    }];
    let mut guest = driver(512 * MIB, 0);
    guest.devices[0].dma_mask = None;
    let found = outcome(&host, &system(vec![guest.clone()]));
    assert_eq!(codes(&found), [""; 0]);
    let bank = found.plan.domains[0].banks[0].machine().bytes();
    assert!(bytes(2 * GIB, GIB).covers(&bank), "{bank}");
    // More than the window: a part of it is enough to bounce through.
    guest.memory.value = MemoryRequest::Size(1536 * MIB);
    let found = outcome(&host, &system(vec![guest]));
    assert_eq!(codes(&found), ["dma-mask"]);
    assert!(!found.has_errors());
}

#[test]
fn a_mask_below_the_window_reaches_nothing() {
    let mut host = high_and_low();
    // As the Raspberry Pi 4 has it: memory from 3 GiB of the bus on.
    host.devices[2].dma_windows = vec![DmaWindow {
        bus: 3 * GIB,
        machine: bytes(GIB, GIB),
    }];
    let guest = |mask| system(vec![driver(256 * MIB, mask)]);
    let found = outcome(&host, &guest(0x3fff_ffff));
    assert_eq!(codes(&found), ["dma-mask"]);
    assert!(found.has_errors() && found.plan.domains.is_empty());
    let found = &found.conflicts[0];
    assert!(found.why.contains("bus addresses"), "{found:?}");
    assert!(found.sides[1].what.contains("0xc0000000"), "{found:?}");
    assert!(
        found.help.starts_with("dma-mask = 0xffffffff,"),
        "{found:?}"
    );
    // The mend.
    assert_eq!(codes(&outcome(&host, &guest(0xffff_ffff))), [""; 0]);
}

#[test]
fn who_reaches_nothing_is_counted_all_the_same() {
    let mut host = virt(2 * GIB, 2);
    host.devices[2].dma_windows = vec![DmaWindow {
        bus: 8 * GIB,
        machine: bytes(GIB, GIB),
    }];
    host.devices[2].dma = Dma::Possible { mask: 0xffff_ffff };
    host.devices[3].dma = Dma::None;
    let request = system(vec![domain("control", MemoryRequest::Rest, 0, true)]);
    let plan = outcome(&host, &request).plan;
    let reach = reach::of_plan(&host, &request, &plan);
    let devices: Vec<_> = reach.devices.iter().map(|it| it.device).collect();
    assert_eq!(devices, [2]);
    assert_eq!(
        reach.domains[0].statement(&plan),
        "its devices reach no memory"
    );
    assert!(reach.statement(&plan).starts_with("no domain drives"));
}

#[test]
fn the_rest_keeps_what_its_devices_reach() {
    let mut host = high_and_low();
    host.devices[3].dma = Dma::Possible {
        mask: u64::from(u32::MAX),
    };
    let guest = |name: &str, size| {
        let mut guest = domain(name, MemoryRequest::Size(size), 1, false);
        guest.direct_map = Some(true.into());
        guest
    };
    let rest = || domain("control", MemoryRequest::Rest, 0, true);
    // There is a choice: the guest goes where the hardware domain's devices reach nothing.
    let found = outcome(&host, &system(vec![rest(), guest("guest", 1536 * MIB)]));
    assert_eq!(codes(&found), [""; 0]);
    assert!(
        found.plan.domains[1].banks[0]
            .machine()
            .start()
            .address()
            .raw()
            >= 8 * GIB
    );
    // There is none: some of it stays all the same.
    let all = vec![rest(), guest("a", 5632 * MIB), guest("b", 1536 * MIB)];
    let found = outcome(&host, &system(all));
    assert_eq!(codes(&found), [""; 0]);
    let control = &found.plan.domains[0];
    let low = control
        .banks
        .iter()
        .filter(|bank| bank.machine().bytes().end().raw() <= 4 * GIB);
    assert!(low.map(Bank::bytes).sum::<u64>() >= 64 * MIB);
}

/// A board of which all masters reach the second GiB of the low RAM only.
fn narrow() -> HostMap {
    let mut host = high_and_low();
    for device in &mut host.devices[2..4] {
        device.dma_windows = vec![DmaWindow {
            bus: 0,
            machine: bytes(2 * GIB, GIB),
        }];
    }
    host
}

/// Bytes of a domain's RAM in the window of [`narrow`].
fn reached(plan: &DomainPlan) -> u64 {
    let window = bytes(2 * GIB, GIB).frames_inside();
    let banks = plan.banks.iter();
    let parts = banks.filter_map(|bank| bank.machine().intersection(&window));
    parts.map(|part| part.frames() * FRAME_SIZE).sum()
}

fn narrow_driver(name: &str, size: u64, device: &str) -> DomainRequest {
    let mut driver = driver(size, u64::MAX);
    driver.name.value = name.into();
    driver.devices[0].path = device.into();
    driver
}

const VIRTIO: &str = "/virtio_mmio@a000000";
const PCIE: &str = "/pcie@10000000";

#[test]
fn who_does_not_fit_gets_all_that_it_reaches() {
    let host = narrow();
    let mut all = vec![narrow_driver("driver", 1536 * MIB, VIRTIO)];
    for name in ["a", "b"] {
        all.push(domain(name, MemoryRequest::Size(1536 * MIB), 2, false));
    }
    for rotation in 0..3 {
        all.rotate_left(1);
        let found = outcome(&host, &system(all.clone()));
        assert_eq!(codes(&found), ["dma-mask"], "{rotation}");
        let driver = found.plan.domain("driver").unwrap();
        assert_eq!(reached(driver), GIB, "{rotation}");
    }
}

#[test]
fn nobody_is_turned_away_for_one_who_bounces() {
    let host = narrow();
    let mut all = vec![narrow_driver("driver", 1536 * MIB, VIRTIO)];
    // Below its limit are 2 GiB beside the window, less the hypervisor's part.
    let mut low = domain("low", MemoryRequest::Size(2200 * MIB), 1, false);
    low.memory_below = Some((9 * GIB).into());
    all.push(low);
    let found = outcome(&host, &system(all));
    assert_eq!(codes(&found), ["dma-mask"]);
    let left = reached(&found.plan.domains[0]);
    assert!((700 * MIB..GIB).contains(&left), "{left:#x}");
}

#[test]
fn two_who_bounce_both_have_something_to_bounce_through() {
    let host = narrow();
    let all = vec![
        narrow_driver("a", 1536 * MIB, VIRTIO),
        narrow_driver("b", 1536 * MIB, PCIE),
    ];
    let found = outcome(&host, &system(all));
    assert_eq!(codes(&found), ["dma-mask", "dma-mask"]);
    let mut reached: Vec<u64> = found.plan.domains.iter().map(reached).collect();
    reached.sort_unstable();
    assert_eq!(reached, [64 * MIB, GIB - 64 * MIB]);
    // The rest's devices have a claim as well.
    let rest = domain("control", MemoryRequest::Rest, 0, true);
    let all = vec![rest, narrow_driver("a", 1536 * MIB, VIRTIO)];
    let found = outcome(&host, &system(all));
    assert_eq!(codes(&found), ["dma-mask"]);
    let reached: Vec<u64> = found
        .plan
        .domains
        .iter()
        .map(super::reach::reached)
        .collect();
    assert_eq!(reached, [64 * MIB, GIB - 64 * MIB]);
}

#[test]
fn who_reaches_more_leaves_the_rest_what_that_reaches() {
    let mut host = narrow();
    host.devices[2].dma_windows.clear();
    let rest = domain("control", MemoryRequest::Rest, 0, true);
    // It would fit best into the low 2 GiB.
    let mut wide = driver(900 * MIB, 10 * GIB - 1);
    wide.devices[0].path = VIRTIO.into();
    let found = outcome(&host, &system(vec![rest, wide]));
    assert_eq!(codes(&found), [""; 0]);
    assert_eq!(reached(&found.plan.domains[0]), GIB);
}

#[test]
fn what_comes_to_be_scarce_later_is_kept_from_others_too() {
    let mut host = virt(GIB, 4);
    host.ram.push(RamBank {
        node: None,
        range: bytes(34 * GIB, 2 * GIB),
        origin: Origin(1),
    });
    let low = bytes(GIB, GIB).frames_inside();
    host.devices[2].dma = Dma::Possible { mask: 0x4fff_ffff };
    let rest = domain("control", MemoryRequest::Rest, 0, true);
    // The first for whom what the rest reaches is held back.
    let mut first = domain("first", MemoryRequest::Size(100 * MIB), 1, false);
    first.memory_below = Some((1792 * MIB).into());
    let mut bouncing = narrow_driver("bouncing", 1200 * MIB, PCIE);
    bouncing.devices[0].dma_mask = Some(u64::from(u32::MAX));
    // It would fit best beside what the rest reaches.
    let mut other = domain("other", MemoryRequest::Size(500 * MIB), 2, false);
    other.direct_map = Some(true.into());
    let found = outcome(&host, &system(vec![rest, first, bouncing, other]));
    assert_eq!(codes(&found), ["dma-mask"]);
    let banks = &found.plan.domain("other").unwrap().banks;
    assert!(
        banks.iter().all(|bank| !bank.machine().overlaps(&low)),
        "{banks:?}"
    );
}

#[test]
fn the_rest_keeps_what_its_devices_reach_on_a_node_too() {
    let mut host = virt(512 * MIB, 4);
    host.ram[0].node = Some(0);
    let beside = bytes(0x6010_0000, 511 * MIB);
    for (node, range) in [(0, beside), (1, bytes(34 * GIB, 2 * GIB))] {
        host.ram.push(RamBank {
            node: Some(node),
            range,
            origin: Origin(1),
        });
    }
    host.devices[2].dma = Dma::Possible { mask: 0x5fff_ffff };
    let rest = domain("control", MemoryRequest::Rest, 0, true);
    // It fits best into what the rest reaches, and into the node beside that, too.
    let mut wide = narrow_driver("wide", 400 * MIB, PCIE);
    wide.devices[0].dma_mask = Some(35 * GIB - 1);
    let found = outcome(&host, &system(vec![rest, wide]));
    assert_eq!(codes(&found), [""; 0]);
    let beside = beside.frames_inside();
    let banks = &found.plan.domains[1].banks;
    assert!(
        banks.iter().all(|bank| beside.covers(&bank.machine())),
        "{banks:?}"
    );
}

#[test]
fn who_cannot_be_reached_is_told_where_it_could() {
    let host = high_and_low();
    let mut guest = driver(256 * MIB, u64::from(u32::MAX));
    guest.memory.value = MemoryRequest::SumOfStatic;
    guest.static_mem = vec![fixed(9 * GIB, 256 * MIB)];
    let request = system(vec![guest.clone()]);
    let mut found = outcome(&host, &request);
    assert_eq!(codes(&found), ["dma-mask"]);
    assert!(found.has_errors());
    diagnose(&host, &request, &mut found);
    let help = &found.conflicts[0].help;
    assert_eq!(
        help,
        "static-mem = [{ start = 0xb0000000, size = \"256MiB\" }]"
    );
    guest.static_mem = vec![fixed(0xb000_0000, 256 * MIB)];
    assert_eq!(codes(&outcome(&host, &system(vec![guest]))), [""; 0]);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn cases() -> ProptestConfig {
        ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 100 })
    }

    proptest! {
        #![proptest_config(cases())]

        /// A direct-mapped domain that fits where its device reaches is placed there, whatever
        /// the others want, as long as they can go elsewhere.
        #[test]
        fn reach_is_respected(
            sizes in prop::collection::vec(64_u64..1024, 0..5),
            own in 64_u64..2560,
            mask in prop_oneof![Just(0xffff_ffff_u64), Just(0xbfff_ffff), Just(0x9fff_ffff)],
            place in 0_usize..5,
        ) {
            let host = high_and_low();
            let mut domains = Vec::new();
            for (at, size) in (0..).zip(&sizes) {
                let mut other = domain("", MemoryRequest::Size(size * MIB), 2, false);
                other.name.value = format!("other{at}");
                domains.push(other);
            }
            domains.insert(place.min(domains.len()), driver(own * MIB, mask));
            domains.truncate(4);
            let request = system(domains);
            let found = outcome(&host, &request);
            prop_assert!(found.refused.is_empty(), "{:?}", codes(&found));
            let fits = own * MIB + 16 * MIB <= (mask + 1).min(3 * GIB) - GIB;
            for domain in &found.plan.domains {
                if domain.name == "driver" {
                    prop_assert!(!fits || end(domain) <= mask + 1);
                    prop_assert_eq!(codes(&found).contains(&"dma-mask"), end(domain) > mask + 1);
                }
            }
            let mask = MachineAddress::new(mask + 1);
            let below = MachineRange::between(MachineAddress::new(0), mask).frames_inside();
            if codes(&found).contains(&"dma-mask") {
                // All that it reaches is its own, or the hypervisor's: the others go elsewhere.
                for owned in found.plan.owners() {
                    let part = owned.frames.intersection(&below);
                    let whole = part.filter(|part| part.frames() >= 1024);
                    let name = match owned.owner {
                        Owner::Domain(at) => found.plan.domains[at].name.as_str(),
                        Owner::Hypervisor => continue,
                        _ => "nobody",
                    };
                    prop_assert!(whole.is_none() || name == "driver", "{owned:?}");
                }
            }
            let reach = reach::of_plan(&host, &request, &found.plan);
            for device in reach.devices.iter().filter(|it| it.device == 2 && it.domain.is_some()) {
                let class = &reach.classes[device.class];
                let own = class.bytes_of(Owner::Domain(device.domain.unwrap()));
                prop_assert!(own > 0);
                let ends = class.reached.iter().flat_map(|it| &it.ranges);
                let past = ends.map(|range| range.bytes().end().raw()).max().unwrap();
                prop_assert!(past <= mask.raw());
            }
        }
    }
}
