//! The hypervisor's own address space: RAM at its machine addresses and the image at its own, nothing
//! writable and executable. In place of the tables that `entry.s` made, which allow everything below
//! 4 GiB.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use machine_paging::{PAGE_SIZE, PagingError, Tables};
use spin::Mutex;

use super::entry::{Image, Pages};
use super::instructions::{read_msr, write_msr};
use crate::boot_info::{E820_RAM, Region};
use crate::features::Features;
use crate::paging::{INPUT_BITS, LongMode, Own};

/// What tables see of an address: the bits above repeat the highest one.
const INPUT_MASK: u64 = (1 << INPUT_BITS) - 1;

/// Enough for some 20 GiB of RAM without pages of 1 GiB, and for all of 48 bits with them.
const POOL_TABLES: usize = 32;
const POOL_BYTES: usize = POOL_TABLES * 4096;

#[unsafe(link_section = ".noinit.tables")]
static mut POOL: Pages<POOL_BYTES> = Pages::unused();

const LARGE_PAGE: u64 = 2 << 20;

/// The machine address of the image's first byte.
static IMAGE: AtomicU64 = AtomicU64::new(0);

/// The machine address of something of the hypervisor's own: variables, stacks and tables in the
/// image, and heap beside it, which is used at its machine address. Usable once [`enable`] has been
/// called.
pub fn machine_address<T>(place: *const T) -> u64 {
    let (image, address) = (Image::find(IMAGE.load(Ordering::Relaxed)), place as u64);
    if (image.start..image.end).contains(&address) {
        image.machine_address(address)
    } else {
        address
    }
}

const EFER: u32 = 0xc000_0080;
const EFER_NXE: u64 = 1 << 11;

/// The map in use, once there is one.
static MAP: Mutex<Option<Map>> = Mutex::new(None);

struct Map {
    format: LongMode,
    root: u64,
    /// Behind the last machine address of the CPU.
    limit: u64,
    tables: Fresh,
}

/// Tables from the pool. No table is ever given back, and no address that is in use is ever mapped anew: nothing stale is
/// cached.
struct Fresh {
    next: u64,
    end: u64,
}

impl Tables for Fresh {
    fn allocate(&mut self) -> Option<u64> {
        if self.next == self.end {
            return None;
        }
        let table = self.next;
        self.next += PAGE_SIZE;
        for index in 0..512 {
            self.write(table, index, 0);
        }
        Some(table)
    }
    fn free(&mut self, _table: u64) {}
    fn available(&self) -> usize {
        usize::try_from((self.end - self.next) / PAGE_SIZE).unwrap_or(0)
    }
    fn read(&self, table: u64, index: usize) -> u64 {
        // SAFETY: tables come from `allocate`, so from the pool, and the walker keeps `index`
        // below 512.
        unsafe { (table as *const u64).wrapping_add(index).read_volatile() }
    }
    fn write(&mut self, table: u64, index: usize, entry: u64) {
        let place = (table as *mut u64).wrapping_add(index);
        // SAFETY: as in `read`; nobody else writes the pool.
        unsafe { place.write_volatile(entry) };
    }
    fn invalidate(&mut self, _address: u64, _size: u64) {}
}

/// Maps RAM and the image, and switches to that map. Called once, by the boot CPU. Says how many
/// tables are left.
///
/// # Errors
/// [`PagingError`]; then the CPU still uses the tables of `entry.s`.
pub fn enable(
    image: &Image,
    regions: &[Region],
    features: &Features,
) -> Result<usize, PagingError> {
    IMAGE.store(image.machine, Ordering::Relaxed);
    let start = machine_address(&raw const POOL);
    let mut tables = Fresh {
        next: start,
        end: start + POOL_BYTES as u64,
    };
    let format = LongMode {
        gigabyte_pages: features.gigabyte_pages,
    };
    let root = tables.allocate().ok_or(PagingError::OutOfTables)?;
    let regime = format.regime(root);
    for region in regions.iter().filter(|region| region.kind == E820_RAM) {
        let first = region.start.saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        let end = region.start.saturating_add(region.bytes) & !(PAGE_SIZE - 1);
        if first < end {
            let ram = Own::Ram.attributes();
            regime.map(&mut tables, first, first, end - first, ram)?;
        }
    }
    for (start, end, kind, below) in [
        (image.start, image.constants, Own::Code, Own::Constants),
        (image.constants, image.data, Own::Constants, Own::Constants),
        (image.data, image.end, Own::Ram, Own::Ram),
    ] {
        let (machine, bytes) = (image.machine_address(start), end - start);
        // Its pages are RAM as well: no way round what they allow.
        regime.map(&mut tables, machine, machine, bytes, below.attributes())?;
        let start = start & INPUT_MASK;
        regime.map(&mut tables, start, machine, bytes, kind.attributes())?;
    }
    // SAFETY: every CPU in long mode has this register.
    let efer = unsafe { read_msr(EFER) };
    // SAFETY: the CPU has NX (`Features::read`); the tables in use don't have the bit set.
    unsafe { write_msr(EFER, efer | EFER_NXE) };
    // SAFETY: the new tables map the image and its stack where they are.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
    let left = tables.available();
    *MAP.lock() = Some(Map {
        format,
        root,
        limit: 1 << features.address_bits,
        tables,
    });
    Ok(left)
}

/// The top table, for other CPUs' CR3; 0 before [`enable`]. They need EFER.NXE set first.
pub fn root() -> u64 {
    MAP.lock().as_ref().map_or(0, |map| map.root)
}

/// Maps the pages of a device's registers at their machine addresses, uncached. Any CPU may call it at any time after
/// [`enable`], also for what is mapped already.
///
/// # Errors
/// [`PagingError::OutOfRange`] if RAM is there, or the CPU has no such address;
/// [`PagingError::OutOfTables`] from 2^47 on, where an address of the hypervisor's isn't the machine's; else as the tables
/// have it. A part may be mapped then.
pub fn map_device(start: u64, bytes: u64) -> Result<(), PagingError> {
    let first = start & !(PAGE_SIZE - 1);
    let end = start
        .checked_add(bytes)
        .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE))
        .ok_or(PagingError::OutOfRange)?;
    let mut map = MAP.lock();
    let map = map.as_mut().ok_or(PagingError::OutOfTables)?;
    if end > map.limit {
        return Err(PagingError::OutOfRange);
    }
    if end > 1 << (INPUT_BITS - 1) {
        return Err(PagingError::OutOfTables);
    }
    let regime = map.format.regime(map.root);
    let device = Own::Device.attributes();
    let mut at = first;
    while at < end {
        if let Some(found) = regime.translate(&map.tables, at) {
            if found.attributes != device {
                return Err(PagingError::OutOfRange);
            }
            at += found.remaining;
            continue;
        }
        let large = at.is_multiple_of(LARGE_PAGE)
            && end - at >= LARGE_PAGE
            && regime.translate(&map.tables, at + LARGE_PAGE - 1).is_none();
        let size = if large { LARGE_PAGE } else { PAGE_SIZE };
        regime.map(&mut map.tables, at, at, size, device)?;
        at += size;
    }
    Ok(())
}
