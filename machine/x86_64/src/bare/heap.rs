//! The memory of the heap: a piece inside the image first, then what the plan gives.

use machine_common::Heap;

use super::entry::Pages;

/// Enough to describe a machine of some hundred PCI functions and to plan; all of it stays in use later.
const EARLY_BYTES: usize = 512 * 1024;

#[unsafe(link_section = ".noinit.heap")]
static mut EARLY: Pages<EARLY_BYTES> = Pages::unused();

#[global_allocator]
static HEAP: Heap = Heap::new();

/// Makes the piece inside the image usable. Called once.
pub fn start() {
    let memory = (&raw mut EARLY).cast();
    // SAFETY: the static is used here only, and this function runs once.
    unsafe { HEAP.add(memory, EARLY_BYTES) };
}

/// Adds memory to the heap for good.
///
/// # Safety
/// The range is mapped RAM that nothing else uses.
pub unsafe fn add(start: u64, bytes: usize) {
    // SAFETY: the caller gives the memory away.
    unsafe { HEAP.add(start as *mut u8, bytes) };
}
