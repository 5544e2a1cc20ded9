//! Interrupts of a node by the controller's numbers.
//!
//! Sources: Devicetree Specification 0.4, section 2.4; Linux, drivers/of/irq.c for what it leaves open, and
//! Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml for the cells.

use alloc::vec::Vec;

use super::address;
use crate::tree::blob::{Cells, MAX_DEPTH, Node};

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
    /// Whether an interrupt is no CPU's own.
    fn is_shared(self, number: u32) -> bool {
        match self {
            Self::Gic => (FIRST_SHARED..1020).contains(&number) || number >= 4096,
            Self::Plain => true,
        }
    }
}

/// The type of a GIC's specifiers that all CPUs share.
const SPI: u32 = 0;

/// A GIC specifier (type, number, flags) as INTID. Types: 0 SPI, 1 PPI, 2 extended SPI, 3 extended PPI.
fn intid(kind: u32, number: u32) -> Option<u32> {
    let (first, count) = match kind {
        SPI => (FIRST_SHARED, 988),
        1 => (16, 16),
        2 => (4096, 1024),
        3 => (1056, 64),
        _ => return None,
    };
    (number < count).then(|| first + number)
}

/// The controller or nexus that a node's interrupts go to: going up, by `interrupt-parent` where a node has one and to the
/// node above where it doesn't, the first that says how many cells a specifier has.
///
/// Source: Devicetree Specification 0.4, section 2.4.1; Linux, drivers/of/irq.c, `of_irq_find_parent`.
pub fn interrupt_parent<'t, 'a>(node: Node<'t, 'a>) -> Option<Node<'t, 'a>> {
    let mut at = node;
    // Interrupt parents may lead in a circle.
    for _ in 0..MAX_DEPTH {
        at = match at.u32("interrupt-parent") {
            Some(phandle) => at.tree().by_phandle(phandle)?,
            None => at.parent()?,
        };
        if at.has("#interrupt-cells") {
            return Some(at);
        }
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

/// The number that a specifier of the controller stands for.
fn number(specifier: &[u8], numbering: Numbering) -> Option<u32> {
    let mut cells = Cells::new(specifier);
    let first = cells.next_u32()?;
    match numbering {
        Numbering::Gic => intid(first, cells.next_u32()?),
        Numbering::Plain => (1..MOST_PLAIN).contains(&first).then_some(first),
    }
}

/// Whether what goes through the node's `interrupt-map` counts as the node's own: functions behind a PCI host bridge
/// aren't in the tree, and a controller's driver programs the lines of its map itself (Linux, drivers/of/irq.c,
/// `imap_abusers`). Any other node with a map is a bus, whose lines are those of the devices on it.
fn keeps_lines(node: Node<'_, '_>) -> bool {
    address::is_pci(node) || node.has("interrupt-controller")
}

/// All interrupts of `node` that end at the controller, in the tree's order. Those of other controllers, such as a GPIO
/// block, belong to that block's driver and are left out.
pub fn all(node: Node<'_, '_>, lines: Lines) -> Vec<u32> {
    let mut found = Vec::new();
    if let Some(extended) = node.value("interrupts-extended") {
        from_extended(node, extended, lines, &mut found);
    } else if let Some((value, parent)) = node.value("interrupts").zip(interrupt_parent(node)) {
        from_interrupts(node, parent, value, lines, &mut found);
    }
    if let Some(map) = node.value("interrupt-map").filter(|_| keeps_lines(node)) {
        let ends = |entry: Entry<'_, '_>| resolve(entry.parent, entry.unit, entry.specifier, lines);
        found.extend(entries(node, map).filter_map(ends));
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

/// The interrupts of `node` that all CPUs share, if it says them by the GIC whose node is `gic`.
pub fn of_gic(node: Node<'_, '_>, gic: Node<'_, '_>) -> Vec<u32> {
    let lines = Lines {
        node: gic.index(),
        numbering: Numbering::Gic,
    };
    shared(node, lines)
}

/// The unit address that a nexus tells a node's interrupts apart by is what `reg` begins with.
fn unit<'a>(node: Node<'_, 'a>) -> &'a [u8] {
    node.value("reg").unwrap_or_default()
}

fn from_interrupts(
    node: Node<'_, '_>,
    parent: Node<'_, '_>,
    value: &[u8],
    lines: Lines,
    found: &mut Vec<u32>,
) {
    let Some(count) = cells_of(parent) else {
        return;
    };
    let mut cells = Cells::new(value);
    while let Some(specifier) = cells.take(count) {
        match resolve(parent, unit(node), specifier, lines) {
            Some(number) => found.push(number),
            // Those after it would move to its place.
            None if parent.index() == lines.node => return,
            None => {}
        }
    }
}

fn from_extended(node: Node<'_, '_>, value: &[u8], lines: Lines, found: &mut Vec<u32>) {
    let mut cells = Cells::new(value);
    let mut next = || {
        let parent = node.tree().by_phandle(cells.next_u32()?)?;
        Some((parent, cells.take(cells_of(parent)?)?))
    };
    while let Some((parent, specifier)) = next() {
        found.extend(resolve(parent, unit(node), specifier, lines));
    }
}

/// Controllers before a GIC that take its specifiers and raise the line of the same number, by how their `compatible`
/// begins and ends: they only wake the machine, or turn polarities. Cells alone don't tell: `ti,irq-crossbar` and
/// `qcom,ipcc` have three too, of another meaning. Some have an interrupt of their own besides.
///
/// Sources: Linux, Documentation/devicetree/bindings/interrupt-controller/: nvidia,tegra20-ictlr.txt,
/// mediatek,mtk-sysirq.txt, allwinner,sun6i-a31-r-intc.yaml; power/fsl,imx-gpcv2.yaml; and their drivers.
const PASSING: [(&str, &str); 4] = [
    ("nvidia,tegra", "-ictlr"),
    ("mediatek,", "-sysirq"),
    ("allwinner,", "-r-intc"),
    ("fsl,imx", "-gpc"),
];

/// The cells of a specifier of [`PASSING`]. Allwinner's older binding has two, for another interrupt.
const PASSED_CELLS: usize = 3;

/// Whether the node is one of [`PASSING`].
fn passes_on(node: Node<'_, '_>) -> bool {
    let is_passing = |name: &str| {
        let mut known = PASSING.iter();
        known.any(|(start, end)| name.starts_with(start) && name.ends_with(end))
    };
    cells_of(node) == Some(PASSED_CELLS) && names(node).any(is_passing)
}

/// The names of a controller that count. They are looked through for each of a device's interrupts, and a tree could have
/// any number of either.
fn names<'a>(node: Node<'_, 'a>) -> impl Iterator<Item = &'a str> {
    node.strings("compatible").take(8)
}

/// Qualcomm's wake-up controller. Its specifiers (pin, flags) go to the GIC's SPIs by `qcom,pdc-ranges`: first pin, first
/// SPI, count.
///
/// Source: Linux, Documentation/devicetree/bindings/interrupt-controller/qcom,pdc.yaml; drivers/irqchip/qcom-pdc.c.
const PDC: &str = "qcom,pdc";

/// The most ranges of a PDC that are looked through. Real ones have up to 57.
const MOST_PDC_RANGES: usize = 128;

/// The INTID of the SPI that a PDC raises for a specifier.
fn pdc_line(pdc: Node<'_, '_>, specifier: &[u8]) -> Option<u32> {
    let pin = Cells::new(specifier).next_u32()?;
    let mut ranges = Cells::new(pdc.value("qcom,pdc-ranges")?);
    for _ in 0..MOST_PDC_RANGES {
        let (first, spi) = (ranges.next_u32()?, ranges.next_u32()?);
        let count = ranges.next_u32()?;
        if let Some(place) = pin.checked_sub(first).filter(|&place| place < count) {
            return intid(SPI, spi.checked_add(place)?);
        }
    }
    None
}

/// The number of an interrupt that goes to `parent`, if it ends at the controller: through the map of every nexus and the
/// controllers that pass lines on, on the way. What has cells but is neither nexus nor controller passes it on as it is, as Linux has it.
fn resolve<'a>(
    mut parent: Node<'_, 'a>,
    mut unit: &'a [u8],
    mut specifier: &'a [u8],
    lines: Lines,
) -> Option<u32> {
    // Maps may lead in a circle.
    for _ in 0..MAX_DEPTH {
        if parent.index() == lines.node {
            return number(specifier, lines.numbering);
        }
        if passes_on(parent) {
            // Their drivers refuse whatever is no SPI.
            Cells::new(specifier)
                .next_u32()
                .filter(|&kind| kind == SPI)?;
            parent = interrupt_parent(parent)?;
            continue;
        }
        if names(parent).any(|name| name == PDC) {
            let is_above = |above: &Node<'_, '_>| above.index() == lines.node;
            interrupt_parent(parent).filter(is_above)?;
            return pdc_line(parent, specifier).filter(|_| lines.numbering == Numbering::Gic);
        }
        if keeps_lines(parent) {
            return None;
        }
        let Some(map) = parent.value("interrupt-map") else {
            parent = interrupt_parent(parent)?;
            continue;
        };
        let mask = parent.value("interrupt-map-mask").unwrap_or_default();
        let entry = entries(parent, map).find(|entry| entry.is_for(unit, specifier, mask))?;
        (parent, unit, specifier) = (entry.parent, entry.unit, entry.specifier);
    }
    None
}

/// An entry of an `interrupt-map`.
struct Entry<'t, 'a> {
    /// The unit address and the specifier on this side.
    child: &'a [u8],
    parent: Node<'t, 'a>,
    /// The unit address on the parent's side.
    unit: &'a [u8],
    specifier: &'a [u8],
}

impl Entry<'_, '_> {
    /// Whether an interrupt goes by it: all bits in the mask are the same. What a mask is too short to say counts.
    fn is_for(&self, unit: &[u8], specifier: &[u8], mask: &[u8]) -> bool {
        let unit_bytes = self.child.len().saturating_sub(specifier.len());
        let unit = unit.iter().chain(core::iter::repeat(&0)).take(unit_bytes);
        let mask = mask.iter().chain(core::iter::repeat(&0xff));
        let mut bytes = self.child.iter().zip(unit.chain(specifier)).zip(mask);
        self.parent.is_enabled() && bytes.all(|((known, asked), mask)| (known ^ asked) & mask == 0)
    }
}

/// The entries of an `interrupt-map`, up to the first that can't be read.
fn entries<'t, 'a>(
    nexus: Node<'t, 'a>,
    map: &'a [u8],
) -> impl Iterator<Item = Entry<'t, 'a>> + use<'t, 'a> {
    let child_cells = cells_of(nexus).map(|cells| nexus.child_cells().0.saturating_add(cells));
    let mut cells = Cells::new(map);
    core::iter::from_fn(move || {
        let child = cells.take(child_cells?)?;
        let parent = nexus.tree().by_phandle(cells.next_u32()?)?;
        // A controller without #address-cells has none in the map, unlike a bus.
        let address = parent
            .u32("#address-cells")
            .map_or(0, |cells| cells as usize);
        Some(Entry {
            child,
            parent,
            unit: cells.take(address)?,
            specifier: cells.take(cells_of(parent)?)?,
        })
    })
}
