//! Reads the host's device tree into a [`layout::HostMap`].
//!
//! Beside what the planner knows, it notes what a machine crate and the guest's tree need of the same nodes: the
//! interrupt controller in full, the console's UART, timer and PSCI. A bad node is a problem in the list, never a
//! panic, and what is left of the tree is read all the same.
//!
//! Source: Devicetree Specification 0.4, chapters 2 and 3; for single nodes the bindings that their modules name.

mod address;
mod controller;
mod cpus;
mod devices;
mod dma;
mod dynamic;
mod gic;
mod interrupts;
mod memory;

pub(crate) use address::{bus_windows, registers};
pub use cpus::architecture;
pub(crate) use dma::is_iommu;
pub use dynamic::{Dynamic, without_room};
pub use gic::{Gic, GicVersion, V2mFrame};
pub(crate) use interrupts::{Lines, Numbering, Ways, specifier};

use alloc::string::String;
use alloc::vec::Vec;

use layout::{BootKind, BootRange, Code, Conflict, HostMap, MachineRange, Origin, Severity, Side};

use self::address::Reached;
use super::blob::{Node, Tree};
use crate::origin::{Origins, Position, WhichTree};

/// Where the boot loader put what the hypervisor starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootFacts {
    /// The hypervisor's image with its zeroed data, as it runs.
    pub hypervisor: MachineRange,
    /// The host's device tree.
    pub host_tree: MachineRange,
    /// The container, if there is one.
    pub container: Option<MachineRange>,
}

/// A UART that the hypervisor takes for its console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uart {
    /// Its node, by [`Node::index`].
    pub node: usize,
    /// Its path.
    pub path: String,
    /// Its first `compatible` string ("arm,pl011").
    pub compatible: String,
    /// Its registers.
    pub registers: MachineRange,
    /// Its interrupt, by the controller's number.
    pub interrupt: Option<u32>,
}

/// How firmware is called to start CPUs and to power off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PsciConduit {
    /// By `smc`.
    Smc,
    /// By `hvc`.
    Hvc,
}

/// The generic timer's interrupts, by the controller's numbers (PPIs are 16 to 31).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// The node, by [`Node::index`].
    pub node: usize,
    /// EL1 physical, non-secure.
    pub physical: u32,
    /// EL1 virtual.
    pub virtual_: u32,
    /// EL2 physical.
    pub hypervisor: u32,
}

/// What the host's tree says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What the planner needs.
    pub map: HostMap,
    /// The node of each of `map.devices`, by [`Node::index`].
    pub device_nodes: Vec<usize>,
    /// The interrupt controller; `None` if it is another one than the hypervisor drives.
    pub gic: Option<Gic>,
    /// Regions of `/reserved-memory` that the hardware domain's kernel places in its own RAM.
    pub dynamic: Vec<Dynamic>,
    /// The console's UART; also one of `map.devices`, which the planner gives to nobody.
    pub console: Option<Uart>,
    /// How firmware is called; `None` without a PSCI node.
    pub psci: Option<PsciConduit>,
    /// The timer.
    pub timer: Option<Timer>,
    /// What is wrong or strange. An error here leaves something out of the map.
    pub problems: Vec<Conflict>,
}

/// The path of the UART that a path or alias names, or without a name the one that the tree's `stdout-path` does if that
/// one is enabled.
#[must_use]
pub fn resolve_console(tree: &Tree<'_>, name: Option<&str>) -> Option<String> {
    if let Some(name) = name {
        return Some(tree.find_by_alias(name)?.path());
    }
    let chosen = tree.find("/chosen")?;
    let name = chosen
        .string("stdout-path")
        .or_else(|| chosen.string("linux,stdout-path"))?;
    let node = tree.find_by_alias(name)?;
    node.is_enabled().then(|| node.path())
}

/// Reads the host's tree. `console` is the path of the console's UART, see [`resolve_console`].
#[must_use]
pub fn read(
    tree: &Tree<'_>,
    boot: &BootFacts,
    console: Option<&str>,
    origins: &mut Origins,
) -> Host {
    let mut reader = Reader {
        tree,
        origins,
        problems: Vec::new(),
    };
    reader.check_root();
    let architecture = architecture(tree);
    let controller = controller::read(&mut reader, architecture);
    let ram = memory::ram(&mut reader);
    let regions = memory::reserved(&mut reader);
    let mut reserved = regions.fixed;
    reserved.extend(memory::reservation_block(&mut reader, boot));
    let console = reader.console(console, controller.lines);
    let (psci, cpus) = (reader.psci(), cpus::read(&mut reader, architecture));
    let gic = controller.gic.as_ref();
    let timer = gic.and_then(|gic| timer(tree, gic));
    let (mut devices, iommus) =
        devices::read(&mut reader, architecture, &controller, &regions.devices);
    devices.extend(regions.devices);
    let (device_nodes, devices) = devices.into_iter().unzip();
    let map = HostMap {
        architecture,
        ram,
        reserved,
        devices,
        controller: controller.controller,
        cpus,
        iommus,
        boot: boot_ranges(boot, reader.origins),
    };
    Host {
        map,
        device_nodes,
        gic: controller.gic,
        dynamic: regions.dynamic,
        console,
        psci,
        timer,
        problems: reader.problems,
    }
}

fn boot_ranges(boot: &BootFacts, origins: &mut Origins) -> Vec<BootRange> {
    let ranges = [
        (
            BootKind::Hypervisor,
            Some(boot.hypervisor),
            "the hypervisor",
        ),
        (
            BootKind::HostTree,
            Some(boot.host_tree),
            "the host's device tree",
        ),
        (BootKind::Container, boot.container, "the container"),
    ];
    let present = ranges
        .into_iter()
        .filter_map(|(kind, range, what)| Some((kind, range?, what)));
    present
        .map(|(kind, range, what)| BootRange {
            kind,
            range,
            origin: origins.add(Position::Boot { what }),
        })
        .collect()
}

/// Source: Linux, Documentation/devicetree/bindings/timer/arm,arch_timer.yaml: secure, non-secure, virtual,
/// hypervisor, in this order unless `interrupt-names` says otherwise.
fn timer(tree: &Tree<'_>, gic: &Gic) -> Option<Timer> {
    let node = tree.nodes().find(|node| {
        node.is_compatible("arm,armv8-timer") || node.is_compatible("arm,armv7-timer")
    })?;
    let interrupts = Ways::new(gic.lines()).all(node).lines;
    let names: Vec<&str> = node.strings("interrupt-names").collect();
    let by = |name: &str, place: usize| {
        let place = if names.is_empty() {
            Some(place)
        } else {
            names.iter().position(|&other| other == name)
        };
        interrupts.get(place?).map(|line| line.number)
    };
    Some(Timer {
        node: node.index(),
        physical: by("phys", 1)?,
        virtual_: by("virt", 2)?,
        hypervisor: by("hyp-phys", 3)?,
    })
}

struct Reader<'t, 'a, 'o> {
    tree: &'t Tree<'a>,
    origins: &'o mut Origins,
    problems: Vec<Conflict>,
}

impl Reader<'_, '_, '_> {
    fn origin(&mut self, node: Node<'_, '_>) -> Origin {
        self.origins.node(WhichTree::Host, node.path())
    }

    fn problem(&mut self, node: Node<'_, '_>, severity: Severity, what: &str, why: &str) {
        let origin = self.origin(node);
        let what = String::from(what);
        self.add(
            Code::TreeInvalid,
            severity,
            what,
            origin,
            why,
            String::new(),
        );
    }

    fn add(
        &mut self,
        code: Code,
        severity: Severity,
        what: String,
        origin: Origin,
        why: &str,
        help: String,
    ) {
        self.problems.push(Conflict {
            code,
            severity,
            sides: alloc::vec![Side {
                what,
                origin,
                domain: None
            }],
            why: String::from(why),
            help,
        });
    }

    /// Everything that the hypervisor writes into a guest's tree at the root goes by the root's cells.
    fn check_root(&mut self) {
        let root = self.tree.root();
        let (address, size) = root.child_cells();
        if !(1..=2).contains(&address) || !(1..=2).contains(&size) {
            let why = "an address or size there takes no cells, or more than two";
            self.problem(root, Severity::Error, "the cells of the root", why);
        }
    }

    /// Reads `reg`; what can't be read is a problem, and absent.
    fn registers(&mut self, node: Node<'_, '_>) -> Vec<MachineRange> {
        let found = address::registers(node);
        self.reached(node, found, "registers that can't be placed")
    }

    /// What the CPU reaches of a node. What it doesn't is a problem, and absent; all of it, if it can't be read.
    fn reached(
        &mut self,
        node: Node<'_, '_>,
        found: Result<Reached, &'static str>,
        unreadable: &str,
    ) -> Vec<MachineRange> {
        let (what, why, ranges) = match found {
            Ok(found) if !found.is_cut => return found.ranges,
            Ok(found) => {
                let why = "an entry goes on where a window in the ranges of a bus above ends: the rest is left out";
                ("addresses that are cut short", why, found.ranges)
            }
            Err(why) => (unreadable, why, Vec::new()),
        };
        self.problem(node, Severity::Warning, what, why);
        ranges
    }

    /// As [`Self::registers`] for a child of `/reserved-memory`, whose addresses are the root's.
    fn fixed_regions(&mut self, node: Node<'_, '_>) -> Vec<MachineRange> {
        address::untranslated(node).unwrap_or_else(|why| {
            let what = "a reserved region that can't be placed";
            self.problem(node, Severity::Warning, what, why);
            Vec::new()
        })
    }

    fn console(&mut self, path: Option<&str>, lines: Option<Lines>) -> Option<Uart> {
        let node = self.tree.find(path?)?;
        let registers = self.registers(node).first().copied()?;
        Some(Uart {
            node: node.index(),
            path: node.path(),
            compatible: String::from(node.string("compatible")?),
            registers,
            interrupt: lines.and_then(|lines| Ways::new(lines).shared(node).first().copied()),
        })
    }

    /// Source: Linux, Documentation/devicetree/bindings/arm/psci.yaml.
    fn psci(&mut self) -> Option<PsciConduit> {
        const COMPATIBLE: [&str; 3] = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];
        let mut nodes = self.tree.nodes();
        let node = nodes.find(|node| {
            node.strings("compatible")
                .any(|name| COMPATIBLE.contains(&name))
        })?;
        match node.string("method") {
            Some("smc") => Some(PsciConduit::Smc),
            Some("hvc") => Some(PsciConduit::Hvc),
            _ => {
                let why = "its method is neither \"smc\" nor \"hvc\"";
                self.problem(node, Severity::Error, "a PSCI node that can't be used", why);
                None
            }
        }
    }
}
