//! What every bare-metal guest of the system tests stands on: entry as an arm64 Image, exception vectors that recover
//! and report, the facts of its device tree, console, PSCI and Xen calls, a small GIC driver.
//!
//! It isn't an operating system: one thread of control a CPU, no allocator, memory mapped 1:1. It knows the guest ABI
//! (device tree, PSCI, Xen's public interface) and nothing of the hypervisor's insides, so the same guest runs natively,
//! as Xen's dom0 and as a domain of Terrane. On the workstation only the portable modules are built, for their tests.
#![cfg_attr(not(test), no_std)]

pub mod arguments;
pub mod random;
pub mod tree;

#[cfg(target_os = "none")]
pub mod call;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
pub mod exception;
#[cfg(target_os = "none")]
pub mod gic;
#[cfg(target_os = "none")]
pub mod memory;
#[cfg(target_os = "none")]
pub mod smp;
#[cfg(target_os = "none")]
pub mod xen;

/// What a guest's main function is given.
#[cfg(target_os = "none")]
pub struct Boot {
    /// The facts of the device tree that x0 pointed to.
    pub tree: &'static tree::Facts,
    /// CNTVCT_EL0 as the guest's first instructions read it, in ticks.
    pub first_virtual: u64,
    /// CNTPCT_EL0, read by the instruction after that, in ticks.
    pub first_physical: u64,
    /// The exception level at which the guest was entered: 1 or 2 (it goes down to 1 by itself).
    pub entered_at: u8,
}

/// Names the guest's main function, a `fn(Boot)`. When it returns, the machine or domain is powered off by PSCI.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: the symbol is this crate's own word; `rt` declares it with the same signature.
        #[unsafe(no_mangle)]
        extern "Rust" fn terrane_guest_main(boot: $crate::Boot) {
            $main(boot)
        }
    };
}
