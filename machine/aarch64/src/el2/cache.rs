//! Cache and barrier instructions on ranges of machine addresses (identity-mapped at EL2).

use core::arch::asm;

/// Bytes of the smallest data cache line in the system, from CTR_EL0.DminLine.
fn line_bytes() -> u64 {
    let ctr: u64;
    // SAFETY: reading CTR_EL0 has no side effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    4 << ((ctr >> 16) & 0xf)
}

fn each_line(start: u64, bytes: u64, operation: impl Fn(u64)) {
    let line = line_bytes();
    let end = start.saturating_add(bytes);
    let mut address = start & !(line - 1);
    while address < end {
        operation(address);
        address += line;
    }
    complete();
}

/// Waits until everything before it is visible to the whole inner shareable domain.
pub fn complete() {
    // SAFETY: a barrier changes no memory; the asm orders the compiler's accesses too.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}

/// Writes dirty lines of a range back to the point of coherency and drops them.
pub fn clean_invalidate(start: u64, bytes: u64) {
    each_line(start, bytes, |address| {
        // SAFETY: clean and invalidate loses no data; the range is mapped at EL2 (caller).
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
    });
}

/// Writes dirty lines of a range back to the point of coherency.
pub fn clean(start: u64, bytes: u64) {
    each_line(start, bytes, |address| {
        // SAFETY: cleaning loses no data; the range is mapped at EL2 (caller).
        unsafe { asm!("dc cvac, {}", in(reg) address, options(nostack, preserves_flags)) };
    });
}

/// Drops the lines of a range without writing them back.
///
/// # Safety
/// Nothing in the range has been written through the cache since it was last cleaned.
pub unsafe fn invalidate(start: u64, bytes: u64) {
    each_line(start, bytes, |address| {
        // SAFETY: the caller vouches that no line of the range is dirty.
        unsafe { asm!("dc ivac, {}", in(reg) address, options(nostack, preserves_flags)) };
    });
}

/// Makes instructions written to memory visible to instruction fetches of every CPU.
pub fn invalidate_instructions() {
    // SAFETY: dropping cached instructions makes the CPU fetch them again, nothing else.
    unsafe {
        asm!(
            "dsb ish",
            "ic ialluis",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    };
}
