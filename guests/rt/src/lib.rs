//! What every bare-metal guest of the system tests stands on: entry, exceptions that recover and report, the facts that
//! it was booted with, console, firmware and Xen calls, interrupts.
//!
//! It isn't an operating system: one thread of control a CPU, no allocator, memory mapped 1:1. It knows the guest ABI
//! (device tree and PSCI, or PVH and ACPI; Xen's public interface) and nothing of the hypervisor's insides, so the same
//! guest runs natively, as Xen's dom0 and as a domain of Terrane. On the workstation only the portable modules are built,
//! for their tests.
//!
//! Each architecture has a folder, with modules of the same names where they do the same: `call`, `cpu`, `exception`,
//! `memory`, `smp`, and a `Boot` that the guest's main function is given.
#![cfg_attr(not(test), no_std)]

pub mod acpi;
pub mod arguments;
pub mod random;
pub mod range;
pub mod tree;

#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod xen;

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod aarch64;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub use aarch64::{Boot, call, cpu, exception, gic, memory, smp};
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
use aarch64::{SHARED_INFO, uart};

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86_64;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use x86_64::{Boot, apic, boot, call, cpu, exception, memory, pvh, smp};
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
use x86_64::{SHARED_INFO, uart};

/// Names the guest's main function, a `fn(Boot)`. When it returns, the machine or domain is powered off.
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

#[cfg(target_os = "none")]
unsafe extern "Rust" {
    /// The guest's main function, made by [`entry!`].
    safe fn terrane_guest_main(boot: Boot);
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::line(format_args!("guest panic: {info}"));
    call::power_off()
}
