//! The memory of domains, as the hypervisor reads and writes it: by machine address.
//!
//! A guest may change its memory at the same time, so accesses are volatile, and no reference to it
//! is ever made. Every CPU and device sees the caches: nothing needs cleaning.

use hypervisor::Claim;

/// Copies bytes out of a claim; nothing if the range leaves it.
pub fn read(claim: &Claim, offset: u64, bytes: &mut [u8]) {
    if let Some(start) = claim.address(offset, bytes.len() as u64) {
        // SAFETY: the claim proves that the range is memory with an owner; all RAM is mapped.
        unsafe { read_machine(start.raw(), bytes) };
    }
}

/// Copies bytes into a claim; nothing if the range leaves it.
pub fn write(claim: &Claim, offset: u64, bytes: &[u8]) {
    if let Some(start) = claim.address(offset, bytes.len() as u64) {
        // SAFETY: as in `read`.
        unsafe { write_machine(start.raw(), bytes) };
    }
}

/// Copies bytes out of machine memory.
///
/// # Safety
/// The range is mapped memory.
pub unsafe fn read_machine(address: u64, bytes: &mut [u8]) {
    for (at, byte) in (address..).zip(bytes) {
        // SAFETY: by the caller.
        *byte = unsafe { (at as *const u8).read_volatile() };
    }
}

/// Copies bytes into machine memory.
///
/// # Safety
/// The range is mapped memory in which the hypervisor keeps nothing of its own.
pub unsafe fn write_machine(address: u64, bytes: &[u8]) {
    for (at, &byte) in (address..).zip(bytes) {
        // SAFETY: by the caller.
        unsafe { (at as *mut u8).write_volatile(byte) };
    }
}

/// Zeroes a whole claim.
pub fn clear(claim: &Claim) {
    let range = claim.frames().bytes();
    for at in (range.start().raw()..range.end().raw()).step_by(8) {
        // SAFETY: as in `read`; frames are multiples of 8 bytes.
        unsafe { (at as *mut u64).write_volatile(0) };
    }
}

/// Copies from one claim to another, which may overlap. Nothing if a range leaves its claim.
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
    let wide = if (source | target).is_multiple_of(8) {
        bytes / 8
    } else {
        0
    };
    let rest = wide * 8;
    let narrow = || {
        // SAFETY: the claims prove that both ranges are memory; all RAM is mapped.
        unsafe { shift::<u8>(source + rest, target + rest, bytes - rest, backwards) };
    };
    if backwards {
        narrow();
    }
    // SAFETY: as above, and both are multiples of 8 if there is anything to do.
    unsafe { shift::<u64>(source, target, wide, backwards) };
    if !backwards {
        narrow();
    }
}

/// Copies `count` elements in the order that overlapping ranges need.
///
/// # Safety
/// Both ranges are mapped memory, and aligned for `T`.
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
