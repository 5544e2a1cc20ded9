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
    assert!(line.contains("domain \"guest\" (256MiB)"), "{line}");
    assert!(!line.contains("control"), "{line}");
    assert_eq!(reach.trusted(), [0]);
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
