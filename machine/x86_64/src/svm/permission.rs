//! The permission maps: which ports and which MSRs a guest reaches without an exit. APM volume 2, 15.10 and 15.11.

use alloc::boxed::Box;
use core::ops::RangeInclusive;

const PAGE: usize = 4096;
/// Pages of the port map: a bit for each port, and three more that an access to the last ports reaches.
const PORT_PAGES: usize = 3;
/// Pages of the MSR map: two bits for each register of three ranges of 2000h.
const MSR_PAGES: usize = 2;
/// Bytes of the MSR map for one range.
const RANGE_BYTES: usize = 0x800;
/// Where the three ranges begin.
const RANGES: [u32; 3] = [0, 0xc000_0000, 0xc001_0000];

#[derive(Debug, Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A map in pages side by side; on the heap, as it is too large for a stack.
#[derive(Debug)]
struct Map(Box<[Page]>);

impl Map {
    /// A map in which everything exits.
    fn full(pages: usize) -> Self {
        Self(alloc::vec![Page([0xff; PAGE]); pages].into_boxed_slice())
    }

    fn byte(&self, place: usize) -> u8 {
        self.0[place / PAGE].0[place % PAGE]
    }

    fn byte_mut(&mut self, place: usize) -> &mut u8 {
        &mut self.0[place / PAGE].0[place % PAGE]
    }
}

/// The port map. A set bit intercepts.
#[derive(Debug)]
pub struct Iopm(Map);

impl Iopm {
    /// A map in which all ports pass but those of `kept`.
    pub fn passing_all_but(kept: impl Iterator<Item = RangeInclusive<u16>>) -> Self {
        let mut map = Self::passing_none();
        for page in &mut map.0.0[..PORT_PAGES - 1] {
            page.0.fill(0);
        }
        for port in kept.flatten() {
            *map.0.byte_mut(usize::from(port) / 8) |= 1 << (port % 8);
        }
        map
    }

    /// A map in which no port passes.
    #[must_use]
    pub fn passing_none() -> Self {
        Self(Map::full(PORT_PAGES))
    }

    /// Whether an access of a byte to that port exits.
    #[must_use]
    pub fn intercepts(&self, port: u16) -> bool {
        self.0.byte(usize::from(port) / 8) & 1 << (port % 8) != 0
    }

    /// Its first byte, on a page.
    #[must_use]
    pub const fn as_ptr(&self) -> *const u8 {
        self.0.0.as_ptr().cast()
    }
}

/// The MSR map. A set bit intercepts: the even one reads, the odd one writes.
#[derive(Debug)]
pub struct Msrpm(Map);

impl Msrpm {
    /// A map in which only those registers pass that lie in `ranges`, both ends in them, reads and writes alike.
    pub fn new(ranges: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut map = Map::full(MSR_PAGES);
        for (first, last) in ranges {
            for register in first..=last {
                if let Some((byte, shift)) = place(register) {
                    *map.byte_mut(byte) &= !(3 << shift);
                }
            }
        }
        Self(map)
    }

    /// Whether a read of that register exits.
    #[must_use]
    pub fn intercepts(&self, register: u32) -> bool {
        place(register).is_none_or(|(byte, shift)| self.0.byte(byte) >> shift & 3 != 0)
    }

    /// Its first byte, on a page.
    #[must_use]
    pub const fn as_ptr(&self) -> *const u8 {
        self.0.0.as_ptr().cast()
    }
}

/// Byte and first bit of a register; `None` for one that always exits.
fn place(register: u32) -> Option<(usize, u32)> {
    RANGES.iter().enumerate().find_map(|(index, &base)| {
        let offset = register
            .checked_sub(base)
            .filter(|&offset| offset < 0x2000)?;
        let byte = index * RANGE_BYTES + usize::try_from(offset / 4).ok()?;
        Some((byte, offset % 4 * 2))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::msr;
    use proptest::prelude::*;

    #[test]
    fn the_places_of_the_manual() {
        assert_eq!(place(0), Some((0, 0)));
        assert_eq!(place(0x1fff), Some((0x7ff, 6)));
        assert_eq!(place(0xc000_0080), Some((0x820, 0)));
        assert_eq!(place(0xc001_0117), Some((0x1045, 6)));
        assert_eq!(place(0x2000), None);
        assert_eq!(place(0x4000_0000), None);
    }

    #[test]
    fn the_bytes_behind_the_last_port_intercept() {
        let map = Iopm::passing_all_but(core::iter::empty());
        assert!(!map.intercepts(0xffff));
        assert_eq!(map.0.byte(0x2000), 0xff);
        assert_eq!(map.0.byte(0x1fff), 0);
    }

    proptest! {
        #[test]
        fn only_what_is_kept(port: u16, first: u16, count in 0u16..300) {
            let kept = first..=first.saturating_add(count);
            let map = Iopm::passing_all_but([kept.clone()].into_iter());
            prop_assert_eq!(map.intercepts(port), kept.contains(&port));
            prop_assert!(map.intercepts(first));
            prop_assert!(Iopm::passing_none().intercepts(port));
        }

        #[test]
        fn the_msr_map_is_the_rule(register in prop_oneof![
            0u32..0x2000, 0xc000_0000u32..0xc000_2000, 0xc001_0000u32..0xc001_2000, any::<u32>(),
        ]) {
            let map = Msrpm::new(msr::passed());
            let passes = msr::rule(register) == msr::Access::Pass;
            prop_assert_eq!(map.intercepts(register), !passes);
        }
    }
}
