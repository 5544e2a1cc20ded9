//! A pool of translation tables in memory that the hypervisor owns.

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
    /// Both are page-aligned, the range is RAM mapped at EL2 that nothing else uses as long as the
    /// pool or a table from it lives.
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
            self.returned = read(table, 0);
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
            write(table, index, 0);
        }
        Some(table)
    }

    /// Gives a table back that came from `take`, or one more page of the hypervisor's.
    pub fn give(&mut self, table: u64) {
        write(table, 0, self.returned);
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
pub fn read(table: u64, index: usize) -> u64 {
    // SAFETY: tables come from `Pool::new`, whose caller vouches for the memory; `index` is below
    // 512 for a table and below the root's width for a root (crate::paging keeps that).
    unsafe { (table as *const u64).wrapping_add(index).read_volatile() }
}

/// Writes an entry of a table.
pub fn write(table: u64, index: usize, entry: u64) {
    // SAFETY: as in `read`.
    unsafe {
        (table as *mut u64)
            .wrapping_add(index)
            .write_volatile(entry)
    }
}
