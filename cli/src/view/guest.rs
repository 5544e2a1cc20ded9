//! A domain's own addresses.

use layout::{DomainPlan, Owner};

use super::{Guest, Kind, Link, Region, Source, controller, flat, host, shown, why};
use crate::arch::Arch;

/// What a domain sees.
pub fn of(source: Source<'_>, domain: &DomainPlan) -> Guest {
    let same = |one: &DomainPlan| one.id == domain.id;
    let place = source.plan.domains.iter().position(same);
    let owner = place.map(Owner::Domain);
    let mut regions = Vec::new();
    let mut banks = Vec::new();
    for bank in &domain.banks {
        let guest = bank.guest().bytes();
        let link = Link {
            guest: guest.start().raw(),
            machine: bank.machine().bytes().start().raw(),
            size: guest.size(),
        };
        banks.push(link);
        let label = if bank.reserved { "reserved RAM" } else { "RAM" };
        let inside = of_bank(source, domain, link, label);
        regions.extend(inside.map(|region| Region { owner, ..region }));
    }
    for index in &domain.devices {
        regions.extend(host::device(source, *index));
    }
    let emulated = controller::seen(source, domain).into_iter();
    regions.extend(emulated.map(|region| Region { owner, ..region }));
    Guest {
        name: shown(&domain.name),
        direct: domain.identity.is_direct_mapped(),
        ram: domain.frames() << layout::FRAME_SHIFT,
        regions: flat::flatten(regions),
        banks,
    }
}

/// A bank's RAM, and what lies in it when the domain starts: smaller, so it is what is seen.
fn of_bank<'a>(
    source: Source<'a>,
    domain: &'a DomainPlan,
    bank: Link,
    label: &'a str,
) -> impl Iterator<Item = Region> + 'a {
    let reason = why::seen(source, domain);
    let region = move |start: u64, end: u64, kind: Kind, label: &str, why: String| Region {
        start,
        end,
        kind,
        owner: None,
        label: label.to_owned(),
        machine: Some(bank.machine + (start - bank.guest)),
        why,
        parts: Vec::new(),
    };
    let whole = region(bank.guest, bank.guest + bank.size, Kind::Ram, label, reason);
    let contents = contents(source, domain).into_iter();
    let inside = contents.filter_map(move |(start, end, kind, label, why)| {
        let (start, end) = (start.max(bank.guest), end.min(bank.guest + bank.size));
        (start < end).then(|| region(start, end, kind, label, why))
    });
    std::iter::once(whole).chain(inside)
}

/// What the domain finds in its RAM: first byte, the byte behind the last, what and why.
pub fn contents(
    source: Source<'_>,
    domain: &DomainPlan,
) -> Vec<(u64, u64, Kind, &'static str, String)> {
    let mut found = Vec::new();
    let range = domain.kernel.range();
    let (start, end) = (range.start().raw(), range.end().raw());
    let why = why::module(source, domain, Kind::Kernel);
    found.push((start, end, Kind::Kernel, "kernel", why));
    if let Some(ramdisk) = &domain.ramdisk {
        let range = ramdisk.range();
        let (start, end) = (range.start().raw(), range.end().raw());
        let why = why::module(source, domain, Kind::Ramdisk);
        found.push((start, end, Kind::Ramdisk, "ramdisk", why));
    }
    let label = Arch::of_host(source.plan.architecture).guest_description;
    let (start, end) = (domain.tree.start().raw(), domain.tree.end().raw());
    let why = "written by the hypervisor before the domain starts".to_owned();
    found.push((start, end, Kind::Description, label, why));
    found
}
