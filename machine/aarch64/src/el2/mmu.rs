//! The hypervisor's own address space: every machine address at itself.
//!
//! Built with the MMU off from a pool inside the image, then extended as the host tree is read. No
//! page is writable and executable.

use alloc::alloc::{Layout, alloc};
use core::arch::asm;

use aarch64_cpu::registers::{
    ID_AA64MMFR0_EL1, MAIR_EL2, Readable, SCTLR_EL2, TCR_EL2, TTBR0_EL2, Writeable,
};
use machine_common::{Pool, pool};
use machine_paging::{PAGE_SIZE, PagingError, Tables};
use spin::Mutex;

use super::cache;
use super::entry::Image;
use crate::stage1::{self, Kind};

/// Tables for the image, the host's tree and the UART: with the MMU off there is no heap. Later ones
/// come from there.
const POOL_TABLES: usize = 16;
/// More than any range can take: two at each end, and one for another 512 GiB.
const MOST_FOR_A_RANGE: usize = 8;

#[repr(C, align(4096))]
struct PoolMemory([[u64; 512]; POOL_TABLES]);

#[unsafe(link_section = ".noinit.tables")]
static mut POOL_MEMORY: PoolMemory = PoolMemory([[0; 512]; POOL_TABLES]);

/// The tables behind TTBR0_EL2.
struct El2Tables {
    pool: Pool,
    /// False while the MMU is off: there is no translation to invalidate, and no exclusive access.
    live: bool,
}

impl Tables for El2Tables {
    fn allocate(&mut self) -> Option<u64> {
        self.pool.take()
    }
    fn free(&mut self, table: u64) {
        // SAFETY: it came from `allocate`, and no entry leads to it any more.
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
        if self.live {
            cache::complete();
        }
    }
    fn invalidate(&mut self, address: u64, size: u64) {
        if !self.live {
            return;
        }
        if size == PAGE_SIZE {
            // SAFETY: dropping cached translations makes the CPU walk again, nothing else.
            unsafe { asm!("tlbi vae2is, {}", in(reg) address >> 12, options(nostack)) };
        } else {
            // SAFETY: as above.
            unsafe { asm!("tlbi alle2is", options(nostack)) };
        }
        cache::complete();
    }
}

struct Map {
    tables: El2Tables,
    root: u64,
    /// Start and end of the image, which is in use and stays as it is mapped.
    image: (u64, u64),
}

/// Empty until [`enable`] has run.
static MAP: Mutex<Map> = Mutex::new(Map {
    tables: El2Tables {
        pool: Pool::empty(),
        live: false,
    },
    root: 0,
    image: (0, 0),
});

/// What another CPU loads to use the same map: TTBR0_EL2, TCR_EL2, MAIR_EL2, SCTLR_EL2.
pub struct Registers {
    /// TTBR0_EL2.
    pub root: u64,
    /// TCR_EL2.
    pub control: u64,
    /// MAIR_EL2.
    pub attributes: u64,
    /// SCTLR_EL2.
    pub system: u64,
}

impl Map {
    /// Sees to it that there are tables for one more range, as long as the heap has memory.
    fn refill(&mut self) {
        let Ok(page) = Layout::from_size_align(size_of::<[u64; 512]>(), size_of::<[u64; 512]>())
        else {
            return;
        };
        while self.tables.pool.available() < MOST_FOR_A_RANGE {
            // SAFETY: the layout has a size.
            let table = unsafe { alloc(page) };
            if table.is_null() {
                return;
            }
            // SAFETY: a page of the heap's, never given back to it; machine addresses are mapped at themselves.
            unsafe { self.tables.pool.give(table as u64) };
        }
    }
}

fn page_down(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

fn page_up(address: u64) -> u64 {
    page_down(address.saturating_add(PAGE_SIZE - 1))
}

/// Maps the image and `others`, and switches the MMU on. Called once, by the boot CPU, with the MMU
/// off.
///
/// # Errors
/// [`PagingError`] if a range is beyond 48 bits; then the MMU is still off.
pub fn enable(image: &Image, others: &[(u64, u64, Kind)]) -> Result<(), PagingError> {
    let start = (&raw mut POOL_MEMORY) as u64;
    let end = start + size_of::<PoolMemory>() as u64;
    // SAFETY: the static is used here only, and this function runs once.
    let pool = unsafe { Pool::new(start, end) };
    let mut tables = El2Tables { pool, live: false };
    let root = tables.allocate().ok_or(PagingError::OutOfTables)?;
    let regime = stage1::regime(root);
    for (start, end, kind) in [
        (image.start, image.constants, Kind::Code),
        (image.constants, image.data, Kind::Constants),
        (image.data, image.end, Kind::Ram),
    ] {
        regime.map(&mut tables, start, start, end - start, kind.attributes())?;
    }
    for &(start, end, kind) in others {
        let (start, end) = (page_down(start), page_up(end));
        regime.map(&mut tables, start, start, end - start, kind.attributes())?;
    }
    // SAFETY: the image was written with the MMU off, by us or a boot loader that cleaned it to the
    // point of coherency (booting.rst), so no dirty line exists.
    unsafe { cache::invalidate(image.start, image.end - image.start) };
    MAIR_EL2.set(stage1::MAIR);
    TCR_EL2.set(stage1::tcr(ID_AA64MMFR0_EL1.get()));
    TTBR0_EL2.set(root);
    // SAFETY: what follows runs in the image, which the map has at the address where it runs.
    unsafe { asm!("tlbi alle2", "ic iallu", "dsb nsh", "isb", options(nostack)) };
    SCTLR_EL2.set(stage1::SCTLR);
    cache::complete();
    tables.live = true;
    *MAP.lock() = Map {
        tables,
        root,
        image: (image.start, image.end),
    };
    Ok(())
}

/// Adds a range to the map.
///
/// # Errors
/// [`PagingError`]; nothing has changed then. A range that touches the image is out of range.
pub fn map(start: u64, end: u64, kind: Kind) -> Result<(), PagingError> {
    let mut map = MAP.lock();
    let map = &mut *map;
    map.refill();
    let (start, end) = (page_down(start), page_up(end));
    if start < map.image.1 && map.image.0 < end {
        return Err(PagingError::OutOfRange);
    }
    stage1::regime(map.root).map(
        &mut map.tables,
        start,
        start,
        end - start,
        kind.attributes(),
    )
}

/// Takes a range out of the map, as a guard below a stack.
///
/// # Errors
/// [`PagingError`]; nothing has changed then.
pub fn unmap(start: u64, end: u64) -> Result<(), PagingError> {
    let mut map = MAP.lock();
    let map = &mut *map;
    map.refill();
    stage1::regime(map.root).unmap(&mut map.tables, start, end - start)
}

/// The registers by which a CPU joins this map.
pub fn registers() -> Registers {
    Registers {
        root: TTBR0_EL2.get(),
        control: TCR_EL2.get(),
        attributes: MAIR_EL2.get(),
        system: stage1::SCTLR,
    }
}
