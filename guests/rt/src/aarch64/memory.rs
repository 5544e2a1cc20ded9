//! The guest's own memory: where image and tree lie, and a 1:1 map of the first 512 GiB with caches on, RAM as Normal
//! memory and all else as Device.

use core::arch::asm;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{
    ID_AA64MMFR0_EL1, MAIR_EL1, Readable, SCTLR_EL1, TCR_EL1, TTBR0_EL1, Writeable,
};
use spin::Once;

use crate::cpu;
use crate::range::Range;
use crate::tree::Facts;

unsafe extern "C" {
    static _start: u8;
    static __image_end: u8;
}

static FACTS: Once<Facts> = Once::new();

/// Bytes of a level 1 block.
const GIB: u64 = 1 << 30;
/// Bytes of a level 2 block.
const MIB2: u64 = 1 << 21;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }
}

static LEVEL1: Table = Table::new();
/// For gibibytes of which only a part is RAM; the rest of such gibibytes over 16 is mapped as Device.
static LEVEL2: [Table; 16] = [const { Table::new() }; 16];

/// MAIR_EL1: index 0 is Normal, write-back; index 1 is Device-nGnRE.
const ATTRIBUTES: u64 = 0x04ff;
/// Block, access flag, inner shareable, index 0, for EL1 alone.
const NORMAL: u64 = 1 << 10 | 3 << 8 | 1;
/// Block, access flag, index 1, never executed.
const DEVICE: u64 = 3 << 53 | 1 << 10 | 1 << 2 | 1;
const TABLE: u64 = 3;
/// SCTLR_EL1.M, .C and .I.
const MMU_AND_CACHES: u64 = 1 << 12 | 1 << 2 | 1;

/// The range of the running image, zeroed memory and stack included.
pub fn image() -> Range {
    let start = (&raw const _start) as u64;
    let end = (&raw const __image_end) as u64;
    Range {
        start,
        size: end - start,
    }
}

/// Whether a byte of `range` belongs to the image or the tree, so that nobody may write there.
pub fn is_own(range: Range) -> bool {
    let tree = FACTS.get().map_or_else(Range::default, |facts| facts.blob);
    [image(), tree]
        .iter()
        .any(|own| range.start < own.end() && own.start < range.end())
}

/// Reads the tree at the address that the boot loader gave. A tree that can't be read gives no facts.
pub(crate) fn read_tree(address: u64) -> &'static Facts {
    FACTS.call_once(|| {
        let header: [u32; 2] =
            [cpu::read32(address), cpu::read32(address + 4)].map(u32::swap_bytes);
        let [0xd00d_feed, size] = header else {
            return Facts::default();
        };
        // SAFETY: by the boot protocol x0 points to a tree in RAM, and by its header it has that size. `is_own` keeps
        // the tests from writing there while the slice lives.
        let blob = unsafe { slice::from_raw_parts(address as *const u8, size as usize) };
        let mut facts = Facts::read(blob).unwrap_or_default();
        facts.blob = Range {
            start: address,
            size: u64::from(size),
        };
        facts
    })
}

/// Fills the tables from the tree's RAM and turns the boot CPU's MMU and caches on.
pub(crate) fn turn_on(facts: &Facts) {
    let mut spare = LEVEL2.iter();
    for (gib, entry) in (0u64..).zip(&LEVEL1.0) {
        let whole = Range {
            start: gib * GIB,
            size: GIB,
        };
        let value = match covered(facts, whole) {
            0 => DEVICE | whole.start,
            GIB => NORMAL | whole.start,
            _ => spare.next().map_or(DEVICE | whole.start, |table| {
                fill(facts, whole.start, table);
                TABLE | (&raw const *table) as u64
            }),
        };
        entry.store(value, Ordering::Relaxed);
    }
    let own = image();
    clean(own.start, own.size);
    turn_on_here();
}

fn fill(facts: &Facts, start: u64, table: &Table) {
    for (index, entry) in (0u64..).zip(&table.0) {
        let block = Range {
            start: start + index * MIB2,
            size: MIB2,
        };
        let kind = if covered(facts, block) > 0 {
            NORMAL
        } else {
            DEVICE
        };
        entry.store(kind | block.start, Ordering::Relaxed);
    }
}

/// How many bytes of `range` are RAM. The image's own are, whatever the tree says.
fn covered(facts: &Facts, range: Range) -> u64 {
    let common = |bank: &Range| {
        let start = bank.start.max(range.start);
        bank.end().min(range.end()).saturating_sub(start)
    };
    let ram: u64 = facts.ram.iter().map(common).sum();
    ram.max(common(&image())).min(range.size)
}

/// Turns this CPU's MMU and caches on, with the tables that the boot CPU filled.
pub(crate) fn turn_on_here() {
    let address_size = ID_AA64MMFR0_EL1.get() & 0xf;
    MAIR_EL1.set(ATTRIBUTES);
    // 39 bits by TTBR0 alone, walks write-back and inner shareable, 4 KiB granule; 48 bits of physical address at most.
    TCR_EL1.set(25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | address_size.min(5) << 32);
    TTBR0_EL1.set((&raw const LEVEL1) as u64);
    // SAFETY: translations are dropped before the map is used; it maps everything where it already is.
    unsafe {
        asm!(
            "dsb ishst",
            "tlbi vmalle1",
            "dsb ish",
            "ic iallu",
            "dsb ish",
            "isb",
            options(nostack)
        )
    }
    SCTLR_EL1.set(SCTLR_EL1.get() | MMU_AND_CACHES);
    cpu::barrier();
}

/// Turns this CPU's MMU and caches off: every address of the physical space can be named, as Device memory.
pub fn turn_off_here() {
    let own = image();
    SCTLR_EL1.set(SCTLR_EL1.get() & !(1 << 2));
    cpu::barrier();
    clean(own.start, own.size);
    SCTLR_EL1.set(SCTLR_EL1.get() & !MMU_AND_CACHES);
    cpu::barrier();
    // SAFETY: translations and instructions are dropped, nothing that Rust sees.
    unsafe {
        asm!(
            "tlbi vmalle1",
            "dsb nsh",
            "ic iallu",
            "dsb nsh",
            "isb",
            options(nostack)
        )
    }
}

/// Cleans and invalidates the data caches for a range, by lines of 64 bytes or what the CPU has, if smaller.
pub fn clean(start: u64, size: u64) {
    let line = 4 << (crate::read_register!("ctr_el0") >> 16 & 0xf);
    let mut address = start & !(line - 1);
    while address < start + size {
        // SAFETY: cleaning writes back what the caches hold; contents don't change.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack)) }
        address += line;
    }
    cpu::barrier();
}
