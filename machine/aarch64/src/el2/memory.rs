//! The memory of domains, as the hypervisor reads and writes it: by machine address.
//!
//! A guest may change its memory at the same time, so accesses are volatile, and no reference to it
//! is ever made.

use core::arch::asm;

use aarch64_cpu::registers::{PAR_EL1, Readable, Writeable};
use hypervisor::Claim;

use super::cache;
use super::registers::read_register;

/// Copies bytes out of a claim; nothing if the range leaves it.
pub fn read(claim: &Claim, offset: u64, bytes: &mut [u8]) {
    let Some(start) = claim.address(offset, bytes.len() as u64) else {
        return;
    };
    for (at, byte) in (start.raw()..).zip(bytes) {
        // SAFETY: the claim proves that the address is memory with an owner; all RAM is mapped at EL2.
        *byte = unsafe { (at as *const u8).read_volatile() };
    }
}

/// Copies bytes into a claim; nothing if the range leaves it.
pub fn write(claim: &Claim, offset: u64, bytes: &[u8]) {
    let Some(start) = claim.address(offset, bytes.len() as u64) else {
        return;
    };
    for (at, &byte) in (start.raw()..).zip(bytes) {
        // SAFETY: as in `read`.
        unsafe { (at as *mut u8).write_volatile(byte) };
    }
}

/// Zeroes a whole claim, down to memory.
pub fn clear(claim: &Claim) {
    let range = claim.frames().bytes();
    let (start, bytes) = (range.start().raw(), range.size());
    // DCZID_EL0: block size in words of 4 bytes, and whether DC ZVA is prohibited (never at EL2 with
    // the MMU on, but firmware may have said so).
    let dczid = read_register!("dczid_el0");
    let block = 4u64 << (dczid & 0xf);
    if dczid & 1 << 4 == 0 && block <= 4096 {
        let mut at = start;
        while at < start + bytes {
            // SAFETY: as in `read`; blocks divide a frame, so they stay inside the claim.
            unsafe { asm!("dc zva, {}", in(reg) at, options(nostack, preserves_flags)) };
            at += block;
        }
    } else {
        let mut at = start;
        while at < start + bytes {
            // SAFETY: as in `read`; frames are multiples of 8 bytes.
            unsafe { (at as *mut u64).write_volatile(0) };
            at += 8;
        }
    }
    cache::clean_invalidate(start, bytes);
}

/// Copies from one claim to another, which may overlap, down to memory. Nothing if a range leaves its
/// claim.
pub fn copy(from: &Claim, from_offset: u64, to: &Claim, to_offset: u64, bytes: u64) {
    let (Some(source), Some(target)) = (
        from.address(from_offset, bytes),
        to.address(to_offset, bytes),
    ) else {
        return;
    };
    let (source, target) = (source.raw(), target.raw());
    let backwards = target > source && target - source < bytes;
    // Boot modules are large and lie at multiples of a page; what grants copy may lie anywhere.
    let wide = if (source | target) % 16 == 0 {
        bytes / 16
    } else {
        0
    };
    let rest = wide * 16;
    let narrow = || {
        // SAFETY: the claims prove that both ranges are memory; all RAM is mapped at EL2.
        unsafe { shift::<u8>(source + rest, target + rest, bytes - rest, backwards) };
    };
    if backwards {
        narrow();
    }
    // SAFETY: as above, and both are multiples of 16 if there is anything to do.
    unsafe { shift::<u128>(source, target, wide, backwards) };
    if !backwards {
        narrow();
    }
    cache::clean_invalidate(target, bytes);
}

/// Copies `count` elements in the order that overlapping ranges need.
///
/// # Safety
/// Both ranges are memory that is mapped at EL2, and aligned for `T`.
unsafe fn shift<T: Copy>(source: u64, target: u64, count: u64, backwards: bool) {
    let width = size_of::<T>() as u64;
    for index in 0..count {
        let at = width * if backwards { count - 1 - index } else { index };
        // SAFETY: inside the source, by the caller.
        let element = unsafe { ((source + at) as *const T).read_volatile() };
        // SAFETY: inside the target, by the caller.
        unsafe { ((target + at) as *mut T).write_volatile(element) };
    }
}

/// The machine address behind a guest's virtual address, by the translation of both stages that is in
/// use on this CPU, with the rights of EL1.
pub fn translate(address: u64, write: bool) -> Option<u64> {
    walk(address, |address| {
        if write {
            // SAFETY: AT changes PAR_EL1 only, which `walk` restores.
            unsafe { asm!("at s12e1w, {}", "isb", in(reg) address, options(nostack)) };
        } else {
            // SAFETY: as above.
            unsafe { asm!("at s12e1r, {}", "isb", in(reg) address, options(nostack)) };
        }
    })
}

/// The guest physical address behind a guest's virtual address.
pub fn translate_stage1(address: u64, write: bool) -> Option<u64> {
    walk(address, |address| {
        if write {
            // SAFETY: AT changes PAR_EL1 only, which `walk` restores.
            unsafe { asm!("at s1e1w, {}", "isb", in(reg) address, options(nostack)) };
        } else {
            // SAFETY: as above.
            unsafe { asm!("at s1e1r, {}", "isb", in(reg) address, options(nostack)) };
        }
    })
}

fn walk(address: u64, translate: impl FnOnce(u64)) -> Option<u64> {
    const FAULT: u64 = 1;
    const OUTPUT: u64 = 0x000f_ffff_ffff_f000;
    // The guest may be between an AT of its own and reading the result.
    let guest = PAR_EL1.get();
    translate(address);
    let result = PAR_EL1.get();
    PAR_EL1.set(guest);
    (result & FAULT == 0).then_some(result & OUTPUT | address & 0xfff)
}
