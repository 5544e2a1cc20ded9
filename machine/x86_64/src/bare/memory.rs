//! The memory of domains, as the hypervisor reads and writes it: by machine address. Every CPU and device sees the caches:
//! nothing needs cleaning.

use hypervisor::Claim;
use machine_common::memory;

/// Copies bytes out of a claim; nothing if the range leaves it.
pub fn read(claim: &Claim, offset: u64, bytes: &mut [u8]) {
    if let Some(start) = claim.address(offset, bytes.len() as u64) {
        // SAFETY: the claim proves that the range is memory with an owner; all RAM is mapped.
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

/// Zeroes a whole claim.
pub fn clear(claim: &Claim) {
    let range = claim.frames().bytes();
    // SAFETY: as in `read`; frames are multiples of 8 bytes.
    unsafe { memory::clear(range.start().raw(), range.size()) };
}

/// Copies from one claim to another, which may overlap. Nothing if a range leaves its claim.
pub fn copy(from: &Claim, from_offset: u64, to: &Claim, to_offset: u64, bytes: u64) {
    let source = from.address(from_offset, bytes);
    if let Some((source, target)) = source.zip(to.address(to_offset, bytes)) {
        // SAFETY: as in `read`, for both.
        unsafe { memory::copy(source.raw(), target.raw(), bytes) };
    }
}
