//! Shares out the RAM that no configuration names: the hypervisor's region, and the domains
//! that gave a size or take the rest.
//!
//! Each domain goes whole into the smallest free extent that holds it, at one of its ends, and
//! is split over the largest ones only if there is none. With few domains every order of them
//! and both ends are tried, and the cheapest outcome is taken; if a domain found no place even
//! so, [`exact`](super::exact) searches on. With many domains one pass must do.
//!
//! What a domain would rather have (RAM that its devices reach, RAM of one NUMA node) is tried
//! first and given up where it keeps anybody out.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::home::{Home, Place};
use super::modules::{self, Layout, Wanted};
use super::sets::{self, GIGAPAGE, SUPERPAGE, align_down, align_up};
use super::{attempt, exact, guest};
use crate::address::{FRAME_SIZE, Mfn, MfnRange};
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
#[derive(Clone)]
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
    /// The RAM that all of its devices reach, if that isn't all RAM and nothing translates.
    pub(crate) reach: Option<Rc<[MfnRange]>>,
    /// The RAM of the NUMA node that was chosen for it, and of the others that could hold it; none
    /// if there is no choice.
    pub(crate) nodes: Vec<Rc<[MfnRange]>>,
}

impl<'a> Want<'a> {
    /// The kernel, if that must lie at machine addresses of its own choice.
    pub(crate) fn bounded_kernel(&self) -> Option<&'a modules::Item> {
        let bounded = self.modules.bounded && self.identity.is_direct_mapped();
        bounded.then_some(&self.modules.kernel)
    }

    /// Frames that hold all of its modules.
    pub(crate) fn core(&self) -> u64 {
        self.modules.comfortable_bytes().div_ceil(FRAME_SIZE)
    }

    /// The limit below which everything is that its devices reach.
    pub(crate) fn soft_limit(&self) -> Mfn {
        let end = self.reach.as_ref().and_then(|reach| reach.last());
        end.map_or(self.limit, |last| last.end().min(self.limit))
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
    /// The hypervisor's likely places, the cheapest first.
    pub(crate) places: &'a [Place],
    /// Where modules lie that may have to be copied.
    pub(crate) sources: &'a [MfnRange],
}

/// Where everything went.
pub(crate) struct Sharing {
    pub(crate) home: Place,
    /// For each want its frames and modules, if there was room.
    pub(crate) shares: Vec<Option<Share>>,
    score: Score,
    /// Whether every way to share out was looked at: what found no room then finds none.
    pub(crate) exhaustive: bool,
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
    /// Domains with a device that reaches none of their RAM.
    cut_off: usize,
    /// Domains of a size with a device that reaches a part of their RAM.
    bounced: usize,
    /// Domains that are on no single node, though nodes were chosen.
    split: usize,
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
    let sized = task.wants.iter().filter(|want| want.frames.is_some());
    let few = sized.count() <= FEW_DOMAINS && task.free.len() <= FEW_EXTENTS;
    let prefer = task
        .wants
        .iter()
        .any(|want| want.reach.is_some() || !want.nodes.is_empty());
    let mut best = prefer.then(|| try_out(task, few, true)).flatten();
    if best.as_ref().is_none_or(Sharing::is_incomplete) {
        let plain = try_out(task, few, false);
        best = better(best, plain);
    }
    if few && task.wants.len() <= FEW_DOMAINS && best.as_ref().is_none_or(Sharing::is_incomplete) {
        let searched = search(task, prefer, best.as_ref());
        best = match (best, searched) {
            (best, Searched::Found(found)) => better(best, Some(*found)),
            (best, Searched::Nothing { exhaustive }) => {
                best.map(|best| Sharing { exhaustive, ..best })
            }
        };
    }
    best
}

fn better(one: Option<Sharing>, other: Option<Sharing>) -> Option<Sharing> {
    match (one, other) {
        (Some(one), Some(other)) if other.score < one.score => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

enum Searched {
    Found(Box<Sharing>),
    Nothing { exhaustive: bool },
}

/// The exact search, first with everybody below what its devices reach.
fn search(task: &Task<'_>, prefer: bool, best: Option<&Sharing>) -> Searched {
    let rated = |found| {
        let (place, owned) = found;
        rate(task, place, owned, Vec::new())
    };
    if prefer {
        let soft = task.wants.iter().cloned().map(|want| Want {
            limit: want.soft_limit(),
            ..want
        });
        let wants: Vec<Want<'_>> = soft.collect();
        let task = Task {
            wants: &wants,
            ..*task
        };
        if let exact::Answer::Found(found) = exact::search(&task) {
            let found = rated(found);
            if best.is_none_or(|best| found.score < best.score) {
                return Searched::Found(Box::new(found));
            }
        }
    }
    if best.is_some_and(|best| best.score.refused == 0) {
        return Searched::Nothing { exhaustive: false };
    }
    match exact::search(task) {
        exact::Answer::Found(found) => Searched::Found(Box::new(rated(found))),
        exact::Answer::None => Searched::Nothing { exhaustive: true },
        exact::Answer::GaveUp => Searched::Nothing { exhaustive: false },
    }
}

/// The best of many attempts if there are few domains, else of one or few.
fn try_out(task: &Task<'_>, few: bool, prefer: bool) -> Option<Sharing> {
    let sized = task.wants.iter().filter(|want| want.frames.is_some());
    let ends = if few { 1_usize << sized.count() } else { 1 };
    let orders = orders(task.wants, few, prefer);
    let mut best: Option<Sharing> = None;
    for place in task.places.iter().take(PLACES_TRIED) {
        for order in &orders {
            for end in 0..ends {
                let (owned, left) = attempt::owned(task, *place, order, end, prefer);
                best = better(best, Some(rate(task, *place, owned, left)));
                let score = best.as_ref().map(|best| best.score);
                if score.is_some_and(|score| score.is_ideal(task.wants.len())) {
                    return best;
                }
            }
        }
        if !few && best.as_ref().is_some_and(|best| best.score.refused == 0) {
            break;
        }
    }
    best
}

impl Sharing {
    /// Whether a domain found no room, or none that its devices reach.
    fn is_incomplete(&self) -> bool {
        self.score.refused > 0 || self.score.cut_off > 0
    }
}

impl Score {
    /// Whether nothing can be better.
    fn is_ideal(&self, domains: usize) -> bool {
        self.refused == 0
            && self.cut_off == 0
            && self.bounced == 0
            && self.split == 0
            && self.banks <= domains
            && self.leftovers <= 1
            && self.small == 0
            && self.copied == 0
    }
}

/// The orders in which to place domains that gave a size. A lower limit always comes first:
/// whatever such a domain takes, those with a higher one could not have used less.
fn orders(wants: &[Want<'_>], all: bool, prefer: bool) -> Vec<Vec<usize>> {
    let limit = |want: &Want<'_>| {
        if prefer {
            want.soft_limit()
        } else {
            want.limit
        }
    };
    let mut first: Vec<usize> = (0..wants.len())
        .filter(|at| wants[*at].frames.is_some())
        .collect();
    // Of those with one limit, those whose kernels have the least choice.
    sort_by_key(&mut first, |at| {
        let want = &wants[*at];
        let choice = want.bounded_kernel();
        let choice = choice.map_or(u64::MAX, |kernel| kernel.bounds.size());
        [limit(want).raw(), choice, !want.frames.unwrap_or(0)]
    });
    if !all {
        return vec![first];
    }
    let mut orders = Vec::new();
    permute(&mut Vec::new(), &first, &mut orders);
    orders.retain(|order| order.is_sorted_by_key(|at| limit(&wants[*at])));
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
        cut_off: 0,
        bounced: 0,
        split: 0,
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
    for (want, share) in task.wants.iter().zip(&shares) {
        let Some(share) = share else {
            continue;
        };
        if want.reach.is_none() && want.nodes.is_empty() {
            continue;
        }
        let ram = sets::normalise(share.banks.iter().map(Bank::machine).collect());
        let all = |part: &[MfnRange]| sets::intersect(&ram, part) == ram;
        if let Some(reach) = &want.reach {
            score.cut_off += usize::from(sets::intersect(&ram, reach).is_empty());
            score.bounced += usize::from(want.frames.is_some() && !all(reach));
        }
        let whole = want.nodes.iter().any(|node| all(node));
        score.split += usize::from(!want.nodes.is_empty() && !whole);
    }
    Sharing {
        home: place,
        shares,
        score,
        exhaustive: false,
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
