//! The interrupt controller, of whatever kind: what the planner needs of it, and how it numbers interrupts.
//!
//! What the hypervisor drives is read in full by [`gic`](super::gic). Everything else is named, so that a plan can be
//! made and says that the hypervisor won't start there.
//!
//! Sources: Linux, Documentation/devicetree/bindings/interrupt-controller/: arm,gic.yaml, sifive,plic-1.0.0.yaml,
//! riscv,aplic.yaml, riscv,imsics.yaml, brcm,bcm2836-l1-intc.yaml, apple,aic.yaml.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{Architecture, Code, Controller, ControllerKind, Severity};

use super::Reader;
use super::gic::{self, Gic, GicVersion};
use super::interrupts::{Lines, Numbering, interrupt_parent};
use crate::tree::blob::{Cells, MAX_DEPTH, Node};

/// A GICv1 distributor knows eight CPU interfaces (IHI 0048, section 4.3.12).
const V1_CPUS: u32 = 8;

/// GICs of the first version, which has no virtualisation.
const V1_COMPATIBLE: [&str; 7] = [
    "arm,arm11mp-gic",
    "arm,arm1176jzf-devchip-gic",
    "arm,cortex-a5-gic",
    "arm,cortex-a9-gic",
    "arm,eb11mp-gic",
    "arm,tc11mp-gic",
    "arm,pl390",
];

const PLIC_COMPATIBLE: [&str; 5] = [
    "sifive,plic-1.0.0",
    "riscv,plic0",
    "thead,c900-plic",
    "andestech,nceplic100",
    "sophgo,sg2042-plic",
];

/// A hart's local interrupts that controllers end at (RISC-V privileged architecture, table 3.6).
const SUPERVISOR_EXTERNAL: u32 = 9;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The planner's view.
    pub controller: Controller,
    /// The nodes that are parts of it, by [`Node::index`]: no devices.
    pub nodes: Vec<usize>,
    /// How interrupts of devices are numbered; `None` if nobody knows.
    pub lines: Option<Lines>,
    /// What the hypervisor drives.
    pub gic: Option<Gic>,
}

/// Finds the controller. One that the hypervisor doesn't drive is a warning, none at all an error.
pub fn read(reader: &mut Reader<'_, '_, '_>, architecture: Architecture) -> Found {
    let found = match architecture {
        Architecture::Riscv64 => riscv(reader),
        _ => arm(reader),
    };
    let found = found.or_else(|| other(reader));
    let Some(found) = found else {
        let why = "no node of the tree is an interrupt controller that devices' interrupts end at";
        let root = reader.tree.root();
        reader.problem(root, Severity::Error, "no interrupt controller", why);
        return Found::default();
    };
    if let Some(why) = undriven(&found) {
        let first = found.nodes.first().copied();
        let node = first.and_then(|index| reader.tree.node(index));
        let origin = node.map_or(found.controller.origin, |node| reader.origin(node));
        let names = node.and_then(|node| node.string("compatible"));
        let what = format!(
            "the host's interrupt controller, {} ({})",
            found.controller.kind.as_str(),
            names.unwrap_or("no compatible"),
        );
        reader.add(
            Code::ControllerNotDriven,
            Severity::Warning,
            what,
            origin,
            why,
            String::new(),
        );
    }
    found
}

/// Why the hypervisor can't drive it.
fn undriven(found: &Found) -> Option<&'static str> {
    let Some(gic) = &found.gic else {
        return Some(
            "the hypervisor drives GICv2 and GICv3 only: the plan holds, but it doesn't start here",
        );
    };
    if let GicVersion::V2 {
        hypervisor_interface,
        virtual_interface,
        ..
    } = &gic.version
        && (hypervisor_interface.is_none() || virtual_interface.is_none())
    {
        return Some(
            "its reg has no frames for virtualisation (GICH, GICV): the plan holds, but the hypervisor doesn't start here",
        );
    }
    gic.maintenance.is_none().then_some(
        "it has no maintenance interrupt: the plan holds, but the hypervisor doesn't start here",
    )
}

fn arm(reader: &mut Reader<'_, '_, '_>) -> Option<Found> {
    if let Some(gic) = gic::read(reader) {
        return Some(Found {
            controller: gic.controller(),
            nodes: alloc::vec![gic.node],
            lines: Some(gic.lines()),
            gic: Some(gic),
        });
    }
    let is_v1 = |node: &Node<'_, '_>| {
        node.is_enabled()
            && node
                .strings("compatible")
                .any(|name| V1_COMPATIBLE.contains(&name))
    };
    let node = reader.tree.nodes().find(is_v1)?;
    let lines = Lines {
        node: node.index(),
        numbering: Numbering::Gic,
    };
    Some(plain(
        reader,
        node,
        ControllerKind::GicOther,
        V1_CPUS,
        Some(lines),
    ))
}

/// A controller whose node says all that is known.
fn plain(
    reader: &mut Reader<'_, '_, '_>,
    node: Node<'_, '_>,
    kind: ControllerKind,
    max_cpus: u32,
    lines: Option<Lines>,
) -> Found {
    let mut ranges = reader.registers(node);
    ranges.retain(|range| !range.is_empty());
    Found {
        controller: Controller {
            kind,
            ranges,
            max_cpus,
            origin: reader.origin(node),
            ..Controller::default()
        },
        nodes: alloc::vec![node.index()],
        lines,
        gic: None,
    }
}

/// The PLIC, or the advanced interrupt architecture's: of the APLICs the one that supervisors drive, with all APLICs' and
/// IMSICs' registers.
fn riscv(reader: &mut Reader<'_, '_, '_>) -> Option<Found> {
    let tree = reader.tree;
    let (mut plic, mut aplics, mut imsics) = (None, Vec::new(), Vec::new());
    for node in tree.nodes().filter(|node| node.is_enabled()) {
        if plic.is_none()
            && node
                .strings("compatible")
                .any(|it| PLIC_COMPATIBLE.contains(&it))
        {
            plic = Some(node);
        } else if node.is_compatible("riscv,aplic") {
            aplics.push(node);
        } else if node.is_compatible("riscv,imsics") {
            imsics.push(node);
        }
    }
    let numbers = |node: Node<'_, '_>| Lines {
        node: node.index(),
        numbering: Numbering::Plain,
    };
    if let Some(node) = plic {
        let harts = supervisors(node);
        let lines = Some(numbers(node));
        return Some(plain(reader, node, ControllerKind::Plic, harts, lines));
    }
    let imsic = imsics.iter().copied().find(|&node| is_supervisors(node));
    let imsic = imsic.or(imsics.first().copied());
    let aplic = aplics.iter().copied().find(|&node| is_supervisors(node));
    let aplic = aplic.or(aplics.first().copied());
    let (kind, main) = match (imsic, aplic) {
        (Some(imsic), _) => (ControllerKind::Imsic, imsic),
        (None, aplic) => (ControllerKind::Aplic, aplic?),
    };
    let mut found = plain(reader, main, kind, supervisors(main), aplic.map(numbers));
    for node in aplics.into_iter().chain(imsics) {
        if node.index() != main.index() {
            let part = plain(reader, node, kind, 0, None);
            found.controller.ranges.extend(part.controller.ranges);
            found.nodes.push(node.index());
        }
    }
    Some(found)
}

/// The local interrupts of harts that a controller raises, by `interrupts-extended`.
fn local_interrupts(node: Node<'_, '_>) -> Vec<u32> {
    let mut cells = Cells::new(node.value("interrupts-extended").unwrap_or_default());
    let mut found = Vec::new();
    while let Some(number) = cells.skip(1).and_then(|()| cells.next_u32()) {
        found.push(number);
    }
    found
}

/// How many harts' supervisors it raises interrupts of; `u32::MAX` if it doesn't say.
fn supervisors(node: Node<'_, '_>) -> u32 {
    let all = local_interrupts(node);
    let count = all.iter().filter(|&&it| it == SUPERVISOR_EXTERNAL).count();
    match u32::try_from(count) {
        Ok(0) | Err(_) => u32::MAX,
        Ok(count) => count,
    }
}

/// Whether supervisors drive it: it raises their interrupt, itself or by the controller that its messages go to.
fn is_supervisors(node: Node<'_, '_>) -> bool {
    let by_message = node
        .u32("msi-parent")
        .and_then(|phandle| node.tree().by_phandle(phandle));
    let end = by_message.unwrap_or(node);
    local_interrupts(end).contains(&SUPERVISOR_EXTERNAL)
}

/// Whatever else the root's interrupts end at, by following interrupt parents.
fn other(reader: &mut Reader<'_, '_, '_>) -> Option<Found> {
    let tree = reader.tree;
    let is_controller = |node: &Node<'_, '_>| node.has("interrupt-controller") && node.is_enabled();
    // Interrupts of CPUs' own controllers are none of devices.
    let mut at = interrupt_parent(tree.root())
        .filter(is_controller)
        .or_else(|| {
            let mut nodes = tree.nodes();
            nodes.find(|node| {
                let above = node
                    .parent()
                    .and_then(|parent| parent.string("device_type"));
                is_controller(node) && above != Some("cpu")
            })
        })?;
    for _ in 0..MAX_DEPTH {
        let next = match node_above(at) {
            Some(next) if next.index() != at.index() && is_controller(&next) => next,
            _ => break,
        };
        at = next;
    }
    Some(plain(reader, at, ControllerKind::Other, u32::MAX, None))
}

/// The controller that another one's interrupts go to.
fn node_above<'t, 'a>(node: Node<'t, 'a>) -> Option<Node<'t, 'a>> {
    if let Some(extended) = node.value("interrupts-extended") {
        return node.tree().by_phandle(Cells::new(extended).next_u32()?);
    }
    node.value("interrupts")
        .and_then(|_| interrupt_parent(node))
}
