//! The machine's own addresses.

use layout::{MachineRange, Owner};

use super::{Kind, Part, Region, Source, flat, shown, why};

/// Regions of the machine, by address, without overlaps.
pub fn regions(source: Source<'_>) -> Vec<Region> {
    let mut regions = named(source);
    regions.extend(source.plan.owners().into_iter().map(|owned| {
        let bytes = owned.frames.bytes();
        let label = match owned.owner {
            Owner::Domain(index) => source
                .plan
                .domains
                .get(index)
                .map_or_else(String::new, |domain| shown(&domain.name)),
            other => super::nobody(Some(other)).to_owned(),
        };
        Region {
            why: why::ram(source, owned),
            ..region(&bytes, Kind::Ram, Some(owned.owner), label)
        }
    }));
    for range in &source.host.controller.ranges {
        let label = "interrupt controller".to_owned();
        let origin = source.host.controller.origin;
        regions.push(Region {
            why: why::described(source, "the host's", origin),
            ..region(range, Kind::Controller, Some(Owner::Hypervisor), label)
        });
    }
    for iommu in &source.host.iommus {
        regions.extend(iommu.ranges.iter().map(|range| Region {
            why: why::described(source, "an IOMMU, hidden from every domain", iommu.origin),
            ..region(
                range,
                Kind::Iommu,
                Some(Owner::Hypervisor),
                shown(&iommu.path),
            )
        }));
    }
    for index in 0..source.host.devices.len() {
        regions.extend(device(source, index));
    }
    regions.extend(outside(source, &regions));
    flat::flatten(regions)
}

/// RAM that is reserved, by the names that it is reserved under, with its domain's before if one has it.
fn named(source: Source<'_>) -> Vec<Region> {
    let nobodys = source.plan.reserved.iter();
    let nobodys = nobodys.map(|frames| (Owner::Reserved, frames.bytes()));
    let all: Vec<(Owner, MachineRange)> = nobodys.chain(pools(source)).collect();
    let mut named = Vec::new();
    for reserved in &source.host.reserved {
        let parts = all.iter().filter_map(|(owner, here)| {
            let range = here.intersection(&reserved.range)?;
            let name = shown(&reserved.name);
            let (label, why) = match owner {
                Owner::Domain(index) => {
                    let domain = source.plan.domains.get(*index)?;
                    let why = "the machine's tree reserves it under this name, without `no-map`: its kernel has it";
                    (format!("{}: {name}", shown(&domain.name)), why)
                }
                _ => (name, "reserved under this name"),
            };
            Some(Region {
                why: why::described(source, why, reserved.origin),
                ..region(&range, Kind::Ram, Some(*owner), label)
            })
        });
        named.extend(parts);
    }
    named
}

/// What domains have of reserved RAM.
fn pools(source: Source<'_>) -> impl Iterator<Item = (Owner, MachineRange)> {
    let domains = source.plan.domains.iter().enumerate();
    domains.flat_map(|(index, domain)| {
        let pools = domain.banks.iter().filter(|bank| bank.reserved);
        pools.map(move |bank| (Owner::Domain(index), bank.machine().bytes()))
    })
}

/// What is reserved and isn't RAM: the owners' list has the rest.
fn outside(source: Source<'_>, known: &[Region]) -> Vec<Region> {
    let mut outside = Vec::new();
    for reserved in &source.host.reserved {
        let why = why::described(source, "kept by the machine's description", reserved.origin);
        let owner = Some(Owner::Reserved);
        let region = Region {
            why,
            ..region(&reserved.range, Kind::Outside, owner, shown(&reserved.name))
        };
        let overlaps = |other: &Region| other.start < region.end && region.start < other.end;
        if !known.iter().any(|other| other.is_ram() && overlaps(other)) {
            outside.push(region);
        }
    }
    outside
}

/// The registers of one device, with its driver.
pub fn device(source: Source<'_>, index: usize) -> Vec<Region> {
    let Some(device) = source.host.devices.get(index) else {
        return Vec::new();
    };
    let holds = |domain: &layout::DomainPlan| domain.devices.contains(&index);
    let owner = match source.plan.domains.iter().position(holds) {
        Some(domain) => Some(Owner::Domain(domain)),
        None if source.plan.hypervisor.console == Some(index) => Some(Owner::Hypervisor),
        None => None,
    };
    let name = shown(&device.path);
    let label = name.rsplit('/').next().unwrap_or(&name).to_owned();
    let why = why::device(source, index, owner);
    // A reserved region is a device of its driver's too; where it is RAM that says more.
    let is_ram = |range: &MachineRange| pools(source).any(|(_, pool)| pool.covers(range));
    let ranges = device.ranges.iter();
    let ranges = ranges.filter(|range| !range.is_empty() && !is_ram(range));
    ranges
        .map(|range| Region {
            why: why.clone(),
            parts: vec![Part {
                name: name.clone(),
                start: range.start().raw(),
                end: range.end().raw(),
            }],
            ..region(range, Kind::Device, owner, label.clone())
        })
        .collect()
}

/// A region at the machine's own addresses, for no reason yet.
pub fn region(range: &MachineRange, kind: Kind, owner: Option<Owner>, label: String) -> Region {
    Region {
        start: range.start().raw(),
        end: range.end().raw(),
        kind,
        owner,
        label,
        machine: Some(range.start().raw()),
        why: String::new(),
        parts: Vec::new(),
    }
}
