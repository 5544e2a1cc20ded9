//! The guest's own memory: where the image lies, and the 1:1 map.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu;
use crate::range::Range;

unsafe extern "C" {
    static terrane_guest_start: u8;
    static __image_end: u8;
    /// Top table, second table, four third tables: the first 4 GiB, by the first instructions.
    static terrane_guest_tables: [[AtomicU64; 512]; 6];
}

const GIB: u64 = 1 << 30;
const MIB2: u64 = 1 << 21;
/// Present, writable, for ring 3 too; of a large page.
const LARGE: u64 = 0x87;
const TABLE: u64 = 0x07;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);
/// For CPUs without pages of 1 GiB: the map then ends at 16 GiB.
static MORE: [Table; 12] = [const { Table([const { AtomicU64::new(0) }; 512]) }; 12];

/// The range of the running image, zeroed memory and stacks included.
pub fn image() -> Range {
    let start = (&raw const terrane_guest_start) as u64;
    let end = (&raw const __image_end) as u64;
    Range {
        start,
        size: end - start,
    }
}

/// Whether a byte of `range` belongs to the image or to what the guest was started with, so that nobody may write there.
pub fn is_own(range: Range) -> bool {
    let kept = crate::boot::kept();
    [image()]
        .iter()
        .chain(kept)
        .any(|own| range.start < own.end() && own.start < range.end())
}

/// The end of the addresses that are mapped, exclusive.
pub fn end() -> u64 {
    if large_pages() { 512 * GIB } else { 16 * GIB }
}

/// The address of the top table, for CR3.
pub(crate) fn top() -> u64 {
    (&raw const terrane_guest_tables) as u64
}

fn large_pages() -> bool {
    cpu::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0
}

/// Maps what lies above 4 GiB too.
pub(crate) fn widen() {
    // SAFETY: the tables are this module's from here on, and made of atomics.
    let [_, second, ..] = unsafe { &terrane_guest_tables };
    if large_pages() {
        for (gib, entry) in (0u64..).zip(second).skip(4) {
            entry.store((gib * GIB) | LARGE, Ordering::Relaxed);
        }
    } else {
        for ((gib, entry), table) in (0u64..).zip(second).skip(4).zip(&MORE) {
            for (index, page) in (0u64..).zip(&table.0) {
                page.store((gib * GIB + index * MIB2) | LARGE, Ordering::Relaxed);
            }
            entry.store((&raw const *table) as u64 | TABLE, Ordering::Relaxed);
        }
    }
    // SAFETY: what was mapped stays mapped where it is.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) }
}
