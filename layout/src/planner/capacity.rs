//! Whether there is enough memory at all, told before anything is placed: who asks for more
//! than the others leave, and how much it could have.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::ground::{Ground, as_static, largest_free};
use super::guest;
use super::modules::Wanted;
use super::place::Want;
use super::report::{Report, host_side, name, side};
use super::sets;
use super::wants::{could_hold, too_small};
use crate::address::{FRAME_SHIFT, MachineAddress, MachineRange, Mfn, MfnRange};
use crate::conflict::{Code, Side};
use crate::host::{BootKind, Origin};
use crate::request::{DomainRequest, MemoryRequest, SystemRequest};
use crate::size::Size;
use crate::sort::sort_by_key;

/// So many other domains are named when memory runs out.
const MOST_NAMED: usize = 8;

/// The wants that fit together, the hardware domain first, then in the order of the request.
/// The others are refused.
pub(crate) fn admit<'a>(
    ground: &Ground<'_>,
    request: &SystemRequest,
    free: &[MfnRange],
    home: u64,
    wants: Vec<Want<'a>>,
    report: &mut Report,
) -> Vec<Want<'a>> {
    let mut room = Room::new(free, home, &wants);
    let mut order: Vec<&Want<'_>> = wants.iter().collect();
    sort_by_key(&mut order, |want| {
        [u64::from(!want.identity.is_hardware()), 0, 0]
    });
    let mut admitted: Vec<usize> = Vec::new();
    for want in order {
        let frames = want.frames.unwrap_or(want.modules.least_frames());
        if frames > want.most && !want.identity.uses_host_layout() {
            beyond_layout(ground, request, want.index, report);
        } else if room.left(want.limit) < frames {
            let largest = room.left(want.limit);
            too_large(ground, request, want, largest, home, &admitted, report);
        } else {
            room.take(want.limit, frames);
            admitted.push(want.index);
        }
    }
    admitted.sort_unstable();
    wants
        .into_iter()
        .filter(|want| admitted.binary_search(&want.index).is_ok())
        .collect()
}

/// For each limit how many frames below it nobody was promised.
///
/// A tree over the limits, lowest first, in which each costs logarithmic time: a leaf holds by how
/// much its limit has more than the one before it, a node the sum of its leaves and the least sum
/// of its first leaves, one or more. Node 1 is the root, the children of `n` are `2n` and `2n + 1`.
struct Room {
    limits: Vec<Mfn>,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Default)]
struct Node {
    sum: i64,
    least: i64,
}

impl Node {
    fn leaf(value: i64) -> Self {
        let (sum, least) = (value, value);
        Self { sum, least }
    }

    fn of(first: Self, second: Self) -> Self {
        Self {
            sum: first.sum + second.sum,
            least: first.least.min(first.sum + second.least),
        }
    }
}

impl Room {
    fn new(free: &[MfnRange], home: u64, wants: &[Want<'_>]) -> Self {
        let all = sets::total(free);
        let mut limits: Vec<Mfn> = wants.iter().map(|want| want.limit).collect();
        sort_by_key(&mut limits, |limit| [limit.raw(), 0, 0]);
        limits.dedup();
        // Free frames in extents that end below the limit, counted as the limits rise.
        let (mut whole, mut counted) = (0, 0);
        let lefts = limits.clone().into_iter().map(|limit| {
            while let Some(extent) = free.get(counted).filter(|extent| extent.end() <= limit) {
                whole += extent.frames();
                counted += 1;
            }
            let cut = free.get(counted);
            let part = cut.map_or(0, |extent| limit.raw().saturating_sub(extent.start().raw()));
            let below = whole + part;
            // The hypervisor may be above the limit, as far as there is room.
            below.saturating_sub(home.saturating_sub(all - below))
        });
        Self::of(limits, lefts)
    }

    fn of(limits: Vec<Mfn>, lefts: impl Iterator<Item = u64>) -> Self {
        let width = limits.len().next_power_of_two();
        let mut nodes = vec![Node::default(); 2 * width];
        let mut before = 0;
        for (leaf, left) in nodes[width..].iter_mut().zip(lefts) {
            let left = i64::try_from(left).unwrap_or(i64::MAX);
            *leaf = Node::leaf(left - before);
            before = left;
        }
        for at in (1..width).rev() {
            nodes[at] = Node::of(nodes[2 * at], nodes[2 * at + 1]);
        }
        Self { limits, nodes }
    }

    fn leaf(&self, limit: Mfn) -> usize {
        self.nodes.len() / 2 + self.limits.partition_point(|bound| *bound < limit)
    }

    /// What a domain with this limit could have: no more than is left under any higher limit.
    fn left(&self, limit: Mfn) -> u64 {
        let mut at = self.leaf(limit);
        let mut from = self.nodes[at];
        while at > 1 {
            let sibling = self.nodes[at ^ 1];
            if at.is_multiple_of(2) {
                from = Node::of(from, sibling);
            } else {
                from.least += sibling.sum;
                from.sum += sibling.sum;
            }
            at /= 2;
        }
        u64::try_from(from.least).unwrap_or(0)
    }

    fn take(&mut self, limit: Mfn, frames: u64) {
        let mut at = self.leaf(limit);
        let less = i64::try_from(frames).unwrap_or(i64::MAX);
        self.nodes[at] = Node::leaf(self.nodes[at].sum.saturating_sub(less));
        while at > 1 {
            at /= 2;
            self.nodes[at] = Node::of(self.nodes[2 * at], self.nodes[2 * at + 1]);
        }
    }
}

fn too_large(
    ground: &Ground<'_>,
    request: &SystemRequest,
    want: &Want<'_>,
    largest: u64,
    home: u64,
    admitted: &[usize],
    report: &mut Report,
) {
    let domain = &request.domains[want.index];
    let label = name(want.index, domain);
    let asked = memory(request, want.index);
    let mut sides = vec![
        side(
            want.index,
            format!("{label}, {asked}"),
            domain.memory.origin,
        ),
        ground.ram_side(None),
        host_side(
            format!("the hypervisor, {}", Size(home << FRAME_SHIFT)),
            Origin::NONE,
        ),
    ];
    if let Some(limit) = domain.memory_below {
        let what = format!("{label}, memory-below = {:#x}", limit.value);
        sides.push(side(want.index, what, limit.origin));
    }
    sides.extend(admitted.iter().take(MOST_NAMED).map(|other| {
        let domain = &request.domains[*other];
        let what = format!("{}, {}", name(*other, domain), memory(request, *other));
        side(*other, what, domain.memory.origin)
    }));
    let total = Size(sets::total(&ground.usable) << FRAME_SHIFT);
    let why = format!("of {total} of RAM the hypervisor and the others leave less");
    let bytes = largest << FRAME_SHIFT;
    let mib = bytes >> 20 << 20;
    let help = if let (0, Some(_)) = (largest, domain.memory_below) {
        String::from("leave out memory-below, or raise it: nothing is free below")
    } else if want.frames.is_none() || largest < want.modules.least_frames() || mib == 0 {
        format!(
            "less memory for another domain: only {} are left",
            Size(bytes)
        )
    } else {
        format!("memory = \"{:#}\" or less", Size(mib))
    };
    report.error(Code::MemoryTooLarge, &[want.index], sides, why, help);
}

fn memory(request: &SystemRequest, index: usize) -> String {
    match request.domains[index].memory.value {
        MemoryRequest::Size(size) => format!("memory of {}", Size(size)),
        MemoryRequest::Rest => String::from("memory = \"rest\""),
        MemoryRequest::SumOfStatic => String::from("static-mem"),
    }
}

/// There is memory enough, but in pieces that don't hold what must lie in one. `exhaustive`: no
/// other arrangement would.
pub(crate) fn no_contiguous_room(
    ground: &Ground<'_>,
    request: &SystemRequest,
    want: &Want<'_>,
    exhaustive: bool,
    report: &mut Report,
) {
    if want.modules.bounded {
        let direct = want.identity.is_direct_mapped();
        out_of_bounds(ground, request, want.index, direct, &[], exhaustive, report);
        return;
    }
    let domain = &request.domains[want.index];
    let label = name(want.index, domain);
    let limit = sets::below(&ground.usable, want.limit);
    let largest = largest_free(&limit, want.modules.kernel.align >> FRAME_SHIFT);
    let mut sides: Vec<Side> = vec![side(
        want.index,
        format!("{label}, {}", memory(request, want.index)),
        domain.memory.origin,
    )];
    sides.extend(domain.kernel.iter().map(|kernel| {
        let what = format!(
            "{label}, kernel of {} bytes in memory",
            want.modules.kernel.size
        );
        side(want.index, what, kernel.origin)
    }));
    sides.push(ground.ram_side(largest.map(|range| range.bytes())));
    let tried = if exhaustive {
        "in every arrangement of the domains"
    } else {
        "in the best arrangement found; not all of them were tried"
    };
    let why = format!(
        "what is free lies in pieces that don't hold the kernel, the ramdisk and the device tree, \
         {tried}"
    );
    let help = match largest {
        Some(range) => format!("the largest piece of RAM: {}", as_static(&range)),
        None => String::from("no RAM that it may have begins at the kernel's alignment"),
    };
    report.error(Code::NoContiguousRoom, &[want.index], sides, why, help);
}

/// Static memory doesn't hold the modules.
pub(crate) fn modules_dont_fit(
    ground: &Ground<'_>,
    request: &SystemRequest,
    index: usize,
    wanted: &Wanted,
    owned: &[MfnRange],
    report: &mut Report,
) {
    let domain = &request.domains[index];
    let direct = domain.identity().is_direct_mapped();
    let holds = |range: &MfnRange| wanted.kernel.lowest(range).is_some();
    if wanted.bounded && !(direct && owned.iter().any(holds)) {
        out_of_bounds(ground, request, index, direct, owned, true, report);
        return;
    }
    if !could_hold(wanted, owned) {
        let size = sets::total(owned) << FRAME_SHIFT;
        too_small(index, domain, wanted, size, report);
        return;
    }
    let what = format!(
        "{}, static-mem in {} ranges",
        name(index, domain),
        owned.len()
    );
    let origin = domain
        .static_mem
        .first()
        .map_or(Origin::NONE, |range| range.origin);
    let kernel = format!("kernel of {} bytes in memory", wanted.kernel.size);
    let kernel_origin = domain
        .kernel
        .as_ref()
        .map_or(Origin::NONE, |kernel| kernel.origin);
    let sides = vec![
        side(index, what, origin),
        side(index, kernel, kernel_origin),
    ];
    let why = String::from("none of the ranges holds what must lie in one piece");
    let least = wanted.comfortable_bytes();
    let start = domain.static_mem.first().map_or(0, |first| first.start);
    let help = format!(
        "one range of at least {}: static-mem = [{{ start = {start:#x}, size = \"{:#}\" }}]",
        Size(least),
        Size(least)
    );
    report.error(Code::NoContiguousRoom, &[index], sides, why, help);
}

/// No RAM that the domain could have, of static ranges `owned`, holds its kernel where that must
/// lie. Names what else is there, as far as it is the request's or the boot loader's.
fn out_of_bounds(
    ground: &Ground<'_>,
    request: &SystemRequest,
    index: usize,
    direct: bool,
    owned: &[MfnRange],
    exhaustive: bool,
    report: &mut Report,
) {
    let domain = &request.domains[index];
    let Some((kernel, bounds)) = domain
        .kernel
        .as_ref()
        .and_then(|kernel| Some((kernel, kernel.bounds?)))
    else {
        return;
    };
    let label = name(index, domain);
    let what = format!("{label}, kernel that must lie in {bounds}");
    let mut sides: Vec<Side> = vec![side(index, what, kernel.origin)];
    let place = MachineRange::between(
        MachineAddress::new(bounds.start().raw()),
        MachineAddress::new(bounds.end().raw()),
    );
    match domain.static_mem.first() {
        Some(first) if !owned.is_empty() => {
            let what = format!("{label}, static-mem in {} ranges", owned.len());
            sides.push(side(index, what, first.origin));
        }
        _ => sides.push(side(
            index,
            format!("{label}, {}", memory(request, index)),
            domain.memory.origin,
        )),
    }
    if direct && owned.is_empty() {
        let boot = ground.host.boot.iter();
        let image = boot.filter(|boot| boot.kind == BootKind::Hypervisor);
        let image = image.filter(|boot| boot.range.overlaps(&place));
        sides.extend(image.map(|boot| {
            let what = format!("the hypervisor's image {}", boot.range);
            host_side(what, boot.origin)
        }));
        let others = request.domains.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        let rivals = others.filter_map(|(other, domain)| rival(other, domain, &place));
        sides.extend(rivals.take(MOST_NAMED));
        sides.push(ground.ram_side(Some(place)));
    }
    let movable = bounds.size() > kernel.memory_size.max(kernel.module.size());
    let why = if direct && exhaustive {
        String::from(
            "a direct-mapped kernel's addresses are the machine's, and no RAM that the domain \
             could have holds it there",
        )
    } else if direct {
        String::from(
            "a direct-mapped kernel's addresses are the machine's, and no RAM that was left for \
             the domain in the best arrangement found holds it there; not all of them were tried",
        )
    } else {
        String::from("the domain's RAM doesn't hold it there")
    };
    let help = match (direct, movable) {
        (true, true) => format!("leave RAM in {bounds} to it, or direct-map = false"),
        (true, false) => String::from("a kernel that can be moved, or direct-map = false"),
        // The guest's RAM begins below its kernel's bounds.
        (false, _) => {
            let least = Wanted::of(ground.host.architecture, domain)
                .map_or(0, |wanted| wanted.comfortable_bytes());
            let least = bounds.start().raw().saturating_add(least);
            at_least(domain, least)
        }
    };
    report.error(Code::KernelBounds, &[index], sides, why, help);
}

/// The help that gives a domain so much memory.
pub(crate) fn at_least(domain: &DomainRequest, least: u64) -> String {
    match domain.static_mem.as_slice() {
        [only] => format!(
            "at least {}: {{ start = {:#x}, size = \"{:#}\" }}",
            Size(least),
            only.start,
            Size(least)
        ),
        _ => format!("memory = \"{:#}\" or more", Size(least)),
    }
}

/// What another domain has, or needs, of `place`.
fn rival(index: usize, domain: &DomainRequest, place: &MachineRange) -> Option<Side> {
    let label = name(index, domain);
    let named = domain.static_mem.iter().find(|range| {
        let start = MachineAddress::new(range.start);
        MachineRange::saturating(start, range.size).overlaps(place)
    });
    if let Some(range) = named {
        let what = format!("{label}, static-mem start {:#x}", range.start);
        return Some(side(index, what, range.origin));
    }
    let kernel = domain.kernel.as_ref()?;
    let bounds = kernel
        .bounds
        .filter(|_| domain.identity().is_direct_mapped())?;
    let overlaps =
        bounds.start().raw() < place.end().raw() && place.start().raw() < bounds.end().raw();
    let what = format!("{label}, kernel that must lie in {bounds}");
    overlaps.then(|| side(index, what, kernel.origin))
}

/// More memory than the guest layout has room for.
pub(crate) fn beyond_layout(
    ground: &Ground<'_>,
    request: &SystemRequest,
    index: usize,
    report: &mut Report,
) {
    let domain = &request.domains[index];
    let architecture = ground.host.architecture;
    let most = guest::most_frames(architecture, &domain.identity(), &ground.usable);
    let most = Size(most << FRAME_SHIFT);
    let what = format!("{}, {}", name(index, domain), memory(request, index));
    let layout = format!(
        "the guest layout of {}, with room for {most}",
        architecture.as_str()
    );
    let sides = vec![
        side(index, what, domain.memory.origin),
        host_side(layout, Origin::NONE),
    ];
    let why = String::from("a domain that isn't direct-mapped sees its RAM at fixed addresses");
    let help = format!("memory = \"{most:#}\" or less, or direct-map = true");
    report.error(Code::BeyondGuestLayout, &[index], sides, why, help);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is left below a limit is what is left of the narrowest limit from it on.
        #[test]
        fn room_is_that_of_the_narrowest_limit(
            lefts in prop::collection::vec(0_u64..1000, 1..20),
            steps in prop::collection::vec((0_usize..20, 0_u64..200), 0..40),
        ) {
            let limits: Vec<Mfn> = (0..lefts.len() as u64).map(Mfn::new).collect();
            let mut room = Room::of(limits.clone(), lefts.iter().copied());
            let mut flat = lefts;
            for (at, frames) in steps {
                let at = at % flat.len();
                let least = flat[at..].iter().copied().min().unwrap_or(0);
                prop_assert_eq!(room.left(limits[at]), least);
                if frames <= least {
                    room.take(limits[at], frames);
                    flat[at..].iter_mut().for_each(|left| *left -= frames);
                }
            }
        }
    }
}
