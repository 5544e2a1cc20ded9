//! The hypervisor's heap: a piece inside the image first, then the memory that the plan gives.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut, slice_from_raw_parts_mut};

use rlsf::Tlsf;
use spin::Mutex;

use super::entry::Pages;

/// Enough to describe a machine of some hundred PCI functions and to plan; all of it stays in use later.
const EARLY_BYTES: usize = 512 * 1024;

#[unsafe(link_section = ".noinit.heap")]
static mut EARLY: Pages<EARLY_BYTES> = Pages::unused();

/// Blocks of up to 32 MiB, in size classes of an eighth.
type Blocks = Tlsf<'static, u32, u8, 20, 8>;

struct Heap(Mutex<Blocks>);

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(Blocks::new()));

// SAFETY: `Tlsf` returns blocks that fit the layout and don't overlap; the lock keeps it whole.
// Interrupts are masked in the hypervisor and its exceptions end it, so the lock can't be taken
// twice on one CPU.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate(layout)
            .map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: the caller hands back what `alloc` gave for the same layout (GlobalAlloc).
        unsafe { self.0.lock().deallocate(block, layout.align()) };
    }
}

/// Makes the piece inside the image usable. Called once.
pub fn start() {
    let start = (&raw mut EARLY) as u64;
    // SAFETY: the static is used here only, and this function runs once.
    unsafe { add(start, EARLY_BYTES) };
}

/// Adds memory to the heap for good.
///
/// # Safety
/// The range is mapped RAM that nothing else uses.
pub unsafe fn add(start: u64, bytes: usize) {
    let block = slice_from_raw_parts_mut(start as *mut u8, bytes);
    if let Some(block) = NonNull::new(block) {
        // SAFETY: the caller gives the memory away.
        unsafe { HEAP.0.lock().insert_free_block_ptr(block) };
    }
}
