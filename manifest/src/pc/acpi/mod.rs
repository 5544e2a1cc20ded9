//! ACPI tables that tell what a machine is: CPUs and interrupt controllers (MADT), PCI configuration space (MCFG), which
//! node memory and CPUs belong to (SRAT), and which functions an IOMMU stands before (DMAR, IVRS).
//!
//! The hypervisor reads them from memory, the workstation from files that Linux shows. All take a whole table, header
//! included, whose length and checksum somebody else has checked; what is cut short in it ends it. No AML is read.

mod iommu;
mod madt;
mod srat;
#[cfg(test)]
mod tests;

pub use iommu::{Unit, units};
pub use madt::{IoApic, Madt, Override, Processor};
pub use srat::affinities;

use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange};

/// What every table begins with (ACPI 6.5, 5.2.6), in bytes.
const HEADER_BYTES: usize = 36;

/// PCI configuration space in memory: one entry of the MCFG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecam {
    /// The PCI segment.
    pub segment: u16,
    /// The first bus.
    pub first_bus: u8,
    /// The last bus.
    pub last_bus: u8,
    /// Its registers, from the first bus on, 1 MiB for each.
    pub range: MachineRange,
}

/// Reads an MCFG (PCI Firmware Specification 3.3, 4.1.2). An entry whose buses are in the wrong order is left out.
#[must_use]
pub fn ecams(mcfg: &[u8]) -> Vec<Ecam> {
    let entries = mcfg.get(HEADER_BYTES + 8..).unwrap_or_default();
    let (entries, _) = entries.as_chunks::<16>();
    let entry = |entry: &[u8; 16]| {
        let (first_bus, last_bus) = (entry[10], entry[11]);
        let buses = u64::from(last_bus.checked_sub(first_bus)?) + 1;
        // The base is where bus 0 would be.
        let start = long(entry, 0)?.checked_add(u64::from(first_bus) << 20)?;
        Some(Ecam {
            segment: half(entry, 8)?,
            first_bus,
            last_bus,
            range: MachineRange::new(MachineAddress::new(start), buses << 20)?,
        })
    };
    entries.iter().filter_map(entry).collect()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
