//! Which of many ranges a range touches, found without looking at all of them.

use alloc::vec::Vec;

use crate::address::MfnRange;
use crate::sort::sort_by_key;

/// Ranges in any number, which may overlap.
pub(crate) struct Index {
    /// By start, each with its number.
    sorted: Vec<(MfnRange, usize)>,
    /// For each the highest end up to it.
    furthest: Vec<u64>,
}

impl Index {
    /// Ranges are numbered as they come; empty ones touch nothing.
    pub(crate) fn new(ranges: impl Iterator<Item = MfnRange>) -> Self {
        let numbered = (0..).zip(ranges).map(|(number, range)| (range, number));
        let mut sorted: Vec<(MfnRange, usize)> =
            numbered.filter(|(range, _)| !range.is_empty()).collect();
        sort_by_key(&mut sorted, |(range, _)| [range.start().raw(), 0, 0]);
        let mut end = 0;
        let furthest = sorted.iter().map(|(range, _)| {
            end = range.end().raw().max(end);
            end
        });
        let furthest = furthest.collect();
        Self { sorted, furthest }
    }

    /// The numbers of those that share a frame with `range`, in order.
    pub(crate) fn touching(&self, range: &MfnRange) -> Vec<usize> {
        let before = self
            .sorted
            .partition_point(|(other, _)| other.start() < range.end());
        let near = (0..before)
            .rev()
            .take_while(|at| self.furthest[*at] > range.start().raw());
        let near = near.map(|at| self.sorted[at]);
        let mut touching: Vec<usize> = near
            .filter(|(other, _)| other.overlaps(range))
            .map(|(_, number)| number)
            .collect();
        touching.sort_unstable();
        touching
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::frames;
    use super::*;

    #[test]
    fn long_ranges_are_found_behind_short_ones() {
        let ranges = [
            frames(0, 100),
            frames(10, 11),
            frames(7, 7),
            frames(50, 60),
            frames(200, 300),
        ];
        let index = Index::new(ranges.into_iter());
        assert_eq!(index.touching(&frames(55, 250)), [0, 3, 4]);
        assert_eq!(index.touching(&frames(10, 11)), [0, 1]);
        assert_eq!(index.touching(&frames(100, 200)), []);
        assert_eq!(index.touching(&frames(20, 20)), []);
    }
}
