//! arm64: entered as a Linux Image with a device tree, PSCI, a GIC.

pub mod call;
pub mod cpu;
mod entry;
pub mod exception;
pub mod gic;
pub mod memory;
pub mod smp;
pub(crate) mod uart;

/// What the page that guest and hypervisor share looks like.
pub(crate) const SHARED_INFO: abi::shared_info::Layout = abi::shared_info::Layout::ARM;

/// What a guest's main function is given.
pub struct Boot {
    /// The facts of the device tree that x0 pointed to.
    pub tree: &'static crate::tree::Facts,
    /// CNTVCT_EL0 as the guest's first instructions read it, in ticks.
    pub first_virtual: u64,
    /// CNTPCT_EL0, read by the instruction after that, in ticks.
    pub first_physical: u64,
    /// The exception level at which the guest was entered: 1 or 2 (it goes down to 1 by itself).
    pub entered_at: u8,
}
