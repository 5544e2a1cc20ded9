//! One scale for several address spaces: piecewise, so that a page is as visible as a terabyte.
//!
//! Each stretch of addresses between two borders of regions gets a height of its own; a stretch
//! where nothing lies is a gap, cut to one fixed height. All spaces share the scale: what has the
//! same address has the same height on the page.

use super::Region;

/// Addresses between two borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first byte.
    pub start: u64,
    /// The byte behind the last.
    pub end: u64,
    /// Where it begins on the page.
    pub top: u32,
    /// How high it is.
    pub height: u32,
    /// Nothing lies here in any space.
    pub gap: bool,
}

/// The scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// All addresses from the lowest region's first to the highest one's last.
    pub segments: Vec<Segment>,
}

impl Scale {
    /// A scale on which each of the regions' segments is as high as `height` says for so many
    /// bytes.
    pub fn of<'a>(
        regions: impl Iterator<Item = &'a Region>,
        height: impl Fn(u64) -> u32,
        gap: u32,
    ) -> Self {
        // +1 where a region begins, -1 where one ends.
        let mut edges: Vec<(u64, i32)> = regions
            .flat_map(|region| [(region.start, 1), (region.end, -1)])
            .collect();
        edges.sort_unstable();
        let mut segments: Vec<Segment> = Vec::new();
        let (mut depth, mut from, mut top) = (0, None, 0);
        for (at, step) in edges {
            if let Some(start) = from
                && start < at
            {
                let height = if depth == 0 { gap } else { height(at - start) };
                segments.push(Segment {
                    start,
                    end: at,
                    top,
                    height,
                    gap: depth == 0,
                });
                top += height;
            }
            from = Some(at);
            depth += step;
        }
        Self { segments }
    }

    /// The height of all.
    pub fn height(&self) -> u32 {
        self.segments
            .last()
            .map_or(0, |segment| segment.top + segment.height)
    }

    /// Where an address is on the page.
    pub fn place(&self, address: u64) -> u32 {
        let behind = self
            .segments
            .partition_point(|segment| segment.end <= address);
        match self.segments.get(behind) {
            None => self.height(),
            Some(segment) => {
                let into = u128::from(address.saturating_sub(segment.start));
                let whole = u128::from((segment.end - segment.start).max(1));
                let more = into * u128::from(segment.height) / whole;
                segment.top + u32::try_from(more).unwrap_or(segment.height)
            }
        }
    }
}

/// The binary logarithm of a size in frames, rounded down; 0 for less than one.
pub fn magnitude(bytes: u64) -> u32 {
    (bytes >> layout::FRAME_SHIFT).checked_ilog2().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Kind;

    fn region(start: u64, end: u64) -> Region {
        Region {
            start,
            end,
            kind: Kind::Ram,
            owner: None,
            label: String::new(),
            machine: Some(start),
            why: String::new(),
            parts: Vec::new(),
        }
    }

    #[test]
    fn borders_of_all_spaces_count_and_gaps_are_cut() {
        let regions = [
            region(0x1000, 0x3000),
            region(0x2000, 0x3000),
            region(1 << 40, 2 << 40),
        ];
        let scale = Scale::of(regions.iter(), |bytes| 10 + magnitude(bytes), 5);
        let seen: Vec<(u64, u32, bool)> = scale
            .segments
            .iter()
            .map(|segment| (segment.start, segment.height, segment.gap))
            .collect();
        assert_eq!(
            seen,
            [
                (0x1000, 10, false),
                (0x2000, 10, false),
                (0x3000, 5, true),
                (1 << 40, 38, false)
            ]
        );
        let places = [0, 0x1000, 0x1800, 0x3000, 1 << 40, 2 << 40, u64::MAX];
        assert_eq!(
            places.map(|address| scale.place(address)),
            [0, 0, 5, 20, 25, 63, 63]
        );
    }

    #[test]
    fn no_regions_no_height() {
        assert_eq!(Scale::of([].iter(), |_| 1, 1).height(), 0);
    }
}
