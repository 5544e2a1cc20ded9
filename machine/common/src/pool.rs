//! A pool of translation tables in memory that the hypervisor owns, and access to their entries.

use machine_paging::PAGE_SIZE;

/// Tables that are free: some never used, some given back and chained through their first word.
pub struct Pool {
    next: u64,
    end: u64,
    returned: u64,
    returned_count: usize,
}

impl Pool {
    /// An empty pool.
    pub const fn empty() -> Self {
        Self {
            next: 0,
            end: 0,
            returned: 0,
            returned_count: 0,
        }
    }

    /// A pool of the pages from `start` to `end`.
    ///
    /// # Safety
    /// Both are page-aligned, the range is RAM mapped at itself that nothing else uses as long as the pool or a table from it
    /// lives.
    pub const unsafe fn new(start: u64, end: u64) -> Self {
        Self {
            next: start,
            end,
            returned: 0,
            returned_count: 0,
        }
    }

    /// Takes a table, cleared.
    pub fn take(&mut self) -> Option<u64> {
        let table = if self.returned != 0 {
            let table = self.returned;
            // SAFETY: it lies in the pool's memory, and no one has it.
            self.returned = unsafe { read(table, 0) };
            self.returned_count -= 1;
            table
        } else if self.next < self.end {
            let table = self.next;
            self.next += PAGE_SIZE;
            table
        } else {
            return None;
        };
        for index in 0..512 {
            // SAFETY: as above.
            unsafe { write(table, index, 0) };
        }
        Some(table)
    }

    /// Gives a table back that came from [`Pool::take`], or one more page.
    ///
    /// # Safety
    /// The table isn't used any more. A page that didn't come from the pool is as [`Pool::new`] wants it.
    pub unsafe fn give(&mut self, table: u64) {
        // SAFETY: the caller gives the page away.
        unsafe { write(table, 0, self.returned) };
        self.returned = table;
        self.returned_count += 1;
    }

    /// How many tables are left.
    pub fn available(&self) -> usize {
        let fresh = (self.end - self.next) / PAGE_SIZE;
        self.returned_count + usize::try_from(fresh).unwrap_or(0)
    }
}

/// Reads an entry of a table.
///
/// # Safety
/// The table lies in memory as [`Pool::new`] wants it; a root may be several pages side by side. `index` is inside.
pub unsafe fn read(table: u64, index: usize) -> u64 {
    // SAFETY: the caller vouches for the memory. Volatile, since CPUs read and may write it too.
    unsafe { (table as *const u64).wrapping_add(index).read_volatile() }
}

/// Writes an entry of a table. When the CPUs see it is the caller's business.
///
/// # Safety
/// As in [`read`], and what CPUs then reach by way of the entry is theirs.
pub unsafe fn write(table: u64, index: usize, entry: u64) {
    // SAFETY: as in `read`.
    unsafe {
        (table as *mut u64)
            .wrapping_add(index)
            .write_volatile(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Memory([u64; 4 * 512]);

    #[test]
    fn tables_come_cleared_and_come_again() {
        let mut memory = Memory([7; 4 * 512]);
        let start = memory.0.as_mut_ptr().expose_provenance() as u64;
        let last = start + 3 * PAGE_SIZE;
        // SAFETY: the pool is gone before `memory`, which nothing uses meanwhile.
        let mut pool = unsafe { Pool::new(start, last) };
        let mut taken = Vec::new();
        while let Some(table) = pool.take() {
            for index in 0..512 {
                // SAFETY: a table of the pool.
                assert_eq!(unsafe { read(table, index) }, 0);
                // SAFETY: likewise.
                unsafe { write(table, index, 9) };
            }
            taken.push(table);
        }
        assert_eq!(taken, [start, start + PAGE_SIZE, start + 2 * PAGE_SIZE]);
        assert_eq!(pool.available(), 0);
        for table in [taken[1], last, taken[0]] {
            // SAFETY: two that came from the pool, and the page behind its own.
            unsafe { pool.give(table) };
        }
        assert_eq!(pool.available(), 3);
        assert_eq!(pool.take(), Some(taken[0]));
        assert_eq!(pool.take(), Some(last));
        // SAFETY: a table of the pool.
        assert_eq!(unsafe { read(last, 0) }, 0);
        assert_eq!(pool.take(), Some(taken[1]));
        assert_eq!(pool.take(), None);
        assert!(Pool::empty().take().is_none());
    }
}
