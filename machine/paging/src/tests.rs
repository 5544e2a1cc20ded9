//! The tables against a model of one entry per page, with descriptors of two kinds.

use super::*;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use proptest::prelude::*;

const VALID: u64 = 1;

/// A bit tells a table or page from a block, as on arm64.
#[derive(Clone, Copy)]
struct TablesMarked;

impl Format for TablesMarked {
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    fn is_valid(self, entry: u64) -> bool {
        entry & VALID != 0
    }
    fn is_table(self, entry: u64) -> bool {
        entry & 2 != 0
    }
    fn table(self, address: u64) -> u64 {
        address | 3
    }
    fn leaf(self, output: u64, attributes: u64, level: u8) -> u64 {
        output | attributes | if level == LAST_LEVEL { 3 } else { 1 }
    }
    fn attributes(self, entry: u64, _: u8) -> u64 {
        entry & !(Self::ADDRESS | 3)
    }
    fn first_leaf_level(self) -> u8 {
        1
    }
}

/// A bit tells a large page from a table, and there are none of 1 GiB, as on many x86 CPUs.
#[derive(Clone, Copy)]
struct LeavesMarked;

const LARGE: u64 = 1 << 11;

impl Format for LeavesMarked {
    const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    fn is_valid(self, entry: u64) -> bool {
        entry & VALID != 0
    }
    fn is_table(self, entry: u64) -> bool {
        entry & LARGE == 0
    }
    fn table(self, address: u64) -> u64 {
        address | 7
    }
    fn leaf(self, output: u64, attributes: u64, level: u8) -> u64 {
        output | attributes | VALID | if level == LAST_LEVEL { 0 } else { LARGE }
    }
    fn attributes(self, entry: u64, _: u8) -> u64 {
        entry & !(Self::ADDRESS | VALID | LARGE)
    }
    fn first_leaf_level(self) -> u8 {
        2
    }
}

/// Tables in a map. Panics on a break-before-make violation: a valid entry overwritten by another
/// valid one, or made again before the invalidation.
struct Memory {
    entries: BTreeMap<u64, Vec<u64>>,
    free: Vec<u64>,
    broken: Option<(u64, usize)>,
}

const ROOT: u64 = 0x1000;
const POOL: u64 = 0x10_0000;

impl Memory {
    fn new(tables: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            free: (0..tables).map(|i| POOL + i * PAGE_SIZE).collect(),
            broken: None,
        }
    }
}

impl Tables for Memory {
    fn allocate(&mut self) -> Option<u64> {
        self.free.pop()
    }
    fn free(&mut self, table: u64) {
        assert!(!self.free.contains(&table), "freed twice");
        self.entries.remove(&table);
        self.free.push(table);
    }
    fn available(&self) -> usize {
        self.free.len()
    }
    fn read(&self, table: u64, index: usize) -> u64 {
        self.entries.get(&table).map_or(0, |entries| entries[index])
    }
    fn write(&mut self, table: u64, index: usize, entry: u64) {
        let old = self.read(table, index);
        assert!(self.broken.is_none(), "write before invalidation");
        if entry & VALID != 0 {
            assert!(old & VALID == 0, "made without a break");
        } else if old & VALID != 0 {
            self.broken = Some((table, index));
        }
        self.entries
            .entry(table)
            .or_insert_with(|| alloc::vec![0; 8192])[index] = entry;
    }
    fn invalidate(&mut self, _: u64, _: u64) {
        assert!(self.broken.take().is_some());
    }
}

const ATTRIBUTES: u64 = 0x7c << 2;

#[test]
fn a_gib_takes_one_block() {
    let regime = Regime::new(TablesMarked, ROOT, 40, 1);
    let mut memory = Memory::new(0);
    assert_eq!(
        regime.map(&mut memory, 1 << 30, 1 << 30, 1 << 30, ATTRIBUTES),
        Ok(())
    );
    let found = regime.translate(&memory, (1 << 30) + 0x1234);
    assert_eq!(found.map(|t| t.output), Some((1 << 30) + 0x1234));
    assert_eq!(found.map(|t| t.attributes), Some(ATTRIBUTES));
    assert_eq!(found.map(|t| t.remaining), Some((1 << 30) - 0x1234));
}

#[test]
fn concatenated_root_and_window_of_512_gib() {
    let regime = Regime::new(TablesMarked, ROOT, 40, 1);
    let mut memory = Memory::new(0);
    let size = 512 << 30;
    assert_eq!(
        regime.map(&mut memory, size, size, size, ATTRIBUTES),
        Ok(())
    );
    assert_eq!(
        regime.translate(&memory, 2 * size - 1).map(|t| t.output),
        Some(2 * size - 1)
    );
    assert_eq!(regime.translate(&memory, 2 * size), None);
    assert_eq!(
        regime.map(&mut memory, 2 * size, 0, PAGE_SIZE, ATTRIBUTES),
        Err(PagingError::OutOfRange)
    );
}

#[test]
fn a_change_that_lacks_tables_changes_nothing() {
    let regime = Regime::new(TablesMarked, ROOT, 48, 0);
    let mut memory = Memory::new(2);
    assert_eq!(regime.map(&mut memory, 0, 0, 1 << 30, ATTRIBUTES), Ok(()));
    let before = memory.entries.clone();
    assert_eq!(
        regime.unmap(&mut memory, 0x1000, PAGE_SIZE),
        Err(PagingError::OutOfTables)
    );
    assert_eq!(before, memory.entries);
    assert_eq!(
        regime.map(&mut memory, 0x1001, 0, PAGE_SIZE, 0),
        Err(PagingError::Misaligned)
    );
    assert_eq!(
        regime.map(&mut memory, u64::MAX - 0xfff, 0, 0x2000, 0),
        Err(PagingError::OutOfRange)
    );
}

#[test]
fn what_is_unmapped() {
    let regime = Regime::new(TablesMarked, ROOT, 36, 1);
    let mut memory = Memory::new(10);
    let page = 0x4000_5000;
    assert_eq!(
        regime.map(&mut memory, page, 0x1000, PAGE_SIZE, 0x40),
        Ok(())
    );
    assert!(!regime.is_unmapped(&memory, 0, 1 << 36));
    assert!(!regime.is_unmapped(&memory, 0x4000_0000, 2 << 20));
    assert!(regime.is_unmapped(&memory, 0x4000_0000, 5 * PAGE_SIZE));
    assert!(regime.is_unmapped(&memory, page + PAGE_SIZE, 1 << 30));
    assert!(regime.is_unmapped(&memory, 1 << 40, PAGE_SIZE));
    assert_eq!(regime.unmap(&mut memory, page, PAGE_SIZE), Ok(()));
    assert!(regime.is_unmapped(&memory, 0, 1 << 36), "an empty table");
}

#[test]
fn unmapping_the_whole_gives_all_tables_back() {
    let regime = Regime::new(TablesMarked, ROOT, 48, 0);
    let mut memory = Memory::new(16);
    for page in [0u64, 5 << 21, 7 << 30] {
        assert_eq!(
            regime.map(&mut memory, page, page, PAGE_SIZE, ATTRIBUTES),
            Ok(())
        );
    }
    assert_eq!(regime.unmap(&mut memory, 0, 1 << 39), Ok(()));
    assert_eq!(memory.available(), 16);
    assert_eq!(
        regime.map(&mut memory, 1 << 40, 0, PAGE_SIZE, ATTRIBUTES),
        Ok(())
    );
    regime.clear(&mut memory);
    assert_eq!(memory.available(), 16);
    assert_eq!(regime.translate(&memory, 1 << 40), None);
}

/// Pages of interest: around block edges of all levels, in 4 GiB.
fn page() -> impl Strategy<Value = u64> {
    (
        0u64..3,
        prop_oneof![Just(0u64), Just(1), Just(511)],
        prop_oneof![Just(0u64), Just(1), Just(511)],
    )
        .prop_map(|(gib, mid, low)| (gib << 18) + (mid << 9) + low)
}

fn pages() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(1u64),
        Just(2),
        Just(511),
        Just(512),
        Just(513),
        Just(1026)
    ]
}

/// A map (`Some`) or an unmap of `count` pages.
type Step = (u64, u64, Option<(u64, u64)>);

/// Any sequence of maps and unmaps gives what a list of the changes gives.
fn agrees<F: Format>(
    format: F,
    changes: &[Step],
    probes: &[(u64, u64)],
) -> Result<(), TestCaseError> {
    let regime = Regime::new(format, ROOT, 36, 1);
    let mut memory = Memory::new(4000);
    let mut done = Vec::new();
    for &(input, count, target) in changes {
        let (input, size) = (input * PAGE_SIZE, count * PAGE_SIZE);
        let result = match target {
            Some((output, attributes)) => {
                let output = output * PAGE_SIZE;
                regime.map(&mut memory, input, output, size, attributes << 6)
            }
            None => regime.unmap(&mut memory, input, size),
        };
        prop_assert_eq!(result, Ok(()));
        done.push((input, size, target));
    }
    for &(probe, near) in probes {
        let address = (probe * PAGE_SIZE + near * 0x800).min((1 << 36) - 1);
        let change = done
            .iter()
            .rev()
            .find(|(input, size, _)| (*input..input + size).contains(&address));
        let expected = change.and_then(|&(input, _, target)| {
            let (output, attributes) = target?;
            Some((output * PAGE_SIZE + (address - input), attributes << 6))
        });
        let found = regime.translate(&memory, address);
        prop_assert_eq!(found.map(|t| (t.output, t.attributes)), expected);
        let page = address & !(PAGE_SIZE - 1);
        prop_assert_eq!(
            regime.is_unmapped(&memory, page, PAGE_SIZE),
            expected.is_none()
        );
        // What covers a mapped page is not unmapped, whatever its size.
        for size in [PAGE_SIZE << 9, PAGE_SIZE << 18, 1 << 36] {
            let start = address & !(size - 1);
            let unmapped = regime.is_unmapped(&memory, start, size);
            prop_assert!(!unmapped || expected.is_none());
        }
    }
    Ok(())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let target = proptest::option::of((page(), 0u64..4));
    proptest::collection::vec((page(), pages(), target), 1..12)
}

proptest! {
    #[test]
    fn agrees_with_a_list_of_changes(
        changes in steps(),
        probes in proptest::collection::vec((page(), 0u64..3), 32),
    ) {
        agrees(TablesMarked, &changes, &probes)?;
        agrees(LeavesMarked, &changes, &probes)?;
    }
}
