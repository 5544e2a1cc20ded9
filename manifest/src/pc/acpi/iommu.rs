//! Which PCI functions an IOMMU could translate, by ACPI's tables.
//!
//! DMAR: Intel VT-d specification 4.1, 8.3 (DRHD) and 8.3.1 (device scope). IVRS: AMD I/O
//! Virtualization Technology specification 3.07, 5.2.2 (IVHD) and 5.2.2.1 (device entries).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange};

use super::half;
use crate::pc::{Bridge, IommuKind, PciAddress};

/// Where the entries of both tables begin.
const FIRST_ENTRY: usize = 48;
/// VT-d's registers come in pages of this many bytes.
const VTD_PAGE: u64 = 0x1000;
/// The registers of one of AMD's IOMMUs, without its performance counters.
const AMD_BYTES: u64 = 0x4000;

/// A unit, or one of the blocks that describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    kind: IommuKind,
    /// Its registers.
    pub range: MachineRange,
    segment: u16,
    scopes: Vec<Scope>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// Every function of the segment.
    All,
    /// Functions by bus, device and function as one number, from the first to the last.
    Range(u16, u16),
    /// A bus, then device and function of each bridge on the way, then those of the function; and
    /// whether it is a bridge that stands for all behind it.
    Path {
        bus: u8,
        steps: Vec<(u8, u8)>,
        is_bridge: bool,
    },
}

/// The units that a table describes, its header checked. A block that is cut short ends it.
#[must_use]
pub fn units(table: &[u8], kind: IommuKind) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut rest = table.get(FIRST_ENTRY..).unwrap_or_default();
    // Both have the length at 2.
    while let Some(length) = half(rest, 2).map(usize::from).filter(|&length| length >= 4) {
        let Some((block, after)) = rest.split_at_checked(length) else {
            break;
        };
        units.extend(match kind {
            IommuKind::VtD => drhd(block),
            IommuKind::AmdVi => ivhd(block),
        });
        rest = after;
    }
    units
}

fn drhd(block: &[u8]) -> Option<Unit> {
    const DRHD: u16 = 0;
    const INCLUDE_ALL: u8 = 1;
    if half(block, 0)? != DRHD {
        return None;
    }
    // N stands for 2^N pages; the bits above it are reserved, as in older revisions all are.
    let pages = 1_u64 << (block.get(5)? & 0xf);
    let mut scopes = Vec::new();
    if block.get(4)? & INCLUDE_ALL != 0 {
        scopes.push(Scope::All);
    }
    let mut rest = block.get(16..)?;
    while let [kind, length, _, _, _, bus, ..] = *rest {
        let Some((entry, after)) = rest.split_at_checked(usize::from(length)) else {
            break;
        };
        // A scope holds one step of a path at least.
        let Some(path) = entry.get(6..).filter(|path| path.len() >= 2) else {
            break;
        };
        if matches!(kind, 1 | 2) {
            scopes.push(Scope::Path {
                bus,
                steps: path
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&[d, f]| (d, f))
                    .collect(),
                is_bridge: kind == 2,
            });
        }
        rest = after;
    }
    Some(Unit {
        kind: IommuKind::VtD,
        range: registers(block, VTD_PAGE * pages)?,
        segment: half(block, 6)?,
        scopes,
    })
}

fn ivhd(block: &[u8]) -> Option<Unit> {
    let entries = match block.first()? {
        0x10 => 24,
        0x11 | 0x40 => 40,
        _ => return None,
    };
    let mut scopes = Vec::new();
    let mut rest = block.get(entries..)?;
    let mut start = None;
    while let Some(&kind) = rest.first() {
        let length = match kind {
            0x00..=0x3f => 4,
            0x40..=0x7f => 8,
            0xf0 => 22 + usize::from(rest.get(21).copied().unwrap_or(0)),
            0x80..=0xbf => 16,
            0xc0..=0xff => 32,
        };
        let Some((entry, after)) = rest.split_at_checked(length) else {
            break;
        };
        let device = half(entry, 1)?;
        match kind {
            1 => scopes.push(Scope::All),
            2 | 0x42 | 0x46 => scopes.push(Scope::Range(device, device)),
            3 | 0x43 | 0x47 => start = Some(device),
            4 => scopes.extend(start.take().map(|first| Scope::Range(first, device))),
            _ => {}
        }
        rest = after;
    }
    Some(Unit {
        kind: IommuKind::AmdVi,
        range: registers(block, AMD_BYTES)?,
        segment: half(block, 16)?,
        scopes,
    })
}

/// Both have the registers' address at 8.
fn registers(block: &[u8], bytes: u64) -> Option<MachineRange> {
    let start = u64::from_le_bytes(block.get(8..16)?.try_into().ok()?);
    MachineRange::new(MachineAddress::new(start), bytes)
}

impl Unit {
    /// Its name.
    #[must_use]
    pub fn path(&self) -> String {
        let table = match self.kind {
            IommuKind::VtD => "DMAR",
            IommuKind::AmdVi => "IVRS",
        };
        format!("acpi:{table}:{:#x}", self.range.start().raw())
    }

    /// Whether it could translate that function's DMA.
    #[must_use]
    pub fn covers(&self, function: PciAddress, bridges: &[Bridge]) -> bool {
        let scope_covers = |scope: &Scope| match scope {
            Scope::All => true,
            Scope::Range(first, last) => (*first..=*last).contains(&number(function)),
            Scope::Path {
                bus,
                steps,
                is_bridge,
            } => follow(*bus, steps, bridges).is_some_and(|end| {
                let behind = bridges.iter().find(|bridge| number(bridge.address) == end);
                let buses = behind.map(|bridge| bridge.secondary..=bridge.subordinate);
                end == number(function)
                    || *is_bridge && buses.is_some_and(|buses| buses.contains(&function.bus))
            }),
        };
        self.segment == function.segment && self.scopes.iter().any(scope_covers)
    }
}

/// Bus, device and function in one number.
fn number(address: PciAddress) -> u16 {
    u16::from(address.bus) << 8
        | u16::from(address.device & 0x1f) << 3
        | u16::from(address.function & 7)
}

/// The function at the end of a path.
fn follow(bus: u8, steps: &[(u8, u8)], bridges: &[Bridge]) -> Option<u16> {
    let on = |bus, &(device, function): &(u8, u8)| {
        number(PciAddress {
            segment: 0,
            bus,
            device,
            function,
        })
    };
    let (last, way) = steps.split_last()?;
    let mut bus = bus;
    for step in way {
        let bridge = bridges
            .iter()
            .find(|bridge| number(bridge.address) == on(bus, step))?;
        bus = bridge.secondary;
    }
    Some(on(bus, last))
}
