//! Sorted lists of disjoint machine frame ranges, and arithmetic on them. Each range of the
//! first list costs as many steps as the logarithm of how far the second list has moved on.

use alloc::vec::Vec;

use crate::address::{Frame, MachineAddress, MachineRange, Mfn, MfnRange};
use crate::sort::sort_by_key;

/// Frames of a superpage: 2 MiB, the second stage's middle leaf on every architecture.
pub(crate) const SUPERPAGE: u64 = 512;
/// Frames of the second stage's large leaf, 1 GiB.
pub(crate) const GIGAPAGE: u64 = SUPERPAGE * 512;

/// The next multiple of `align` from `value` on; the greatest number if that passes 2^64.
pub(crate) fn align_up(value: u64, align: u64) -> u64 {
    value
        .checked_next_multiple_of(align.max(1))
        .unwrap_or(u64::MAX)
}

/// The last multiple of `align` up to `value`.
pub(crate) fn align_down(value: u64, align: u64) -> u64 {
    value - value % align.max(1)
}

/// Sorts by start, then by length.
pub(crate) fn sort(ranges: &mut [MfnRange]) {
    sort_by_key(ranges, |range| [range.start().raw(), range.frames(), 0]);
}

/// Sorts, drops what is empty and joins what touches or overlaps.
pub(crate) fn normalise(mut ranges: Vec<MfnRange>) -> Vec<MfnRange> {
    ranges.retain(|range| !range.is_empty());
    sort(&mut ranges);
    ranges.dedup_by(|range, last| {
        let meets = range.start() <= last.end();
        if meets {
            *last = MfnRange::between(last.start(), last.end().max(range.end()));
        }
        meets
    });
    ranges
}

/// As [`normalise`], for bytes: banks may meet inside a frame.
pub(crate) fn normalise_bytes(mut ranges: Vec<MachineRange>) -> Vec<MachineRange> {
    ranges.retain(|range| !range.is_empty());
    sort_by_key(&mut ranges, |range| [range.start().raw(), range.size(), 0]);
    ranges.dedup_by(|range, last| {
        let meets = range.start() <= last.end();
        if meets {
            *last = MachineRange::between(last.start(), last.end().max(range.end()));
        }
        meets
    });
    ranges
}

/// The first place at or after `first` whose range ends above `start`. Two long lists that are
/// gone through side by side cost no search in all of either.
fn skip_until(ranges: &[MfnRange], first: usize, start: Mfn) -> usize {
    let ends_below = |range: &MfnRange| range.end() <= start;
    let (mut low, mut step) = (first, 1);
    while ranges.get(low + step - 1).is_some_and(ends_below) {
        low += step;
        step *= 2;
    }
    let high = ranges.len().min(low + step);
    low + ranges[low..high].partition_point(ends_below)
}

/// What is in `from` and not in `without`. Both must be normalised, so is the result.
pub(crate) fn subtract(from: &[MfnRange], without: &[MfnRange]) -> Vec<MfnRange> {
    let mut left = Vec::with_capacity(from.len() + without.len());
    let mut first = 0;
    for range in from {
        first = skip_until(without, first, range.start());
        let mut start = range.start();
        for hole in without[first..]
            .iter()
            .take_while(|hole| hole.start() < range.end())
        {
            if start < hole.start() {
                left.push(MfnRange::between(start, hole.start()));
            }
            start = start.max(hole.end());
        }
        if start < range.end() {
            left.push(MfnRange::between(start, range.end()));
        }
    }
    left
}

/// What is in either.
pub(crate) fn union(one: &[MfnRange], other: &[MfnRange]) -> Vec<MfnRange> {
    normalise([one, other].concat())
}

/// What is in both. Both must be normalised, so is the result.
pub(crate) fn intersect(one: &[MfnRange], other: &[MfnRange]) -> Vec<MfnRange> {
    let mut both = Vec::new();
    let mut first = 0;
    for range in one {
        first = skip_until(other, first, range.start());
        let near = other[first..]
            .iter()
            .take_while(|candidate| candidate.start() < range.end());
        both.extend(near.filter_map(|candidate| candidate.intersection(range)));
    }
    both
}

/// The part of `ranges` below the frame `limit`.
pub(crate) fn below(ranges: &[MfnRange], limit: Mfn) -> Vec<MfnRange> {
    intersect(ranges, &[MfnRange::between(Mfn::from_raw(0), limit)])
}

/// How many frames there are.
pub(crate) fn total(ranges: &[MfnRange]) -> u64 {
    ranges
        .iter()
        .map(MfnRange::frames)
        .fold(0, u64::saturating_add)
}

/// Whether `ranges`, normalised, hold all of `range`.
pub(crate) fn covers(ranges: &[MfnRange], range: &MfnRange) -> bool {
    let after = ranges.partition_point(|candidate| candidate.start() <= range.start());
    range.is_empty()
        || after
            .checked_sub(1)
            .is_some_and(|at| ranges[at].covers(range))
}

/// `size` bytes from `start`, for numbers that are known to be in a machine range.
pub(crate) fn bytes(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

/// Frames from `start` up to `end`, by number.
pub(crate) fn frames(start: u64, end: u64) -> MfnRange {
    MfnRange::between(Mfn::new(start), Mfn::new(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn joins_what_touches() {
        let joined = normalise(vec![frames(4, 6), frames(0, 2), frames(2, 3), frames(5, 9)]);
        assert_eq!(joined, [frames(0, 3), frames(4, 9)]);
    }

    #[test]
    fn subtracts_across_ranges() {
        let left = subtract(
            &[frames(0, 10), frames(20, 30)],
            &[frames(3, 5), frames(8, 22)],
        );
        assert_eq!(left, [frames(0, 3), frames(5, 8), frames(22, 30)]);
    }

    #[test]
    fn one_hole_may_reach_over_several_ranges() {
        let left = subtract(
            &[frames(0, 4), frames(6, 8), frames(9, 12)],
            &[frames(2, 10)],
        );
        assert_eq!(left, [frames(0, 2), frames(10, 12)]);
        let both = intersect(
            &[frames(0, 4), frames(6, 8), frames(9, 12)],
            &[frames(2, 10)],
        );
        assert_eq!(both, [frames(2, 4), frames(6, 8), frames(9, 10)]);
    }

    #[test]
    fn covers_needs_one_range() {
        assert!(covers(&[frames(0, 4), frames(6, 8)], &frames(1, 4)));
        assert!(!covers(&[frames(0, 4), frames(6, 8)], &frames(3, 7)));
        assert!(!covers(&[frames(6, 8)], &frames(3, 4)));
    }

    #[test]
    fn alignment_stops_at_the_edges() {
        assert_eq!(align_up(u64::MAX - 3, 512), u64::MAX);
        assert_eq!(align_up(513, 512), 1024);
        assert_eq!(align_down(513, 512), 512);
    }
}
