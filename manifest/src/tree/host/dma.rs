//! What a bus master reaches: through which windows, past which IOMMU, and whether caches see it.
//!
//! Sources: Devicetree Specification 0.4, section 2.3.9 (`dma-ranges`, `dma-coherent`, `dma-noncoherent`); Linux,
//! Documentation/devicetree/bindings/iommu/iommu.txt (`iommus`) and pci/pci-iommu.yaml (`iommu-map`);
//! dt-schema, interconnects.yaml ("dma-mem" names the bus that DMA goes through).

use alloc::vec::Vec;

use layout::{Architecture, DmaWindow, MachineAddress, MachineRange};

use super::address::{PCI_ADDRESS_CELLS, is_pci};
use crate::tree::blob::{Cells, MAX_DEPTH, Node};

/// The most windows that are told apart. Real boards have up to a dozen; above it a device is taken to reach
/// everything.
const MOST_WINDOWS: usize = 64;

/// PCI's space code, bits 25 and 24 of the first cell: 1 is I/O, which no DMA goes through.
const PCI_SPACE: u32 = 0x0300_0000;
const PCI_IO: u32 = 0x0100_0000;

/// A stretch of the master's bus and where it comes out further up.
#[derive(Clone, Copy)]
struct Stretch {
    bus: u64,
    above: u64,
    size: u64,
}

/// The windows that the buses above a master leave by their `dma-ranges`, in one. None: all addresses go through as
/// they are. A level without `dma-ranges`, or with an empty one, changes nothing, as Linux has it.
pub fn windows(node: Node<'_, '_>) -> Vec<DmaWindow> {
    let mut through: Option<Vec<Stretch>> = None;
    let mut bus = if is_pci(node) {
        Some(node)
    } else {
        above(node)
    };
    // Interconnects may lead in a circle.
    for _ in 0..MAX_DEPTH {
        let Some(here) = bus else { break };
        let ranges = here.value("dma-ranges").unwrap_or_default();
        if !ranges.is_empty()
            && let Some(parent) = here.parent()
        {
            let level = stretches(here, parent, ranges);
            let joined = match through {
                None => level,
                Some(below) => join(&below, &level),
            };
            if joined.len() > MOST_WINDOWS {
                return Vec::new();
            }
            through = Some(joined);
        }
        bus = above(here);
    }
    let window = |stretch: &Stretch| DmaWindow {
        bus: stretch.bus,
        machine: MachineRange::saturating(MachineAddress::new(stretch.above), stretch.size),
    };
    match through {
        None => Vec::new(),
        // It reaches nothing, which an empty list wouldn't say.
        Some(stretches) if stretches.is_empty() => alloc::vec![DmaWindow {
            bus: 0,
            machine: MachineRange::saturating(MachineAddress::new(0), 0),
        }],
        Some(stretches) => stretches.iter().map(window).collect(),
    }
}

/// The bus that a node's DMA goes over: the node above, unless an interconnect named "dma-mem" says another.
fn above<'t, 'a>(node: Node<'t, 'a>) -> Option<Node<'t, 'a>> {
    let place = node
        .strings("interconnect-names")
        .position(|name| name == "dma-mem");
    let Some((place, interconnects)) = place.zip(node.value("interconnects")) else {
        return node.parent();
    };
    let mut cells = Cells::new(interconnects);
    for at in 0.. {
        let provider = node.tree().by_phandle(cells.next_u32()?)?;
        if at == place {
            return Some(provider);
        }
        cells.skip(provider.u32("#interconnect-cells")? as usize)?;
    }
    None
}

/// The entries of a `dma-ranges`, up to the first that is cut short.
fn stretches(bus: Node<'_, '_>, parent: Node<'_, '_>, ranges: &[u8]) -> Vec<Stretch> {
    let ((child_cells, size_cells), (parent_cells, _)) = (bus.child_cells(), parent.child_cells());
    let mut cells = Cells::new(ranges);
    let mut entry = || {
        let flags = if child_cells == PCI_ADDRESS_CELLS {
            cells.next_u32()?
        } else {
            0
        };
        let numbers = child_cells.min(PCI_ADDRESS_CELLS - 1);
        let (bus, above) = (
            cells.next_number(numbers)?,
            cells.next_number(parent_cells)?,
        );
        let size = cells.next_number(size_cells)?;
        Some((flags, Stretch { bus, above, size }))
    };
    let mut found = Vec::new();
    if !(1..=PCI_ADDRESS_CELLS).contains(&child_cells) || parent_cells == 0 {
        return found;
    }
    while let Some((flags, stretch)) = entry() {
        let most = u64::MAX - stretch.bus.max(stretch.above);
        let size = stretch.size.min(most);
        if flags & PCI_SPACE != PCI_IO && size > 0 {
            found.push(Stretch { size, ..stretch });
        }
    }
    found
}

/// What of each stretch goes on through one of the next level's.
fn join(below: &[Stretch], level: &[Stretch]) -> Vec<Stretch> {
    let mut found = Vec::new();
    for lower in below {
        for upper in level {
            let start = lower.above.max(upper.bus);
            let end = (lower.above + lower.size).min(upper.bus + upper.size);
            if start < end && found.len() <= MOST_WINDOWS {
                found.push(Stretch {
                    bus: lower.bus + (start - lower.above),
                    above: upper.above + (start - upper.bus),
                    size: end - start,
                });
            }
        }
    }
    found
}

/// Whether caches see its DMA: what the nearest node says from it on upwards; else RISC-V's are coherent and Arm's
/// aren't.
pub fn is_coherent(node: Node<'_, '_>, architecture: Architecture) -> bool {
    let mut at = Some(node);
    for _ in 0..MAX_DEPTH {
        let Some(here) = at else { break };
        if here.has("dma-coherent") {
            return true;
        }
        if here.has("dma-noncoherent") {
            return false;
        }
        at = above(here);
    }
    architecture != Architecture::Aarch64
}

/// IOMMUs that have a second stage for a hypervisor, by `compatible`: Arm's SMMUs and their makers' versions that
/// keep to Arm's architecture, RISC-V's.
const USABLE: [&str; 12] = [
    "arm,smmu-v1",
    "arm,smmu-v2",
    "arm,smmu-v3",
    "arm,mmu-400",
    "arm,mmu-401",
    "arm,mmu-500",
    "arm,mmu-600",
    "arm,mmu-700",
    "cavium,smmu-v2",
    "hisilicon,hip06-smmu-v3",
    "riscv,iommu",
    "riscv,pci-iommu",
];

/// Whether the node is an IOMMU.
pub fn is_iommu(node: Node<'_, '_>) -> bool {
    node.has("#iommu-cells") || is_usable(node)
}

/// Whether the node is an IOMMU that could translate for a guest. Any other is its driver's own: one stage.
pub fn is_usable(node: Node<'_, '_>) -> bool {
    node.strings("compatible")
        .any(|name| USABLE.contains(&name))
}

/// What stands between a device and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Translation {
    /// A usable IOMMU that the device can't get around.
    pub usable: bool,
    /// One of a driver's own.
    pub private: bool,
}

/// The enabled IOMMUs before a device: those that `iommus` names, or `iommu-map` of a PCI host bridge.
pub fn translation(node: Node<'_, '_>) -> Translation {
    let mut found = Translation::default();
    let mut cells = Cells::new(node.value("iommus").unwrap_or_default());
    while let Some(iommu) = cells
        .next_u32()
        .and_then(|phandle| node.tree().by_phandle(phandle))
    {
        found.note(iommu);
        let arguments = iommu.u32("#iommu-cells").unwrap_or(0) as usize;
        if cells.skip(arguments).is_none() {
            break;
        }
    }
    let map = node.value("iommu-map").unwrap_or_default();
    if !map.is_empty() {
        let mask = node.u32("iommu-map-mask").unwrap_or(0xffff) & 0xffff;
        let mapped = requesters(node, map, &mut found);
        found.usable &= covers(mapped, mask);
    }
    found
}

impl Translation {
    fn note(&mut self, iommu: Node<'_, '_>) {
        if iommu.is_enabled() && is_usable(iommu) {
            self.usable = true;
        } else if iommu.is_enabled() && is_iommu(iommu) {
            self.private = true;
        }
    }
}

/// The requester IDs, first and count, that an `iommu-map` sends to usable IOMMUs.
fn requesters(node: Node<'_, '_>, map: &[u8], found: &mut Translation) -> Vec<(u64, u64)> {
    let mut cells = Cells::new(map);
    let mut mapped = Vec::new();
    let mut entry = || {
        let first = cells.next_u32()?;
        let iommu = node.tree().by_phandle(cells.next_u32()?)?;
        cells.skip(iommu.u32("#iommu-cells").unwrap_or(1) as usize)?;
        Some((u64::from(first), iommu, u64::from(cells.next_u32()?)))
    };
    while let Some((first, iommu, count)) = entry() {
        found.note(iommu);
        if iommu.is_enabled() && is_usable(iommu) {
            mapped.push((first, count));
        }
    }
    mapped
}

/// Whether every requester ID up to `last` is in one of the ranges: a function that isn't goes past the IOMMU.
fn covers(mut mapped: Vec<(u64, u64)>, last: u32) -> bool {
    mapped.sort_unstable();
    let reached = mapped.into_iter().fold(0, |reached, (first, count)| {
        if first <= reached {
            reached.max(first + count)
        } else {
            reached
        }
    });
    reached > u64::from(last)
}
