//! Reserved memory: whose it is, by what the host says of it.

use crate::common::*;
use terrane_layout::*;

const POOL: u64 = 0x6000_0000;

fn reserved(start: u64, kind: Reservation) -> Reserved {
    Reserved {
        range: bytes(start, 16 * MIB),
        name: "pool".into(),
        kind,
        origin: Origin(8),
    }
}

/// A machine with a region that its kernel has and one that mustn't be mapped.
fn host() -> HostMap {
    let mut host = virt(2 * GIB, 2);
    host.reserved = vec![
        reserved(POOL, Reservation::Kernel),
        reserved(POOL + 64 * MIB, Reservation::NoMap),
    ];
    host
}

fn planned(host: &HostMap, request: &SystemRequest) -> Plan {
    let outcome = plan(host, request);
    check_invariants(host, request, &outcome);
    assert_eq!(codes(&outcome), [""; 0]);
    outcome.plan
}

/// The ranges of a domain's RAM that are reserved.
fn pools(domain: &DomainPlan) -> Vec<MachineRange> {
    let banks = domain.banks.iter().filter(|bank| bank.reserved);
    banks.map(|bank| bank.machine().bytes()).collect()
}

fn kept(plan: &Plan) -> Vec<MachineRange> {
    plan.reserved.iter().map(MfnRange::bytes).collect()
}

#[test]
fn what_is_its_kernels_is_the_hardware_domains_ram() {
    let sized = MemoryRequest::Size(256 * MIB);
    for memory in [MemoryRequest::Rest, sized] {
        let control = domain("control", memory, 0, true);
        let plan = planned(&host(), &system(vec![control]));
        let control = &plan.domains[0];
        assert_eq!(pools(control), [bytes(POOL, 16 * MIB)]);
        assert_eq!(kept(&plan), [bytes(POOL + 64 * MIB, 16 * MIB)]);
        // It is seen with what lies around it, and nothing is free there.
        let whole = |ram: Vec<GfnRange>| {
            let pool = GfnRange::between(Gfn::new(POOL >> 12), Gfn::new((POOL + MIB) >> 12));
            ram.iter().any(|ram| ram.covers(&pool))
        };
        assert!(whole(control.guest_ram()) && !whole(control.guest_ram_to_use()));
    }
}

#[test]
fn it_counts_beside_what_a_domain_asks_for_and_names() {
    let mut control = domain("control", MemoryRequest::SumOfStatic, 0, true);
    control.static_mem = vec![fixed(0x7000_0000, 256 * MIB)];
    let plan = planned(&host(), &system(vec![control]));
    assert_eq!(plan.domains[0].frames() * FRAME_SIZE, 272 * MIB);
}

#[test]
fn without_a_direct_mapped_hardware_domain_nobody_has_it() {
    let guest = domain("guest", MemoryRequest::Size(256 * MIB), 0, false);
    let mut direct = guest.clone();
    direct.direct_map = Some(true.into());
    let mut control = domain("control", MemoryRequest::Size(256 * MIB), 0, true);
    control.direct_map = Some(false.into());
    let mut host = host();
    host.devices.truncate(2);
    for only in [guest, direct, control] {
        let plan = planned(&host, &system(vec![only]));
        assert_eq!(pools(&plan.domains[0]), []);
        assert_eq!(kept(&plan).len(), 2);
    }
}

#[test]
fn another_domain_cannot_name_it() {
    let mut guest = domain("guest", MemoryRequest::SumOfStatic, 1, false);
    guest.static_mem = vec![fixed(POOL, 128 * MIB)];
    let control = domain("control", MemoryRequest::Rest, 0, true);
    let mut host = host();
    host.reserved.truncate(1);
    let outcome = plan(&host, &system(vec![control, guest]));
    assert_eq!(codes(&outcome), ["overlap-domain-reserved"]);
}

#[test]
fn a_region_that_another_domain_drives_is_not_ram() {
    let mut host = host();
    let region = |path: &str, start| HostDevice {
        path: path.into(),
        ranges: vec![bytes(start, 4 * MIB)],
        ..HostDevice::default()
    };
    host.devices
        .push(region("/reserved-memory/own@60000000", POOL));
    host.devices
        .push(region("/reserved-memory/given@60400000", POOL + 4 * MIB));
    let control = domain("control", MemoryRequest::Rest, 0, true);
    let mut guest = domain("guest", MemoryRequest::Size(256 * MIB), 1, false);
    guest.direct_map = Some(true.into());
    guest.devices = vec![DeviceRequest {
        path: "/reserved-memory/given@60400000".into(),
        dma_mask: None,
        origin: Origin(9),
    }];
    let plan = planned(&host, &system(vec![control, guest]));
    let own = [bytes(POOL, 4 * MIB), bytes(POOL + 8 * MIB, 8 * MIB)];
    assert_eq!(pools(&plan.domains[0]), own);
    assert!(kept(&plan).contains(&bytes(POOL + 4 * MIB, 4 * MIB)));
}

#[test]
fn what_is_kept_or_has_registers_of_the_hypervisors_is_taken_out() {
    let mut host = host();
    host.reserved[1] = reserved(POOL + 8 * MIB, Reservation::Kept);
    host.controller.ranges.push(bytes(POOL, MIB));
    let control = domain("control", MemoryRequest::Rest, 0, true);
    let plan = planned(&host, &system(vec![control]));
    assert_eq!(pools(&plan.domains[0]), [bytes(POOL + MIB, 7 * MIB)]);
}

#[test]
fn a_module_there_is_moved_out_or_kept() {
    let mut control = domain("control", MemoryRequest::Rest, 0, true);
    control.kernel = Some(kernel(POOL, 8 * MIB));
    let plan = planned(&host(), &system(vec![control.clone()]));
    assert!(!plan.domains[0].kernel.in_place);
    assert_eq!(pools(&plan.domains[0]), [bytes(POOL, 16 * MIB)]);
    control.keep_modules = true;
    let plan = planned(&host(), &system(vec![control]));
    let rest = bytes(POOL + 8 * MIB, 8 * MIB);
    assert_eq!(pools(&plan.domains[0]), [rest]);
    let kernel = bytes(POOL, 8 * MIB).frames_inside();
    assert!(plan.kept.contains(&kernel));
}

/// A buffer doesn't come from there, so a device need not reach it.
#[test]
fn a_device_need_not_reach_it() {
    let mut host = host();
    host.reserved.truncate(1);
    let mut control = domain("control", MemoryRequest::Size(64 * MIB), 0, true);
    control.devices = vec![DeviceRequest {
        path: "/virtio_mmio@a000000".into(),
        dma_mask: Some(POOL - 1),
        origin: Origin(9),
    }];
    let plan = planned(&host, &system(vec![control]));
    assert_eq!(pools(&plan.domains[0]), [bytes(POOL, 16 * MIB)]);
}
