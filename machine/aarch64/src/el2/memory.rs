//! The memory of domains, as the hypervisor reads and writes it: by machine address.

use core::arch::asm;

use aarch64_cpu::registers::{PAR_EL1, Readable, Writeable};
use hypervisor::Claim;
use machine_common::memory;

use super::cache;
use super::registers::read_register;

/// Copies bytes out of a claim; nothing if the range leaves it.
pub fn read(claim: &Claim, offset: u64, bytes: &mut [u8]) {
    if let Some(start) = claim.address(offset, bytes.len() as u64) {
        // SAFETY: the claim proves that the range is memory with an owner; all RAM is mapped at EL2.
        unsafe { memory::read(start.raw(), bytes) };
    }
}

/// Copies bytes into a claim; nothing if the range leaves it.
pub fn write(claim: &Claim, offset: u64, bytes: &[u8]) {
    if let Some(start) = claim.address(offset, bytes.len() as u64) {
        // SAFETY: as in `read`.
        unsafe { memory::write(start.raw(), bytes) };
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
        // SAFETY: as in `read`; frames are multiples of 8 bytes.
        unsafe { memory::clear(start, bytes) };
    }
    cache::clean_invalidate(start, bytes);
}

/// Copies from one claim to another, which may overlap, down to memory. Nothing if a range leaves its
/// claim.
pub fn copy(from: &Claim, from_offset: u64, to: &Claim, to_offset: u64, bytes: u64) {
    let source = from.address(from_offset, bytes);
    if let Some((source, target)) = source.zip(to.address(to_offset, bytes)) {
        // SAFETY: as in `read`, for both.
        unsafe { memory::copy(source.raw(), target.raw(), bytes) };
        cache::clean_invalidate(target.raw(), bytes);
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
