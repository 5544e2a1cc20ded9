//! `reg` as the CPU sees it: through the `ranges` of every bus above.
//!
//! Source: Devicetree Specification 0.4, sections 2.3.6 (`reg`) and 2.3.8 (`ranges`); IEEE 1275 PCI bus binding
//! for the three-cell addresses of PCI.

use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange};

use crate::tree::blob::{Cells, Node};

/// The address cells of a PCI bus: one of flags, two of address.
const PCI_ADDRESS_CELLS: usize = 3;

/// Whether the children's addresses are PCI's.
pub fn is_pci(node: Node<'_, '_>) -> bool {
    matches!(node.string("device_type"), Some("pci" | "pciex"))
        || node.child_cells().0 == PCI_ADDRESS_CELLS
}

/// The ranges of `reg` that the CPU can address. None if the bus above has no such (I2C, PCI devices, `/cpus`).
pub fn registers(node: Node<'_, '_>) -> Result<Vec<MachineRange>, &'static str> {
    let Some((reg, bus)) = node.value("reg").zip(node.parent()) else {
        return Ok(Vec::new());
    };
    let (address_cells, size_cells) = bus.child_cells();
    if is_pci(bus) || size_cells == 0 || address_cells == 0 {
        return Ok(Vec::new());
    }
    if address_cells > 2 || size_cells > 2 {
        return Err("the bus above has more than two cells an address or size");
    }
    if reg.len() % ((address_cells + size_cells) * 4) != 0 {
        return Err("reg is not a whole number of entries");
    }
    let mut cells = Cells::new(reg);
    let mut ranges = Vec::new();
    while !cells.is_empty() {
        let entry = cells
            .next_number(address_cells)
            .zip(cells.next_number(size_cells));
        let (address, size) = entry.ok_or("reg is not a whole number of entries")?;
        let Some(address) = to_cpu(bus, address, size) else {
            continue;
        };
        let range = MachineRange::new(MachineAddress::new(address), size);
        ranges.push(range.ok_or("an entry of reg passes 2^64")?);
    }
    Ok(ranges)
}

/// The CPU's address for an address on `bus`; `None` if the CPU doesn't reach it.
fn to_cpu(bus: Node<'_, '_>, address: u64, size: u64) -> Option<u64> {
    let (mut bus, mut address) = (bus, address);
    // The root has no bus above it; elsewhere no `ranges` means no way through, and an empty one 1:1.
    while let Some(above) = bus.parent() {
        let ranges = bus.value("ranges")?;
        if !ranges.is_empty() {
            address = translate(bus, above, ranges, address, size)?;
        }
        bus = above;
    }
    Some(address)
}

fn translate(
    bus: Node<'_, '_>,
    above: Node<'_, '_>,
    ranges: &[u8],
    address: u64,
    size: u64,
) -> Option<u64> {
    let ((child_cells, size_cells), (parent_cells, _)) = (bus.child_cells(), above.child_cells());
    let mut cells = Cells::new(ranges);
    while !cells.is_empty() {
        let child = cells.next_number(child_cells)?;
        let parent = cells.next_number(parent_cells)?;
        let window = cells.next_number(size_cells)?;
        let Some(offset) = address.checked_sub(child) else {
            continue;
        };
        if offset < window && size <= window - offset {
            return parent.checked_add(offset);
        }
    }
    None
}

/// The windows through which the CPU reaches a PCI host bridge's devices: memory and I/O.
pub fn pci_windows(bridge: Node<'_, '_>) -> Result<Vec<MachineRange>, &'static str> {
    let Some((ranges, above)) = bridge.value("ranges").zip(bridge.parent()) else {
        return Ok(Vec::new());
    };
    let ((child_cells, size_cells), (parent_cells, _)) =
        (bridge.child_cells(), above.child_cells());
    if child_cells != PCI_ADDRESS_CELLS
        || !(1..=2).contains(&parent_cells)
        || !(1..=2).contains(&size_cells)
    {
        return Err("the cells of its ranges are not a PCI host bridge's");
    }
    let mut cells = Cells::new(ranges);
    let mut windows = Vec::new();
    while !cells.is_empty() {
        let entry = cells
            .skip(PCI_ADDRESS_CELLS)
            .and_then(|()| cells.next_number(parent_cells))
            .and_then(|address| Some((address, cells.next_number(size_cells)?)));
        let (address, size) = entry.ok_or("ranges is not a whole number of entries")?;
        let Some(address) = to_cpu(above, address, size) else {
            continue;
        };
        let window = MachineRange::new(MachineAddress::new(address), size);
        windows.push(window.ok_or("an entry of ranges passes 2^64")?);
    }
    Ok(windows)
}

/// The highest address that a bus master at `node` reaches: what the buses above pass through by `dma-ranges`.
/// Without such, nothing is known of a limit.
pub fn dma_mask(node: Node<'_, '_>) -> u64 {
    let mut mask = u64::MAX;
    let mut bus = if is_pci(node) {
        Some(node)
    } else {
        node.parent()
    };
    while let Some((here, above)) = bus.and_then(|here| Some((here, here.parent()?))) {
        if let Some(highest) = highest_reached(here, above) {
            mask = mask.min(highest);
        }
        bus = Some(above);
    }
    mask
}

fn highest_reached(bus: Node<'_, '_>, above: Node<'_, '_>) -> Option<u64> {
    let ranges = bus
        .value("dma-ranges")
        .filter(|ranges| !ranges.is_empty())?;
    let ((child_cells, size_cells), (parent_cells, _)) = (bus.child_cells(), above.child_cells());
    let mut cells = Cells::new(ranges);
    let mut highest = 0;
    while !cells.is_empty() {
        cells.skip(child_cells)?;
        let (address, size) = (
            cells.next_number(parent_cells)?,
            cells.next_number(size_cells)?,
        );
        highest = highest.max(address.saturating_add(size.saturating_sub(1)));
    }
    Some(highest)
}
