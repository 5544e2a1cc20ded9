//! What kind of machine this is: the boot loader's memory map, ACPI's tables and a look at every PCI
//! function, as the description that workstation and hypervisor plan from.
//!
//! Reading only, but for the sizes of BARs, which take a write and its undoing. Not here: what the
//! platform does with the same devices while domains run.

pub mod pci;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use manifest::pc::{Description, Ecam, IoApic, Iommu, IommuKind, Memory, MemoryKind};

use crate::boot_info::{Physical, Region};
use crate::devices::acpi::{self, Madt, Tables};
use crate::devices::lapic::BASE_ADDRESS;

/// What can't be read from memory or from tables.
pub trait Hardware: pci::Configuration {
    /// How many pins the IO-APIC has whose registers are at this machine address.
    fn pins(&self, io_apic: u64) -> u32;
}

/// What is known without looking further.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The boot loader's memory map.
    pub regions: &'a [Region],
    /// Width of a machine address in bits.
    pub address_bits: u8,
    /// The first port of the hypervisor's UART.
    pub console: Option<u16>,
}

/// Describes the machine.
///
/// # Errors
/// There is no table of CPUs and interrupt controllers, or it is bad.
pub fn describe(
    facts: Facts<'_>,
    tables: &Tables,
    memory: &impl Physical,
    hardware: &impl Hardware,
) -> Result<Description, acpi::Error> {
    let madt = Madt::read(&tables.load(memory, *b"APIC")?);
    let mcfg = tables.load(memory, *b"MCFG").unwrap_or_default();
    let ecams = acpi::ecams(&mcfg);
    let last_bus = ecams
        .iter()
        .filter(|ecam| ecam.segment == 0)
        .map(|ecam| ecam.last_bus)
        .max();
    let (mut functions, bridges) = pci::scan(hardware, last_bus.unwrap_or(u8::MAX));
    let mut iommus = Vec::new();
    for (signature, kind) in [(*b"DMAR", IommuKind::VtD), (*b"IVRS", IommuKind::AmdVi)] {
        let Ok(table) = tables.load(memory, signature) else {
            continue;
        };
        for unit in acpi::units(&table, kind) {
            for function in &mut functions {
                function.behind_iommu |= unit.covers(function.address, &bridges);
            }
            if !iommus.iter().any(|known: &Iommu| known.range == unit.range) {
                iommus.push(Iommu {
                    path: unit.path(),
                    kind,
                    range: unit.range,
                });
            }
        }
    }
    let srat = tables.load(memory, *b"SRAT").unwrap_or_default();
    let (memory_nodes, cpu_nodes) = acpi::affinities(&srat);
    let enabled = madt.processors.iter().filter(|cpu| cpu.enabled);
    Ok(Description {
        memory: facts.regions.iter().map(region).collect(),
        cpus: enabled.map(|cpu| cpu.apic_id).collect(),
        local_apic: BASE_ADDRESS,
        io_apics: madt
            .io_apics
            .iter()
            .map(|chip| IoApic {
                id: chip.id,
                address: u64::from(chip.address),
                first_interrupt: chip.first_interrupt,
                pins: hardware.pins(u64::from(chip.address)),
            })
            .collect(),
        ecam: ecams
            .iter()
            .map(|ecam| Ecam {
                // The table's base is where bus 0 would be; the range begins with the first bus.
                base: ecam.range.start().raw() - (u64::from(ecam.first_bus) << 20),
                segment: ecam.segment,
                first_bus: ecam.first_bus,
                last_bus: ecam.last_bus,
            })
            .collect(),
        iommus,
        functions,
        bridges,
        memory_nodes,
        cpu_nodes,
        console: facts.console,
        tsc_khz: None,
        address_bits: facts.address_bits,
    })
}

fn region(region: &Region) -> Memory {
    Memory::new(region.start, region.bytes, MemoryKind::of(region.kind))
}
