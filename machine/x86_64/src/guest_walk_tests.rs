use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Memory in words of 8 bytes; what was never written can't be read.
#[derive(Default)]
struct Memory(BTreeMap<u64, u64>);

impl Physical for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let word = self.0.get(&(address & !7))?.to_le_bytes();
        let first = usize::try_from(address & 7).ok()?;
        bytes.copy_from_slice(word.get(first..first + bytes.len())?);
        Some(())
    }
}

impl Memory {
    /// A descriptor of 4 bytes.
    fn put_half(&mut self, address: u64, entry: u32) {
        let word = self.0.entry(address & !7).or_default();
        let shift = (address & 4) * 8;
        *word = *word & !(0xffff_ffff << shift) | u64::from(entry) << shift;
    }
}

const LONG: Paging = Paging {
    cr0: CR0_PAGING | CR0_WRITE_PROTECT,
    cr3: 0x1000,
    cr4: CR4_PAE,
    efer: EFER_LONG_MODE | EFER_NO_EXECUTE,
};

const ALL: u64 = PRESENT | WRITABLE | USER;

/// Tables for one address, from the top: entry `n` has the rights `rights[n]`, and the last is a leaf.
fn map(memory: &mut Memory, address: u64, target: u64, levels: u32, rights: &[u64]) {
    let count = rights.len();
    let tables = (0x1000..).step_by(0x1000);
    for ((index, rights), table) in rights.iter().enumerate().zip(tables) {
        let below = levels - 1 - u32::try_from(index).unwrap();
        let at = table + (address >> (12 + 9 * below) & 0x1ff) * 8;
        let next = if index + 1 == count {
            target
        } else {
            table + 0x1000
        };
        memory.0.insert(at, next | rights);
    }
}

fn access(write: bool, fetch: bool, user: bool) -> Access {
    Access { write, fetch, user }
}

#[test]
fn what_lies_in_a_page() {
    assert_eq!(in_page(0x1000, 4), 4);
    assert_eq!(in_page(0x1ffc, 4), 4);
    assert_eq!(in_page(0x1ffd, 4), 3);
    assert_eq!(in_page(u64::MAX, 2), 1);
}

#[test]
fn without_paging_an_address_is_itself() {
    let off = Paging::default();
    let found = translate(&off, 0x1_0000_1234, Access::READ, &Memory::default());
    assert_eq!(found, Some(0x1234));
}

#[test]
fn two_levels_of_old() {
    let paging = Paging {
        cr0: CR0_PAGING,
        cr3: 0x1000,
        cr4: CR4_LARGE_PAGES,
        efer: 0,
    };
    let mut memory = Memory::default();
    memory.put_half(0x1000 + 0x300 * 4, 0x2007);
    memory.put_half(0x2000 + 5 * 4, 0xabcd_e005);
    memory.put_half(0x1000 + 0x301 * 4, 0x0040_2087);
    let read = |address, access| translate(&paging, address, access, &memory);
    assert_eq!(read(0xc000_5123, Access::READ), Some(0xabcd_e123));
    // Read-only for users; the kernel may write as long as CR0.WP is clear.
    assert_eq!(read(0xc000_5123, access(true, false, true)), None);
    assert_eq!(read(0xc000_5123, Access::WRITE), Some(0xabcd_e123));
    assert_eq!(read(0xc040_0042, Access::READ), Some(0x1_0040_0042));
    assert_eq!(read(0xc080_0000, Access::READ), None);
}

#[test]
fn three_levels() {
    let paging = Paging {
        cr0: CR0_PAGING,
        cr3: 0x1020,
        cr4: CR4_PAE,
        efer: 0,
    };
    let mut memory = Memory::default();
    memory.0.insert(0x1020 + 3 * 8, 0x2001);
    memory.0.insert(0x2000, 0x1_0020_0000 | LARGE | ALL);
    let found = translate(&paging, 0xc000_0777, Access::WRITE, &memory);
    assert_eq!(found, Some(0x1_0020_0777));
    assert_eq!(translate(&paging, 0x777, Access::READ, &memory), None);
}

#[test]
fn five_levels_reach_further() {
    let five = Paging {
        cr4: CR4_PAE | CR4_FIVE_LEVELS,
        ..LONG
    };
    let address = 0x0012_3456_789a_b000;
    let mut memory = Memory::default();
    map(&mut memory, address, 0x7000, 5, &[ALL; 5]);
    let found = translate(&five, address | 8, Access::READ, &memory);
    assert_eq!(found, Some(0x7008));
    assert_eq!(translate(&LONG, address, Access::READ, &memory), None);
}

proptest! {
    /// An access succeeds exactly if every level allows it, and ends at the page's own byte.
    #[test]
    fn every_level_has_its_say(
        page in 0u64..1 << 36, offset in 0u64..0x1000, frame in 1u64..1 << 28,
        rights in prop::array::uniform4(0u64..8), never in prop::array::uniform4(any::<bool>()),
        large in 0usize..3, write: bool, fetch: bool, user: bool, protect: bool, nx: bool,
    ) {
        // Sign-extended from bit 47.
        let address = (page << 28).cast_signed() >> 16;
        let address = address.cast_unsigned() & !0xfff | offset;
        let depth = 4 - large;
        let mut entries: Vec<u64> = rights.iter().zip(never)
            .map(|(rights, never)| rights | if never { EXECUTE_NEVER } else { 0 })
            .take(depth)
            .collect();
        if large > 0 {
            entries[depth - 1] |= LARGE;
        }
        let within = (1u64 << (12 + 9 * large)) - 1;
        let target = (frame << 12) & !within;
        let mut memory = Memory::default();
        map(&mut memory, address, target, 4, &entries);
        let paging = Paging {
            cr0: CR0_PAGING | if protect { CR0_WRITE_PROTECT } else { 0 },
            efer: EFER_LONG_MODE | if nx { EFER_NO_EXECUTE } else { 0 },
            ..LONG
        };
        let all = |bit: u64| entries.iter().all(|entry| entry & bit != 0);
        let writable = all(WRITABLE) || (!user && !protect);
        let executable = !nx || entries.iter().all(|entry| entry & EXECUTE_NEVER == 0);
        let allowed = all(PRESENT) && (!user || all(USER)) && (!write || writable) && (!fetch || executable);
        let found = translate(&paging, address, access(write, fetch, user), &memory);
        prop_assert_eq!(found, allowed.then_some(target | address & within));
    }

    /// Whatever the tables hold, the walk ends.
    #[test]
    fn garbage_ends(
        words in prop::collection::vec(any::<u64>(), 512), address: u64, cr3: u64, cr4: u64, long: bool,
    ) {
        let mut memory = Memory::default();
        for (at, word) in (0x1000u64..).step_by(8).zip(words) {
            memory.0.insert(at, word & !0xffff_f000 | 0x1000);
        }
        let efer = if long { EFER_LONG_MODE } else { 0 };
        let paging = Paging { cr0: CR0_PAGING, cr3: cr3 & 0xfff | 0x1000, cr4, efer };
        let _ = translate(&paging, address, Access::READ, &memory);
    }
}
