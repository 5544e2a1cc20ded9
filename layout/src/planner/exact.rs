//! The search of last resort, for few domains: if there is a plan at all, this finds one.
//!
//! What must lie in one piece (the hypervisor's region; each direct-mapped domain's kernel,
//! ramdisk and tree) is packed first, from the top of RAM down; everything else is filled up
//! with single frames. Any packing can be shifted up, item by item, and shifting up leaves no
//! domain with a limit less room below it. So it is enough to put the items down in every
//! order, each at the highest place that is left. Orders that have placed the same items are
//! compared by where they stand and by what they took below each limit, and only those that
//! none other beats are followed. Cost: at most 2^items x items states, items at most 10.

use alloc::vec;
use alloc::vec::Vec;

use super::home::{Home, Place};
use super::modules;
use super::place::{MOST_EXTENTS, Task};
use super::sets::{self, frames};
use crate::address::{Mfn, MfnRange};
use crate::sort::sort_by_key;

/// So many states are kept for one set of placed items.
const STATES_KEPT: usize = 16;
/// So many items are put down in all before the search gives up.
const NODE_BUDGET: usize = 50_000;

/// Something that must lie in one piece.
enum Item<'a> {
    Home(&'a Home),
    Module {
        want: usize,
        limit: Mfn,
        item: &'a modules::Item,
    },
}

/// Some items placed, all of them at or above `frontier`.
#[derive(Clone)]
struct State {
    /// The lowest frame taken.
    frontier: u64,
    /// For each limit the frames below it that were taken by those who had a choice.
    taken_below: Vec<u64>,
    home: Option<Place>,
    /// Which want owns which piece.
    pieces: Vec<(usize, MfnRange)>,
}

/// The hypervisor's place, and for each want its frames.
pub(crate) type Found = (Place, Vec<Option<Vec<MfnRange>>>);

/// What the search came to.
pub(crate) enum Answer {
    /// Places for everything.
    Found(Found),
    /// There is no way to place everything.
    None,
    /// Nobody knows: the budget was spent, or states had to be dropped.
    GaveUp,
}

/// Finds places for everything.
pub(crate) fn search(task: &Task<'_>) -> Answer {
    let mut items = vec![Item::Home(task.home)];
    for (at, want) in task.wants.iter().enumerate() {
        if want.identity.is_direct_mapped() {
            let modules = want.modules.items();
            items.extend(modules.map(|item| Item::Module {
                want: at,
                limit: want.limit,
                item,
            }));
        }
    }
    let mut limits: Vec<Mfn> = task.wants.iter().map(|want| want.limit).collect();
    sort_by_key(&mut limits, |limit| [limit.raw(), 0, 0]);
    limits.dedup();
    let start = State {
        frontier: Mfn::MAX.raw(),
        taken_below: vec![0; limits.len()],
        home: None,
        pieces: Vec::new(),
    };
    let mut states: Vec<Vec<State>> = vec![Vec::new(); 1 << items.len()];
    states[0].push(start);
    let mut nodes = 0;
    let mut dropped = false;
    for placed in 0..states.len() {
        for state in core::mem::take(&mut states[placed]) {
            if placed == states.len() - 1 {
                if let Some(found) = fill(task, &state) {
                    return Answer::Found(found);
                }
                continue;
            }
            for (at, item) in items
                .iter()
                .enumerate()
                .filter(|(at, _)| placed >> at & 1 == 0)
            {
                nodes += 1;
                if nodes > NODE_BUDGET {
                    return Answer::GaveUp;
                }
                if let Some(next) = put(task.free, &limits, &state, item) {
                    dropped |= !keep(&mut states[placed | 1 << at], next);
                }
            }
        }
    }
    if dropped {
        Answer::GaveUp
    } else {
        Answer::None
    }
}

/// Puts an item at the highest place below the frontier.
fn put(free: &[MfnRange], limits: &[Mfn], state: &State, item: &Item<'_>) -> Option<State> {
    let mut next = state.clone();
    let (piece, limit) = match item {
        Item::Home(home) => {
            let mut below = free.iter().rev();
            let place = below.find_map(|extent| home.highest(extent, state.frontier))?;
            next.home = Some(place);
            (place.region, Mfn::MAX)
        }
        Item::Module { want, limit, item } => {
            let top = state.frontier.min(limit.raw());
            let piece = free
                .iter()
                .rev()
                .find_map(|extent| item.highest(extent, top))?;
            next.pieces.push((*want, piece));
            (piece, *limit)
        }
    };
    next.frontier = piece.start().raw();
    for (bound, taken) in limits.iter().zip(&mut next.taken_below) {
        // Those with this limit or a lower one count in its demand, wherever they are.
        if limit > *bound || matches!(item, Item::Home(_)) {
            *taken += bound
                .raw()
                .min(piece.end().raw())
                .saturating_sub(piece.start().raw());
        }
    }
    Some(next)
}

/// Adds a state unless another one is as good in every respect; drops those that it beats. `false`
/// if there was no room for it.
fn keep(states: &mut Vec<State>, next: State) -> bool {
    let beats = |one: &State, other: &State| {
        let pairs = one.taken_below.iter().zip(&other.taken_below);
        one.frontier >= other.frontier && pairs.into_iter().all(|(one, other)| one <= other)
    };
    if states.iter().any(|state| beats(state, &next)) {
        return true;
    }
    states.retain(|state| !beats(&next, state));
    let room = states.len() < STATES_KEPT;
    if room {
        states.push(next);
    }
    room
}

/// Gives every domain the frames that it lacks beside its pieces, lowest limit first. A domain
/// with a lower limit can't take too much: what it may use, those after it may use as well.
/// Whoever wants the rest is first given what it can't do without, and in the end what is left.
fn fill(task: &Task<'_>, state: &State) -> Option<Found> {
    let home = state.home?;
    let taken = state
        .pieces
        .iter()
        .map(|(_, piece)| *piece)
        .chain([home.region]);
    let mut free = sets::subtract(task.free, &sets::normalise(taken.collect()));
    let mut owned: Vec<Vec<MfnRange>> = vec![Vec::new(); task.wants.len()];
    for (want, piece) in &state.pieces {
        owned[*want].push(*piece);
    }
    let mut order: Vec<usize> = (0..task.wants.len()).collect();
    sort_by_key(&mut order, |at| [task.wants[*at].limit.raw(), 0, 0]);
    for &at in &order {
        let want = &task.wants[at];
        let own = sets::normalise(core::mem::take(&mut owned[at]));
        let demand = want.frames.unwrap_or(want.modules.least_frames());
        // Pieces of one domain may share a frame at their edges.
        let missing = demand.max(sets::total(&own)) - sets::total(&own);
        owned[at] = grow(want.limit, missing, own, &mut free)?;
    }
    for at in order
        .into_iter()
        .filter(|at| task.wants[*at].frames.is_none())
    {
        let want = &task.wants[at];
        let own = core::mem::take(&mut owned[at]);
        let room = sets::total(&sets::below(&free, want.limit));
        let missing = room.min(want.most.saturating_sub(sets::total(&own)));
        owned[at] = grow(want.limit, missing, own, &mut free)?;
    }
    let fits = |share: Vec<MfnRange>| (share.len() <= MOST_EXTENTS).then_some(share);
    Some((home, owned.into_iter().map(fits).collect()))
}

/// Adds `missing` frames below `limit` to `own`: neighbours first, then the largest extents.
fn grow(
    limit: Mfn,
    mut missing: u64,
    own: Vec<MfnRange>,
    free: &mut Vec<MfnRange>,
) -> Option<Vec<MfnRange>> {
    let mut available = sets::below(free, limit);
    sort_by_key(&mut available, |extent| {
        let touches = own
            .iter()
            .any(|own| own.end() == extent.start() || extent.end() == own.start());
        [u64::from(!touches), !extent.frames(), extent.start().raw()]
    });
    let mut grown = own.clone();
    for extent in available {
        let count = missing.min(extent.frames());
        let from_above = own.iter().any(|own| extent.end() == own.start());
        let (start, end) = (extent.start().raw(), extent.end().raw());
        let piece = if from_above {
            frames(end - count, end)
        } else {
            frames(start, start + count)
        };
        missing -= count;
        grown.push(piece);
    }
    let grown = sets::normalise(grown);
    *free = sets::subtract(free, &grown);
    (missing == 0).then_some(grown)
}
