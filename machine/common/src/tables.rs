//! The translation tables of a domain: entries in memory, tables from the domain's own pool, and one drop of cached
//! translations for many changes.

use machine_paging::Tables;

use crate::{Pool, pool};

/// How the CPUs are told of changes of a domain's tables.
pub trait Translations {
    /// Whether an entry may get another valid value while CPUs still use the old one, as on x86. If not, it is broken and
    /// dropped before it is made anew (Arm: break before make).
    const REPLACED_IN_USE: bool;
    /// Makes stores to tables visible to every CPU's walker.
    fn publish(&self);
    /// Drops every cached translation of the domain, and returns when no CPU uses one that it held before.
    fn drop_all(&self);
}

/// The tables of a domain below its root.
///
/// Removed entries leave stale translations behind until [`settle`](Self::settle), so that a whole batch of them costs one
/// drop. A table goes back to the pool only when nothing stale can lead to it.
pub struct DomainTables<T> {
    pool: Pool,
    translations: T,
    stale: bool,
}

impl<T: Translations> DomainTables<T> {
    /// Tables from `pool`.
    ///
    /// # Safety
    /// The root that they are used with is one that [`pool::read`] and [`pool::write`] may be given, at the width of the
    /// regime, as long as these tables live.
    pub const unsafe fn new(pool: Pool, translations: T) -> Self {
        Self {
            pool,
            translations,
            stale: false,
        }
    }

    /// Waits until no CPU uses a translation that has been removed. Free if none has since the last call.
    pub fn settle(&mut self) {
        if core::mem::take(&mut self.stale) {
            self.translations.drop_all();
        }
    }
}

impl<T: Translations> Tables for DomainTables<T> {
    fn allocate(&mut self) -> Option<u64> {
        self.pool.take()
    }
    fn free(&mut self, table: u64) {
        self.settle();
        // SAFETY: it came from `allocate`, no entry leads to it any more, and no cached translation.
        unsafe { self.pool.give(table) };
    }
    fn available(&self) -> usize {
        self.pool.available()
    }
    fn read(&self, table: u64, index: usize) -> u64 {
        // SAFETY: `machine_paging` reads the root and tables from `allocate`, within their width.
        unsafe { pool::read(table, index) }
    }
    fn write(&mut self, table: u64, index: usize, entry: u64) {
        // SAFETY: as in `read`.
        unsafe { pool::write(table, index, entry) };
        self.translations.publish();
    }
    fn invalidate(&mut self, _: u64, _: u64) {
        // All of the domain's, as a change of a live entry is rare: what hardware has combined with the
        // guest's own tables can't be dropped by guest physical address.
        if T::REPLACED_IN_USE {
            self.stale = true;
        } else {
            self.stale = false;
            self.translations.drop_all();
        }
    }
    fn removed(&mut self, _: u64, _: u64) {
        self.stale = true;
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    struct Counted<'a>(&'a Cell<u32>);

    impl Translations for Counted<'_> {
        const REPLACED_IN_USE: bool = false;
        fn publish(&self) {}
        fn drop_all(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[repr(align(4096))]
    struct Pages([[u64; 512]; 2]);

    fn with_tables(test: impl FnOnce(&mut DomainTables<Counted<'_>>, &Cell<u32>)) {
        let mut pages = Pages([[0; 512]; 2]);
        let drops = Cell::new(0);
        let start = (&raw mut pages.0).expose_provenance() as u64;
        // SAFETY: the pages are page-aligned, mapped at themselves here, and outlive the tables.
        let pool = unsafe { Pool::new(start, start + 2 * 4096) };
        // SAFETY: no root is used.
        let mut tables = unsafe { DomainTables::new(pool, Counted(&drops)) };
        test(&mut tables, &drops);
    }

    #[test]
    fn many_removed_entries_cost_one_drop() {
        with_tables(|tables, drops| {
            tables.settle();
            assert_eq!(drops.get(), 0);
            for page in 0..512 {
                tables.removed(page << 12, 4096);
            }
            assert_eq!(drops.get(), 0);
            tables.settle();
            tables.settle();
            assert_eq!(drops.get(), 1);
        });
    }

    #[test]
    fn a_table_is_free_only_when_nothing_stale_leads_to_it() {
        with_tables(|tables, drops| {
            let table = tables.allocate().unwrap();
            tables.removed(0, 1 << 21);
            tables.free(table);
            assert_eq!(drops.get(), 1);
        });
    }

    #[test]
    fn an_entry_that_is_made_anew_is_dropped_before() {
        with_tables(|tables, drops| {
            tables.invalidate(0, 4096);
            assert_eq!(drops.get(), 1);
            tables.settle();
            assert_eq!(drops.get(), 1);
        });
    }
}
