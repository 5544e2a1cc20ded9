//! Whose an address is: `terrane explain MANIFEST ADDRESS`.

use layout::{DomainPlan, GuestAddress, HostMap, MachineAddress, MachineRange, MfnRange, Plan};

use crate::arch::Arch;

/// What lies at this machine address, and what each domain sees at this address of its own, as
/// sentences.
pub fn explain(address: u64, plan: &Plan, host: &HostMap) -> Vec<String> {
    let mut lines = vec![format!(
        "Machine address {address:#x}: {}.",
        owner(address, plan, host)
    )];
    lines.extend(plan.domains.iter().map(|domain| {
        format!(
            "`{}` at its own address {address:#x}: {}.",
            domain.name,
            seen(address, domain, host)
        )
    }));
    lines
}

fn owner(address: u64, plan: &Plan, host: &HostMap) -> String {
    let machine = MachineAddress::new(address);
    let holds = |range: &MachineRange| range.contains(machine);
    let frames = |range: &MfnRange| range.bytes().contains(machine);
    if frames(&plan.hypervisor.region) {
        return "the hypervisor's memory".to_owned();
    }
    let bank = |domain: &&DomainPlan| domain.banks.iter().any(|bank| frames(&bank.machine()));
    if let Some(domain) = plan.domains.iter().find(bank) {
        return format!("RAM of `{}`", domain.name);
    }
    let nobodys = [
        (&plan.kept, "RAM with modules that are kept for a restart"),
        (&plan.reserved, "RAM that firmware or the manifest reserves"),
        (&plan.unowned, "RAM that nobody got"),
    ];
    if let Some((_, what)) = nobodys.iter().find(|(ranges, _)| ranges.iter().any(frames)) {
        return (*what).to_owned();
    }
    if host.controller.ranges.iter().any(holds) {
        return "registers of the interrupt controller".to_owned();
    }
    if let Some(iommu) = host
        .iommus
        .iter()
        .find(|iommu| iommu.ranges.iter().any(holds))
    {
        return format!(
            "registers of the IOMMU {}, hidden from every domain",
            iommu.path
        );
    }
    let device = host
        .devices
        .iter()
        .enumerate()
        .find(|(_, one)| one.ranges.iter().any(holds));
    let Some((index, device)) = device else {
        return "nothing that the host's description names".to_owned();
    };
    let owner = plan
        .domains
        .iter()
        .find(|domain| domain.devices.contains(&index));
    let whose = match owner {
        Some(domain) => format!("of `{}`", domain.name),
        None if plan.hypervisor.console == Some(index) => "the hypervisor's console".to_owned(),
        None => "which no domain has".to_owned(),
    };
    format!("registers of {}, {whose}", device.path)
}

fn seen(address: u64, domain: &DomainPlan, host: &HostMap) -> String {
    let guest = GuestAddress::new(address);
    if let Some(frame) = domain.machine_frame(guest.frame()) {
        let machine = frame.address().raw() + address % layout::FRAME_SIZE;
        let place = if machine == address {
            "the same machine address".to_owned()
        } else {
            format!("machine address {machine:#x}")
        };
        return match content(guest, domain, host) {
            Some(what) => format!("RAM, at {place}, where its {what} lies when it starts"),
            None => format!("RAM, at {place}"),
        };
    }
    let device = domain
        .devices
        .iter()
        .filter_map(|index| host.devices.get(*index));
    let at = |range: &MachineRange| range.contains(MachineAddress::new(address));
    let mut here = device.filter(|device| device.ranges.iter().any(at));
    match here.next() {
        Some(device) => format!("registers of {}, at the same machine address", device.path),
        None => "none of its RAM or devices".to_owned(),
    }
}

/// What the domain finds in that part of its RAM when it starts.
fn content(address: GuestAddress, domain: &DomainPlan, host: &HostMap) -> Option<&'static str> {
    let ramdisk = domain.ramdisk.as_ref();
    if domain.kernel.range().contains(address) {
        Some("kernel")
    } else if ramdisk.is_some_and(|ramdisk| ramdisk.range().contains(address)) {
        Some("ramdisk")
    } else if domain.tree.contains(address) {
        Some(Arch::of_host(host.architecture).guest_description)
    } else {
        None
    }
}
