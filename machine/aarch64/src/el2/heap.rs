//! The memory of the heap: a piece inside the image first, then what the plan gives.

use machine_common::Heap;

/// Enough to index the largest trees of real boards (some 300 KiB) and to plan; all of it stays in
/// use later.
const EARLY_BYTES: usize = 768 * 1024;

#[repr(C, align(4096))]
struct Early([u8; EARLY_BYTES]);

#[unsafe(link_section = ".noinit.heap")]
static mut EARLY: Early = Early([0; EARLY_BYTES]);

#[global_allocator]
static HEAP: Heap = Heap::new();

/// Makes the piece inside the image usable. Called once, with the MMU on.
pub fn start() {
    let memory = (&raw mut EARLY).cast();
    // SAFETY: the static is used here only, and this function runs once.
    unsafe { HEAP.add(memory, EARLY_BYTES) };
}

/// Adds memory to the heap for good.
///
/// # Safety
/// The range is RAM mapped at EL2 that nothing else uses.
pub unsafe fn add(start: u64, bytes: usize) {
    // SAFETY: the caller gives the memory away.
    unsafe { HEAP.add(start as *mut u8, bytes) };
}
