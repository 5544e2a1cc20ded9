//! x86-64: entered by PVH in 32-bit mode, with a start structure, ACPI's tables and a local APIC.

pub mod apic;
pub mod boot;
pub mod call;
pub mod cpu;
mod entry;
pub mod exception;
pub mod memory;
pub mod pvh;
pub mod smp;
pub(crate) mod uart;

/// What the page that guest and hypervisor share looks like.
pub(crate) const SHARED_INFO: abi::shared_info::Layout = abi::shared_info::Layout::X86_64;

/// What a guest's main function is given.
pub struct Boot {
    /// The facts of the start structure that EBX pointed to, and of ACPI's tables.
    pub facts: &'static boot::Facts,
    /// The time stamp counter as the guest's first instructions read it.
    pub first_tsc: u64,
}
