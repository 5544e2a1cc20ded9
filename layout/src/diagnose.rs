//! Why a system doesn't fit, to the point: an irreducible set of requests, and changes that help.
//!
//! For the command only: it plans again and again, which a hypervisor has no time for at boot. The
//! plan isn't touched; what a conflict about room says is made sharper. A set is irreducible if
//! the domains in it don't fit, and fit as soon as any one is left out. A change is proposed only
//! if the whole system was planned with it, the domain found room and nobody lost any.

mod reach;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::address::{FRAME_SHIFT, MfnRange};
use crate::conflict::{Code, Conflict, Side};
use crate::host::HostMap;
use crate::plan::Outcome;
use crate::planner::ground::{Ground, as_static};
use crate::planner::plan;
use crate::planner::report::{name, side};
use crate::planner::sets::{self, SUPERPAGE, align_down, align_up, frames};
use crate::request::{DomainRequest, MemoryRequest, StaticRange, SystemRequest};
use crate::size::Size;
use crate::sort::sort_by_key;

/// So many times a system is planned again for one conflict's set, and as often for its changes.
const MOST_REPLANS: usize = 64;
/// So many conflicts are looked into; the first ones, which the others often follow from.
const MOST_CONFLICTS: usize = 4;
/// So many domains of a set are named, and so many are looked at for a change.
const MOST_NAMED: usize = 8;
/// So many places are tried for one static range.
const MOST_PLACES: usize = 8;

/// Sharpens the conflicts of `outcome` that say that a domain finds no room: their sides become an
/// irreducible set of requests, and their help the changes that were seen to work. Of those that
/// say that a device reaches too little of its domain's RAM only the help. `outcome` must be of
/// this host and request. Costs nothing if there is no such conflict, else at most 128 plans for
/// each of the first four.
pub fn diagnose(host: &HostMap, request: &SystemRequest, outcome: &mut Outcome) {
    let refused: Vec<usize> = outcome.refused.iter().map(|it| it.domain).collect();
    let unreached: Vec<usize> = outcome.conflicts.iter().filter_map(reach::short).collect();
    let mut left = MOST_CONFLICTS;
    for conflict in &mut outcome.conflicts {
        let short = reach::short(conflict);
        let Some(index) = short
            .or_else(|| short_of_room(conflict))
            .filter(|_| left > 0)
        else {
            continue;
        };
        left -= 1;
        let mut case = Case {
            host,
            request,
            index,
            refused: &refused,
            unreached: None,
        };
        let changes = if short.is_some() {
            let before = unreached.iter().filter(|at| **at == index);
            case.unreached = Some(before.count());
            case.changes_for_reach()
        } else {
            let set = case.irreducible();
            if let Some(set) = &set {
                case.name_sides(set, conflict);
            }
            case.changes(set.as_deref().unwrap_or(&[index]))
        };
        if !changes.is_empty() {
            conflict.help = changes.join("; or ");
        }
    }
}

/// The domain that finds no room, if that is what a conflict is about.
fn short_of_room(conflict: &Conflict) -> Option<usize> {
    let about = is_about_room(conflict.code) && conflict.is_error();
    about.then(|| conflict.sides.first()?.domain)?
}

fn is_about_room(code: Code) -> bool {
    matches!(
        code,
        Code::MemoryTooLarge | Code::NoContiguousRoom | Code::KernelBounds
    )
}

/// One domain that finds no room, or none that its device reaches.
struct Case<'a> {
    host: &'a HostMap,
    request: &'a SystemRequest,
    index: usize,
    /// Everybody who was refused, this one included.
    refused: &'a [usize],
    /// How many conflicts say of the domain's devices that they reach too little, if this is about
    /// one of them.
    unreached: Option<usize>,
}

impl Case<'_> {
    /// The domains, this one among them, that can't all have room. `None` if that isn't found
    /// within the bounds.
    fn irreducible(&self) -> Option<Vec<usize>> {
        let everybody = 0..self.request.domains.len();
        let mut set: Vec<usize> = everybody
            .filter(|at| *at == self.index || !self.refused.contains(at))
            .collect();
        let mut replans = 0;
        if !self.lacks_room(&set) {
            return None;
        }
        // Whole halves first, then smaller and smaller parts, in the end one by one.
        let mut part = set.len().div_ceil(2).max(1);
        loop {
            let before = set.len();
            let mut at = 0;
            while at < set.len() {
                let end = (at + part).min(set.len());
                let rest: Vec<usize> = [&set[..at], &set[end..]].concat();
                replans += 1;
                if replans > MOST_REPLANS {
                    return None;
                }
                // Without this domain the others fit: it stays.
                let alone = end - at == 1 && set[at] == self.index;
                if !alone && rest.contains(&self.index) && self.lacks_room(&rest) {
                    set = rest;
                } else {
                    at = end;
                }
            }
            // Best fit isn't monotone: all that is left was tried with just that left.
            if part == 1 && set.len() == before {
                break;
            }
            part = part.div_ceil(2);
        }
        let others: Vec<usize> = set
            .iter()
            .filter(|at| **at != self.index)
            .copied()
            .collect();
        (others.is_empty() || !self.lacks_room(&others)).then_some(set)
    }

    /// Whether these domains alone don't find room.
    fn lacks_room(&self, set: &[usize]) -> bool {
        let domains = set.iter().map(|at| self.request.domains[*at].clone());
        let part = SystemRequest {
            hypervisor: self.request.hypervisor.clone(),
            domains: domains.collect(),
        };
        let outcome = plan(self.host, &part);
        let mut codes = outcome.refused.iter().map(|refused| refused.code);
        codes.any(|code| is_about_room(code) || code == Code::NoRoomForHypervisor)
    }

    /// The set in place of the sides that the planner could name without trying, the host's kept.
    fn name_sides(&self, set: &[usize], conflict: &mut Conflict) {
        let own = |side: &Side| side.domain == Some(self.index);
        let host = |side: &Side| side.domain.is_none();
        let mut sides: Vec<Side> = conflict
            .sides
            .iter()
            .filter(|it| own(it))
            .cloned()
            .collect();
        let others = set.iter().filter(|at| **at != self.index);
        sides.extend(others.take(MOST_NAMED).map(|at| {
            let domain = &self.request.domains[*at];
            let what = format!("{}, {}", name(*at, domain), wish(domain));
            side(*at, what, domain.memory.origin)
        }));
        sides.extend(conflict.sides.iter().filter(|it| host(it)).cloned());
        conflict.sides = sides;
        conflict.why.push_str(match set.len() {
            1 => ": it doesn't fit even alone",
            2 => ": without either of the two the other fits",
            _ => ": without any one of those named the others fit",
        });
        let unnamed = set.len().saturating_sub(1 + MOST_NAMED);
        if unnamed > 0 {
            let more = format!(" (and {unnamed} more of which the same is true)");
            conflict.why.push_str(&more);
        }
    }

    /// What would help, nearest first: of this domain, then of the others in the set.
    fn changes(&self, set: &[usize]) -> Vec<String> {
        let mut budget = MOST_REPLANS;
        let mut changes = Vec::new();
        let others = set.iter().filter(|at| **at != self.index).copied();
        for at in core::iter::once(self.index).chain(others).take(MOST_NAMED) {
            let domain = &self.request.domains[at];
            let whose = if at == self.index {
                String::new()
            } else {
                format!(" for {}", name(at, domain))
            };
            let found = [
                self.smaller(at, &mut budget),
                self.moved(at, &[], &mut budget),
                self.higher_limit(at, &mut budget),
                self.not_direct(at, &mut budget),
            ];
            changes.extend(found.into_iter().flatten().map(|it| format!("{it}{whose}")));
        }
        changes
    }

    /// Whether the domain finds room once `at` is changed, and nobody is refused who wasn't.
    fn helps(
        &self,
        at: usize,
        budget: &mut usize,
        change: impl FnOnce(&mut DomainRequest),
    ) -> bool {
        let Some(left) = budget.checked_sub(1) else {
            return false;
        };
        *budget = left;
        let mut request = self.request.clone();
        change(&mut request.domains[at]);
        let outcome = plan(self.host, &request);
        let mut refused = outcome.refused.iter().map(|it| it.domain);
        refused.all(|domain| domain != self.index && self.refused.contains(&domain))
            && self.unreached.is_none_or(|before| {
                let unreached = outcome.conflicts.iter().filter_map(reach::short);
                unreached.filter(|at| *at == self.index).count() < before
            })
    }

    /// The largest size, in MiB, that fits.
    fn smaller(&self, at: usize, budget: &mut usize) -> Option<String> {
        let domain = &self.request.domains[at];
        let MemoryRequest::Size(size) = domain.memory.value else {
            return None;
        };
        if !domain.static_mem.is_empty() {
            return None;
        }
        let fits = |mib: u64, budget: &mut usize| {
            let change = |it: &mut DomainRequest| it.memory.value = MemoryRequest::Size(mib << 20);
            mib > 0 && self.helps(at, budget, change)
        };
        let ram = self.host.ram.iter().map(|bank| bank.range.size());
        let all = ram.fold(0, u64::saturating_add);
        // A small size first: if that doesn't help, no other does.
        let modules = domain
            .kernel
            .iter()
            .map(|it| it.memory_size.max(it.module.size()));
        let modules = modules.chain(domain.ramdisk.iter().map(|it| it.module.size()));
        let least = modules.fold(domain.tree_bytes, u64::saturating_add);
        let mut good = (least >> 20) + 4;
        let mut bad = size.min(all).div_ceil(1 << 20);
        if good >= bad || !fits(good, budget) {
            return None;
        }
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle, budget) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Some(format!("memory = \"{:#}\"", Size(good << 20)))
    }

    /// Another place for one of the static ranges: the nearest that helps, at the ends of what is
    /// free without it and isn't to be avoided.
    fn moved(&self, at: usize, avoid: &[MfnRange], budget: &mut usize) -> Option<String> {
        let domain = &self.request.domains[at];
        for (number, range) in domain.static_mem.iter().enumerate() {
            let free = self.unnamed(|index, other| (index, other) != (at, number));
            for start in places(&sets::subtract(&free, avoid), range) {
                let moved = StaticRange { start, ..*range };
                let change = |it: &mut DomainRequest| it.static_mem[number] = moved;
                if self.helps(at, budget, change) {
                    let place = as_static(&sets::bytes(start, range.size).frames_inside());
                    return Some(match domain.static_mem.len() {
                        1 => format!("static-mem = [{place}]"),
                        _ => format!("{place} in place of start {:#x}", range.start),
                    });
                }
            }
        }
        None
    }

    /// RAM off all static ranges that `counts` says of, by domain and number, and off what the boot
    /// loader left.
    fn unnamed(&self, counts: impl Fn(usize, usize) -> bool) -> Vec<MfnRange> {
        let ground = Ground::new(self.host);
        let all = self.request.domains.iter().enumerate();
        let named = all.flat_map(|(index, domain)| {
            let ranges = domain.static_mem.iter().enumerate();
            ranges.map(move |(number, range)| (index, number, range))
        });
        let named = named.filter(|(index, number, _)| counts(*index, *number));
        let named = named.map(|(.., range)| sets::bytes(range.start, range.size));
        let boot = self.host.boot.iter().map(|boot| boot.range);
        let taken = named.chain(boot).map(|range| range.frames_touched());
        sets::subtract(&ground.usable, &sets::normalise(taken.collect()))
    }

    /// The lowest higher `memory-below` that helps, at an end of RAM; else none at all.
    fn higher_limit(&self, at: usize, budget: &mut usize) -> Option<String> {
        let limit = self.request.domains[at].memory_below?;
        if !self.helps(at, budget, |it| it.memory_below = None) {
            return None;
        }
        let ends = self.host.ram.iter().map(|bank| bank.range.end().raw());
        let mut ends: Vec<u64> = ends.filter(|end| *end > limit.value).collect();
        ends.sort_unstable();
        for end in ends.into_iter().take(MOST_PLACES) {
            let mut raised = limit;
            raised.value = end;
            if self.helps(at, budget, |it| it.memory_below = Some(raised)) {
                return Some(format!("memory-below = {end:#x}"));
            }
        }
        Some(String::from("no memory-below"))
    }

    /// `direct-map = false`.
    fn not_direct(&self, at: usize, budget: &mut usize) -> Option<String> {
        let domain = &self.request.domains[at];
        if !domain.identity().is_direct_mapped() {
            return None;
        }
        let change = |it: &mut DomainRequest| it.direct_map = Some(false.into());
        self.helps(at, budget, change)
            .then(|| String::from("direct-map = false"))
    }
}

/// Other starts for a static range at the ends of what is free, nearest first.
fn places(free: &[MfnRange], range: &StaticRange) -> Vec<u64> {
    let count = range.size >> FRAME_SHIFT;
    let ends = free.iter().filter(|extent| extent.frames() >= count);
    let ends = ends.flat_map(|extent| {
        let low = align_up(extent.start().raw(), SUPERPAGE);
        let high = align_down(extent.end().raw() - count, SUPERPAGE);
        let inside = |start: &u64| extent.covers(&frames(*start, start.saturating_add(count)));
        [low, high].into_iter().filter(inside).collect::<Vec<_>>()
    });
    let mut starts: Vec<u64> = ends
        .map(|start| start << FRAME_SHIFT)
        .filter(|start| *start != range.start)
        .collect();
    sort_by_key(&mut starts, |start| {
        [start.abs_diff(range.start), *start, 0]
    });
    starts.dedup();
    starts.truncate(MOST_PLACES);
    starts
}

/// What a domain wants of memory, as its manifest says it.
fn wish(domain: &DomainRequest) -> String {
    let mut wish = match (domain.memory.value, domain.static_mem.as_slice()) {
        (_, [first, more @ ..]) => {
            let more = match more.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let size = Size(first.size);
            format!("static-mem start {:#x}, size {size}{more}", first.start)
        }
        (MemoryRequest::Size(size), []) => format!("memory of {}", Size(size)),
        (MemoryRequest::Rest, []) => String::from("memory = \"rest\""),
        (MemoryRequest::SumOfStatic, []) => String::from("no memory"),
    };
    if let Some(limit) = domain.memory_below {
        wish.push_str(&format!(", memory-below = {:#x}", limit.value));
    }
    if domain.identity().is_direct_mapped() {
        wish.push_str(", direct-mapped");
    }
    wish
}
