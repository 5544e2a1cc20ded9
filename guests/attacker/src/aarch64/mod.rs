//! arm64: stray accesses, every system register, every conduit, the interrupt controller's registers and tables.

mod calls;
mod code;
mod controller;
mod crowd;
mod guest;
mod instructions;
mod stray;
mod sysregs;
mod tables;
mod watchdog;

pub(crate) use watchdog::{progress, rearm};

use rt::exception::caught;

/// A hypercall of the attack: without a hypervisor its instruction faults.
///
/// # Safety
/// As [`rt::call::hypercall`].
pub(crate) unsafe fn hypercall(number: u64, arguments: [u64; 5]) {
    // SAFETY: the caller's promise.
    caught(|| unsafe { rt::call::hypercall(number, arguments) });
}
