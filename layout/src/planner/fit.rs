//! Takes a number of frames out of what is free, in as good a form as there is.

use alloc::vec;
use alloc::vec::Vec;

use super::free::FreeList;
use super::modules;
use super::place::MOST_EXTENTS;
use super::sets::{self, SUPERPAGE, align_down, align_up, frames};
use crate::address::{FRAME_SHIFT, Mfn, MfnRange};
use crate::sort::sort_by_key;

/// Frames, normalised, outside of which nothing is taken; `None`: anywhere.
pub(crate) type Within<'a> = Option<&'a [MfnRange]>;

/// `count` frames in one piece, aligned to superpages at its lower end.
pub(crate) fn whole(
    free: &mut FreeList,
    count: u64,
    high: bool,
    within: Within<'_>,
) -> Option<Vec<MfnRange>> {
    let (extent, part) = match within {
        None => free.smallest_fit(count).map(|extent| (extent, extent))?,
        Some(within) => free.smallest_fit_in(count, within)?,
    };
    let start = if high {
        align_down(part.end().raw() - count, SUPERPAGE)
    } else {
        align_up(part.start().raw(), SUPERPAGE)
    };
    let piece = frames(start, start + count);
    free.take(extent, piece);
    Some(vec![piece])
}

/// `count` frames that hold a kernel where it must lie: in one piece, or the modules with the kernel
/// in one and everything else where there is room.
pub(crate) fn with_kernel(
    free: &mut FreeList,
    count: u64,
    high: bool,
    core: u64,
    kernel: &modules::Item,
    within: Within<'_>,
) -> Option<Vec<MfnRange>> {
    if let Some(piece) = around(free, count, high, kernel, within) {
        return Some(vec![piece]);
    }
    let first = part_around(free, count, high, core, kernel, within)?;
    let left = count - first.frames();
    let more = whole(free, left, high, within).or_else(|| spread(free, left, within));
    if more.is_none() {
        free.give(first);
    }
    let mut pieces = more?;
    pieces.push(first);
    Some(sets::normalise(pieces))
}

/// At least `core` of `count` frames in one piece that holds a kernel where it must lie: whole
/// superpages, so that the others can be, or, if that finds no room, no more.
pub(crate) fn part_around(
    free: &mut FreeList,
    count: u64,
    high: bool,
    core: u64,
    kernel: &modules::Item,
    within: Within<'_>,
) -> Option<MfnRange> {
    let rounded = align_up(core, SUPERPAGE).min(count);
    around(free, rounded, high, kernel, within)
        .or_else(|| around(free, core.min(count), high, kernel, within))
}

/// `count` frames in one piece that holds a kernel where it must lie, from the smallest extent that
/// has room for them; begun at a superpage if that can be.
pub(crate) fn around(
    free: &mut FreeList,
    count: u64,
    high: bool,
    kernel: &modules::Item,
    within: Within<'_>,
) -> Option<MfnRange> {
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
    let found = free.extents().filter_map(|extent| {
        let piece = match within {
            None => piece_in(&extent)?,
            Some(within) => sets::intersect(&[extent], within)
                .iter()
                .find_map(piece_in)?,
        };
        Some((extent, piece))
    });
    let (extent, piece) = found.min_by_key(|(extent, _)| extent.frames())?;
    free.take(extent, piece);
    Some(piece)
}

/// `count` frames in as few pieces as the free extents allow.
pub(crate) fn spread(free: &mut FreeList, count: u64, within: Within<'_>) -> Option<Vec<MfnRange>> {
    let Some(within) = within else {
        return spread_over(free, count);
    };
    let available: Vec<MfnRange> = free.extents().collect();
    let mut part = FreeList::new(&sets::intersect(&available, within));
    part.raise(Mfn::MAX);
    let pieces = spread_over(&mut part, count)?;
    pieces.iter().for_each(|piece| free.cut(*piece));
    Some(pieces)
}

fn spread_over(free: &mut FreeList, count: u64) -> Option<Vec<MfnRange>> {
    pieces_of(free, count, SUPERPAGE).or_else(|| pieces_of(free, count, 1))
}

/// Pieces of which all but one are a multiple of `unit` frames.
fn pieces_of(free: &mut FreeList, count: u64, unit: u64) -> Option<Vec<MfnRange>> {
    let mut pieces = Vec::new();
    let mut left = count;
    while left > 0 {
        let found = free.smallest_fit(left).or_else(|| free.largest());
        let piece = found.filter(|_| pieces.len() < MOST_EXTENTS).map(|extent| {
            // An odd beginning is left alone only if the rest suffices.
            let (first, end) = (extent.start().raw(), extent.end().raw());
            let aligned = align_up(first, SUPERPAGE);
            if end.saturating_sub(aligned) >= left {
                return (extent, frames(aligned, aligned.saturating_add(left)));
            }
            let start = align_up(first, unit);
            let end = align_down(end, unit).min(start.saturating_add(left));
            (extent, frames(start, end))
        });
        let Some((extent, piece)) = piece.filter(|(_, piece)| !piece.is_empty()) else {
            pieces.into_iter().for_each(|piece| free.give(piece));
            return None;
        };
        free.take(extent, piece);
        left -= piece.frames();
        pieces.push(piece);
    }
    Some(sets::normalise(pieces))
}

/// The `pieces` largest of the extents, and before them those with a part of `needed`; at most
/// `most` frames.
pub(crate) fn largest(
    mut extents: Vec<MfnRange>,
    pieces: usize,
    most: u64,
    needed: &[MfnRange],
) -> Vec<MfnRange> {
    if extents.len() > pieces {
        sort_by_key(&mut extents, |extent| {
            let needed = needed.iter().any(|needed| needed.overlaps(extent));
            [u64::from(!needed), !extent.frames(), extent.start().raw()]
        });
        extents.truncate(pieces);
    }
    let mut left = most;
    for extent in &mut extents {
        let count = extent.frames().min(left);
        left -= count;
        *extent = MfnRange::between(extent.start(), extent.start().offset(count));
    }
    sets::normalise(extents)
}
