//! Shares out the RAM that no configuration names: the hypervisor's region, and the domains
//! that gave a size or take the rest.
//!
//! Each domain goes whole into the smallest free extent that holds it, at one of its ends, and
//! is split over the largest ones only if there is none. With few domains every order of them
//! and both ends are tried, and the cheapest outcome is taken; if a domain found no place even
//! so, [`exact`](super::exact) searches on. With many domains one pass must do.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::free::FreeList;
use super::home::{Home, Place};
use super::modules::{self, Layout, Wanted};
use super::sets::{self, GIGAPAGE, SUPERPAGE, align_down, align_up, frames};
use super::{exact, guest};
use crate::address::{FRAME_SHIFT, FRAME_SIZE, Mfn, MfnRange};
use crate::domain::Identity;
use crate::host::Architecture;
use crate::plan::Bank;
use crate::sort::sort_by_key;

/// The most extents of machine RAM for a domain. Linux's early memory map starts with room
/// for 128 regions, of which reservations take some.
pub(crate) const MOST_EXTENTS: usize = 64;
/// Up to so many domains of a size every order and both ends are tried, and up to so many in
/// all the exact search follows.
const FEW_DOMAINS: usize = 3;
/// With more free extents than this, trying everything would take too long at boot.
const FEW_EXTENTS: usize = 16;
/// So many places for the hypervisor's region are tried.
const PLACES_TRIED: usize = 6;

/// A domain that wants memory anywhere.
pub(crate) struct Want<'a> {
    /// Its index in the request.
    pub(crate) index: usize,
    pub(crate) identity: Identity,
    /// How many frames; `None` for the rest.
    pub(crate) frames: Option<u64>,
    /// The most that its guest layout has room for.
    pub(crate) most: u64,
    /// All of them below this one.
    pub(crate) limit: Mfn,
    pub(crate) modules: &'a Wanted,
}

impl<'a> Want<'a> {
    /// The kernel, if that must lie at machine addresses of its own choice.
    fn bounded_kernel(&self) -> Option<&'a modules::Item> {
        let bounded = self.modules.bounded && self.identity.is_direct_mapped();
        bounded.then_some(&self.modules.kernel)
    }

    /// Frames that hold all of its modules.
    fn core(&self) -> u64 {
        self.modules.comfortable_bytes().div_ceil(FRAME_SIZE)
    }
}

/// What all attempts share.
pub(crate) struct Task<'a> {
    pub(crate) architecture: Architecture,
    /// RAM that anybody may have, the statically owned included: what a domain that uses the
    /// host's layout without being direct-mapped sees.
    pub(crate) usable: &'a [MfnRange],
    /// RAM that is to be shared out.
    pub(crate) free: &'a [MfnRange],
    pub(crate) wants: &'a [Want<'a>],
    pub(crate) home: &'a Home,
    /// Where modules lie that may have to be copied.
    pub(crate) sources: &'a [MfnRange],
}

/// Where everything went.
pub(crate) struct Sharing {
    pub(crate) home: Place,
    /// For each want its frames and modules, if there was room.
    pub(crate) shares: Vec<Option<Share>>,
    score: Score,
}

/// A domain's part.
#[derive(Clone)]
pub(crate) struct Share {
    pub(crate) banks: Vec<Bank>,
    pub(crate) layout: Layout,
}

/// What an outcome costs, the most important first; less is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Score {
    /// Domains that found no room.
    refused: usize,
    /// Extents of the domains' RAM.
    banks: usize,
    /// Extents that are left over.
    leftovers: usize,
    /// Frames outside of whole superpages.
    small: u64,
    /// Bytes of modules and of the hypervisor's image to be moved.
    copied: u64,
    /// 1 GiB pages.
    large: Reverse<u64>,
}

/// Shares the RAM out; `None` if the hypervisor itself finds no room.
pub(crate) fn share_out(task: &Task<'_>) -> Option<Sharing> {
    let places = task.home.candidates(task.free);
    let sized = task
        .wants
        .iter()
        .filter(|want| want.frames.is_some())
        .count();
    let few = sized <= FEW_DOMAINS && task.free.len() <= FEW_EXTENTS;
    let orders = orders(task.wants, few);
    let ends = if few { 1_usize << sized } else { 1 };
    let mut best: Option<Sharing> = None;
    'search: for place in places.iter().take(PLACES_TRIED) {
        for order in &orders {
            for end in 0..ends {
                let sharing = attempt(task, *place, order, end);
                if best.as_ref().is_none_or(|best| sharing.score < best.score) {
                    best = Some(sharing);
                }
                let score = best.as_ref().map(|best| best.score);
                if score.is_some_and(|score| score.is_ideal(task.wants.len())) {
                    break 'search;
                }
            }
        }
        if !few && best.as_ref().is_some_and(|best| best.score.refused == 0) {
            break;
        }
    }
    let incomplete = best.as_ref().is_none_or(|best| best.score.refused > 0);
    if incomplete && few && task.wants.len() <= FEW_DOMAINS {
        let found = exact::search(task).map(|(place, owned)| rate(task, place, owned, Vec::new()));
        if let Some(found) = found
            && best
                .as_ref()
                .is_none_or(|best| found.score.refused < best.score.refused)
        {
            return Some(found);
        }
    }
    best
}

impl Score {
    /// Whether nothing can be better.
    fn is_ideal(&self, domains: usize) -> bool {
        self.refused == 0
            && self.banks <= domains
            && self.leftovers <= 1
            && self.small == 0
            && self.copied == 0
    }
}

/// The orders in which to place domains that gave a size. A lower limit always comes first:
/// whatever such a domain takes, those with a higher one could not have used less.
fn orders(wants: &[Want<'_>], all: bool) -> Vec<Vec<usize>> {
    let mut first: Vec<usize> = (0..wants.len())
        .filter(|at| wants[*at].frames.is_some())
        .collect();
    // Of those with one limit, those whose kernels have the least choice.
    sort_by_key(&mut first, |at| {
        let want = &wants[*at];
        let choice = want.bounded_kernel();
        let choice = choice.map_or(u64::MAX, |kernel| kernel.bounds.size());
        [want.limit.raw(), choice, !want.frames.unwrap_or(0)]
    });
    if !all {
        return vec![first];
    }
    let mut orders = Vec::new();
    permute(&mut Vec::new(), &first, &mut orders);
    orders.retain(|order| order.is_sorted_by_key(|at| wants[*at].limit));
    orders
}

fn permute(chosen: &mut Vec<usize>, left: &[usize], orders: &mut Vec<Vec<usize>>) {
    if left.is_empty() {
        orders.push(chosen.clone());
    }
    for (at, next) in left.iter().enumerate() {
        let rest: Vec<usize> = [&left[..at], &left[at + 1..]].concat();
        chosen.push(*next);
        permute(chosen, &rest, orders);
        chosen.pop();
    }
}

/// One way to do it: the region at `place`, the domains in `order`. Bit n of `ends` turns the
/// n-th domain from its usual end of an extent to the other.
fn attempt(task: &Task<'_>, place: Place, order: &[usize], ends: usize) -> Sharing {
    let mut owned: Vec<Option<Vec<MfnRange>>> = task.wants.iter().map(|_| None).collect();
    let all = sets::subtract(task.free, &[place.region]);
    let kernels = kernels_of_rests(task.wants, &all);
    let mut free = FreeList::new(&sets::subtract(&all, &kernels));
    for (turn, &at) in (0..).zip(order) {
        let want = &task.wants[at];
        free.raise(want.limit);
        // Boot loaders put modules low: they stay where they are if others come from above.
        // Below a limit the upper end would cut through an extent that goes on.
        let high =
            (want.limit == Mfn::MAX) != ends.checked_shr(turn).is_some_and(|bits| bits & 1 == 1);
        let count = want.frames.unwrap_or(0);
        owned[at] = match want.bounded_kernel() {
            Some(kernel) => with_kernel(&mut free, count, high, want.core(), kernel),
            None => whole(&mut free, count, high),
        };
        if owned[at].is_none() {
            owned[at] = spread(&mut free, count);
        }
    }
    free.raise(Mfn::MAX);
    kernels.into_iter().for_each(|piece| free.give(piece));
    let mut left: Vec<MfnRange> = free.extents().collect();
    for (at, want) in task
        .wants
        .iter()
        .enumerate()
        .filter(|(_, want)| want.frames.is_none())
    {
        let share = largest(sets::below(&left, want.limit), want.most);
        left = sets::subtract(&left, &share);
        owned[at] = Some(share);
    }
    rate(task, place, owned, left)
}

/// Who takes the rest comes last, and must find its kernel's place all the same.
fn kernels_of_rests(wants: &[Want<'_>], free: &[MfnRange]) -> Vec<MfnRange> {
    let rests = wants.iter().filter(|want| want.frames.is_none());
    let found = rests.filter_map(|want| {
        let kernel = want.bounded_kernel()?;
        let mut free = FreeList::new(free);
        free.raise(want.limit);
        around(&mut free, want.core(), false, kernel)
    });
    sets::normalise(found.collect())
}

/// `count` frames in one piece, aligned to superpages at its lower end.
fn whole(free: &mut FreeList, count: u64, high: bool) -> Option<Vec<MfnRange>> {
    let extent = free.smallest_fit(count)?;
    let start = if high {
        align_down(extent.end().raw() - count, SUPERPAGE)
    } else {
        align_up(extent.start().raw(), SUPERPAGE)
    };
    let piece = frames(start, start + count);
    free.take(extent, piece);
    Some(vec![piece])
}

/// `count` frames that hold a kernel where it must lie: in one piece, or the modules with the kernel
/// in one and everything else where there is room.
fn with_kernel(
    free: &mut FreeList,
    count: u64,
    high: bool,
    core: u64,
    kernel: &modules::Item,
) -> Option<Vec<MfnRange>> {
    if let Some(piece) = around(free, count, high, kernel) {
        return Some(vec![piece]);
    }
    let first = around(free, core.min(count), high, kernel)?;
    let left = count - first.frames();
    let more = whole(free, left, high).or_else(|| spread(free, left));
    if more.is_none() {
        free.give(first);
    }
    let mut pieces = more?;
    pieces.push(first);
    Some(sets::normalise(pieces))
}

/// `count` frames in one piece that holds a kernel where it must lie, from the smallest extent that
/// has room for them; begun at a superpage if that can be.
fn around(free: &mut FreeList, count: u64, high: bool, kernel: &modules::Item) -> Option<MfnRange> {
    let holds = |piece: &MfnRange| kernel.lowest(piece).is_some();
    let piece_in = |extent: &MfnRange| {
        let (first, end) = (extent.start().raw(), extent.end().raw());
        let last = end.checked_sub(count)?;
        // The farthest that the piece can reach to either side without leaving the kernel out.
        let lowest = kernel.lowest(extent)?.end().raw().saturating_sub(count);
        let highest = kernel
            .highest(extent, u64::MAX >> FRAME_SHIFT)?
            .start()
            .raw();
        let up = align_down(last.min(highest), SUPERPAGE);
        let down = align_up(first.max(lowest), SUPERPAGE);
        let starts = if high { [up, down] } else { [down, up] };
        let starts = starts
            .into_iter()
            .chain([first.max(lowest), last.min(highest)]);
        let mut pieces = starts.map(|start| frames(start, start.saturating_add(count)));
        pieces.find(|piece| extent.covers(piece) && holds(piece))
    };
    let found = free
        .extents()
        .filter_map(|extent| Some((extent, piece_in(&extent)?)));
    let (extent, piece) = found.min_by_key(|(extent, _)| extent.frames())?;
    free.take(extent, piece);
    Some(piece)
}

/// `count` frames in as few pieces as the free extents allow.
fn spread(free: &mut FreeList, count: u64) -> Option<Vec<MfnRange>> {
    let mut pieces = Vec::new();
    let mut left = count;
    while left > 0 {
        let found = free.smallest_fit(left).or_else(|| free.largest());
        let Some(extent) = found.filter(|_| pieces.len() < MOST_EXTENTS) else {
            pieces.into_iter().for_each(|piece| free.give(piece));
            return None;
        };
        // An odd beginning is left alone only if the rest suffices.
        let aligned = align_up(extent.start().raw(), SUPERPAGE);
        let start = if extent.end().raw().saturating_sub(aligned) >= left {
            aligned
        } else {
            extent.start().raw()
        };
        let piece = frames(start, extent.end().raw().min(start.saturating_add(left)));
        free.take(extent, piece);
        left -= piece.frames();
        pieces.push(piece);
    }
    Some(sets::normalise(pieces))
}

/// As many of the extents as a domain can have, the largest; at most `most` frames.
fn largest(mut extents: Vec<MfnRange>, most: u64) -> Vec<MfnRange> {
    if extents.len() > MOST_EXTENTS {
        sort_by_key(&mut extents, |extent| {
            [!extent.frames(), extent.start().raw(), 0]
        });
        extents.truncate(MOST_EXTENTS);
    }
    let mut left = most;
    for extent in &mut extents {
        let count = extent.frames().min(left);
        left -= count;
        *extent = MfnRange::between(extent.start(), extent.start().offset(count));
    }
    sets::normalise(extents)
}

/// Places the modules and counts the costs. `left` is what nobody has.
fn rate(
    task: &Task<'_>,
    place: Place,
    owned: Vec<Option<Vec<MfnRange>>>,
    left: Vec<MfnRange>,
) -> Sharing {
    let share = |(want, owned): (&Want<'_>, Option<Vec<MfnRange>>)| {
        let banks = guest::banks(task.architecture, &want.identity, task.usable, &owned?)?;
        let layout = modules::place(want.modules, &banks, task.sources)?;
        Some(Share { banks, layout })
    };
    let shares: Vec<Option<Share>> = task.wants.iter().zip(owned).map(share).collect();
    let mut score = Score {
        refused: shares.iter().filter(|share| share.is_none()).count(),
        banks: 0,
        leftovers: left.len(),
        small: 0,
        copied: if place.in_place {
            0
        } else {
            place.image.frames() * FRAME_SIZE
        },
        large: Reverse(0),
    };
    for share in shares.iter().flatten() {
        score.banks += share.banks.len();
        score.copied = score.copied.saturating_add(share.layout.copied());
        for bank in &share.banks {
            score.small += bank.frames - leaves(bank, SUPERPAGE) * SUPERPAGE;
            score.large.0 += leaves(bank, GIGAPAGE);
        }
    }
    Sharing {
        home: place,
        shares,
        score,
    }
}

/// How many leaves of `size` frames can map a bank.
fn leaves(bank: &Bank, size: u64) -> u64 {
    if bank.gfn.raw() % size != bank.mfn.raw() % size {
        return 0;
    }
    let first = align_up(bank.mfn.raw(), size);
    let end = align_down(bank.machine().end().raw(), size);
    end.saturating_sub(first) / size
}
