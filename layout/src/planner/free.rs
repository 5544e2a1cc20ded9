//! Free machine frames, found by size or by place in logarithmic time.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::sets::{self, SUPERPAGE, align_up, frames};
use crate::address::{Mfn, MfnRange};

/// Free extents below a limit that only rises. What lies above it waits.
#[derive(Clone)]
pub(crate) struct FreeList {
    /// Start and end of each extent.
    by_start: BTreeSet<(u64, u64)>,
    /// Frames from the extent's first superpage boundary to its end, and its start.
    by_size: BTreeSet<(u64, u64)>,
    /// Extents above the limit, highest first.
    waiting: Vec<MfnRange>,
    /// Where the last limit cut an extent in two.
    cut_off: Option<Mfn>,
}

impl FreeList {
    /// Everything in `free`, which must be normalised; all of it waits.
    pub(crate) fn new(free: &[MfnRange]) -> Self {
        let waiting = free.iter().rev().copied().collect();
        Self {
            by_start: BTreeSet::new(),
            by_size: BTreeSet::new(),
            waiting,
            cut_off: None,
        }
    }

    /// Makes what lies below `limit` available.
    pub(crate) fn raise(&mut self, limit: Mfn) {
        while let Some(next) = self.waiting.pop() {
            let split = next.end().min(limit.max(next.start()));
            let below = MfnRange::between(next.start(), split);
            // Only what an earlier limit cut off has a neighbour.
            if self.cut_off == Some(next.start()) {
                self.give(below);
            } else {
                self.insert(below);
            }
            if split < next.end() {
                self.cut_off = Some(split);
                self.waiting.push(MfnRange::between(split, next.end()));
                return;
            }
        }
    }

    /// The smallest extent in which `count` frames fit from a superpage boundary on.
    pub(crate) fn smallest_fit(&self, count: u64) -> Option<MfnRange> {
        let (_, start) = self.by_size.range((count, 0)..).next()?;
        self.at(*start)
    }

    /// The smallest extent in whose part inside `within` they fit so, with that part.
    pub(crate) fn smallest_fit_in(
        &self,
        count: u64,
        within: &[MfnRange],
    ) -> Option<(MfnRange, MfnRange)> {
        let fits = |part: &MfnRange| Self::key(*part).0 >= count;
        self.by_size.range((count, 0)..).find_map(|(_, start)| {
            let extent = self.at(*start)?;
            let parts = sets::intersect(&[extent], within);
            Some((extent, parts.into_iter().find(fits)?))
        })
    }

    /// The extent with the most frames after its first superpage boundary.
    pub(crate) fn largest(&self) -> Option<MfnRange> {
        let (_, start) = self.by_size.last()?;
        self.at(*start)
    }

    /// Takes `piece` out; it must lie in `extent`, which must be one of the list.
    pub(crate) fn take(&mut self, extent: MfnRange, piece: MfnRange) {
        self.remove(extent);
        self.insert(MfnRange::between(extent.start(), piece.start()));
        self.insert(MfnRange::between(piece.end(), extent.end()));
    }

    /// Takes out whatever of `piece` is available.
    pub(crate) fn cut(&mut self, piece: MfnRange) {
        loop {
            let before = self.by_start.range(..(piece.end().raw(), 0)).next_back();
            let Some(&(start, end)) = before.filter(|(_, end)| *end > piece.start().raw()) else {
                return;
            };
            let extent = frames(start, end);
            let Some(part) = extent.intersection(&piece) else {
                return;
            };
            self.take(extent, part);
        }
    }

    /// Puts frames in, joined with their neighbours.
    pub(crate) fn give(&mut self, piece: MfnRange) {
        let mut joined = piece;
        let before = self.by_start.range(..(piece.start().raw(), 0)).next_back();
        if let Some(&(start, end)) = before
            && end == piece.start().raw()
        {
            self.remove(frames(start, end));
            joined = frames(start, joined.end().raw());
        }
        if let Some(after) = self.at(piece.end().raw()) {
            self.remove(after);
            joined = MfnRange::between(joined.start(), after.end());
        }
        self.insert(joined);
    }

    /// All available extents, lowest first.
    pub(crate) fn extents(&self) -> impl Iterator<Item = MfnRange> {
        self.by_start
            .iter()
            .map(|(start, end)| frames(*start, *end))
    }

    fn at(&self, start: u64) -> Option<MfnRange> {
        let (found, end) = self.by_start.range((start, 0)..).next()?;
        (*found == start).then(|| frames(start, *end))
    }

    fn insert(&mut self, extent: MfnRange) {
        if !extent.is_empty() {
            self.by_start
                .insert((extent.start().raw(), extent.end().raw()));
            self.by_size.insert(Self::key(extent));
        }
    }

    fn remove(&mut self, extent: MfnRange) {
        self.by_start
            .remove(&(extent.start().raw(), extent.end().raw()));
        self.by_size.remove(&Self::key(extent));
    }

    fn key(extent: MfnRange) -> (u64, u64) {
        let start = extent.start().raw();
        (
            extent
                .end()
                .raw()
                .saturating_sub(align_up(start, SUPERPAGE)),
            start,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_above_the_limit_wait() {
        let mut free = FreeList::new(&[frames(0, 0x400), frames(0x800, 0x1000)]);
        assert_eq!(free.largest(), None);
        free.raise(Mfn::new(0x900));
        assert_eq!(
            free.extents().collect::<Vec<_>>(),
            [frames(0, 0x400), frames(0x800, 0x900)]
        );
        free.raise(Mfn::MAX);
        assert_eq!(
            free.extents().collect::<Vec<_>>(),
            [frames(0, 0x400), frames(0x800, 0x1000)]
        );
    }

    #[test]
    fn the_smallest_extent_that_fits_is_counted_from_its_boundary() {
        let mut free = FreeList::new(&[frames(1, 0x401), frames(0x800, 0x1000)]);
        free.raise(Mfn::MAX);
        assert_eq!(free.smallest_fit(0x201), Some(frames(1, 0x401)));
        assert_eq!(free.smallest_fit(0x202), Some(frames(0x800, 0x1000)));
        assert_eq!(free.smallest_fit(0x801), None);
    }

    #[test]
    fn a_part_of_an_extent_is_found_and_cut_out() {
        let mut free = FreeList::new(&[frames(0, 0x400), frames(0x800, 0x1000)]);
        free.raise(Mfn::MAX);
        let within = [frames(0x300, 0xc00)];
        let found = free.smallest_fit_in(0x200, &within);
        assert_eq!(found, Some((frames(0x800, 0x1000), frames(0x800, 0xc00))));
        assert_eq!(free.smallest_fit_in(0x401, &within), None);
        free.cut(within[0]);
        let left: Vec<_> = free.extents().collect();
        assert_eq!(left, [frames(0, 0x300), frames(0xc00, 0x1000)]);
    }

    #[test]
    fn taking_and_giving_back_leaves_the_same() {
        let whole = frames(0x200, 0x2000);
        let mut free = FreeList::new(&[whole]);
        free.raise(Mfn::MAX);
        let piece = frames(0x400, 0x600);
        free.take(whole, piece);
        assert_eq!(free.extents().count(), 2);
        free.give(piece);
        assert_eq!(free.extents().collect::<Vec<_>>(), [whole]);
        assert_eq!(free.largest(), Some(whole));
    }
}
