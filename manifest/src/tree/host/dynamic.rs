//! Reserved regions without a place: the kernel that finds them in its tree takes them out of its own RAM.
//!
//! Only the hardware domain's tree has these nodes, so nothing is kept for them on the host; that domain only needs RAM
//! where the node allows it.
//!
//! Source: Devicetree Specification 0.4, section 3.5.2 (`size`, `alignment`, `alloc-ranges`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{
    Code, Conflict, GuestRange, MachineAddress, MachineRange, Origin, Plan, Severity, Side,
};

use crate::tree::blob::{Cells, Node};

/// A region that a kernel places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dynamic {
    /// Its node's path.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// What its start is a multiple of, in bytes; at least 1.
    pub alignment: u64,
    /// Where it may lie, in addresses as that kernel sees them; anywhere if none is given.
    pub places: Vec<MachineRange>,
    /// Who says so.
    pub origin: Origin,
}

/// A child of `/reserved-memory` that has a size and no place. `None` if its size can't be read or is zero.
pub(super) fn read(node: Node<'_, '_>, origin: Origin) -> Option<Dynamic> {
    let (address_cells, size_cells) = node.parent()?.child_cells();
    let number = |name| Cells::new(node.value(name)?).next_number(size_cells);
    let mut cells = Cells::new(node.value("alloc-ranges").unwrap_or_default());
    let mut place = || {
        let start = cells.next_number(address_cells)?;
        let size = cells.next_number(size_cells)?;
        Some(MachineRange::saturating(MachineAddress::new(start), size))
    };
    let mut places = Vec::new();
    while address_cells + size_cells > 0
        && let Some(range) = place()
    {
        places.push(range);
    }
    Some(Dynamic {
        path: node.path(),
        size: number("size").filter(|&size| size > 0)?,
        alignment: number("alignment").unwrap_or(1).max(1),
        places,
        origin,
    })
}

impl Dynamic {
    /// Whether some stretch of `ram` holds it where it may lie.
    fn fits(&self, ram: &[GuestRange]) -> bool {
        let everywhere = [MachineRange::saturating(MachineAddress::new(0), u64::MAX)];
        let places = if self.places.is_empty() {
            &everywhere[..]
        } else {
            &self.places
        };
        ram.iter().any(|bank| {
            places.iter().any(|place| {
                let start = bank.start().raw().max(place.start().raw());
                let end = bank.end().raw().min(place.end().raw());
                let start = start.checked_next_multiple_of(self.alignment);
                start.is_some_and(|start| start < end && self.size <= end - start)
            })
        })
    }
}

/// What the hardware domain's kernel has no room for in the RAM that the plan gives it. Each region is looked at by
/// itself; together with others, or with what the kernel itself takes, it may still not fit.
#[must_use]
pub fn without_room(regions: &[Dynamic], plan: &Plan) -> Vec<Conflict> {
    let Some(domain) = plan.hardware_domain().filter(|_| !regions.is_empty()) else {
        return Vec::new();
    };
    let ram = domain.guest_ram_to_use();
    let ram: Vec<GuestRange> = ram.iter().map(|range| range.bytes()).collect();
    let homeless = regions.iter().filter(|region| !region.fits(&ram));
    homeless.map(|region| conflict(region, domain)).collect()
}

fn conflict(region: &Dynamic, domain: &layout::DomainPlan) -> Conflict {
    let what = format!(
        "a reserved region of {:#x} bytes, {}",
        region.size, region.path
    );
    let mut sides = alloc::vec![Side {
        what,
        origin: region.origin,
        domain: None,
    }];
    sides.push(Side {
        what: format!("the RAM of domain \"{}\"", domain.name),
        origin: Origin::NONE,
        domain: Some(domain.index),
    });
    let allowed: Vec<String> = region
        .places
        .iter()
        .map(|place| format!("{place}"))
        .collect();
    let help = match allowed.as_slice() {
        [] => format!("more memory for \"{}\"", domain.name),
        allowed => format!("memory for \"{}\" in {}", domain.name, allowed.join(" or ")),
    };
    Conflict {
        code: Code::ReservedNoRoom,
        severity: Severity::Warning,
        sides,
        why: String::from(
            "its kernel takes the region out of its own RAM, and no part of that lies where the region may and is \
             large enough: the drivers that use it will fail",
        ),
        help,
    }
}
