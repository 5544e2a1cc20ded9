//! Interrupts of a node by the controller's numbers.
//!
//! Sources: Devicetree Specification 0.4, section 2.4; Linux, drivers/of/irq.c for what it leaves open, and
//! Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml for the cells.

use alloc::vec::Vec;

use super::address;
use crate::tree::blob::{Cells, MAX_DEPTH, Node};

/// Steps from node to node and from entry to entry of a map for all interrupts of a tree. Boards take up to 983.
const MOST_STEPS: u32 = 1 << 18;

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

/// An interrupt that ends at the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The controller's number (INTID on Arm).
    pub number: u32,
    /// How a GIC's specifier ends: edge or level.
    pub flags: u32,
}

/// The interrupts of a node.
#[derive(Debug, Default)]
pub struct Interrupts<'t, 'a> {
    /// Those that end at the controller, in the tree's order.
    pub lines: Vec<Line>,
    /// The first controller with numbers of its own that another one goes to. It is no part of the node.
    pub other: Option<Node<'t, 'a>>,
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

/// The first INTID and the count of each type: SPI, PPI, extended SPI, extended PPI.
const TYPES: [(u32, u32); 4] = [(FIRST_SHARED, 988), (16, 16), (4096, 1024), (1056, 64)];

/// A GIC specifier (type, number, flags) as INTID.
fn intid(kind: u32, number: u32) -> Option<u32> {
    let (first, count) = TYPES.get(kind as usize)?;
    (number < *count).then(|| first + number)
}

/// The GIC specifier of a line.
pub fn specifier(line: Line) -> Option<[u32; 3]> {
    let mut types = (0..).zip(TYPES);
    types.find_map(|(kind, (first, count))| {
        let number = line.number.checked_sub(first)?;
        (number < count).then_some([kind, number, line.flags])
    })
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

/// The line that a specifier of the controller stands for.
fn line(specifier: &[u8], numbering: Numbering) -> Option<Line> {
    let mut cells = Cells::new(specifier);
    let first = cells.next_u32()?;
    let number = match numbering {
        Numbering::Gic => intid(first, cells.next_u32()?)?,
        Numbering::Plain => Some(first).filter(|first| (1..MOST_PLAIN).contains(first))?,
    };
    let flags = cells.next_u32().unwrap_or_default();
    Some(Line { number, flags })
}

/// Whether what goes through the node's `interrupt-map` counts as the node's own: functions behind a PCI host bridge
/// aren't in the tree, and a controller's driver programs the lines of its map itself (Linux, drivers/of/irq.c,
/// `imap_abusers`). Any other node with a map is a bus, whose lines are those of the devices on it.
fn keeps_lines(node: Node<'_, '_>) -> bool {
    address::is_pci(node) || node.has("interrupt-controller")
}

/// Those of the lines that all CPUs share (SPIs on a GIC), sorted, each once.
pub fn shared(lines: &[Line], numbering: Numbering) -> Vec<u32> {
    let mut sorted = Vec::new();
    for Line { number, .. } in lines {
        if numbering.is_shared(*number)
            && let Err(place) = sorted.binary_search(number)
        {
            sorted.insert(place, *number);
        }
    }
    sorted
}

/// The unit address that a nexus tells a node's interrupts apart by is what `reg` begins with.
fn unit<'a>(node: Node<'_, 'a>) -> &'a [u8] {
    node.value("reg").unwrap_or_default()
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
    cells_of(node) == Some(PASSED_CELLS) && node.strings("compatible").any(is_passing)
}

/// Qualcomm's wake-up controller. Its specifiers (pin, flags) go to the GIC's SPIs by `qcom,pdc-ranges`: first pin, first
/// SPI, count.
///
/// Source: Linux, Documentation/devicetree/bindings/interrupt-controller/qcom,pdc.yaml; drivers/irqchip/qcom-pdc.c.
const PDC: &str = "qcom,pdc";

/// What a GIC sees of the flags that a PDC is given: rising edges, and the high level.
fn beyond_pdc(flags: u32) -> u32 {
    // Edges are the lowest two bits (dt-bindings/interrupt-controller/irq.h).
    match flags & 3 {
        0 => 4,
        _ => 1,
    }
}

/// What a node does with the interrupts that go to it.
#[derive(Clone, Copy)]
enum Kind<'a> {
    /// It passes them on as they are: what has cells but is neither nexus nor controller, as Linux has it.
    Passes,
    /// The same, and no other than SPIs: see [`PASSING`].
    PassesShared,
    /// See [`PDC`]: `qcom,pdc-ranges`.
    Pdc(&'a [u8]),
    /// A nexus: `interrupt-map` and its mask.
    Maps(&'a [u8], &'a [u8]),
    /// It is a controller with numbers of its own.
    Controls,
    /// A PCI bridge: they are functions', and these aren't in the tree.
    Keeps,
}

/// All that counts of a node that interrupts go to.
#[derive(Clone, Copy)]
struct Station<'t, 'a> {
    kind: Kind<'a>,
    /// Cells of a specifier.
    cells: Option<usize>,
    /// Cells of a unit address.
    address_cells: Option<usize>,
    is_enabled: bool,
    /// Where it passes on what it does.
    next: Option<Node<'t, 'a>>,
}

impl<'t, 'a> Station<'t, 'a> {
    fn read(node: Node<'t, 'a>) -> Self {
        let kind = if passes_on(node) {
            Kind::PassesShared
        } else if node.is_compatible(PDC) {
            Kind::Pdc(node.value("qcom,pdc-ranges").unwrap_or_default())
        } else if node.has("interrupt-controller") {
            Kind::Controls
        } else if address::is_pci(node) {
            Kind::Keeps
        } else {
            match node.value("interrupt-map") {
                Some(map) => Kind::Maps(map, node.value("interrupt-map-mask").unwrap_or_default()),
                None => Kind::Passes,
            }
        };
        let passes = matches!(kind, Kind::Passes | Kind::PassesShared | Kind::Pdc(_));
        Self {
            kind,
            cells: cells_of(node),
            address_cells: node.u32("#address-cells").map(|cells| cells as usize),
            is_enabled: node.is_enabled(),
            next: if passes { interrupt_parent(node) } else { None },
        }
    }
}

/// Where an interrupt ends.
enum End<'t, 'a> {
    Line(Line),
    /// At a controller with numbers of its own.
    Other(Node<'t, 'a>),
}

/// The ways of a tree's interrupts. What a node on them says is read once, since any number of interrupts may go there, and
/// a node may have any number of properties; and so much is walked and no more.
pub struct Ways<'t, 'a> {
    lines: Lines,
    stations: Vec<Station<'t, 'a>>,
    /// The place in `stations` of each node, counted from 1; 0 for those that aren't there.
    places: Vec<u32>,
    steps: u32,
}

impl<'t, 'a> Ways<'t, 'a> {
    /// Those that end at this controller.
    pub fn new(lines: Lines) -> Self {
        Self {
            lines,
            stations: Vec::new(),
            places: Vec::new(),
            steps: MOST_STEPS,
        }
    }

    /// Whether there was more to walk than any machine has: what is missing isn't known.
    pub fn is_cut(&self) -> bool {
        self.steps == 0
    }

    /// Those of all CPUs (SPIs on a GIC) among the node's interrupts, sorted, each once.
    pub fn shared(&mut self, node: Node<'t, 'a>) -> Vec<u32> {
        shared(&self.all(node).lines, self.lines.numbering)
    }

    /// All interrupts of `node`. Those of other controllers, such as a GPIO block, belong to that block's driver.
    pub fn all(&mut self, node: Node<'t, 'a>) -> Interrupts<'t, 'a> {
        let mut found = Interrupts::default();
        if let Some(extended) = node.value("interrupts-extended") {
            self.extended(node, extended, &mut found);
        } else if let Some((value, parent)) = node.value("interrupts").zip(interrupt_parent(node)) {
            self.plain(node, parent, value, &mut found);
        }
        if let Some(map) = node.value("interrupt-map").filter(|_| keeps_lines(node)) {
            let mut entries = Cells::new(map);
            while let Some(entry) = self.entry(node, &mut entries) {
                self.walk(node, entry.parent, entry.unit, entry.specifier, &mut found);
            }
        }
        found
    }

    fn plain(
        &mut self,
        node: Node<'t, 'a>,
        parent: Node<'t, 'a>,
        value: &'a [u8],
        found: &mut Interrupts<'t, 'a>,
    ) {
        let Some(count) = cells_of(parent) else {
            return;
        };
        let mut cells = Cells::new(value);
        while let Some(specifier) = cells.take(count) {
            let is_known = self.walk(node, parent, unit(node), specifier, found);
            // Those after it would move to its place.
            if !is_known && parent.index() == self.lines.node {
                return;
            }
        }
    }

    fn extended(&mut self, node: Node<'t, 'a>, value: &'a [u8], found: &mut Interrupts<'t, 'a>) {
        let mut cells = Cells::new(value);
        while let Some(parent) = cells.next_u32().and_then(|it| node.tree().by_phandle(it)) {
            let count = self.station(parent).and_then(|station| station.cells);
            let Some(specifier) = count.and_then(|count| cells.take(count)) else {
                return;
            };
            self.walk(node, parent, unit(node), specifier, found);
        }
    }

    /// Adds an interrupt of `node` to what was found. Whether it ends at the controller.
    fn walk(
        &mut self,
        node: Node<'t, 'a>,
        parent: Node<'t, 'a>,
        unit: &'a [u8],
        specifier: &'a [u8],
        found: &mut Interrupts<'t, 'a>,
    ) -> bool {
        match self.end(parent, unit, specifier) {
            Some(End::Line(line)) => found.lines.push(line),
            Some(End::Other(other)) if !node.contains(other) => {
                found.other.get_or_insert(other);
                return false;
            }
            Some(End::Other(_)) | None => return false,
        }
        true
    }

    /// Where an interrupt that goes to `parent` ends: through the map of every nexus and the controllers that pass lines
    /// on, on the way.
    fn end(
        &mut self,
        mut parent: Node<'t, 'a>,
        mut unit: &'a [u8],
        mut specifier: &'a [u8],
    ) -> Option<End<'t, 'a>> {
        // Maps may lead in a circle.
        for _ in 0..MAX_DEPTH {
            if parent.index() == self.lines.node {
                return line(specifier, self.lines.numbering).map(End::Line);
            }
            self.step()?;
            let station = self.station(parent)?;
            match station.kind {
                Kind::Passes => parent = station.next?,
                Kind::PassesShared => {
                    // Their drivers refuse whatever is no SPI.
                    let kind = Cells::new(specifier).next_u32();
                    kind.filter(|&kind| kind == SPI)?;
                    parent = station.next?;
                }
                Kind::Pdc(ranges) => {
                    let gic = Lines {
                        node: station.next?.index(),
                        numbering: Numbering::Gic,
                    };
                    let line = self.pdc_line(ranges, specifier);
                    return line.filter(|_| gic == self.lines).map(End::Line);
                }
                Kind::Controls => return Some(End::Other(parent)),
                Kind::Keeps => return None,
                Kind::Maps(map, mask) => {
                    let mut entries = Cells::new(map);
                    let entry = loop {
                        let entry = self.entry(parent, &mut entries)?;
                        if entry.is_for(unit, specifier, mask) {
                            break entry;
                        }
                    };
                    (parent, unit, specifier) = (entry.parent, entry.unit, entry.specifier);
                }
            }
        }
        None
    }

    /// The line of the SPI that a PDC raises for a specifier.
    fn pdc_line(&mut self, ranges: &[u8], specifier: &[u8]) -> Option<Line> {
        let mut cells = Cells::new(specifier);
        let pin = cells.next_u32()?;
        let flags = beyond_pdc(cells.next_u32().unwrap_or_default());
        let mut ranges = Cells::new(ranges);
        loop {
            self.step()?;
            let (first, spi) = (ranges.next_u32()?, ranges.next_u32()?);
            let count = ranges.next_u32()?;
            if let Some(place) = pin.checked_sub(first).filter(|&place| place < count) {
                let number = intid(SPI, spi.checked_add(place)?)?;
                return Some(Line { number, flags });
            }
        }
    }

    /// The next entry of a nexus's `interrupt-map`; `None` from the first on that can't be read.
    fn entry(&mut self, nexus: Node<'t, 'a>, cells: &mut Cells<'a>) -> Option<Entry<'t, 'a>> {
        self.step()?;
        let station = self.station(nexus)?;
        // As `Node::child_cells` has it.
        let address_cells = station.address_cells.unwrap_or(2);
        let child = cells.take(address_cells.saturating_add(station.cells?))?;
        let parent = nexus.tree().by_phandle(cells.next_u32()?)?;
        let above = self.station(parent)?;
        Some(Entry {
            child,
            parent,
            is_enabled: above.is_enabled,
            // A controller without #address-cells has none in the map, unlike a bus.
            unit: cells.take(above.address_cells.unwrap_or(0))?,
            specifier: cells.take(above.cells?)?,
        })
    }

    fn station(&mut self, node: Node<'t, 'a>) -> Option<Station<'t, 'a>> {
        if self.places.is_empty() {
            self.places = alloc::vec![0; node.tree().nodes().count()];
        }
        let place = self.places.get_mut(node.index())?;
        if *place == 0 {
            self.stations.push(Station::read(node));
            *place = u32::try_from(self.stations.len()).ok()?;
        }
        self.stations
            .get((*place as usize).checked_sub(1)?)
            .copied()
    }

    fn step(&mut self) -> Option<()> {
        self.steps = self.steps.saturating_sub(1);
        (self.steps > 0).then_some(())
    }
}

/// An entry of an `interrupt-map`.
struct Entry<'t, 'a> {
    /// The unit address and the specifier on this side.
    child: &'a [u8],
    parent: Node<'t, 'a>,
    is_enabled: bool,
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
        self.is_enabled && bytes.all(|((known, asked), mask)| (known ^ asked) & mask == 0)
    }
}
