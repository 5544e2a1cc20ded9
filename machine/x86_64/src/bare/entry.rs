//! The way into the image: `entry.s` and the addresses that the linker script lays down.

use core::arch::global_asm;

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

/// The tables of the first 4 GiB, until the hypervisor has made its own: one at the top, one for
/// 512 GiB, four of pages of 2 MiB. `entry.s` is the only user of the name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".noinit.tables")]
static mut boot_tables: Pages<{ 6 * 4096 }> = Pages::unused();

global_asm!(
    include_str!("entry.s"),
    stack_bytes = const BOOT_STACK_BYTES,
    code_selector = const CODE_SELECTOR,
    data_selector = const DATA_SELECTOR,
    start = sym super::boot::start,
    options(att_syntax),
);

unsafe extern "C" {
    static __image_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __image_end: u8;
}

/// The image in memory, as machine addresses. Each part begins on a page.
#[derive(Debug, Clone, Copy)]
pub struct Image {
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
    /// The running image.
    pub fn find() -> Self {
        Self {
            start: (&raw const __image_start) as u64,
            constants: (&raw const __rodata_start) as u64,
            data: (&raw const __data_start) as u64,
            end: (&raw const __image_end) as u64,
        }
    }
}
