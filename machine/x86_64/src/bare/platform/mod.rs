//! The PC around a domain, on the machine: the models of [`crate::devices`] over the real interrupt controllers, ports,
//! configuration space, timers and power.
//!
//! The run loop asks here whenever a guest reached for something that isn't memory, and before and after it runs. All
//! functions are for the vCPU that is pinned to the calling CPU, but for [`raise_upcall`], [`kick`] and [`send_kick`].
//!
//! Not here: nested tables, the VMCB, the core.

mod access;
mod devices;
mod host;
mod interrupts;
pub mod io;
mod ioapic;
mod pci;
mod registers;

pub use access::{
    MmioWritten, PortRead, PortWritten, mmio_read, mmio_write, port_read, port_write,
};
pub use devices::{Devices, VirtualApic};
pub use host::Host;
pub use interrupts::{
    Taken, accept, arm_timer, cr8, init, kick, next_vector, offer, on_physical_interrupt,
    raise_upcall, send_kick, set_core_timer, set_cr8, take_events, timer_expired, withdraw,
};
pub use registers::{MsrWritten, cpuid, read_msr, write_msr};
