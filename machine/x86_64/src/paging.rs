//! Descriptors of long mode and of nested paging, which share their form: APM volume 2, 5.4 and
//! 15.25. The walking is `machine_paging`'s.

use machine_paging::{Format, LAST_LEVEL, Regime};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLED: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const EXECUTE_NEVER: u64 = 1 << 63;

/// Every address in a table of four levels.
pub const INPUT_BITS: u8 = 48;

/// The form of a descriptor. Accessed and dirty are always set, so that the CPU writes no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongMode {
    /// Whether the CPU has pages of 1 GiB.
    pub gigabyte_pages: bool,
}

impl LongMode {
    /// The regime whose top table lies at `root`.
    pub const fn regime(self, root: u64) -> Regime<Self> {
        Regime::new(self, root, INPUT_BITS, 0)
    }
}

impl Format for LongMode {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    fn is_valid(self, entry: u64) -> bool {
        entry & PRESENT != 0
    }

    fn is_table(self, entry: u64) -> bool {
        entry & LARGE == 0
    }

    fn table(self, address: u64) -> u64 {
        // A table forbids nothing; the leaf decides.
        address | PRESENT | WRITABLE | USER | ACCESSED
    }

    fn leaf(self, output: u64, attributes: u64, level: u8) -> u64 {
        let large = if level < LAST_LEVEL { LARGE } else { 0 };
        output | attributes | large | PRESENT | ACCESSED | DIRTY
    }

    fn attributes(self, entry: u64, _level: u8) -> u64 {
        entry & !(Self::ADDRESS | LARGE | PRESENT | ACCESSED | DIRTY)
    }

    fn first_leaf_level(self) -> u8 {
        if self.gigabyte_pages { 1 } else { 2 }
    }
}

/// How the hypervisor sees a range of machine addresses. Nothing is both writable and executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Its own instructions.
    Code,
    /// Its own constants.
    Constants,
    /// RAM, its own and that of domains.
    Ram,
    /// Registers of a device, uncached.
    Device,
}

impl Own {
    /// The attribute bits of an entry in the hypervisor's own tables.
    pub const fn attributes(self) -> u64 {
        match self {
            Self::Code => 0,
            Self::Constants => EXECUTE_NEVER,
            Self::Ram => WRITABLE | EXECUTE_NEVER,
            // Entry 3 of the PAT as reset leaves it: UC.
            Self::Device => WRITABLE | EXECUTE_NEVER | WRITE_THROUGH | CACHE_DISABLED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use machine_paging::{PAGE_SIZE, Tables};
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Memory {
        entries: BTreeMap<(u64, usize), u64>,
        taken: u64,
        free: Vec<u64>,
    }

    impl Tables for Memory {
        fn allocate(&mut self) -> Option<u64> {
            self.free.pop().or_else(|| {
                self.taken += 1;
                Some(self.taken * PAGE_SIZE)
            })
        }
        fn free(&mut self, table: u64) {
            self.entries.retain(|&(of, _), _| of != table);
            self.free.push(table);
        }
        fn available(&self) -> usize {
            usize::MAX
        }
        fn read(&self, table: u64, index: usize) -> u64 {
            self.entries.get(&(table, index)).copied().unwrap_or(0)
        }
        fn write(&mut self, table: u64, index: usize, entry: u64) {
            self.entries.insert((table, index), entry);
        }
        fn invalidate(&mut self, _: u64, _: u64) {}
    }

    #[test]
    fn the_bits_of_the_manual() {
        let format = LongMode {
            gigabyte_pages: true,
        };
        let (ram, code) = (Own::Ram.attributes(), Own::Code.attributes());
        assert_eq!(format.leaf(0x20_0000, ram, 2), 0x8000_0000_0020_00e3);
        assert_eq!(format.leaf(0x1000, code, 3), 0x1061);
        let device = Own::Device.attributes();
        assert_eq!(format.leaf(0xfee0_0000, device, 3), 0x8000_0000_fee0_007b);
        assert_eq!(format.table(0x3000), 0x3027);
    }

    proptest! {
        /// An image inside RAM: its own permissions there, RAM's elsewhere, every byte at itself.
        #[test]
        fn an_image_in_ram(
            first in 0u64..0x4_0000, pages in 1u64..0x800, probe in 0u64..0x8_0000, gigabyte_pages: bool,
        ) {
            let regime = LongMode { gigabyte_pages }.regime(0);
            let mut memory = Memory::default();
            let (start, size) = (first * PAGE_SIZE, pages * PAGE_SIZE);
            let (ram, code) = (Own::Ram.attributes(), Own::Code.attributes());
            prop_assert_eq!(regime.map(&mut memory, 0, 0, 2 << 30, ram), Ok(()));
            prop_assert_eq!(regime.map(&mut memory, start, start, size, code), Ok(()));
            for page in [probe, first, first + pages - 1, first + pages] {
                let address = page * PAGE_SIZE + 0x123;
                let found = regime.translate(&memory, address).map(|t| (t.output, t.attributes));
                let inside = (first..first + pages).contains(&page);
                prop_assert_eq!(found, Some((address, if inside { code } else { ram })));
            }
        }
    }
}
