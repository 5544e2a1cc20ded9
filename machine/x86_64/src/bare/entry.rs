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
    static __image_end: u8;
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
