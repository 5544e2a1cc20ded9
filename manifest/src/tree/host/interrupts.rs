//! Interrupts of a node by the controller's numbers.
//!
//! Sources: Devicetree Specification 0.4, section 2.4; Linux,
//! Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml for the cells.

use alloc::vec::Vec;

use crate::tree::blob::{Cells, Node};

/// The first INTID that all CPUs share.
const FIRST_SHARED: u32 = 32;

/// The most interrupts that a PLIC or an APLIC has (RISC-V PLIC specification 1.0, 1.1; AIA specification 1.0, 4.5).
const MOST_PLAIN: u32 = 1024;

/// The controller whose interrupts are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Its node, by [`Node::index`].
    pub node: usize,
    /// What its specifiers mean.
    pub numbering: Numbering,
}

/// What a controller's interrupt specifiers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Arm's GICs: type, number, flags. Of each CPU's own (PPI) and of all (SPI).
    Gic,
    /// RISC-V's: the first cell is the number, and 0 is none.
    Plain,
}

impl Numbering {
    /// How many cells it looks at.
    const fn cells(self) -> usize {
        match self {
            Self::Gic => 2,
            Self::Plain => 1,
        }
    }

    /// Whether an interrupt is no CPU's own.
    fn is_shared(self, number: u32) -> bool {
        match self {
            Self::Gic => (FIRST_SHARED..1020).contains(&number) || number >= 4096,
            Self::Plain => true,
        }
    }
}

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
pub fn interrupt_parent<'t, 'a>(node: Node<'t, 'a>) -> Option<Node<'t, 'a>> {
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

/// Takes one specifier of the controller.
fn specifier(cells: &mut Cells<'_>, count: usize, numbering: Numbering) -> Option<u32> {
    let rest = count.checked_sub(numbering.cells())?;
    let first = cells.next_u32()?;
    let number = match numbering {
        Numbering::Gic => intid(first, cells.next_u32()?),
        Numbering::Plain => (1..MOST_PLAIN).contains(&first).then_some(first),
    };
    cells.skip(rest)?;
    number
}

/// All interrupts of `node` that end at the controller, in the tree's order. Those of other controllers, such as a GPIO
/// block, belong to that block's driver and are left out.
pub fn all(node: Node<'_, '_>, lines: Lines) -> Vec<u32> {
    let mut found = Vec::new();
    if let Some(extended) = node.value("interrupts-extended") {
        from_extended(node, extended, lines, &mut found);
    } else if let Some((value, parent)) = node.value("interrupts").zip(interrupt_parent(node)) {
        from_interrupts(parent, value, lines, &mut found);
    }
    if let Some(map) = node.value("interrupt-map") {
        from_map(node, map, lines, &mut found);
    }
    found
}

/// The interrupts of `node` that all CPUs share (SPIs on a GIC), sorted, each once.
pub fn shared(node: Node<'_, '_>, lines: Lines) -> Vec<u32> {
    let mut sorted = Vec::new();
    for number in all(node, lines) {
        if lines.numbering.is_shared(number)
            && let Err(place) = sorted.binary_search(&number)
        {
            sorted.insert(place, number);
        }
    }
    sorted
}

fn from_interrupts(parent: Node<'_, '_>, value: &[u8], lines: Lines, found: &mut Vec<u32>) {
    if parent.index() != lines.node {
        return;
    }
    let Some(count) = cells_of(parent) else {
        return;
    };
    let mut cells = Cells::new(value);
    while !cells.is_empty() {
        match specifier(&mut cells, count, lines.numbering) {
            Some(intid) => found.push(intid),
            None => return,
        }
    }
}

fn from_extended(node: Node<'_, '_>, value: &[u8], lines: Lines, found: &mut Vec<u32>) {
    let mut cells = Cells::new(value);
    while let Some(controller) = cells
        .next_u32()
        .and_then(|phandle| node.tree().by_phandle(phandle))
    {
        let Some(count) = cells_of(controller) else {
            return;
        };
        if controller.index() == lines.node {
            found.extend(specifier(&mut cells, count, lines.numbering));
        } else if cells.skip(count).is_none() {
            return;
        }
    }
}

/// An `interrupt-map`: child address, child specifier, parent, parent address, parent specifier.
fn from_map(nexus: Node<'_, '_>, map: &[u8], lines: Lines, found: &mut Vec<u32>) {
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
        if parent.index() == lines.node {
            found.extend(specifier(&mut cells, count, lines.numbering));
        } else if cells.skip(count).is_none() {
            return;
        }
    }
}
