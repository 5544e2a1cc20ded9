//! The way into the image: `entry.s` and the addresses that the linker script lays down.

use core::arch::global_asm;

use crate::boot_info::BootInfo;

/// Bytes of the boot CPU's stack.
pub const BOOT_STACK_BYTES: usize = 64 * 1024;
/// Selector of the 64-bit code segment in `entry.s`.
pub const CODE_SELECTOR: u16 = 8;
/// Selector of the data segment in `entry.s`.
pub const DATA_SELECTOR: u16 = 16;

/// Memory of the image that needs no clearing before use.
#[repr(C, align(4096))]
pub struct Pages<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Pages<BYTES> {
    /// What a static begins with; the boot loader doesn't load it.
    pub const fn unused() -> Self {
        Self([0; BYTES])
    }
}

/// The stack of the boot CPU; `entry.s` is the only user of the name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".noinit.stack")]
static mut boot_stack: Pages<BOOT_STACK_BYTES> = Pages::unused();

/// The first tables, until the hypervisor has made its own: one at the top, one for 512 GiB, four of
/// pages of 2 MiB; for the image's own addresses one for 512 GiB and one of pages of 2 MiB.
/// `entry.s` is the only user of the name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".noinit.tables")]
static mut boot_tables: Pages<{ 8 * 4096 }> = Pages::unused();

/// The machine address of the first tables' top one, which lies below 4 GiB: other CPUs come in by it.
pub fn boot_root() -> u64 {
    super::mmu::machine_address(&raw const boot_tables)
}

/// Where loaders that don't move the image put it (`LOAD` of `link.ld`).
const LOAD: u32 = 0x20_0000;

global_asm!(
    include_str!("entry.s"),
    stack_bytes = const BOOT_STACK_BYTES,
    code_selector = const CODE_SELECTOR,
    data_selector = const DATA_SELECTOR,
    load = const LOAD,
    start = sym super::boot::start,
    options(att_syntax),
);

unsafe extern "C" {
    static __image_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __data_saved: u8;
    static __file_end: u8;
    static __image_end: u8;
    fn leave_for_copy(tables: u64, left: u64, machine: u64) -> !;
}

/// What an image that has moved itself leaves for its copy, which must plan from the same facts.
#[derive(Debug, Clone)]
pub struct Handover {
    /// What the boot loader said.
    pub info: BootInfo,
    /// The machine address at which the boot loader had put the image.
    pub loaded: u64,
}

/// The image, by the addresses at which it runs. Each part begins on a page.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The machine address of its first byte, a multiple of 2 MiB.
    pub machine: u64,
    /// The header and the instructions.
    pub start: u64,
    /// Constants.
    pub constants: u64,
    /// Variables.
    pub data: u64,
    /// End of variables, stacks and tables.
    pub end: u64,
}

impl Image {
    /// The running image, which lies at `machine`.
    pub fn find(machine: u64) -> Self {
        Self {
            machine,
            start: (&raw const __image_start) as u64,
            constants: (&raw const __rodata_start) as u64,
            data: (&raw const __data_start) as u64,
            end: (&raw const __image_end) as u64,
        }
    }

    /// The machine address of something in the image.
    pub const fn machine_address(&self, address: u64) -> u64 {
        address - self.start + self.machine
    }
}

fn data_bytes() -> usize {
    (&raw const __file_end) as usize - (&raw const __data_start) as usize
}

/// Keeps variables with an initial value as they are now, for a copy of the image to start with.
/// Called once, before anything changes one.
pub fn save_data() {
    let (data, saved) = (
        &raw const __data_start,
        (&raw const __data_saved).cast_mut(),
    );
    // SAFETY: link.ld sets aside as much room as `.data` takes, and nothing else uses it.
    unsafe { core::ptr::copy_nonoverlapping(data, saved, data_bytes()) };
}

/// Copies the image, as the boot loader brought it, to the machine address `target`, and starts it there.
///
/// # Safety
/// `target` is a multiple of 2 MiB below 4 GiB, not the first, with memory that is mapped there and that nobody uses, at least
/// as much as the image takes, and apart from it. `left` is not in memory that anybody changes.
pub unsafe fn continue_in_copy(image: &Image, target: u64, left: &Handover) -> ! {
    let copy = |start: *const u8, end: *const u8, source: *const u8| {
        let bytes = end as usize - start as usize;
        let place = (start as u64 - image.start + target) as *mut u8;
        // SAFETY: both are parts of an image; the caller vouches for the target.
        unsafe { core::ptr::copy_nonoverlapping(source, place, bytes) };
    };
    let (start, data, end) = (
        &raw const __image_start,
        &raw const __data_start,
        &raw const __file_end,
    );
    copy(start, data, start);
    copy(data, end, &raw const __data_saved);
    let tables = (&raw const boot_tables) as u64 - image.start + target;
    // SAFETY: they lie in the target.
    unsafe { write_boot_tables(tables, target) };
    // The copy reads it where it lies in memory: it has no map of this image.
    let left = super::mmu::machine_address(left);
    // SAFETY: the tables map the copy at the image's own addresses, with the same instructions.
    unsafe { leave_for_copy(tables, left, target) }
}

/// Writes the tables that `entry.s` makes, for an image at `machine`.
///
/// # Safety
/// Memory at the machine address `tables` is mapped, as many pages as `boot_tables` has, and used by nobody.
unsafe fn write_boot_tables(tables: u64, machine: u64) {
    const PAGE: u64 = 0x1000;
    const TABLE: u64 = 3; // present, writable
    const LARGE: u64 = 0x83; // and 2 MiB
    const LARGE_BYTES: u64 = 2 << 20;
    let put = |page: u64, index: u64, entry: u64| {
        let place = (tables + page * PAGE + index * 8) as *mut u64;
        // SAFETY: the caller vouches for the pages; all indices below are within one.
        unsafe { place.write_volatile(entry) };
    };
    for page in [0, 1, 6] {
        (0..512).for_each(|index| put(page, index, 0));
    }
    put(0, 0, tables + PAGE + TABLE);
    put(0, 511, tables + 6 * PAGE + TABLE);
    put(6, 510, tables + 7 * PAGE + TABLE);
    for gigabyte in 0..4 {
        let page = 2 + gigabyte;
        put(1, gigabyte, tables + page * PAGE + TABLE);
        (0..512).for_each(|index| put(page, index, (gigabyte * 512 + index) * LARGE_BYTES + LARGE));
    }
    let first = machine.saturating_sub(u64::from(LOAD));
    (0..512).for_each(|index| put(7, index, first + index * LARGE_BYTES + LARGE));
}
