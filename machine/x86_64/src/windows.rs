//! Which guest physical addresses lead to devices: identity-mapped for the hardware domain, but for
//! pages that the hypervisor answers itself.
//!
//! A plain set of ranges, so that what gets mapped is tested on a workstation. Who owns which RAM is
//! the ownership table's; here RAM is only what must never be mapped as a device.

use alloc::vec::Vec;

use machine_paging::PAGE_SIZE;

const MEGABYTES_2: u64 = 2 << 20;
const GIGABYTE: u64 = 1 << 30;

/// A half-open range of addresses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
}

impl Span {
    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The addresses of devices that a domain reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    /// Ascending, apart.
    open: Vec<Span>,
    /// Whole pages that stay unmapped, ascending, apart.
    trapped: Vec<Span>,
}

impl Windows {
    /// None: a domain that has no bus.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            open: Vec::new(),
            trapped: Vec::new(),
        }
    }

    /// All whole pages below `limit` that hold no byte of `closed`: RAM, and registers that are hidden.
    #[must_use]
    pub fn outside(closed: &[Span], limit: u64) -> Self {
        let mut closed = closed.to_vec();
        closed.sort_unstable();
        let mut open = Vec::new();
        let mut at = 0_u64;
        let end = Span {
            start: limit,
            end: limit,
        };
        for hole in closed.into_iter().chain([end]) {
            let start = at.checked_next_multiple_of(PAGE_SIZE);
            let stop = hole.start.min(limit) & !(PAGE_SIZE - 1);
            if let Some(start) = start.filter(|start| *start < stop) {
                open.push(Span { start, end: stop });
            }
            at = at.max(hole.end);
        }
        Self {
            open,
            trapped: Vec::new(),
        }
    }

    /// Says which registers the hypervisor answers from now on: their pages stay unmapped.
    pub fn trap(&mut self, registers: impl IntoIterator<Item = Span>) {
        let pages = registers.into_iter().map(|span| Span {
            start: span.start & !(PAGE_SIZE - 1),
            end: span
                .end
                .checked_next_multiple_of(PAGE_SIZE)
                .unwrap_or(!(PAGE_SIZE - 1)),
        });
        let mut pages: Vec<Span> = pages.filter(|span| span.start < span.end).collect();
        pages.sort_unstable();
        self.trapped.clear();
        for next in pages {
            match self.trapped.last_mut() {
                Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
                _ => self.trapped.push(next),
            }
        }
    }

    /// The pages that stay unmapped.
    #[must_use]
    pub fn trapped(&self) -> &[Span] {
        &self.trapped
    }

    /// What is to be mapped when a domain starts: the windows below `limit` without trapped pages.
    pub fn below(&self, limit: u64) -> impl Iterator<Item = Span> + '_ {
        let cut = move |span: &Span| Span {
            start: span.start,
            end: span.end.min(limit),
        };
        let spans = self.open.iter().map(cut);
        spans
            .filter(|span| span.start < span.end)
            .flat_map(|span| self.without_trapped(span))
    }

    /// The pieces of a range between trapped pages.
    pub fn without_trapped(&self, span: Span) -> impl Iterator<Item = Span> + '_ {
        let mut at = span.start;
        let end = Span {
            start: span.end,
            end: span.end,
        };
        let holes = self.trapped.iter().copied();
        let holes = holes.filter(move |hole| hole.overlaps(span)).chain([end]);
        holes.filter_map(move |hole| {
            let piece = Span {
                start: at,
                end: hole.start,
            };
            at = hole.end;
            (piece.start < piece.end).then_some(piece)
        })
    }

    /// The piece to map when a domain meets an address that isn't mapped: the largest of 1 GiB (if
    /// `gigabyte_pages`), 2 MiB and 4 KiB around it that lies in one window, holds no trapped page, and is
    /// `unmapped`: the domain may have had memory mapped where there is no device.
    /// `None`: no device is there, or the page is trapped.
    #[must_use]
    pub fn piece(
        &self,
        address: u64,
        gigabyte_pages: bool,
        unmapped: impl Fn(Span) -> bool,
    ) -> Option<Span> {
        let after = self.open.partition_point(|span| span.start <= address);
        let window = *self.open.get(after.checked_sub(1)?)?;
        [GIGABYTE, MEGABYTES_2, PAGE_SIZE]
            .into_iter()
            .filter(|size| *size != GIGABYTE || gigabyte_pages)
            .find_map(|size| {
                let start = address & !(size - 1);
                let end = start.checked_add(size)?;
                let piece = Span { start, end };
                let whole = window.start <= start && end <= window.end;
                let free = !self.trapped.iter().any(|hole| hole.overlaps(piece));
                (whole && free && unmapped(piece)).then_some(piece)
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    /// QEMU's q35 with 2 GiB of RAM.
    fn q35() -> Windows {
        let mut windows =
            Windows::outside(&[span(0x10_0000, 0x8000_0000), span(0, 0x9_fc00)], 1 << 40);
        let page = |start| span(start, start + 0x20);
        windows.trap([page(0xfee0_0000), page(0xfec0_0000), page(0x20_0000_3123)]);
        windows
    }

    #[test]
    fn devices_are_mapped_and_ram_is_not() {
        let spans: Vec<Span> = q35().below(1 << 32).collect();
        let expected = [
            span(0xa_0000, 0x10_0000),
            span(0x8000_0000, 0xfec0_0000),
            span(0xfec0_1000, 0xfee0_0000),
            span(0xfee0_1000, 1 << 32),
        ];
        assert_eq!(spans, expected);
    }

    #[test]
    fn the_largest_piece_without_a_trap() {
        let windows = q35();
        let at = |address| windows.piece(address, true, |_| true);
        assert_eq!(
            at(0x40_1234_5678),
            Some(span(0x40_0000_0000, 0x40_4000_0000))
        );
        assert_eq!(
            at(0x20_0020_0000),
            Some(span(0x20_0020_0000, 0x20_0040_0000))
        );
        assert_eq!(
            at(0x20_0000_2fff),
            Some(span(0x20_0000_2000, 0x20_0000_3000))
        );
        assert_eq!(at(0x20_0000_3000), None);
        assert_eq!(at(0x7fff_ffff), None);
        assert_eq!(at(1 << 40), None);
        assert_eq!(
            windows
                .piece(0x40_1234_5678, false, |_| true)
                .map(|piece| piece.end),
            Some(0x40_1240_0000)
        );
        let memory = span(0x40_0000_0000, 0x40_0000_1000);
        let beside = windows.piece(0x40_1234_5678, true, |piece| !piece.overlaps(memory));
        assert_eq!(beside, Some(span(0x40_1220_0000, 0x40_1240_0000)));
    }

    proptest! {
        /// Whatever is mapped, at the start or later, holds no RAM and no trapped page.
        #[test]
        fn nothing_closed_is_ever_mapped(
            closed in prop::collection::vec((0u64..1 << 20, 1u64..1 << 19), 0..8),
            traps in prop::collection::vec((0u64..1 << 33, 1u64..1 << 22), 0..6),
            address in 0u64..1 << 34, gigabyte_pages: bool,
        ) {
            let closed: Vec<Span> = closed.into_iter()
                .map(|(start, size)| span(start << 13, (start + size) << 13))
                .collect();
            let mut windows = Windows::outside(&closed, 1 << 34);
            let traps: Vec<Span> = traps.into_iter().map(|(start, size)| span(start, start + size)).collect();
            windows.trap(traps.iter().copied());
            let mut mapped: Vec<Span> = windows.below(1 << 32).collect();
            mapped.extend(windows.piece(address, gigabyte_pages, |_| true));
            for piece in &mapped {
                prop_assert!(piece.start < piece.end && piece.start % PAGE_SIZE == 0 && piece.end % PAGE_SIZE == 0);
                prop_assert!(!closed.iter().any(|hole| hole.overlaps(*piece)));
                prop_assert!(!traps.iter().any(|trap| trap.overlaps(*piece)));
            }
            // And every free page is reached.
            let page = address & !(PAGE_SIZE - 1);
            let page_span = span(page, page + PAGE_SIZE);
            let free = !closed.iter().chain(&traps).any(|hole| hole.overlaps(page_span));
            prop_assert_eq!(windows.piece(address, gigabyte_pages, |_| true).is_some(), free);
            if page < 1 << 32 {
                let at_start = windows.below(1 << 32).any(|piece| (piece.start..piece.end).contains(&page));
                prop_assert_eq!(at_start, free);
            }
        }
    }
}
