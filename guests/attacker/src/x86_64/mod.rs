//! x86-64: MSRs, ports, the interrupt controllers' registers and messages, control registers, SVM's instructions,
//! others' memory, PCI's configuration space, hypercalls of ring 3.

mod apic;
mod crowd;
mod guest;
mod instructions;
mod msr;
mod pci;
mod ports;
mod registers;
mod stray;
mod user;
mod watchdog;

pub(crate) use watchdog::{progress, rearm};

/// A hypercall of the attack; it isn't made where there is no hypervisor.
///
/// # Safety
/// As [`rt::call::hypercall`].
pub(crate) unsafe fn hypercall(number: u64, arguments: [u64; 5]) {
    // SAFETY: the caller's promise.
    unsafe { rt::call::hypercall(number, arguments) };
}
