//! The hypervisor's heap. It begins empty; each machine crate gives it a piece inside the image first, then the memory that
//! the plan has for it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut, slice_from_raw_parts_mut};

use rlsf::Tlsf;
use spin::Mutex;

/// Blocks of up to 32 MiB, in size classes of an eighth.
type Blocks = Tlsf<'static, u32, u8, 20, 8>;

/// A heap for `#[global_allocator]`. No exception handler of the hypervisor may allocate: one that comes while the lock is
/// held would wait for its own CPU. Interrupts are masked in the hypervisor.
pub struct Heap(Mutex<Blocks>);

impl Heap {
    /// A heap without memory.
    pub const fn new() -> Self {
        Self(Mutex::new(Blocks::new()))
    }

    /// Adds `bytes` of memory from `start`. What is too small to hold a block is left out.
    ///
    /// # Safety
    /// It is mapped RAM that nothing else uses as long as the heap or a block from it lives.
    pub unsafe fn add(&self, start: *mut u8, bytes: usize) {
        let block = slice_from_raw_parts_mut(start, bytes);
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller gives the memory away.
            unsafe { self.0.lock().insert_free_block_ptr(block) };
        }
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: `Tlsf` returns blocks that fit the layout and don't overlap; the lock keeps it whole.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECE: usize = 16 * 1024;

    /// Does `work` with a heap of two pieces of memory, which outlive it.
    fn with_heap<R>(work: impl FnOnce(&Heap) -> R) -> R {
        let mut pieces = [vec![0u64; PIECE / 8], vec![0u64; PIECE / 8]];
        let heap = Heap::new();
        for piece in &mut pieces {
            // SAFETY: the heap and its blocks are gone before `pieces`, which nothing uses meanwhile.
            unsafe { heap.add(piece.as_mut_ptr().cast(), PIECE) };
        }
        work(&heap)
    }

    #[test]
    fn a_heap_without_memory_gives_none() {
        // SAFETY: the layout isn't empty.
        assert!(unsafe { Heap::new().alloc(Layout::new::<u64>()) }.is_null());
    }

    #[test]
    fn what_is_given_back_is_one_piece_again() {
        with_heap(|heap| {
            let small = Layout::from_size_align(100, 8).expect("a layout");
            let large = Layout::from_size_align(PIECE * 3 / 4, 8).expect("a layout");
            for _ in 0..2 {
                let mut blocks = Vec::new();
                loop {
                    // SAFETY: the layout isn't empty.
                    let block = unsafe { heap.alloc(small) };
                    if block.is_null() {
                        break;
                    }
                    blocks.push(block);
                }
                assert!(blocks.len() > 200);
                for block in blocks {
                    // SAFETY: it came from `alloc` with this layout.
                    unsafe { heap.dealloc(block, small) };
                }
                // SAFETY: the layout isn't empty.
                let block = unsafe { heap.alloc(large) };
                assert!(!block.is_null());
                // SAFETY: it came from `alloc` with this layout.
                unsafe { heap.dealloc(block, large) };
            }
        });
    }

    /// Bytes of a block, fewer than so many: Miri looks at each of them by interpreting.
    const BLOCK: usize = if cfg!(miri) { 200 } else { 2000 };

    proptest! {
        /// Blocks are aligned, and keep what is written in them until they are given back.
        #[test]
        fn blocks_dont_overlap(
            steps in proptest::collection::vec((1..BLOCK, 0u32..9, any::<proptest::sample::Index>()), 1..60),
        ) {
            with_heap(|heap| {
                let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
                for (number, (size, align, victim)) in (0u8..).zip(steps) {
                    let layout = Layout::from_size_align(size, 1 << align).expect("a layout");
                    // SAFETY: the layout isn't empty.
                    let block = unsafe { heap.alloc(layout) };
                    if block.is_null() {
                        if !held.is_empty() {
                            let (block, layout, value) = held.swap_remove(victim.index(held.len()));
                            check(block, layout, value)?;
                            // SAFETY: it came from `alloc` with this layout and is held no more.
                            unsafe { heap.dealloc(block, layout) };
                        }
                        continue;
                    }
                    prop_assert!(block.addr().is_multiple_of(layout.align()));
                    // SAFETY: the block has this size.
                    unsafe { block.write_bytes(number, size) };
                    held.push((block, layout, number));
                }
                for (block, layout, value) in held {
                    check(block, layout, value)?;
                }
                Ok(())
            })?;
        }
    }

    fn check(block: *mut u8, layout: Layout, value: u8) -> Result<(), TestCaseError> {
        // SAFETY: the block is held, has this size and was filled.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        prop_assert!(bytes.iter().all(|&byte| byte == value));
        Ok(())
    }
}
