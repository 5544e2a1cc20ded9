//! One way to share RAM out: a place for the hypervisor, an order of the domains, an end of the
//! free extents for each.
//!
//! With preferences a domain is first given RAM that its devices reach, on the NUMA node that was
//! chosen for it, and what is scarce because only low addresses are reached is kept from those
//! who can do without. Whoever finds nothing so is served last, from whatever there is.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::fit::{Within, around, largest, part_around, spread, whole, with_kernel};
use super::free::FreeList;
use super::home::Place;
use super::place::{MOST_EXTENTS, Task, Want};
use super::sets::{self, SUPERPAGE, align_down, align_up, frames};
use crate::address::{FRAME_SIZE, Mfn, MfnRange};

/// So much reachable RAM is enough for a domain that can't have all of its RAM so: Linux bounces
/// through 64 MiB.
const BOUNCE_FRAMES: u64 = (64 << 20) / FRAME_SIZE;

/// For each want its frames, if there was room, and the frames that nobody has. Bit n of `ends`
/// turns the n-th domain of `order` from its usual end of an extent to the other.
pub(crate) fn owned(
    task: &Task<'_>,
    place: Place,
    order: &[usize],
    ends: usize,
    prefer: bool,
) -> (Vec<Option<Vec<MfnRange>>>, Vec<MfnRange>) {
    let mut owned: Vec<Option<Vec<MfnRange>>> = task.wants.iter().map(|_| None).collect();
    let all = sets::subtract(task.free, &[place.region]);
    let rests = if prefer {
        reach_of_rests(task.wants)
    } else {
        None
    };
    let kept = kept_for_rests(task.wants, &all, rests);
    let mut free = FreeList::new(&sets::subtract(&all, &kept));
    let mut scarce = Scarce(rests.into_iter().collect());
    let mut held: Vec<MfnRange> = Vec::new();
    // So many reaches were cut out for `held`.
    let mut cut = 0;
    let mut bouncing: Vec<(usize, bool)> = Vec::new();
    let mut again: Vec<(usize, bool)> = Vec::new();
    for (turn, &at) in (0..).zip(order) {
        let want = &task.wants[at];
        let limit = if prefer {
            want.soft_limit()
        } else {
            want.limit
        };
        free.raise(limit);
        // Those with a lower limit came before.
        let grown = scarce.0.len() > cut;
        if grown && want.reach.is_none() && scarce.end().is_some_and(|end| end < limit) {
            let available: Vec<MfnRange> = free.extents().collect();
            let pieces = sets::intersect(&available, &scarce.frames(cut));
            cut = scarce.0.len();
            pieces.iter().for_each(|piece| free.cut(*piece));
            held.extend(pieces);
        }
        // Boot loaders put modules low: they stay where they are if others come from above.
        // Below a limit the upper end would cut through an extent that goes on.
        let high = (limit == Mfn::MAX) != ends.checked_shr(turn).is_some_and(|bits| bits & 1 == 1);
        let preferences = if prefer {
            preferences(want, rests)
        } else {
            Vec::new()
        };
        let preferred = preferences.iter();
        owned[at] = preferred
            .filter_map(|within| pieces(&mut free, want, high, Some(within)))
            .next();
        if owned[at].is_some() {
            continue;
        }
        if let Some(reach) = want.reach.as_deref().filter(|_| prefer) {
            scarce.add(reach);
            bouncing.push((at, high));
            continue;
        }
        if prefer {
            owned[at] = pieces(&mut free, want, high, None);
            if owned[at].is_none() {
                again.push((at, high));
            }
        } else {
            owned[at] = anyhow(&mut free, want, high, None);
        }
    }
    free.raise(Mfn::MAX);
    held.into_iter().for_each(|piece| free.give(piece));
    // Something for each who bounces, then all for those who must have it here, then the more the
    // better.
    let aside = bouncing.iter().map(|(at, _)| {
        let want = &task.wants[*at];
        let piece = set_aside(&mut free, want, want.reach.as_deref());
        piece.inspect(|piece| free.cut(*piece))
    });
    let aside: Vec<Option<MfnRange>> = aside.collect();
    for (at, high) in again {
        let want = &task.wants[at];
        owned[at] = anyhow(&mut free, want, high, Some(&below(want)));
    }
    let scarce = scarce.frames(0);
    for ((at, high), aside) in bouncing.into_iter().zip(aside) {
        aside.into_iter().for_each(|piece| free.give(piece));
        owned[at] = in_part(&mut free, &task.wants[at], high, &scarce);
    }
    kept.iter().for_each(|piece| free.give(*piece));
    let mut left: Vec<MfnRange> = free.extents().collect();
    let rests = task.wants.iter().enumerate();
    for (at, want) in rests.filter(|(_, want)| want.frames.is_none()) {
        let extents = sets::below(&left, want.limit);
        let share = largest(extents, MOST_EXTENTS, want.most, &kept);
        left = sets::subtract(&left, &share);
        owned[at] = Some(share);
    }
    (owned, left)
}

/// What somebody reaches who doesn't reach all of its RAM: for the others only if nothing else is
/// left.
struct Scarce<'a>(Vec<&'a [MfnRange]>);

impl<'a> Scarce<'a> {
    fn add(&mut self, reach: &'a [MfnRange]) {
        // Many devices have one reach.
        if self
            .0
            .last()
            .is_none_or(|last| !core::ptr::eq(*last, reach))
        {
            self.0.push(reach);
        }
    }

    fn end(&self) -> Option<Mfn> {
        let ends = self.0.iter().filter_map(|reach| reach.last());
        ends.map(MfnRange::end).max()
    }

    /// All of it, without the first so many reaches.
    fn frames(&self, skip: usize) -> Vec<MfnRange> {
        let left = self.0.get(skip..).unwrap_or_default();
        sets::normalise(left.concat())
    }
}

fn below(want: &Want<'_>) -> [MfnRange; 1] {
    [MfnRange::between(Mfn::new(0), want.limit)]
}

/// Where a domain would rather have its RAM, the best first. What those who take the rest reach is
/// left to them by whoever reaches more, on another node if it must.
fn preferences(want: &Want<'_>, rests: Option<&[MfnRange]>) -> Vec<Rc<[MfnRange]>> {
    let Some(reach) = &want.reach else {
        return want.nodes.clone();
    };
    let nodes = want.nodes.iter();
    let nodes = nodes.map(|node| sets::intersect(reach, node));
    let mut preferences: Vec<Rc<[MfnRange]>> = Vec::new();
    if let Some(rests) = rests {
        let beside = |all: &[MfnRange]| sets::subtract(all, rests).into();
        preferences.extend(nodes.clone().map(|node| beside(&node)));
        preferences.push(beside(reach));
    }
    preferences.extend(nodes.map(Rc::from));
    preferences.push(Rc::clone(reach));
    preferences
}

/// All of a domain's frames, in one piece if there is one.
fn pieces(
    free: &mut FreeList,
    want: &Want<'_>,
    high: bool,
    within: Within<'_>,
) -> Option<Vec<MfnRange>> {
    let count = want.frames?;
    match want.bounded_kernel() {
        Some(kernel) => with_kernel(free, count, high, want.core(), kernel, within),
        None => {
            let one = whole(free, count, high, within);
            one.or_else(|| spread(free, count, within))
        }
    }
}

/// The same for who finds nothing else: its kernel may happen to fit into pieces that don't hold
/// everything beside it.
fn anyhow(
    free: &mut FreeList,
    want: &Want<'_>,
    high: bool,
    within: Within<'_>,
) -> Option<Vec<MfnRange>> {
    pieces(free, want, high, within).or_else(|| spread(free, want.frames?, within))
}

/// For who doesn't fit where its devices reach: as much as is left there, the rest anywhere below
/// its limit, of what is `scarce` only where there is nothing else.
fn in_part(
    free: &mut FreeList,
    want: &Want<'_>,
    high: bool,
    scarce: &[MfnRange],
) -> Option<Vec<MfnRange>> {
    let count = want.frames?;
    let below = below(want);
    let reach = sets::intersect(want.reach.as_deref()?, &below);
    let mut owned = Vec::new();
    if let Some(kernel) = want.bounded_kernel() {
        let mut first = |within| part_around(free, count, false, want.core(), kernel, within);
        owned.push(first(Some(&reach)).or_else(|| first(Some(&below)))?);
    }
    let available: Vec<MfnRange> = free.extents().collect();
    let reached = superpages(&sets::intersect(&available, &reach));
    let missing = count - sets::total(&owned);
    // What is left may have to go into many pieces, too.
    let reached = largest(reached, MOST_EXTENTS / 2, missing, &[]);
    reached.iter().for_each(|piece| free.cut(*piece));
    owned.extend(reached);
    let missing = count - sets::total(&owned);
    if missing > 0 {
        let elsewhere = sets::subtract(&below, scarce);
        let more = [elsewhere.as_slice(), &below]
            .into_iter()
            .find_map(|within| {
                let one = whole(free, missing, high, Some(within));
                one.or_else(|| spread(free, missing, Some(within)))
            });
        owned.extend(more.into_iter().flatten());
    }
    let all = sets::normalise(owned);
    if sets::total(&all) == count && all.len() <= MOST_EXTENTS {
        return Some(all);
    }
    all.into_iter().for_each(|piece| free.give(piece));
    anyhow(free, want, high, Some(&below))
}

/// The whole superpages in `ranges`, or, if there is none, what there is.
fn superpages(ranges: &[MfnRange]) -> Vec<MfnRange> {
    let whole = ranges.iter().map(|range| {
        let end = align_down(range.end().raw(), SUPERPAGE);
        frames(align_up(range.start().raw(), SUPERPAGE), end)
    });
    let whole = sets::normalise(whole.collect());
    if whole.is_empty() {
        ranges.to_vec()
    } else {
        whole
    }
}

/// What those who take the rest reach with their devices, if that isn't everything.
fn reach_of_rests<'a>(wants: &'a [Want<'_>]) -> Option<&'a [MfnRange]> {
    let mut rests = wants.iter().filter(|want| want.frames.is_none());
    rests.find_map(|want| want.reach.as_deref())
}

/// Who takes the rest comes last.
fn kept_for_rests(
    wants: &[Want<'_>],
    free: &[MfnRange],
    reach: Option<&[MfnRange]>,
) -> Vec<MfnRange> {
    let rests = wants.iter().filter(|want| want.frames.is_none());
    let found = rests.filter_map(|want| {
        let mut free = FreeList::new(free);
        free.raise(want.limit);
        set_aside(&mut free, want, reach)
    });
    sets::normalise(found.collect())
}

/// What who comes late must find all the same: its kernel's place, else some RAM that its devices
/// reach.
fn set_aside(free: &mut FreeList, want: &Want<'_>, reach: Option<&[MfnRange]>) -> Option<MfnRange> {
    let below = below(want);
    let reach = reach.map(|reach| sets::intersect(reach, &below));
    if let Some(kernel) = want.bounded_kernel() {
        let mut found = |within| around(free, want.core(), false, kernel, within);
        return found(reach.as_deref()).or_else(|| found(Some(&below)));
    }
    let available: Vec<MfnRange> = free.extents().collect();
    let reached = sets::intersect(&available, &reach?);
    let piece = reached.iter().max_by_key(|piece| piece.frames())?;
    let end = piece.start().offset(piece.frames().min(BOUNCE_FRAMES));
    Some(MfnRange::between(piece.start(), end))
}
