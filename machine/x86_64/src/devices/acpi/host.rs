//! What the tables say of the machine, in the planner's terms: CPUs, interrupt controllers, IOMMUs.
//!
//! DMAR: Intel VT-d specification, 8.1 to 8.3. IVRS: AMD I/O Virtualization Technology specification, 5.2.

use alloc::format;
use alloc::string::String;

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
        origin: Origin::NONE,
    }));
    let chips = madt.io_apics.iter().map(|chip| u64::from(chip.address));
    for start in chips.chain([BASE_ADDRESS]) {
        map.controller.ranges.push(page_range(start, PAGE));
    }
}

/// Adds the IOMMUs of a DMAR or an IVRS whose header is checked; each unit once, though an IVRS may name it thrice.
pub fn describe_iommus(table: &[u8], map: &mut HostMap) {
    let amd = table.starts_with(b"IVRS");
    let mut rest = table.get(FIRST_ENTRY..).unwrap_or_default();
    // Both have the length at 2 and the registers' address at 8.
    while let Some(length) = rest.get(2..).and_then(prefix::<U16>) {
        let Some((entry, after)) = rest.split_at_checked(usize::from(length.get())) else {
            return;
        };
        // Shorter than its own length field: nobody knows where the next one begins.
        let [low, high, _, _, ..] = *entry else {
            return;
        };
        rest = after;
        let bytes = match (amd, low, high) {
            (true, 0x10 | 0x11 | 0x40, _) => IVHD_BYTES,
            (false, 0, 0) => PAGE,
            _ => continue,
        };
        let Some(base) = entry.get(8..).and_then(prefix::<U64>) else {
            continue;
        };
        let range = page_range(base.get(), bytes);
        if map
            .iommus
            .iter()
            .all(|iommu| !iommu.ranges.contains(&range))
        {
            map.iommus.push(Iommu {
                path: name(amd, base.get()),
                ranges: alloc::vec![range],
                origin: Origin::NONE,
            });
        }
    }
}

fn name(amd: bool, base: u64) -> String {
    let table = if amd { "IVRS" } else { "DMAR" };
    format!("acpi:{table}:{base:#x}")
}

fn page_range(start: u64, bytes: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), bytes)
}
