//! The devices that a domain sees in place of the machine's, and the readers and writers of the tables around them.
//!
//! Plain logic over small traits, without the CPU, tested on a workstation. Nothing here is unsafe.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod cpuid;
pub mod e820;
pub mod interrupt;
pub mod ioapic;
pub mod lapic;
pub mod msr;
pub mod pci;
pub mod ports;
pub mod start_info;
