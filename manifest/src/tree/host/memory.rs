//! RAM, and what firmware keeps of it.
//!
//! Source: Devicetree Specification 0.4, sections 3.4 (`/memory`), 3.5 (`/reserved-memory`) and 5.3 (the memory
//! reservation block).

use alloc::string::String;
use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange, RamBank, Reserved, Severity};

use super::{BootFacts, Reader};
use crate::origin::{Position, WhichTree};

/// Every bank of every enabled memory node, wherever it stands. An entry of no bytes, which boards have that leave
/// the filling in to the boot loader, is no bank.
pub fn ram(reader: &mut Reader<'_, '_, '_>) -> Vec<RamBank> {
    let mut banks = Vec::new();
    for node in reader.tree.nodes() {
        if node.string("device_type") != Some("memory") || !node.is_enabled() {
            continue;
        }
        let ranges = reader.registers(node);
        let origin = reader.origin(node);
        let filled = ranges.into_iter().filter(|range| !range.is_empty());
        banks.extend(filled.map(|range| RamBank {
            range,
            node: None,
            origin,
        }));
    }
    banks
}

/// The children of `/reserved-memory` that have a place, and the memory reservation block.
pub fn reserved(reader: &mut Reader<'_, '_, '_>, boot: &BootFacts) -> Vec<Reserved> {
    let mut reserved = Vec::new();
    for parent in reader
        .tree
        .root()
        .children()
        .filter(|node| node.name() == "reserved-memory")
    {
        for node in parent.children().filter(|node| node.is_enabled()) {
            if !node.has("reg") {
                // The operating system chooses the place of such a region in its own memory.
                reader.problem(
                    node,
                    Severity::Warning,
                    "a reserved region without a place",
                    "it has a size only: the hardware domain's kernel allocates it in its own memory",
                );
                continue;
            }
            let ranges = reader.registers(node);
            let origin = reader.origin(node);
            let no_map = node.has("no-map");
            reserved.extend(
                ranges
                    .into_iter()
                    .filter(|range| !range.is_empty())
                    .map(|range| Reserved {
                        range,
                        name: String::from(node.base_name()),
                        no_map,
                        origin,
                    }),
            );
        }
    }
    reserved.extend(reservation_block(reader, boot));
    reserved
}

/// Boot loaders enter the tree and the ramdisk that they pass too; those ranges are known from the boot facts and
/// are free again once they have been read.
fn reservation_block(reader: &mut Reader<'_, '_, '_>, boot: &BootFacts) -> Vec<Reserved> {
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
            no_map: false,
            origin,
        });
    }
    reserved
}
