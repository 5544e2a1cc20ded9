//! One way to share RAM out: a place for the hypervisor, an order of the domains, an end of the
//! free extents for each.
//!
//! With preferences a domain is first given RAM that its devices reach, on the NUMA node that was
//! chosen for it, and what is scarce because only low addresses are reached is kept from those
//! who can do without. Whoever finds nothing so is served last, from whatever there is.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use super::fit::{Within, around, largest, spread, whole, with_kernel};
use super::free::FreeList;
use super::home::Place;
use super::place::{Task, Want};
use super::sets;
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
    let scarce = if prefer { scarce(task.wants) } else { None };
    let kept = kept_for_rests(task.wants, &all, scarce);
    let mut free = FreeList::new(&sets::subtract(&all, &kept));
    let mut held: Option<Vec<MfnRange>> = None;
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
        if let Some(scarce) = scarce
            && held.is_none()
            && want.reach.is_none()
            && scarce.last().is_some_and(|last| last.end() < limit)
        {
            let available: Vec<MfnRange> = free.extents().collect();
            let pieces = sets::intersect(&available, scarce);
            pieces.iter().for_each(|piece| free.cut(*piece));
            held = Some(pieces);
        }
        // Boot loaders put modules low: they stay where they are if others come from above.
        // Below a limit the upper end would cut through an extent that goes on.
        let high = (limit == Mfn::MAX) != ends.checked_shr(turn).is_some_and(|bits| bits & 1 == 1);
        let preferences = if prefer {
            preferences(want)
        } else {
            Vec::new()
        };
        let preferred = preferences.iter();
        owned[at] = preferred
            .filter_map(|within| pieces(&mut free, want, high, Some(within)))
            .next();
        if owned[at].is_none() && (!prefer || want.reach.is_none()) {
            owned[at] = pieces(&mut free, want, high, None);
        }
        if owned[at].is_none() && prefer {
            again.push((at, high));
        }
    }
    free.raise(Mfn::MAX);
    held.into_iter()
        .flatten()
        .for_each(|piece| free.give(piece));
    for (at, high) in again {
        owned[at] = without_preference(&mut free, &task.wants[at], high);
    }
    kept.iter().for_each(|piece| free.give(*piece));
    let mut left: Vec<MfnRange> = free.extents().collect();
    let rests = task.wants.iter().enumerate();
    for (at, want) in rests.filter(|(_, want)| want.frames.is_none()) {
        let share = largest(sets::below(&left, want.limit), want.most, &kept);
        left = sets::subtract(&left, &share);
        owned[at] = Some(share);
    }
    (owned, left)
}

/// Where a domain would rather have its RAM, the best first.
fn preferences(want: &Want<'_>) -> Vec<Rc<[MfnRange]>> {
    match (&want.reach, &want.node) {
        (None, None) => Vec::new(),
        (Some(only), None) | (None, Some(only)) => vec![Rc::clone(only)],
        (Some(reach), Some(node)) => {
            vec![sets::intersect(reach, node).into(), Rc::clone(reach)]
        }
    }
}

/// All of a domain's frames, in one piece if there is one.
fn pieces(
    free: &mut FreeList,
    want: &Want<'_>,
    high: bool,
    within: Within<'_>,
) -> Option<Vec<MfnRange>> {
    let count = want.frames?;
    let found = match want.bounded_kernel() {
        Some(kernel) => with_kernel(free, count, high, want.core(), kernel, within),
        None => whole(free, count, high, within),
    };
    found.or_else(|| spread(free, count, within))
}

/// For who found nothing where it would rather be: a part that its devices reach, the rest
/// anywhere below its limit.
fn without_preference(free: &mut FreeList, want: &Want<'_>, high: bool) -> Option<Vec<MfnRange>> {
    let below = [MfnRange::between(Mfn::new(0), want.limit)];
    let count = want.frames?;
    if let Some(reach) = &want.reach
        && want.bounded_kernel().is_none()
    {
        let available: Vec<MfnRange> = free.extents().collect();
        let most = sets::total(&sets::intersect(&available, reach));
        let part = spread(free, count.min(BOUNCE_FRAMES).min(most), Some(reach));
        if let Some(part) = part {
            let left = count - sets::total(&part);
            if left == 0 {
                return Some(part);
            }
            let more = whole(free, left, high, Some(&below));
            if let Some(more) = more.or_else(|| spread(free, left, Some(&below))) {
                return Some(sets::union(&part, &more));
            }
            part.into_iter().for_each(|piece| free.give(piece));
        }
    }
    pieces(free, want, high, Some(&below))
}

/// What those who take the rest reach with their devices, if that isn't everything.
fn scarce<'a>(wants: &'a [Want<'_>]) -> Option<&'a [MfnRange]> {
    let mut rests = wants.iter().filter(|want| want.frames.is_none());
    rests.find_map(|want| want.reach.as_deref())
}

/// Who takes the rest comes last, and must find its kernel's place all the same, and some RAM that
/// its devices reach.
fn kept_for_rests(
    wants: &[Want<'_>],
    free: &[MfnRange],
    scarce: Option<&[MfnRange]>,
) -> Vec<MfnRange> {
    let rests = wants.iter().filter(|want| want.frames.is_none());
    let found = rests.filter_map(|want| {
        let mut free = FreeList::new(free);
        free.raise(want.limit);
        if let Some(kernel) = want.bounded_kernel() {
            return around(&mut free, want.core(), false, kernel, scarce)
                .or_else(|| around(&mut free, want.core(), false, kernel, None));
        }
        let available: Vec<MfnRange> = free.extents().collect();
        let reached = sets::intersect(&available, scarce?);
        let piece = reached.iter().max_by_key(|piece| piece.frames())?;
        let end = piece.start().offset(piece.frames().min(BOUNCE_FRAMES));
        Some(MfnRange::between(piece.start(), end))
    });
    sets::normalise(found.collect())
}
