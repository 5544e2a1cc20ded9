//! Plans for machines as they are.

use crate::common::*;
use terrane_layout::*;

fn planned(host: &HostMap, request: &SystemRequest) -> Outcome {
    let outcome = plan(host, request);
    check_invariants(host, request, &outcome);
    outcome
}

#[test]
fn a_hardware_domain_gets_nearly_all_of_two_gib() {
    let host = virt(2 * GIB, 8);
    let mut control = domain("control", MemoryRequest::Rest, 0, true);
    control.cpus.value = 8;
    let outcome = planned(&host, &system(vec![control]));
    assert_eq!(codes(&outcome), [""; 0]);
    let plan = &outcome.plan;
    let control = &plan.domains[0];
    assert!(plan.hypervisor.region.frames() * FRAME_SIZE <= 4 * MIB);
    assert!(control.frames() * FRAME_SIZE >= 2036 * MIB);
    assert_eq!(control.banks.len(), 1);
    assert!(control.kernel.in_place && control.ramdisk.as_ref().unwrap().in_place);
    assert!(plan.hypervisor.in_place && plan.copies.is_empty() && plan.clear.is_empty());
    assert_eq!(control.devices, [1, 2, 3], "all but the console");
    assert_eq!((control.id, control.cpus.len()), (0, 8));
}

#[test]
fn a_second_domain_leaves_the_first_its_kernel() {
    let host = virt(2 * GIB, 2);
    let rest = domain("control", MemoryRequest::Rest, 0, true);
    let mut driver = domain("driver", MemoryRequest::Size(256 * MIB), 1, false);
    driver.direct_map = Some(true.into());
    driver.kernel = Some(kernel(0x4a20_0000, 10 * MIB));
    let outcome = planned(&host, &system(vec![rest, driver]));
    assert_eq!(codes(&outcome), [""; 0]);
    let plan = &outcome.plan;
    assert!(plan.domains[0].kernel.in_place);
    assert_eq!(
        plan.domains
            .iter()
            .map(|domain| domain.banks.len())
            .sum::<usize>(),
        2
    );
    assert_eq!(plan.domains[1].banks[0].mfn.raw() % 512, 0);
    // The driver's modules lie in the first domain's RAM: copied out, then cleared.
    assert_eq!(plan.copies.len(), 2);
    assert!(plan.copies.iter().all(|copy| copy.domain == 1));
    assert_eq!(
        plan.clear,
        [
            bytes(0x4a20_0000, 10 * MIB),
            bytes(0x4a20_0000 + 24 * MIB, 4 * MIB)
        ]
    );
    assert_eq!(plan.domains[1].cpus, [1]);
    assert_eq!(plan.domains[1].id, 1);
}

#[test]
fn a_plain_domain_sees_the_fixed_layout() {
    let host = virt(2 * GIB, 2);
    let guest = domain("guest", MemoryRequest::Size(512 * MIB), 0, false);
    let outcome = planned(&host, &system(vec![guest]));
    assert_eq!(codes(&outcome), [""; 0]);
    let guest = &outcome.plan.domains[0];
    assert_eq!(guest.banks[0].gfn.address().raw(), 0x4000_0000);
    assert_eq!(guest.guest_ram().len(), 1);
    assert_eq!(guest.kernel.address.raw() % (2 * MIB), 0);
    assert!(guest.devices.is_empty());
}

#[test]
fn a_domain_that_restarts_keeps_its_modules_out_of_all_ram() {
    let host = virt(2 * GIB, 2);
    let rest = domain("control", MemoryRequest::Rest, 0, true);
    let mut guest = domain("guest", MemoryRequest::Size(512 * MIB), 1, false);
    guest.keep_modules = true;
    let outcome = planned(&host, &system(vec![rest, guest]));
    assert_eq!(codes(&outcome), [""; 0]);
    let plan = &outcome.plan;
    let kept: u64 = plan.kept.iter().map(MfnRange::frames).sum();
    assert_eq!(kept * FRAME_SIZE, 24 * MIB);
    assert!(plan.clear.is_empty());
}

#[test]
fn named_ranges_are_taken_as_they_stand() {
    let host = virt(2 * GIB, 2);
    let mut guest = domain("guest", MemoryRequest::SumOfStatic, 0, false);
    guest.static_mem = vec![fixed(0x7000_0000, 256 * MIB)];
    guest.direct_map = Some(true.into());
    let outcome = planned(&host, &system(vec![guest]));
    assert_eq!(codes(&outcome), [""; 0]);
    let guest = &outcome.plan.domains[0];
    assert_eq!(
        guest.banks,
        [Bank {
            gfn: Gfn::new(0x7_0000),
            mfn: Mfn::new(0x7_0000),
            frames: 0x1_0000,
            reserved: false
        }]
    );
    assert!(!guest.kernel.in_place);
}

#[test]
fn a_hypervisor_in_the_middle_moves_to_an_end() {
    let mut host = virt(2 * GIB, 1);
    host.boot[0].range = bytes(0x6000_0000, 512 * KIB);
    let outcome = planned(
        &host,
        &system(vec![domain("control", MemoryRequest::Rest, 0, true)]),
    );
    let plan = &outcome.plan;
    assert!(!plan.hypervisor.in_place);
    assert_eq!(plan.domains[0].banks.len(), 1);
    assert!(plan.domains[0].kernel.in_place);
}

#[test]
fn memory_below_is_kept() {
    let mut host = virt(2 * GIB, 2);
    host.ram.push(RamBank {
        node: None,
        range: bytes(0x8_8000_0000, 6 * GIB),
        origin: Origin(1),
    });
    let rest = domain("control", MemoryRequest::Rest, 0, true);
    let mut low = domain("low", MemoryRequest::Size(256 * MIB), 1, false);
    low.direct_map = Some(true.into());
    low.memory_below = Some((4 * GIB).into());
    let mut high = domain("high", MemoryRequest::Size(4 * GIB), 2, false);
    high.direct_map = Some(true.into());
    let mut host_cpus = host.clone();
    host_cpus.cpus.push(HostCpu {
        node: None,
        hardware_id: 2,
        origin: Origin(3),
    });
    let outcome = planned(&host_cpus, &system(vec![rest, low, high]));
    assert_eq!(codes(&outcome), [""; 0]);
    let plan = &outcome.plan;
    assert_eq!(
        plan.domains[2].banks[0].mfn.raw() % (1 << 18),
        0x8000 * 8 % (1 << 18)
    );
    assert_eq!(
        plan.domains
            .iter()
            .map(|domain| domain.banks.len())
            .sum::<usize>(),
        4
    );
}
