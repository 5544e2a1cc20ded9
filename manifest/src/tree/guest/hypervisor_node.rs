//! Addresses that a guest may use for mappings of its own: neither RAM nor a device.
//!
//! Source: Xen, docs/misc/arm/device-tree/guest.txt: region 0 for the grant table, the others ("extended regions")
//! for foreign mappings.

use alloc::vec::Vec;

use layout::{DomainPlan, GuestRange, MachineRange, Plan};

use super::parts::{CellCounts, guest_range};
use super::{fixed, gic, vpl011};
use crate::tree::blob::Tree;
use crate::tree::host::{self, Host};

/// Regions begin and end at a multiple of this, in bytes.
const ALIGNMENT: u64 = 2 << 20;
/// The smallest extended region, in bytes; Linux hotplugs 128 MiB sections into them, smaller ones are of no use.
const SMALLEST: u64 = 64 << 20;
/// The largest, and how many there are: a guest that needs more has more grants than it may have.
const LARGEST: u64 = 4 << 30;
const MOST: usize = 4;
/// Stage 2 covers 40 bits of guest addresses on every arm64 CPU (PARange 0b0010 and above).
const END: u64 = 1 << 40;

/// The regions of a domain's hypervisor node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    /// Region 0.
    pub grant_table: GuestRange,
    /// The others.
    pub extended: Vec<GuestRange>,
}

/// Finds the regions of a domain, such as the cells at its tree's root can say.
pub fn regions(tree: &Tree<'_>, host: &Host, plan: &Plan, domain: &DomainPlan) -> Regions {
    let cells = CellCounts::at_root_of(domain, tree);
    let mut taken = Vec::new();
    take_own(&mut taken, host, domain);
    if domain.identity.uses_host_layout() {
        take_host(&mut taken, tree, host, plan);
        let gaps = free(taken, &[(0, END.min(cells.end()))]);
        in_host_layout(domain, &gaps, cells)
    } else {
        let grant_table = guest_range(fixed::GRANT_TABLE, fixed::GRANT_TABLE_BYTES);
        Regions {
            grant_table,
            extended: cut(&free(taken, &fixed::RAM), cells),
        }
    }
}

/// The grant table goes to the front of the first gap that could be an extended region; what is left of it is one.
fn in_host_layout(domain: &DomainPlan, gaps: &[(u64, u64)], cells: CellCounts) -> Regions {
    let frames = u64::from(domain.limits.max_grant_frames).max(1);
    let needed = (frames << layout::FRAME_SHIFT).next_multiple_of(ALIGNMENT);
    let mut gaps = gaps.to_vec();
    let roomy = gaps
        .iter()
        .position(|&(start, end)| end - start >= SMALLEST.max(needed));
    let fitting = || gaps.iter().position(|&(start, end)| end - start >= needed);
    let Some(gap) = roomy.or_else(fitting).and_then(|place| gaps.get_mut(place)) else {
        return Regions {
            grant_table: guest_range(END, needed),
            extended: Vec::new(),
        };
    };
    let grant_table = guest_range(gap.0, needed);
    gap.0 += needed;
    Regions {
        grant_table,
        extended: cut(&gaps, cells),
    }
}

fn cut(gaps: &[(u64, u64)], cells: CellCounts) -> Vec<GuestRange> {
    let largest = LARGEST.min(cells.largest());
    let large = gaps.iter().filter(|(start, end)| end - start >= SMALLEST);
    large
        .take(MOST)
        .map(|&(start, end)| guest_range(start, (end - start).min(largest)))
        .collect()
}

/// What the domain itself has, by guest address.
fn take_own(taken: &mut Vec<(u64, u64)>, host: &Host, domain: &DomainPlan) {
    let mut take = |range: &GuestRange| taken.push((range.start().raw(), range.end().raw()));
    domain.guest_ram().iter().for_each(|ram| take(&ram.bytes()));
    if let Some(gic) = gic(host, domain) {
        take(&gic.distributor);
        match &gic.frames {
            super::GuestFrames::CpuInterface(range) => take(range),
            super::GuestFrames::Redistributors { regions, .. } => {
                regions.iter().for_each(&mut take)
            }
        }
    }
    vpl011(host, domain)
        .iter()
        .for_each(|(range, _)| take(range));
    // Devices keep their addresses.
    for device in domain
        .devices
        .iter()
        .filter_map(|&index| host.map.devices.get(index))
    {
        for range in &device.ranges {
            taken.push((range.start().raw(), range.end().raw()));
        }
    }
}

/// What the host has: with its layout, a guest address that is the machine address of something isn't free, so that
/// a mistaken one hits nothing. Devices that the tree doesn't list lie in the windows of its buses.
fn take_host(taken: &mut Vec<(u64, u64)>, tree: &Tree<'_>, host: &Host, plan: &Plan) {
    let mut take = |range: &MachineRange| taken.push((range.start().raw(), range.end().raw()));
    host.map.ram.iter().for_each(|bank| take(&bank.range));
    host.map
        .reserved
        .iter()
        .for_each(|reserved| take(&reserved.range));
    host.map
        .devices
        .iter()
        .flat_map(|device| &device.ranges)
        .for_each(&mut take);
    host.map.controller.ranges.iter().for_each(&mut take);
    host.map
        .iommus
        .iter()
        .flat_map(|iommu| &iommu.ranges)
        .for_each(&mut take);
    host::bus_windows(tree).iter().for_each(&mut take);
    take(&plan.hypervisor.region.bytes());
}

/// The gaps between what is taken, within `bounds` (start and size), aligned inwards, by address.
fn free(mut taken: Vec<(u64, u64)>, bounds: &[(u64, u64)]) -> Vec<(u64, u64)> {
    taken.sort_unstable();
    let mut gaps = Vec::new();
    for &(bound, size) in bounds {
        let end = bound.saturating_add(size);
        let mut from = bound;
        for &(start, stop) in taken.iter().chain(&[(end, end)]) {
            let gap_end = start.min(end) / ALIGNMENT * ALIGNMENT;
            let gap_start = from.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT);
            if gap_start < gap_end {
                gaps.push((gap_start, gap_end));
            }
            from = from.max(stop);
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn gaps_are_aligned_inwards() {
        let taken = alloc::vec![
            (10 * MIB + 1, 20 * MIB + 1),
            (15 * MIB, 17 * MIB),
            (30 * MIB, 100 * MIB)
        ];
        let gaps = free(taken, &[(0, 50 * MIB), (200 * MIB, 3 * MIB)]);
        assert_eq!(
            gaps,
            [(0, 10 * MIB), (22 * MIB, 30 * MIB), (200 * MIB, 202 * MIB)]
        );
    }
}
