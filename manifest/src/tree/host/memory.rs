//! RAM, and what firmware keeps of it.
//!
//! Source: Devicetree Specification 0.4, sections 3.4 (`/memory`), 3.5 (`/reserved-memory`) and 5.3 (the memory
//! reservation block); dt-schema, numa.yaml.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{
    Code, HostDevice, MachineAddress, MachineRange, RamBank, Reservation, Reserved, Severity,
};

use super::{BootFacts, Dynamic, Reader, dynamic};
use crate::origin::{Position, WhichTree};
use crate::tree::blob::{Cells, Node, Tree};

/// Every bank of every enabled memory node, wherever it stands. An entry of no bytes, which boards have that leave
/// the filling in to the boot loader, is no bank; a tree with no other says so.
pub fn ram(reader: &mut Reader<'_, '_, '_>) -> Vec<RamBank> {
    let mut banks = Vec::new();
    for node in memory_nodes(reader.tree) {
        let ranges = reader.registers(node);
        let origin = reader.origin(node);
        let number = node.u32("numa-node-id");
        let filled = ranges.into_iter().filter(|range| !range.is_empty());
        banks.extend(filled.map(|range| RamBank {
            range,
            node: number,
            origin,
        }));
    }
    if banks.is_empty() {
        not_described(reader);
    }
    banks
}

fn memory_nodes<'t, 'a>(tree: &'t Tree<'a>) -> impl Iterator<Item = Node<'t, 'a>> {
    tree.nodes()
        .filter(|node| node.string("device_type") == Some("memory") && node.is_enabled())
}

fn not_described(reader: &mut Reader<'_, '_, '_>) {
    let tree = reader.tree;
    let node = memory_nodes(tree).next();
    let (what, origin) = match node {
        Some(node) => ("a memory node of no bytes", reader.origin(node)),
        None => ("no memory node", reader.origin(tree.root())),
    };
    let why = "the boot loader fills the memory in, so this tree doesn't tell where RAM is and how much there is";
    let start = match node.and_then(first_address) {
        Some(start) => format!("{start:#x}"),
        None => String::from(".."),
    };
    let help = format!("memory = [{{ start = {start}, size = \"..\" }}] in [host]");
    let code = Code::MemoryNotDescribed;
    reader.add(code, Severity::Error, String::from(what), origin, why, help);
}

/// Where RAM begins, of a node whose size is left to the boot loader.
fn first_address(node: Node<'_, '_>) -> Option<u64> {
    let cells = node.parent()?.child_cells().0;
    Cells::new(node.value("reg")?).next_number(cells)
}

/// What `/reserved-memory` says.
#[derive(Default)]
pub struct Regions {
    /// Regions that have a place.
    pub fixed: Vec<Reserved>,
    /// Regions that a kernel places.
    pub dynamic: Vec<Dynamic>,
    /// Those with a place that a driver asks for, with their nodes' indices: who has them reaches them as it does a
    /// device's memory.
    pub devices: Vec<(usize, HostDevice)>,
}

/// The children of `/reserved-memory`.
pub fn reserved(reader: &mut Reader<'_, '_, '_>) -> Regions {
    let mut regions = Regions::default();
    let tree = reader.tree;
    let parents = tree.root().children();
    let mut named: Option<Vec<bool>> = None;
    for parent in parents.filter(|node| node.name() == "reserved-memory") {
        let mut nodes = parent.children().filter(|node| node.is_enabled());
        let is_known = parent.has("ranges") && parent.child_cells() == tree.root().child_cells();
        if !is_known && let Some(node) = nodes.next() {
            let why = "its parent has no ranges, or not the root's cells: Linux ignores such regions, here they are kept";
            reader.problem(
                node,
                Severity::Warning,
                "a reserved region of an unknown bus",
                why,
            );
        }
        for node in parent.children().filter(|node| node.is_enabled()) {
            if node.has("reg") {
                let named = named.get_or_insert_with(|| named_regions(tree));
                // What Linux ignores it would use for anything.
                let kind = if node.has("no-map") {
                    Reservation::NoMap
                } else if is_known {
                    Reservation::Kernel
                } else {
                    Reservation::Kept
                };
                fixed(reader, node, kind, named, &mut regions);
            } else {
                let origin = reader.origin(node);
                match dynamic::read(node, origin) {
                    Some(region) => regions.dynamic.push(region),
                    None => reader.problem(
                        node,
                        Severity::Warning,
                        "a reserved region that is left out",
                        "it has neither a place nor a size",
                    ),
                }
            }
        }
    }
    regions
}

/// For each node whether `memory-region` of an enabled one names it.
fn named_regions(tree: &Tree<'_>) -> Vec<bool> {
    let mut named = alloc::vec![false; tree.nodes().count()];
    for node in tree.nodes() {
        let Some(value) = node.value("memory-region").filter(|_| node.is_enabled()) else {
            continue;
        };
        let mut cells = Cells::new(value);
        while let Some(phandle) = cells.next_u32() {
            let region = tree.by_phandle(phandle);
            if let Some(named) = region.and_then(|it| named.get_mut(it.index())) {
                *named = true;
            }
        }
    }
    named
}

/// If a driver asks for the region, by `memory-region` or by being its node's own, it's also a device: as such who
/// has it reaches it, RAM or not. What must not be mapped and only firmware uses nobody reaches.
fn fixed(
    reader: &mut Reader<'_, '_, '_>,
    node: Node<'_, '_>,
    kind: Reservation,
    named: &[bool],
    regions: &mut Regions,
) {
    let mut ranges = reader.fixed_regions(node);
    ranges.retain(|range| !range.is_empty());
    let origin = reader.origin(node);
    regions.fixed.extend(ranges.iter().map(|&range| Reserved {
        range,
        name: String::from(node.base_name()),
        kind,
        origin,
    }));
    let is_named = named.get(node.index()) == Some(&true);
    if (is_named || node.has("compatible")) && !ranges.is_empty() {
        let device = HostDevice {
            path: node.path(),
            ranges,
            regions: node
                .u32("phandle")
                .filter(|_| is_named)
                .into_iter()
                .collect(),
            origin,
            ..HostDevice::default()
        };
        regions.devices.push((node.index(), device));
    }
}

/// Boot loaders enter the tree and the ramdisk that they pass too; those ranges are known from the boot facts and
/// are free again once they have been read.
pub fn reservation_block(reader: &mut Reader<'_, '_, '_>, boot: &BootFacts) -> Vec<Reserved> {
    let placed = [Some(boot.hypervisor), Some(boot.host_tree), boot.container];
    let mut reserved = Vec::new();
    for &(address, size) in reader.tree.reservations() {
        let range = MachineRange::saturating(MachineAddress::new(address), size);
        let frames = range.frames_touched();
        let is_placed = placed
            .iter()
            .flatten()
            .any(|placed| placed.frames_touched().covers(&frames));
        if range.is_empty() || is_placed {
            continue;
        }
        let origin = reader.origins.add(Position::Node {
            tree: WhichTree::Host,
            path: String::from("/memreserve/"),
            manifest: None,
        });
        reserved.push(Reserved {
            range,
            name: String::from("memreserve"),
            kind: Reservation::Kept,
            origin,
        });
    }
    reserved
}
