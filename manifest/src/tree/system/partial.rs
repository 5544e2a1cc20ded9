//! A domain's partial tree: which of the host's devices it passes through.
//!
//! Each node below `/passthrough` with `xen,path` names a device of the host's, and `xen,reg` its registers. The device
//! is then the domain's as one that its own node names, whole: what the tree says of registers and interrupts is compared
//! with the host's tree, and no other meaning is given to it. Where the bytes aren't at hand that is said.
//!
//! Sources: Xen, docs/misc/arm/device-tree/booting.txt, "Device Assignment", and docs/misc/arm/passthrough.txt; which of the
//! properties must stand together is by xen/arch/arm/dom0less-build.c, `handle_prop_pfdt`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{
    Code, DeviceRequest, Dma, DomainRequest, HostDevice, MachineAddress, MachineRange,
    ModuleRequest, Origin,
};

use super::HostDescription;
use super::read::Reader;
use crate::origin::{Origins, Position, WhichTree};
use crate::tree::blob::{Cells, Node, Tree};
use crate::tree::host::{self, BootFacts, Lines, Numbering, Ways};

const PATH: &str = "xen,path";
const REG: &str = "xen,reg";
const FORCE: &str = "xen,force-assign-without-iommu";

/// Xen maps registers by pages of this many bytes, and asks for whole ones.
const PAGE: u64 = 4096;

/// The host as a partial tree is compared with it.
struct Host<'r, 'h> {
    tree: &'r Tree<'h>,
    devices: Vec<HostDevice>,
    gic: Option<Lines>,
}

/// A node of a partial tree, and what it is compared with.
#[derive(Clone, Copy)]
struct Passed<'a> {
    node: Node<'a, 'a>,
    /// The tree's module, and the name of the domain that has it.
    module: &'a ModuleRequest,
    domain: &'a str,
    host: &'a Host<'a, 'a>,
}

/// The ways of the interrupts of a partial tree and of the host's, which are walked so far for all nodes together. `None` for
/// one without a controller that is known.
struct Walked<'a> {
    guest: Option<Ways<'a, 'a>>,
    host: Option<Ways<'a, 'a>>,
}

/// An entry of `xen,reg`.
struct Mapped {
    machine: MachineRange,
    guest: u64,
}

impl Reader<'_, '_> {
    /// Adds what the domain's partial tree passes through to what its node names.
    pub(super) fn partial_tree(&mut self, domain: &mut DomainRequest) {
        let HostDescription::Tree(host) = self.host else {
            return;
        };
        let Some(module) = domain.partial_tree.clone() else {
            return;
        };
        let Some(bytes) = self.contents.partial_tree(module.module) else {
            self.unread(domain, &module);
            return;
        };
        match Tree::read(bytes) {
            Ok(tree) => {
                let host = Host::read(host);
                self.passed_through(&tree, &module, &host, domain);
            }
            Err(error) => {
                let why = format!("it can't be read as a device tree: {error}");
                let help = "put a device tree blob there, as dtc writes it";
                let what = "a partial tree";
                self.problem_with_help(module.origin, Code::TreeInvalid, what, &why, help);
            }
        }
    }

    /// The bytes aren't here. Devices that the domain's node names may be all that the tree has.
    fn unread(&mut self, domain: &DomainRequest, module: &ModuleRequest) {
        self.has_unread = true;
        if !domain.devices.is_empty() {
            return;
        }
        let why = "it can't be read here: only devices that the domain's node names are mapped, not its own";
        let help = "name each: device { terrane,device = \"/PATH\"; };";
        self.problem_with_help(
            module.origin,
            Code::NotBuiltYet,
            "a partial tree",
            why,
            help,
        );
        self.soften();
    }

    fn passed_through(
        &mut self,
        tree: &Tree<'_>,
        module: &ModuleRequest,
        host: &Host<'_, '_>,
        domain: &mut DomainRequest,
    ) {
        let name = domain.name.value.clone();
        let top = |name: &str| tree.root().children().find(|node| node.name() == name);
        let Some(passthrough) = top("passthrough") else {
            return;
        };
        let controlled = |gic: Node<'_, '_>| Lines {
            node: gic.index(),
            numbering: Numbering::Gic,
        };
        let mut walked = Walked {
            guest: top("gic").map(controlled).map(Ways::new),
            host: host.gic.map(Ways::new),
        };
        let passed = |node| Passed {
            node,
            module,
            domain: &name,
            host,
        };
        let (mut has_forced, mut all_forced) = (false, true);
        for node in tree.nodes() {
            if !passthrough.contains(node) {
                continue;
            }
            let at = passed(node);
            let Some(path) = self.named_device(&at) else {
                continue;
            };
            let device = host.device(&path);
            let forced = node.has(FORCE);
            has_forced |= forced;
            // What does no DMA needs nobody's leave.
            all_forced &= forced || device.is_some_and(|device| device.dma == Dma::None);
            let origin = self.in_partial(&at, PATH);
            if let Some(device) = device {
                self.compare(&at, device, &mut walked);
            }
            if !domain.devices.iter().any(|device| device.path == path) {
                domain.devices.push(DeviceRequest {
                    path,
                    dma_mask: None,
                    origin,
                });
            }
        }
        if walked.is_cut() {
            let what = "the ways of its interrupts";
            let why = "they take more steps, through maps and controllers, than any machine's: they aren't known";
            let help = "let interrupt-parent name /gic: a guest needs no other way";
            self.wrong_partial(&passed(passthrough), "", Code::TreeInvalid, what, why, help);
        }
        domain.allow_dma_without_iommu |= has_forced && all_forced;
    }

    /// The path of the host's device that a node passes through, if it does.
    fn named_device(&mut self, at: &Passed<'_>) -> Option<String> {
        let node = at.node;
        let Some(path) = node.string(PATH) else {
            if node.has(PATH) || node.has(REG) {
                self.without_path(at);
            }
            return None;
        };
        // By the name that the host's tree has for it, which may have a unit address more.
        let path = match at.host.tree.find(path) {
            Some(node) => node.path(),
            None => path.to_owned(),
        };
        if !node.has(REG) {
            let device = at.host.device(&path);
            let help = device.map_or_else(String::new, |device| xen_reg(node, device));
            let why = "xen,path without xen,reg: Xen starts no domain with it";
            let what = format!("{}, the device {path}", node.name());
            self.wrong_partial(at, PATH, Code::KeyMissing, &what, why, &help);
        }
        Some(path)
    }

    /// Registers that are said to be no device's.
    fn without_path(&mut self, at: &Passed<'_>) {
        let node = at.node;
        let mapped = mapped(node).unwrap_or_default();
        let owner = mapped.first().and_then(|first| {
            let mut devices = at.host.devices.iter();
            devices.find(|device| covers(device, &first.machine))
        });
        let help = owner.map_or_else(
            || String::from("name the device by xen,path"),
            |device| format!("{PATH} = \"{}\";", device.path),
        );
        let (code, why) = match node.has(FORCE) {
            true => (
                Code::NotBuiltYet,
                "registers that are no device's aren't mapped: Xen would, here each has its device",
            ),
            false => (
                Code::KeyMissing,
                "xen,reg without xen,path: Xen starts no domain with it",
            ),
        };
        self.wrong_partial(at, REG, code, node.name(), why, &help);
    }

    /// Compares what a node says of a device with what the host's tree does.
    fn compare<'a>(&mut self, at: &Passed<'a>, device: &HostDevice, walked: &mut Walked<'a>) {
        let node = at.node;
        let help = xen_reg(node, device);
        match mapped(node) {
            Some(mapped) => {
                for entry in &mapped {
                    self.compare_entry(at, device, entry, &help);
                }
            }
            None if node.has(REG) => {
                let why = "it is not a list of machine address, size and guest address by the cells of the node above";
                self.wrong_partial(at, REG, Code::WrongType, REG, why, &help);
            }
            None => {}
        }
        let registers = host::registers(node).unwrap_or_default();
        if let Some(range) = registers.ranges.iter().find(|range| !covers(device, range)) {
            let what = format!("{}, reg {range}", node.name());
            let why = "the guest's driver would look for registers where the device has none";
            let help = reg(node, "reg", device);
            self.mismatch(at, "reg", device, &what, why, &help);
        }
        self.compare_interrupts(at, device, walked);
    }

    fn compare_entry(&mut self, at: &Passed<'_>, device: &HostDevice, entry: &Mapped, help: &str) {
        let range = entry.machine;
        let what = format!("{}, {REG} {range}", at.node.name());
        let uneven = range.start().raw() | range.size() | entry.guest;
        if !uneven.is_multiple_of(PAGE) {
            let why = "registers are mapped by whole pages of 4 KiB";
            self.wrong_partial(at, REG, Code::ValueInvalid, &what, why, help);
        } else if range.is_empty() || !covers(device, &range) {
            let why = "the device's registers aren't there";
            self.mismatch(at, REG, device, &what, why, help);
        } else if entry.guest != range.start().raw() {
            let what = format!("{what}, for the guest at {:#x}", entry.guest);
            let why = "a guest finds a device's registers at the machine's addresses";
            let help = format!("{help} and the same address in reg");
            self.wrong_partial(at, REG, Code::NotBuiltYet, &what, why, &help);
        }
    }

    fn compare_interrupts<'a>(
        &mut self,
        at: &Passed<'a>,
        device: &HostDevice,
        walked: &mut Walked<'a>,
    ) {
        let node = at.node;
        let Some(ways) = &mut walked.guest else {
            return;
        };
        let interrupts = ways.shared(node);
        let astray = interrupts
            .iter()
            .find(|number| !device.interrupts.contains(number));
        let Some(number) = astray else { return };
        let name = match node.has("interrupts-extended") {
            true => "interrupts-extended",
            false => "interrupts",
        };
        let what = format!("{}, interrupt {number}", node.name());
        let why = "the device has no such interrupt: the guest would wait for it in vain";
        let cells = walked.specifiers(at.host, device);
        let help = match cells {
            Some(cells) if name == "interrupts" => format!("interrupts = <{cells}>;"),
            Some(cells) => format!("interrupts = <{cells}>; in place of {name}"),
            None => format!("leave {name} out"),
        };
        self.mismatch(at, name, device, &what, why, &help);
    }

    /// What a partial tree says against the host's tree.
    fn mismatch(
        &mut self,
        at: &Passed<'_>,
        name: &str,
        device: &HostDevice,
        what: &str,
        why: &str,
        help: &str,
    ) {
        self.wrong_partial(at, name, Code::DeviceMismatch, what, why, help);
        let origin = self.origins.node(WhichTree::Host, device.path.clone());
        self.other_side(&described(device), origin);
    }

    /// A problem with a property of a partial tree's node: what is wrong, and the module that brought it in.
    fn wrong_partial(
        &mut self,
        at: &Passed<'_>,
        name: &str,
        code: Code,
        what: &str,
        why: &str,
        help: &str,
    ) {
        let origin = self.in_partial(at, name);
        self.problem_with_help(origin, code, what, why, help);
        let what = format!("the partial tree of \"{}\"", at.domain);
        self.other_side(&what, at.module.origin);
    }

    /// The position of a property in a partial tree.
    fn in_partial(&mut self, at: &Passed<'_>, name: &str) -> Origin {
        let mut path = at.node.path();
        if at.node.has(name) {
            path.push(':');
            path.push_str(name);
        }
        self.origins.add(Position::Node {
            tree: WhichTree::Partial(at.module.module.start().raw()),
            path,
            manifest: None,
        })
    }
}

impl<'r, 'h> Host<'r, 'h> {
    /// The host with its devices as the planner knows them.
    fn read(tree: &'r Tree<'h>) -> Self {
        let nowhere = MachineRange::saturating(MachineAddress::new(0), 0);
        let boot = BootFacts {
            hypervisor: nowhere,
            host_tree: nowhere,
            container: None,
        };
        let host = host::read(tree, &boot, None, &mut Origins::new());
        Self {
            tree,
            devices: host.map.devices,
            gic: host.gic.map(|gic| gic.lines()),
        }
    }

    fn device(&self, path: &str) -> Option<&HostDevice> {
        self.devices.iter().find(|device| device.path == path)
    }
}

impl<'a> Walked<'a> {
    /// Whether one of the trees has more to walk than any machine's.
    fn is_cut(&self) -> bool {
        let both = [&self.guest, &self.host];
        both.into_iter().flatten().any(Ways::is_cut)
    }

    /// What `interrupts` of a device has to be below the guest's interrupt controller; `None` if there are none.
    fn specifiers(&mut self, host: &'a Host<'a, 'a>, device: &HostDevice) -> Option<String> {
        let node = host.tree.find(&device.path)?;
        let lines = self.host.as_mut()?.all(node).lines.into_iter();
        let own = lines.filter(|line| device.interrupts.contains(&line.number));
        let cells = own.filter_map(host::specifier).flatten();
        let words: Vec<String> = cells.map(|cell| format!("{cell:#x}")).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

/// The entries of a node's `xen,reg`; `None` if it has none or it isn't a whole number of them.
fn mapped(node: Node<'_, '_>) -> Option<Vec<Mapped>> {
    let (address_cells, size_cells) = node.parent()?.child_cells();
    if !(1..=2).contains(&address_cells) || !(1..=2).contains(&size_cells) {
        return None;
    }
    let value = node.value(REG)?;
    if value.is_empty() || value.len() % ((2 * address_cells + size_cells) * 4) != 0 {
        return None;
    }
    let mut cells = Cells::new(value);
    let mut entries = Vec::new();
    while !cells.is_empty() {
        let start = cells.next_number(address_cells)?;
        let size = cells.next_number(size_cells)?;
        entries.push(Mapped {
            machine: MachineRange::new(MachineAddress::new(start), size)?,
            guest: cells.next_number(address_cells)?,
        });
    }
    Some(entries)
}

/// Whether a range lies in the pages of one of a device's ranges.
fn covers(device: &HostDevice, range: &MachineRange) -> bool {
    let own = device.ranges.iter();
    own.map(pages).any(|own| own.covers(range))
}

/// A range and what else is in its pages.
fn pages(range: &MachineRange) -> MachineRange {
    let start = range.start().raw() / PAGE * PAGE;
    let end = range.end().raw();
    let end = end.checked_next_multiple_of(PAGE).unwrap_or(end);
    MachineRange::saturating(MachineAddress::new(start), end.saturating_sub(start))
}

/// The `xen,reg` that a node should have for a device.
fn xen_reg(node: Node<'_, '_>, device: &HostDevice) -> String {
    reg(node, REG, device)
}

/// A property `name` with a device's registers, by the cells of the node above; empty if it has none.
fn reg(node: Node<'_, '_>, name: &str, device: &HostDevice) -> String {
    let (address_cells, size_cells) = node.parent().unwrap_or(node).child_cells();
    let mut words: Vec<String> = Vec::new();
    for range in &device.ranges {
        let range = if name == REG { pages(range) } else { *range };
        number(range.start().raw(), address_cells, &mut words);
        number(range.size(), size_cells, &mut words);
        if name == REG {
            number(range.start().raw(), address_cells, &mut words);
        }
    }
    match words.is_empty() {
        true => String::new(),
        false => format!("{name} = <{}>;", words.join(" ")),
    }
}

/// A number as cells, of which one or two are written.
fn number(number: u64, cells: usize, words: &mut Vec<String>) {
    if cells > 1 {
        words.push(format!("{:#x}", number >> 32));
    }
    words.push(format!("{:#x}", number & 0xffff_ffff));
}

/// A device as the host's tree has it.
fn described(device: &HostDevice) -> String {
    let ranges: Vec<String> = device.ranges.iter().map(|it| format!("{it}")).collect();
    let interrupts = device.interrupts.iter();
    let interrupts: Vec<String> = interrupts.map(|it| format!("{it}")).collect();
    let with = match interrupts.is_empty() {
        true => String::from("no interrupt"),
        false => format!("interrupt {}", interrupts.join(", ")),
    };
    format!(
        "device {}: registers {}; {with}",
        device.path,
        ranges.join(", ")
    )
}
