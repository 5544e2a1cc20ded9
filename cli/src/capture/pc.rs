//! A PC, by the kernel's copies of firmware's memory map and ACPI tables.

use layout::{MachineAddress, MachineRange};
use manifest::pc::acpi::{self, Madt};
use manifest::pc::{Description, Ecam, IoApic, Iommu, IommuKind, Memory, MemoryKind};

use super::files::Files;
use super::{iomem, pci};
use crate::diagnostics::Diagnostic;

/// Firmware's memory map, an entry a directory (Linux, Documentation/ABI/testing/sysfs-firmware-memmap).
const MEMORY_MAP: &str = "sys/firmware/memmap";
/// What the kernel makes of it, where it keeps no copy.
const RESOURCES: &str = "proc/iomem";
const TABLES: &str = "sys/firmware/acpi/tables";
const COM1: u16 = 0x3f8;
/// Where an IO-APIC of the PC's first chip set had its last pin: what Linux doesn't tell of the last one.
const PINS: u32 = 24;
const HEADER_BYTES: usize = 36;

/// Describes it.
///
/// # Errors
/// Everything that couldn't be read.
pub fn describe(files: &Files) -> Result<Description, Vec<Diagnostic>> {
    let mut complaints = Vec::new();
    let memory = kept(memory(files), &mut complaints);
    let tables = tables(files, &mut complaints);
    let pci = kept(pci::read(files), &mut complaints);
    let console = kept(console(files), &mut complaints);
    let address_bits = kept(address_bits(files), &mut complaints);
    let (Some(memory), Some(tables), Some(pci), Some(console), Some(address_bits)) =
        (memory, tables, pci, console, address_bits)
    else {
        return Err(complaints);
    };
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let pci::Functions {
        mut functions,
        bridges,
    } = pci;
    let mut iommus: Vec<Iommu> = Vec::new();
    for (table, kind) in [
        (&tables.dmar, IommuKind::VtD),
        (&tables.ivrs, IommuKind::AmdVi),
    ] {
        for unit in acpi::units(table, kind) {
            for function in &mut functions {
                function.behind_iommu |= unit.covers(function.address, &bridges);
            }
            // A unit of AMD's may be described thrice.
            if !iommus.iter().any(|known| known.range == unit.range) {
                iommus.push(Iommu {
                    path: unit.path(),
                    kind,
                    range: unit.range,
                });
            }
        }
    }
    let madt = Madt::read(&tables.madt);
    let (memory_nodes, cpu_nodes) = acpi::affinities(&tables.srat);
    let enabled = madt.processors.iter().filter(|cpu| cpu.enabled);
    Ok(Description {
        memory,
        cpus: enabled.map(|cpu| cpu.apic_id).collect(),
        local_apic: local_apic(&tables.madt),
        io_apics: io_apics(&madt),
        ecam: acpi::ecams(&tables.mcfg).iter().map(ecam).collect(),
        iommus,
        functions,
        bridges,
        memory_nodes,
        cpu_nodes,
        console,
        tsc_khz: None,
        address_bits,
    })
}

/// What was read, or nothing and a complaint.
fn kept<T>(read: Result<T, Diagnostic>, complaints: &mut Vec<Diagnostic>) -> Option<T> {
    read.map_err(|found| complaints.push(found)).ok()
}

/// The kind that the kernel means by its name for it.
fn kind(name: &str) -> MemoryKind {
    match name {
        "System RAM" => MemoryKind::Ram,
        "ACPI Tables" => MemoryKind::AcpiTables,
        "ACPI Non-volatile Storage" => MemoryKind::AcpiNvs,
        "Unusable memory" => MemoryKind::Unusable,
        _ => MemoryKind::Reserved,
    }
}

fn memory(files: &Files) -> Result<Vec<Memory>, Diagnostic> {
    let Some(names) = files.names(MEMORY_MAP)? else {
        return memory_by_resources(files);
    };
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let entry = |number: u32| {
        let file = |name: &str| format!("{MEMORY_MAP}/{number}/{name}");
        let start = files.number(&file("start"))?;
        // The last address that belongs to it.
        let last = files.number(&file("end"))?;
        let size = last
            .checked_sub(start)
            .ok_or_else(|| files.nonsense(&file("end")))?
            .saturating_add(1);
        let name = files.text(&file("type"))?;
        Ok(Memory::new(start, size, kind(name.trim())))
    };
    numbers.into_iter().map(entry).collect()
}

/// Memory is at the top level there, beside devices, and has one of few names.
fn memory_by_resources(files: &Files) -> Result<Vec<Memory>, Diagnostic> {
    const OTHERS: [&str; 5] = [
        "Reserved",
        "Soft Reserved",
        "Persistent Memory",
        "Persistent Memory (legacy)",
        "Unknown E820 type",
    ];
    let entries = iomem::read(files, RESOURCES)?;
    let is_memory = |name: &str| kind(name) != MemoryKind::Reserved || OTHERS.contains(&name);
    let memory: Vec<Memory> = entries
        .iter()
        .filter(|entry| entry.depth == 0 && is_memory(&entry.name))
        .map(|entry| Memory {
            range: entry.range,
            kind: kind(&entry.name),
        })
        .collect();
    if memory.is_empty() {
        return Err(files.nonsense(RESOURCES));
    }
    Ok(memory)
}

/// ACPI tables; one that isn't there is empty.
struct Tables {
    madt: Vec<u8>,
    mcfg: Vec<u8>,
    srat: Vec<u8>,
    dmar: Vec<u8>,
    ivrs: Vec<u8>,
}

fn tables(files: &Files, complaints: &mut Vec<Diagnostic>) -> Option<Tables> {
    let mut read = |name| kept(table(files, name), complaints);
    let (madt, mcfg, srat) = (read("APIC"), read("MCFG"), read("SRAT"));
    let (dmar, ivrs) = (read("DMAR"), read("IVRS"));
    let madt = madt?;
    if madt.is_empty() {
        let tables = files.shown(TABLES);
        let message = format!("{tables} has no table of CPUs and interrupt controllers (APIC)");
        complaints.push(Diagnostic::error("host-unreadable", message));
        return None;
    }
    Some(Tables {
        madt,
        mcfg: mcfg?,
        srat: srat?,
        dmar: dmar?,
        ivrs: ivrs?,
    })
}

fn table(files: &Files, name: &str) -> Result<Vec<u8>, Diagnostic> {
    let path = format!("{TABLES}/{name}");
    let Some(bytes) = files.bytes_if_there(&path)? else {
        return Ok(Vec::new());
    };
    let length = bytes.get(4..8).and_then(|length| length.first_chunk());
    let is_whole = length.is_some_and(|length| u32::from_le_bytes(*length) as usize == bytes.len());
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let is_table = bytes.len() >= HEADER_BYTES && bytes.starts_with(name.as_bytes());
    if !is_table || !is_whole || sum != 0 {
        return Err(files.nonsense(&path));
    }
    Ok(bytes)
}

/// ACPI 6.5, 5.2.12: the address follows the header.
fn local_apic(madt: &[u8]) -> u64 {
    const USUAL: u64 = 0xfee0_0000;
    let address = madt.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk());
    let address = address.map(|bytes| u64::from(u32::from_le_bytes(*bytes)));
    address.filter(|address| *address != 0).unwrap_or(USUAL)
}

/// Firmware gives IO-APICs their interrupts without a gap, so that the next one's first tells how many one has.
fn io_apics(madt: &Madt) -> Vec<IoApic> {
    let firsts = || madt.io_apics.iter().map(|chip| chip.first_interrupt);
    let pins = |first: u32| {
        let next = firsts().filter(|other| *other > first).min();
        next.map_or(PINS, |next| (next - first).min(240))
    };
    let chips = madt.io_apics.iter();
    chips
        .map(|chip| IoApic {
            id: chip.id,
            address: u64::from(chip.address),
            first_interrupt: chip.first_interrupt,
            pins: pins(chip.first_interrupt),
        })
        .collect()
}

fn ecam(window: &acpi::Ecam) -> Ecam {
    Ecam {
        // Where bus 0 would be; the range begins with the first bus.
        base: window.range.start().raw() - (u64::from(window.first_bus) << 20),
        segment: window.segment,
        first_bus: window.first_bus,
        last_bus: window.last_bus,
    }
}

/// The first serial port, if the kernel found a UART there.
fn console(files: &Files) -> Result<Option<u16>, Diagnostic> {
    let ports = iomem::read(files, "proc/ioports")?;
    let com1 = MachineRange::saturating(MachineAddress::new(COM1.into()), 8);
    let found = ports
        .iter()
        .any(|entry| entry.range == com1 && entry.name.contains("serial"));
    Ok(found.then_some(COM1))
}

fn address_bits(files: &Files) -> Result<u8, Diagnostic> {
    const PATH: &str = "proc/cpuinfo";
    let text = files.text(PATH)?;
    let said = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let bits = value.trim().split_once(" bits physical")?.0;
        (key.trim() == "address sizes").then(|| bits.parse().ok())?
    });
    said.ok_or_else(|| files.nonsense(PATH))
}
