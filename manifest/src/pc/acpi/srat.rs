//! The system resource affinity table: which node memory and CPUs belong to.
//!
//! ACPI 6.5, 5.2.16.

use alloc::vec::Vec;

use super::{HEADER_BYTES, half, long, word};
use crate::pc::{CpuNode, MemoryNode};
use layout::{MachineAddress, MachineRange};

/// A table version and eight reserved bytes follow the header.
const FIRST_ENTRY: usize = HEADER_BYTES + 12;
const ENABLED: u32 = 1;

/// Reads a SRAT: ranges of memory, and CPUs by their APIC ID, each with its proximity domain. Entries that aren't
/// enabled, or are too short for their type, are left out; one with no length ends the table.
#[must_use]
pub fn affinities(srat: &[u8]) -> (Vec<MemoryNode>, Vec<CpuNode>) {
    let (mut memory, mut cpus) = (Vec::new(), Vec::new());
    let mut rest = srat.get(FIRST_ENTRY..).unwrap_or_default();
    while let [kind, length, ..] = *rest {
        let Some((entry, after)) = rest.split_at_checked(usize::from(length)) else {
            break;
        };
        if length < 2 {
            break;
        }
        match kind {
            0 => cpus.extend(local_apic(entry)),
            1 => memory.extend(range(entry)),
            2 => cpus.extend(local_x2apic(entry)),
            _ => {}
        }
        rest = after;
    }
    (memory, cpus)
}

fn local_apic(entry: &[u8]) -> Option<CpuNode> {
    let low = *entry.get(2)?;
    let [second, third, fourth] = *entry.get(9..)?.first_chunk()?;
    (word(entry, 4)? & ENABLED != 0).then_some(CpuNode {
        cpu: u32::from(*entry.get(3)?),
        node: u32::from_le_bytes([low, second, third, fourth]),
    })
}

fn local_x2apic(entry: &[u8]) -> Option<CpuNode> {
    (word(entry, 12)? & ENABLED != 0).then_some(CpuNode {
        cpu: word(entry, 8)?,
        node: word(entry, 4)?,
    })
}

fn range(entry: &[u8]) -> Option<MemoryNode> {
    let low = half(entry, 2)?;
    let high = half(entry, 4)?;
    let range = MachineRange::new(MachineAddress::new(long(entry, 8)?), long(entry, 16)?)?;
    (word(entry, 28)? & ENABLED != 0).then_some(MemoryNode {
        range,
        node: u32::from(high) << 16 | u32::from(low),
    })
}
