//! What the tables say of the machine, in the planner's terms: CPUs, interrupt controllers, IOMMUs.
//!
//! DMAR: Intel VT-d specification, 8.1 to 8.3. IVRS: AMD I/O Virtualization Technology specification, 5.2.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{HostCpu, HostMap, Iommu, MachineAddress, MachineRange, Origin};
use zerocopy::little_endian::{U16, U64};

use super::{Madt, prefix};
use crate::devices::lapic::BASE_ADDRESS;

const PAGE: u64 = 0x1000;
/// The registers of one of AMD's IOMMUs, without its performance counters.
const IVHD_BYTES: u64 = 0x4000;
/// Where the entries of both tables begin.
const FIRST_ENTRY: usize = 48;

/// Adds the CPUs that are there, in the table's order, and the local APICs' and IO-APICs' registers.
pub fn describe(madt: &Madt, map: &mut HostMap) {
    let enabled = madt.processors.iter().filter(|cpu| cpu.enabled);
    map.cpus.extend(enabled.map(|cpu| HostCpu {
        hardware_id: u64::from(cpu.apic_id),
        node: None,
        origin: Origin::NONE,
    }));
    let chips = madt.io_apics.iter().map(|chip| u64::from(chip.address));
    for start in chips.chain([BASE_ADDRESS]) {
        map.controller.ranges.push(page_range(start, PAGE));
    }
}

/// Adds the IOMMUs of a DMAR or an IVRS whose header is checked.
pub fn describe_iommus(table: &[u8], map: &mut HostMap) {
    let amd = table.starts_with(b"IVRS");
    for (base, bytes) in iommu_registers(table) {
        map.iommus.push(Iommu {
            path: name(amd, base),
            ranges: alloc::vec![page_range(base, bytes)],
            usable: true,
            origin: Origin::NONE,
        });
    }
}

/// The registers of the IOMMUs that a DMAR or an IVRS names, as start and bytes; each unit once, though an IVRS may name it
/// thrice.
#[must_use]
pub fn iommu_registers(table: &[u8]) -> Vec<(u64, u64)> {
    let amd = table.starts_with(b"IVRS");
    let mut found = Vec::new();
    let mut rest = table.get(FIRST_ENTRY..).unwrap_or_default();
    // Both have the length at 2 and the registers' address at 8.
    while let Some(length) = rest.get(2..).and_then(prefix::<U16>) {
        let Some((entry, after)) = rest.split_at_checked(usize::from(length.get())) else {
            break;
        };
        // Shorter than its own length field: nobody knows where the next one begins.
        let [low, high, _, _, ref fields @ ..] = *entry else {
            break;
        };
        rest = after;
        let bytes = match (amd, low, high) {
            (true, 0x10 | 0x11 | 0x40, _) => IVHD_BYTES,
            // 2^N pages; before VT-d 4.0 the field was reserved (VT-d 4.1, 8.3).
            (false, 0, 0) => PAGE << (fields.get(1).unwrap_or(&0) & 0xf),
            _ => continue,
        };
        let Some(base) = entry.get(8..).and_then(prefix::<U64>) else {
            continue;
        };
        let unit = (base.get(), bytes);
        if !found.contains(&unit) {
            found.push(unit);
        }
    }
    found
}

/// Where an HPET table says that the registers are; `None` if they aren't in memory (IA-PC HPET specification 1.0a, 3.2.4).
#[must_use]
pub fn hpet(table: &[u8]) -> Option<u64> {
    const ADDRESS_SPACE: usize = 40;
    const ADDRESS: usize = 44;
    let address: U64 = prefix(table.get(ADDRESS..)?)?;
    let is_memory = *table.get(ADDRESS_SPACE)? == 0;
    (is_memory && address.get() != 0).then_some(address.get())
}

fn name(amd: bool, base: u64) -> String {
    let table = if amd { "IVRS" } else { "DMAR" };
    format!("acpi:{table}:{base:#x}")
}

fn page_range(start: u64, bytes: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), bytes)
}
