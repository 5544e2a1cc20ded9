//! Devices of different owners that can't be kept apart: they share a page, an interrupt, what
//! isolates them, or memory. And devices whose interrupts go through other owners' controllers.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell};

use super::devices::Paths;
use super::ground;
use super::index::Index;
use super::report::{Report, host_side, name, side};
use crate::address::{MachineRange, MfnRange};
use crate::conflict::{Code, Side};
use crate::host::{HostMap, Origin};
use crate::request::{DeviceRequest, DomainRequest, SystemRequest};
use crate::sort::sort_by_key;

/// So many other devices are named in one conflict.
const MOST_NAMED: usize = 8;
/// For so many conflicts of a domain its whole list is proposed: the list grows with the domain's
/// devices, and so do its conflicts.
const MOST_LISTS: usize = 8;

/// Devices of one host that hang together.
struct Ties<'a> {
    host: &'a HostMap,
    /// The pages of all devices, and for each its device.
    pages: Index,
    holders: Vec<usize>,
    by_interrupt: BTreeMap<u32, Vec<usize>>,
    by_group: BTreeMap<u32, Vec<usize>>,
    by_region: BTreeMap<u32, Vec<usize>>,
}

/// Devices that go to one domain or to none: whoever shares anything with one of them is among them.
struct Knots {
    /// For each device its knot, which is the first device in it.
    of: Vec<usize>,
}

impl Knots {
    /// `theirs` are the devices that somebody has. What nobody has raises no interrupt and does no
    /// DMA; its registers and its memory are there all the same.
    fn new(ties: &Ties<'_>, theirs: impl Fn(usize) -> bool) -> Self {
        let mut parents: Vec<usize> = (0..ties.host.devices.len()).collect();
        let mut order: Vec<(MfnRange, usize)> = pages(ties.host).collect();
        sort_by_key(&mut order, |(pages, _)| [pages.start().raw(), 0, 0]);
        // The devices whose registers end last so far: what starts before shares a page with it.
        let mut last: Option<(MfnRange, usize)> = None;
        for (pages, device) in order {
            if let Some((before, other)) = &last
                && pages.start() < before.end()
            {
                join(&mut parents, *other, device);
            }
            if last.is_none_or(|(before, _)| before.end() < pages.end()) {
                last = Some((pages, device));
            }
        }
        for together in ties.by_interrupt.values().chain(ties.by_group.values()) {
            let mut together = together.iter().copied().filter(|at| theirs(*at));
            let Some(first) = together.next() else {
                continue;
            };
            together.for_each(|other| join(&mut parents, first, other));
        }
        for together in ties.by_region.values() {
            let pairs = together.windows(2);
            pairs.for_each(|pair| join(&mut parents, pair[0], pair[1]));
        }
        let of: Vec<usize> = (0..parents.len())
            .map(|at| root(&mut parents, at))
            .collect();
        Self { of }
    }

    /// The devices of a knot.
    fn devices(&self, knot: usize) -> Vec<usize> {
        let all = 0..self.of.len();
        all.filter(|device| self.of[*device] == knot).collect()
    }
}

/// The first of those that `at` was joined with, and shortens the way there.
fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

fn join(parents: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parents, one), root(parents, other));
    parents[one.max(other)] = one.min(other);
}

/// How two devices hang together.
#[derive(Clone, Copy)]
enum Tie {
    Page,
    Interrupt,
    Group,
    Region,
}

impl Tie {
    fn code(self) -> Code {
        match self {
            Self::Page => Code::DeviceSharesPage,
            Self::Interrupt => Code::DeviceSharesInterrupt,
            Self::Group => Code::DeviceSharesGroup,
            Self::Region => Code::DeviceSharesMemory,
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Page => "their registers lie in one page, and a page has one owner",
            Self::Interrupt => "they raise one interrupt, and an interrupt goes to one domain",
            Self::Group => {
                "nothing tells their DMA and their addresses apart: functions of one PCI device, or \
                 of one bus without access control, go to one domain"
            }
            Self::Region => {
                "a region of reserved memory, which is there for its devices' DMA, goes to one domain \
                 with all of them"
            }
        }
    }
}

impl<'a> Ties<'a> {
    fn new(host: &'a HostMap) -> Self {
        let (pages, holders): (Vec<MfnRange>, Vec<usize>) = pages(host).unzip();
        let mut by_interrupt: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut by_group: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut by_region: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, device) in host.devices.iter().enumerate() {
            for interrupt in &device.interrupts {
                by_interrupt.entry(*interrupt).or_default().push(at);
            }
            if let Some(group) = device.group {
                by_group.entry(group).or_default().push(at);
            }
            for region in &device.regions {
                by_region.entry(*region).or_default().push(at);
            }
        }
        Self {
            host,
            pages: Index::new(pages.into_iter()),
            holders,
            by_interrupt,
            by_group,
            by_region,
        }
    }

    /// The devices that this one hangs together with, itself among them.
    fn near(&self, device: usize, tie: Tie) -> Vec<usize> {
        let device = &self.host.devices[device];
        let mut near: Vec<usize> = match tie {
            Tie::Page => {
                let own = device.ranges.iter();
                let pages = own.flat_map(|range| self.pages.touching(&range.frames_touched()));
                pages.map(|page| self.holders[page]).collect()
            }
            Tie::Interrupt => {
                let own = device.interrupts.iter();
                let same = own.filter_map(|it| self.by_interrupt.get(it));
                same.flatten().copied().collect()
            }
            Tie::Group => {
                let group = device.group.and_then(|group| self.by_group.get(&group));
                group.cloned().unwrap_or_default()
            }
            Tie::Region => {
                let own = device.regions.iter();
                let same = own.filter_map(|it| self.by_region.get(it));
                same.flatten().copied().collect()
            }
        };
        near.sort_unstable();
        near.dedup();
        near
    }
}

/// The pages of all devices' registers, each with its device.
fn pages(host: &HostMap) -> impl Iterator<Item = (MfnRange, usize)> {
    host.devices.iter().enumerate().flat_map(|(at, device)| {
        let pages = device.ranges.iter().map(MachineRange::frames_touched);
        let pages = pages.filter(|pages| !pages.is_empty());
        pages.map(move |pages| (pages, at))
    })
}

/// Checks each device that a domain names against those that others have, and the hypervisor's
/// console against all.
pub(crate) fn check(
    host: &HostMap,
    request: &SystemRequest,
    paths: &Paths<'_>,
    assigned: &[Vec<usize>],
    console: Option<usize>,
    report: &mut Report,
) {
    let nobody_names = |domain: &DomainRequest| domain.devices.is_empty();
    if console.is_none() && request.domains.iter().all(nobody_names) {
        return;
    }
    let mut owners: Vec<Option<usize>> = vec![None; host.devices.len()];
    for (domain, devices) in assigned.iter().enumerate() {
        for device in devices {
            owners[*device] = Some(domain);
        }
    }
    let ties = Ties::new(host);
    let check = Check {
        ties,
        knots: OnceCell::new(),
        request,
        paths,
        owners,
        console,
        lists: Cell::new(0),
    };
    for (index, domain) in request.domains.iter().enumerate() {
        check.lists.set(MOST_LISTS);
        for wanted in &domain.devices {
            let found = paths.get(wanted.path.as_str()).copied();
            let Some(device) = found.filter(|at| check.owners[*at] == Some(index)) else {
                continue;
            };
            for tie in [Tie::Page, Tie::Interrupt, Tie::Group, Tie::Region] {
                check.named(index, wanted, device, tie, report);
            }
            check.own_pages(index, wanted, device, report);
        }
    }
    check.controllers(report);
    if let Some(console) = console {
        for tie in [Tie::Page, Tie::Interrupt] {
            check.console(console, tie, report);
        }
    }
}

struct Check<'a> {
    ties: Ties<'a>,
    /// For what is proposed, and so seldom asked for.
    knots: OnceCell<Knots>,
    request: &'a SystemRequest,
    paths: &'a Paths<'a>,
    /// Who has each device.
    owners: Vec<Option<usize>>,
    console: Option<usize>,
    /// How many more lists are proposed to the domain.
    lists: Cell<usize>,
}

impl Check<'_> {
    fn knots(&self) -> &Knots {
        self.knots.get_or_init(|| {
            let theirs = |at: usize| self.owners[at].is_some() || self.console == Some(at);
            Knots::new(&self.ties, theirs)
        })
    }

    /// A device that a domain names against those of others.
    fn named(
        &self,
        index: usize,
        wanted: &DeviceRequest,
        device: usize,
        tie: Tie,
        report: &mut Report,
    ) {
        let near = self.ties.near(device, tie);
        let others = near.iter().copied().filter(|other| {
            let theirs = self.owners[*other].is_some() || self.console == Some(*other);
            theirs && self.owners[*other] != Some(index)
        });
        let others: Vec<usize> = others.take(MOST_NAMED).collect();
        if !others.is_empty() {
            let sides = self.sides(index, wanted, &others);
            let help = self.help(index, wanted, device);
            report.error(tie.code(), &[index], sides, String::from(tie.why()), help);
            return;
        }
        let nobodys = |at: &usize| self.owners[*at].is_none() && self.console != Some(*at);
        let idle: Vec<usize> = near.into_iter().filter(nobodys).take(MOST_NAMED).collect();
        let why = match tie {
            Tie::Page => {
                "their registers lie in one page: who has the one device can drive the others, which \
                 nobody gave it"
            }
            Tie::Region => "reserved memory and the devices that use it are of use together only",
            Tie::Interrupt | Tie::Group => return,
        };
        if !idle.is_empty() {
            let sides = self.sides(index, wanted, &idle);
            let help = self.help(index, wanted, device);
            report.warning(tie.code(), sides, String::from(why), help);
        }
    }

    fn sides(&self, index: usize, wanted: &DeviceRequest, others: &[usize]) -> Vec<Side> {
        let others = others.iter().map(|other| self.holder_side(*other));
        let own = self.wanted_side(index, wanted);
        core::iter::once(own).chain(others).collect()
    }

    /// The list of devices with which the domain shares nothing with anybody, or, if it can't have
    /// all of what hangs together with this one, that it does without.
    fn help(&self, index: usize, wanted: &DeviceRequest, device: usize) -> String {
        let out = format!("leave {} out of devices", wanted.path);
        let host = self.ties.host;
        let knots = self.knots();
        let knot = knots.devices(knots.of[device]);
        if let Some(console) = self.console.filter(|console| knot.contains(console)) {
            return format!(
                "{out}, or name another console for the hypervisor: what it shares leads to {}",
                host.devices[console].path
            );
        }
        let Some(left) = self.lists.get().checked_sub(1) else {
            return String::from("mend the domain's other devices first");
        };
        if let Some((_, what, _)) = knot.iter().find_map(|at| over_own(host, *at)) {
            return format!("{out}: what it shares leads to {what}, which no domain has");
        }
        self.lists.set(left);
        let named = &self.request.domains[index].devices;
        let mut items: Vec<String> = named.iter().map(|it| item(&it.path, it.dma_mask)).collect();
        let own = named.iter();
        let own = own.filter_map(|it| self.paths.get(it.path.as_str()).copied());
        let own: Vec<usize> = own.collect();
        let mut theirs: Vec<usize> = own.iter().map(|at| knots.of[*at]).collect();
        theirs.sort_unstable();
        theirs.dedup();
        for knot in theirs.into_iter().map(|knot| knots.devices(knot)) {
            if !self.is_free(&knot) {
                continue;
            }
            let more = knot.iter().filter(|at| !own.contains(at));
            items.extend(more.map(|at| item(&host.devices[*at].path, self.mask(*at))));
        }
        format!(
            "give all of them to one domain: devices = [{}]",
            items.join(", ")
        )
    }

    /// Whether one domain can have all of these.
    fn is_free(&self, knot: &[usize]) -> bool {
        let console = self.console.is_some_and(|console| knot.contains(&console));
        let host = self.ties.host;
        !console && !knot.iter().any(|at| over_own(host, *at).is_some())
    }

    /// The mask that a device's present owner states.
    fn mask(&self, device: usize) -> Option<u64> {
        let owner = &self.request.domains[self.owners[device]?];
        owner.dma_mask(&self.ties.host.devices[device].path)
    }

    /// A device that a domain names against what the hypervisor drives: interrupt controller and IOMMUs.
    fn own_pages(&self, index: usize, wanted: &DeviceRequest, device: usize, report: &mut Report) {
        let Some((range, what, origin)) = over_own(self.ties.host, device) else {
            return;
        };
        let other = host_side(format!("{what}, registers {range}"), origin);
        let sides = vec![self.wanted_side(index, wanted), other];
        let help = format!("leave {} out of devices", wanted.path);
        let why = String::from(Tie::Page.why());
        report.error(Tie::Page.code(), &[index], sides, why, help);
    }

    /// Devices against the controllers that their interrupts go through, those of one owner behind
    /// one controller together.
    fn controllers(&self, report: &mut Report) {
        let mut numbers: Paths<'_> = BTreeMap::new();
        let mut lost: Vec<(usize, usize, usize)> = Vec::new();
        for (device, own) in self.ties.host.devices.iter().enumerate() {
            let (Some(controller), Some(owner)) = (&own.other_controller, self.owners[device])
            else {
                continue;
            };
            if !self.has_controller(owner, controller) {
                let next = numbers.len();
                let number = *numbers.entry(controller).or_insert(next);
                lost.push((number, owner, device));
            }
        }
        sort_by_key(&mut lost, |(number, owner, device)| {
            [*number, *owner, *device].map(|at| u64::try_from(at).unwrap_or(u64::MAX))
        });
        for together in lost.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            self.controller(together, report);
        }
    }

    /// What isn't among the devices is the hardware domain's.
    fn has_controller(&self, owner: usize, controller: &str) -> bool {
        match self.paths.get(controller) {
            Some(at) => self.owners[*at] == Some(owner),
            None => self.request.domains[owner].identity().is_hardware(),
        }
    }

    /// Devices of one owner, whose controller is another's.
    fn controller(&self, lost: &[(usize, usize, usize)], report: &mut Report) {
        let devices = &self.ties.host.devices;
        let Some((_, owner, first)) = lost.first() else {
            return;
        };
        let Some(controller) = &devices[*first].other_controller else {
            return;
        };
        let named = &self.request.domains[*owner].devices;
        let sides = lost.iter().take(MOST_NAMED).map(|(_, _, device)| {
            let mut named = named.iter();
            let named = named.find(|named| named.path == devices[*device].path);
            named.map_or_else(
                || self.holder_side(*device),
                |named| self.wanted_side(*owner, named),
            )
        });
        let mut sides: Vec<Side> = sides.collect();
        let (them, why) = match lost.len() {
            1 => (
                devices[*first].path.as_str(),
                String::from(
                    "an interrupt of the device goes through a controller with numbers of its own, which \
                     its domain hasn't: it doesn't arrive",
                ),
            ),
            count => (
                "all of them",
                format!(
                    "interrupts of {count} devices go through a controller with numbers of its own, which \
                     their domain hasn't: they don't arrive"
                ),
            ),
        };
        let (other, help) = match self.paths.get(controller.as_str()) {
            Some(at) => (
                self.holder_side(*at),
                format!("give {them} and {controller} to one domain"),
            ),
            None => (
                host_side(format!("the controller {controller}"), Origin::NONE),
                format!("leave {them} out of devices"),
            ),
        };
        sides.push(other);
        report.warning(Code::DeviceInterruptLost, sides, why, help);
    }

    /// The console against the devices that nobody names: the hardware domain has those, and keeps
    /// them, since there may be no other console.
    fn console(&self, console: usize, tie: Tie, report: &mut Report) {
        let others = self.ties.near(console, tie).into_iter().filter(|other| {
            self.owners[*other].is_some_and(|owner| {
                let path = &self.ties.host.devices[*other].path;
                let mut named = self.request.domains[owner].devices.iter();
                *other != console && named.all(|named| named.path != *path)
            })
        });
        let others: Vec<usize> = others.take(MOST_NAMED).collect();
        if others.is_empty() {
            return;
        }
        let device = &self.ties.host.devices[console];
        let what = format!("the hypervisor's console {}", device.path);
        let mut sides = vec![host_side(what, device.origin)];
        sides.extend(others.iter().map(|other| self.holder_side(*other)));
        let why = match tie {
            Tie::Interrupt => "they raise one interrupt, which the hypervisor keeps",
            Tie::Page | Tie::Group | Tie::Region => {
                "their registers lie in one page: who has those devices can write to the console's too"
            }
        };
        let help = String::from("name another console for the hypervisor, or trust that domain");
        report.warning(tie.code(), sides, String::from(why), help);
    }

    fn wanted_side(&self, index: usize, wanted: &DeviceRequest) -> Side {
        let domain = name(index, &self.request.domains[index]);
        side(
            index,
            format!("{domain}, device {}", wanted.path),
            wanted.origin,
        )
    }

    fn holder_side(&self, device: usize) -> Side {
        let holder = self.owners[device].map_or_else(
            || match self.console {
                Some(console) if console == device => String::from("the hypervisor"),
                _ => String::from("nobody"),
            },
            |owner| name(owner, &self.request.domains[owner]),
        );
        let device = &self.ties.host.devices[device];
        host_side(
            format!("device {}, which {holder} has", device.path),
            device.origin,
        )
    }
}

/// What the hypervisor drives itself, or leaves alone, in a page of the device.
fn over_own(host: &HostMap, device: usize) -> Option<(MachineRange, &str, Origin)> {
    let device = &host.devices[device];
    ground::own_registers(host).find(|(range, ..)| {
        let frames = range.frames_touched();
        let mut own = device.ranges.iter();
        own.any(|own| own.frames_touched().overlaps(&frames))
    })
}

/// A device as `devices` lists it.
fn item(path: &str, mask: Option<u64>) -> String {
    match mask {
        Some(mask) => format!("{{ path = {path:?}, dma-mask = {mask:#x} }}"),
        None => format!("{path:?}"),
    }
}
