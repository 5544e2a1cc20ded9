//! `reg` as the CPU sees it: through the `ranges` of every bus above.
//!
//! Source: Devicetree Specification 0.4, sections 2.3.6 (`reg`) and 2.3.8 (`ranges`); IEEE 1275 PCI bus binding
//! for the three-cell addresses of PCI; Linux, drivers/of/address.c, for an entry that is larger than a window.

use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange};

use crate::tree::blob::{Cells, Node, Tree};

/// The address cells of a PCI bus: one of flags, two of address.
pub const PCI_ADDRESS_CELLS: usize = 3;

/// The most windows that are taken as one for an entry of `reg`. Trees of real boards need two or three.
const MOST_JOINED: usize = 32;

/// What the CPU reaches.
#[derive(Debug, Default)]
pub struct Reached {
    pub ranges: Vec<MachineRange>,
    /// Whether one of them is cut off where a window of a bus ends.
    pub is_cut: bool,
}

impl Reached {
    /// Adds a range that was asked for with `size`.
    fn add(&mut self, (address, reach): (u64, u64), size: u64) -> Option<()> {
        let range = MachineRange::new(MachineAddress::new(address), reach)?;
        self.ranges.push(range);
        self.is_cut |= reach < size;
        Some(())
    }
}

/// Whether the children's addresses are PCI's.
pub fn is_pci(node: Node<'_, '_>) -> bool {
    matches!(node.string("device_type"), Some("pci" | "pciex"))
        || node.child_cells().0 == PCI_ADDRESS_CELLS
}

/// The ranges of `reg` that the CPU can address. None if the bus above has no such (I2C, PCI devices, `/cpus`).
pub fn registers(node: Node<'_, '_>) -> Result<Reached, &'static str> {
    entries(node, to_cpu)
}

/// The ranges of `reg` as they stand: for nodes whose parent's addresses are the root's.
pub fn untranslated(node: Node<'_, '_>) -> Result<Vec<MachineRange>, &'static str> {
    Ok(entries(node, |_, address, size| Some((address, size)))?.ranges)
}

fn entries(
    node: Node<'_, '_>,
    to_cpu: impl Fn(Node<'_, '_>, u64, u64) -> Option<(u64, u64)>,
) -> Result<Reached, &'static str> {
    let mut found = Reached::default();
    let Some((reg, bus)) = node.value("reg").zip(node.parent()) else {
        return Ok(found);
    };
    let (address_cells, size_cells) = bus.child_cells();
    if is_pci(bus) || size_cells == 0 || address_cells == 0 {
        return Ok(found);
    }
    if address_cells > 2 || size_cells > 2 {
        return Err("the bus above has more than two cells an address or size");
    }
    if reg.len() % ((address_cells + size_cells) * 4) != 0 {
        return Err("reg is not a whole number of entries");
    }
    let mut cells = Cells::new(reg);
    while !cells.is_empty() {
        let entry = cells
            .next_number(address_cells)
            .zip(cells.next_number(size_cells));
        let (address, size) = entry.ok_or("reg is not a whole number of entries")?;
        if let Some(reached) = to_cpu(bus, address, size) {
            let added = found.add(reached, size);
            added.ok_or("an entry of reg passes 2^64")?;
        }
    }
    Ok(found)
}

/// The CPU's address for an address on `bus`, and how many of `size` bytes it reaches there in one piece; `None` if it
/// doesn't reach the first.
fn to_cpu(bus: Node<'_, '_>, address: u64, size: u64) -> Option<(u64, u64)> {
    let (mut bus, mut address, mut size) = (bus, address, size);
    // The root has no bus above it; elsewhere no `ranges` means no way through, and an empty one 1:1.
    while let Some(above) = bus.parent() {
        let ranges = bus.value("ranges")?;
        if !ranges.is_empty() {
            (address, size) = translate(bus, above, ranges, address, size)?;
        }
        bus = above;
    }
    Some((address, size))
}

/// An entry of `ranges`.
struct Window {
    /// The address on the bus; `None` if it has more bits than an address, as PCI's flags.
    child: Option<u64>,
    /// The address above.
    parent: u64,
    size: u64,
}

impl Window {
    /// Where an address on the bus comes out above, and how many bytes of the window there are from it on.
    fn through(&self, address: u64) -> Option<(u64, u64)> {
        let offset = address.checked_sub(self.child?)?;
        let left = self.size.checked_sub(offset).filter(|&left| left > 0)?;
        Some((self.parent.checked_add(offset)?, left))
    }
}

/// The entries of `ranges` of `bus`, up to the first that is cut short.
fn windows<'a>(
    bus: Node<'_, '_>,
    above: Node<'_, '_>,
    ranges: &'a [u8],
) -> impl Iterator<Item = Window> + use<'a> {
    let ((child_cells, size_cells), (parent_cells, _)) = (bus.child_cells(), above.child_cells());
    let mut cells = Cells::new(ranges);
    core::iter::from_fn(move || {
        // Entries of no cells would never end.
        if cells.is_empty() || parent_cells == 0 {
            return None;
        }
        let mut child = cells;
        let child = child.next_number(child_cells);
        cells.skip(child_cells)?;
        let parent = cells.next_number(parent_cells)?;
        Some(Window {
            child,
            parent,
            size: cells.next_number(size_cells)?,
        })
    })
}

/// As [`to_cpu`] through one bus. The window that has the first byte says where it comes out, as Linux does; windows that
/// go on on both sides are as good as one.
fn translate(
    bus: Node<'_, '_>,
    above: Node<'_, '_>,
    ranges: &[u8],
    address: u64,
    size: u64,
) -> Option<(u64, u64)> {
    let through = |address| windows(bus, above, ranges).find_map(|window| window.through(address));
    let (start, mut reach) = through(address)?;
    for _ in 1..MOST_JOINED {
        if reach >= size {
            break;
        }
        let next = address.checked_add(reach).and_then(through);
        match next {
            Some((next, left)) if start.checked_add(reach) == Some(next) => {
                reach = reach.saturating_add(left);
            }
            _ => break,
        }
    }
    Some((start, reach.min(size)))
}

/// The windows through which the CPU reaches a PCI host bridge's devices: memory and I/O.
pub fn pci_windows(bridge: Node<'_, '_>) -> Result<Reached, &'static str> {
    let mut found = Reached::default();
    let Some((ranges, above)) = bridge.value("ranges").zip(bridge.parent()) else {
        return Ok(found);
    };
    let ((child_cells, size_cells), (parent_cells, _)) =
        (bridge.child_cells(), above.child_cells());
    if child_cells != PCI_ADDRESS_CELLS
        || !(1..=2).contains(&parent_cells)
        || !(1..=2).contains(&size_cells)
    {
        return Err("the cells of its ranges are not a PCI host bridge's");
    }
    if ranges.len() % ((child_cells + parent_cells + size_cells) * 4) != 0 {
        return Err("ranges is not a whole number of entries");
    }
    for window in windows(bridge, above, ranges) {
        if let Some(reached) = to_cpu(above, window.parent, window.size) {
            let added = found.add(reached, window.size);
            added.ok_or("an entry of ranges passes 2^64")?;
        }
    }
    Ok(found)
}

/// What the windows of all buses but PCI's take of the CPU's addresses, whether or not a device is listed there.
pub fn bus_windows(tree: &Tree<'_>) -> Vec<MachineRange> {
    let mut found = Vec::new();
    for bus in tree.nodes().filter(|&bus| !is_pci(bus)) {
        let Some((ranges, above)) = bus.value("ranges").zip(bus.parent()) else {
            continue;
        };
        for window in windows(bus, above, ranges) {
            let reached = to_cpu(above, window.parent, window.size);
            let range =
                |(address, reach)| MachineRange::saturating(MachineAddress::new(address), reach);
            found.extend(reached.map(range));
        }
    }
    found
}
