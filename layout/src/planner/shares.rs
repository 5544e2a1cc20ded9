//! Devices of different owners that can't be kept apart: they share a page, an interrupt, or what
//! isolates them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::devices::Paths;
use super::ground;
use super::index::Index;
use super::report::{Report, host_side, name, side};
use crate::address::{MachineRange, MfnRange};
use crate::conflict::{Code, Side};
use crate::host::HostMap;
use crate::request::{DeviceRequest, DomainRequest, SystemRequest};

/// So many other devices are named in one conflict.
const MOST_NAMED: usize = 8;

/// Devices of one host that hang together.
struct Ties<'a> {
    host: &'a HostMap,
    /// The pages of all devices, and for each its device.
    pages: Index,
    holders: Vec<usize>,
    by_interrupt: BTreeMap<u32, Vec<usize>>,
    by_group: BTreeMap<u32, Vec<usize>>,
}

/// How two devices hang together.
#[derive(Clone, Copy)]
enum Tie {
    Page,
    Interrupt,
    Group,
}

impl Tie {
    fn code(self) -> Code {
        match self {
            Self::Page => Code::DeviceSharesPage,
            Self::Interrupt => Code::DeviceSharesInterrupt,
            Self::Group => Code::DeviceSharesGroup,
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
        }
    }
}

impl<'a> Ties<'a> {
    fn new(host: &'a HostMap) -> Self {
        let pages = host.devices.iter().enumerate().flat_map(|(at, device)| {
            let ranges = device.ranges.iter();
            ranges.map(move |range| (at, range.frames_touched()))
        });
        let (holders, pages): (Vec<usize>, Vec<MfnRange>) = pages.unzip();
        let mut by_interrupt: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut by_group: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, device) in host.devices.iter().enumerate() {
            for interrupt in &device.interrupts {
                by_interrupt.entry(*interrupt).or_default().push(at);
            }
            if let Some(group) = device.group {
                by_group.entry(group).or_default().push(at);
            }
        }
        Self {
            host,
            pages: Index::new(pages.into_iter()),
            holders,
            by_interrupt,
            by_group,
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
        };
        near.sort_unstable();
        near.dedup();
        near
    }
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
    let check = Check {
        ties: Ties::new(host),
        request,
        owners,
        console,
    };
    for (index, domain) in request.domains.iter().enumerate() {
        for wanted in &domain.devices {
            let found = paths.get(wanted.path.as_str()).copied();
            let Some(device) = found.filter(|at| check.owners[*at] == Some(index)) else {
                continue;
            };
            for tie in [Tie::Page, Tie::Interrupt, Tie::Group] {
                check.named(index, wanted, device, tie, report);
            }
            check.own_pages(index, wanted, device, report);
        }
    }
    if let Some(console) = console {
        for tie in [Tie::Page, Tie::Interrupt] {
            check.console(console, tie, report);
        }
    }
}

struct Check<'a> {
    ties: Ties<'a>,
    request: &'a SystemRequest,
    /// Who has each device.
    owners: Vec<Option<usize>>,
    console: Option<usize>,
}

impl Check<'_> {
    /// A device that a domain names against those of others.
    fn named(
        &self,
        index: usize,
        wanted: &DeviceRequest,
        device: usize,
        tie: Tie,
        report: &mut Report,
    ) {
        let others = self.ties.near(device, tie).into_iter().filter(|other| {
            let theirs = self.owners[*other].is_some() || self.console == Some(*other);
            theirs && self.owners[*other] != Some(index)
        });
        let others: Vec<usize> = others.take(MOST_NAMED).collect();
        if others.is_empty() {
            return;
        }
        let domain = &self.request.domains[index];
        let mut sides = vec![self.wanted_side(index, wanted)];
        sides.extend(others.iter().map(|other| self.holder_side(*other)));
        let help = if self
            .console
            .is_some_and(|console| others.contains(&console))
        {
            format!(
                "leave {} out of devices, or name another console for the hypervisor",
                wanted.path
            )
        } else {
            let others = others.iter();
            let paths = others.map(|other| self.ties.host.devices[*other].path.as_str());
            let own = domain.devices.iter().map(|it| it.path.as_str());
            let all: Vec<&str> = own.chain(paths).collect();
            format!("give all of them to one domain: devices = {all:?}")
        };
        report.error(tie.code(), &[index], sides, String::from(tie.why()), help);
    }

    /// A device that a domain names against what the hypervisor drives: interrupt controller and IOMMUs.
    fn own_pages(&self, index: usize, wanted: &DeviceRequest, device: usize, report: &mut Report) {
        let device = &self.ties.host.devices[device];
        let touches = |range: &MachineRange| {
            let frames = range.frames_touched();
            let mut own = device.ranges.iter();
            own.any(|own| own.frames_touched().overlaps(&frames))
        };
        let mut own = ground::own_registers(self.ties.host);
        let Some((range, what, origin)) = own.find(|(range, ..)| touches(range)) else {
            return;
        };
        let other = host_side(format!("{what}, registers {range}"), origin);
        let sides = vec![self.wanted_side(index, wanted), other];
        let help = format!("leave {} out of devices", wanted.path);
        let why = String::from(Tie::Page.why());
        report.error(Tie::Page.code(), &[index], sides, why, help);
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
            Tie::Page | Tie::Group => {
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
            || String::from("the hypervisor"),
            |owner| name(owner, &self.request.domains[owner]),
        );
        let device = &self.ties.host.devices[device];
        host_side(
            format!("device {}, which {holder} has", device.path),
            device.origin,
        )
    }
}
