//! Interrupts of a node by the GIC's numbers.
//!
//! Sources: Devicetree Specification 0.4, section 2.4; Linux,
//! Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml for the cells.

use alloc::vec::Vec;

use super::gic::Gic;
use crate::tree::blob::{Cells, Node};

/// The first INTID that all CPUs share.
const FIRST_SHARED: u32 = 32;

/// A GIC specifier (type, number, flags) as INTID. Types: 0 SPI, 1 PPI, 2 extended SPI, 3 extended PPI.
fn intid(kind: u32, number: u32) -> Option<u32> {
    let (first, count) = match kind {
        0 => (FIRST_SHARED, 988),
        1 => (16, 16),
        2 => (4096, 1024),
        3 => (1056, 64),
        _ => return None,
    };
    (number < count).then(|| first + number)
}

/// The node that `interrupt-parent` names, here or above.
fn interrupt_parent<'t, 'a>(node: Node<'t, 'a>) -> Option<Node<'t, 'a>> {
    let mut at = Some(node);
    while let Some(here) = at {
        if let Some(phandle) = here.u32("interrupt-parent") {
            return node.tree().by_phandle(phandle);
        }
        at = here.parent();
    }
    None
}

fn cells_of(controller: Node<'_, '_>) -> Option<usize> {
    // A specifier of more than eight cells is no specifier.
    controller
        .u32("#interrupt-cells")
        .map(|cells| cells as usize)
        .filter(|cells| (1..=8).contains(cells))
}

/// Takes one specifier of the GIC.
fn specifier(cells: &mut Cells<'_>, count: usize) -> Option<u32> {
    let number = intid(cells.next_u32()?, cells.next_u32()?);
    cells.skip(count.checked_sub(2)?)?;
    number
}

/// All interrupts of `node` that end at the GIC, in the tree's order. Those of other controllers, such as a GPIO
/// block, belong to that block's driver and are left out.
pub fn all(node: Node<'_, '_>, gic: &Gic) -> Vec<u32> {
    let mut found = Vec::new();
    if let Some(extended) = node.value("interrupts-extended") {
        from_extended(node, extended, gic, &mut found);
    } else if let Some((value, parent)) = node.value("interrupts").zip(interrupt_parent(node)) {
        from_interrupts(parent, value, gic, &mut found);
    }
    if let Some(map) = node.value("interrupt-map") {
        from_map(node, map, gic, &mut found);
    }
    found
}

/// The interrupts of `node` that all CPUs share (SPIs), sorted, each once.
pub fn shared(node: Node<'_, '_>, gic: &Gic) -> Vec<u32> {
    let mut sorted = Vec::new();
    for intid in all(node, gic) {
        if ((FIRST_SHARED..1020).contains(&intid) || intid >= 4096)
            && let Err(place) = sorted.binary_search(&intid)
        {
            sorted.insert(place, intid);
        }
    }
    sorted
}

fn from_interrupts(parent: Node<'_, '_>, value: &[u8], gic: &Gic, found: &mut Vec<u32>) {
    if parent.index() != gic.node {
        return;
    }
    let Some(count) = cells_of(parent) else {
        return;
    };
    let mut cells = Cells::new(value);
    while !cells.is_empty() {
        match specifier(&mut cells, count) {
            Some(intid) => found.push(intid),
            None => return,
        }
    }
}

fn from_extended(node: Node<'_, '_>, value: &[u8], gic: &Gic, found: &mut Vec<u32>) {
    let mut cells = Cells::new(value);
    while let Some(controller) = cells
        .next_u32()
        .and_then(|phandle| node.tree().by_phandle(phandle))
    {
        let Some(count) = cells_of(controller) else {
            return;
        };
        if controller.index() == gic.node {
            found.extend(specifier(&mut cells, count));
        } else if cells.skip(count).is_none() {
            return;
        }
    }
}

/// An `interrupt-map`: child address, child specifier, parent, parent address, parent specifier.
fn from_map(nexus: Node<'_, '_>, map: &[u8], gic: &Gic, found: &mut Vec<u32>) {
    let Some(child_cells) = cells_of(nexus) else {
        return;
    };
    let child_cells = nexus.child_cells().0.saturating_add(child_cells);
    let mut cells = Cells::new(map);
    while cells.skip(child_cells).is_some() {
        let parent = cells
            .next_u32()
            .and_then(|phandle| nexus.tree().by_phandle(phandle));
        let Some((parent, count)) = parent.and_then(|parent| Some((parent, cells_of(parent)?)))
        else {
            return;
        };
        // A controller without #address-cells has none in the map, unlike a bus.
        let address = parent
            .u32("#address-cells")
            .map_or(0, |cells| cells as usize);
        if cells.skip(address).is_none() {
            return;
        }
        if parent.index() == gic.node {
            found.extend(specifier(&mut cells, count));
        } else if cells.skip(count).is_none() {
            return;
        }
    }
}
