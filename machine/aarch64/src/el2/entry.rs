//! The way into the image: `entry.s` and the addresses that the linker script lays down.

use core::arch::global_asm;

use crate::stage1::SCTLR_OFF;

/// Bytes of the boot CPU's stack with the guard page at its lower end. The planner's and tree reader's
/// work runs on it.
pub const BOOT_STACK_BYTES: usize = 48 * 1024;

/// A stack that needs no clearing before use.
#[repr(C, align(4096))]
pub struct BootStack([u8; BOOT_STACK_BYTES]);

/// The stack of the boot CPU; `entry.s` is the only user of the name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".noinit.stack")]
static mut boot_stack: BootStack = BootStack([0; BOOT_STACK_BYTES]);

global_asm!(
    include_str!("entry.s"),
    stack_bytes = const BOOT_STACK_BYTES,
    sctlr_off_low = const SCTLR_OFF & 0xffff,
    sctlr_off_high = const SCTLR_OFF >> 16,
    start = sym super::boot::start,
    start_secondary = sym super::smp::start,
);

unsafe extern "C" {
    static __rodata_start: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __data_saved: u8;
    static __file_end: u8;
    static __image_end: u8;
    fn enter_secondary_cpu();
    fn leave_for_copy(image: u64, tree: u64, loaded: u64) -> !;
}

/// The image in memory, as machine addresses. Each part begins on a page.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The header and the instructions.
    pub start: u64,
    /// Constants, and what relocation has written.
    pub constants: u64,
    /// Variables.
    pub data: u64,
    /// End of what a boot loader loads; from here on the content is made at run time.
    pub file_end: u64,
    /// End of variables, stacks and early heap.
    pub end: u64,
}

impl Image {
    /// The running image, whose start `entry.s` found.
    pub fn find(start: u64) -> Self {
        Self {
            start,
            constants: (&raw const __rodata_start) as u64,
            data: (&raw const __data_start) as u64,
            file_end: (&raw const __file_end) as u64,
            end: (&raw const __image_end) as u64,
        }
    }
}

fn data_bytes() -> usize {
    (&raw const __data_end) as usize - (&raw const __data_start) as usize
}

/// Where `save_data` keeps them. Only its address is taken: what lies there is written.
fn saved_data() -> *mut u8 {
    (&raw const __data_saved).cast_mut()
}

/// Keeps variables with an initial value as they are now, for a copy of the image to start with.
/// Called once, before anything changes one.
pub fn save_data() {
    let (data, saved) = (&raw const __data_start, saved_data());
    // SAFETY: link.ld sets aside as much room as `.data` takes, and nothing else uses it.
    unsafe { core::ptr::copy_nonoverlapping(data, saved, data_bytes()) };
}

/// Copies the image, as relocated, before anything changed it, to `target`: `entry.s` relocates the
/// copy from there.
///
/// # Safety
/// `target` is memory mapped at EL2 that nobody uses, at least as long as the image's file and apart
/// from the image.
pub unsafe fn copy_image(image: &Image, target: u64) {
    let length = usize::try_from(image.file_end - image.start).unwrap_or(0);
    // SAFETY: the caller vouches for the target; the source is this image.
    unsafe {
        core::ptr::copy_nonoverlapping(image.start as *const u8, target as *mut u8, length);
    }
    let data = target + (image.data - image.start);
    // SAFETY: `.data` is part of the file, so its copy lies inside the target.
    unsafe { core::ptr::copy_nonoverlapping(saved_data(), data as *mut u8, data_bytes()) };
}

/// The first page of the boot CPU's stack, to be taken out of the map: whoever gets there is stopped.
pub fn stack_guard() -> u64 {
    (&raw const boot_stack) as u64
}

/// The address at which other CPUs begin, with a `Secondary` record in x0.
pub fn secondary_entry() -> u64 {
    enter_secondary_cpu as *const () as u64
}

/// Goes on in a copy of the image, from its first instruction.
///
/// # Safety
/// `image` is a copy of this image's file content with room behind it for the rest, 2 MiB-aligned as
/// a boot loader would place it and cleaned to the point of coherency, as is the tree.
pub unsafe fn continue_in_copy(image: u64, tree: u64, loaded: u64) -> ! {
    // SAFETY: the caller keeps the contract of the boot protocol.
    unsafe { leave_for_copy(image, tree, loaded) }
}
