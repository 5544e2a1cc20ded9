//! x86-64: MSRs, ports, the interrupt controllers' registers and messages, control registers, SVM's instructions,
//! others' memory, PCI's configuration space, hypercalls of ring 3.

/// Defines a function that makes one instruction, with RAX, RCX and RDX as given, and gives its fault.
macro_rules! instruction {
    ($name:ident, $text:literal) => {
        fn $name(rax: u64, rcx: u64, rdx: u64) -> Option<rt::exception::Fault> {
            // SAFETY: the instruction faults, or changes registers that no Rust value depends on, or is a port's, and no
            // device is told to write to memory. That nothing else comes of it is what is tested.
            unsafe {
                rt::attempt!(
                    $text,
                    inout("rax") rax => _,
                    inout("rcx") rcx => _,
                    inout("rdx") rdx => _
                )
            }
        }
    };
}

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
