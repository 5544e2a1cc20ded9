//! Devices of different owners that can't be kept apart: they share a page, an interrupt, or what
//! isolates them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::devices::Paths;
use super::index::Index;
use super::report::{Report, host_side, name, side};
use crate::address::MfnRange;
use crate::conflict::Code;
use crate::host::HostMap;
use crate::request::SystemRequest;

/// So many other devices are named in one conflict.
const MOST_NAMED: usize = 8;

/// How two devices hang together.
struct Tie<'a> {
    code: Code,
    why: &'a str,
    /// The devices that `device` hangs together with.
    others: &'a dyn Fn(usize) -> Vec<usize>,
}

/// Checks each device that a domain names against those that others have.
pub(crate) fn check(
    host: &HostMap,
    request: &SystemRequest,
    paths: &Paths<'_>,
    assigned: &[Vec<usize>],
    console: Option<usize>,
    report: &mut Report,
) {
    if request
        .domains
        .iter()
        .all(|domain| domain.devices.is_empty())
    {
        return;
    }
    let mut owners: Vec<Option<usize>> = vec![None; host.devices.len()];
    for (domain, devices) in assigned.iter().enumerate() {
        for device in devices {
            owners[*device] = Some(domain);
        }
    }
    let pages = host.devices.iter().enumerate().flat_map(|(at, device)| {
        let ranges = device.ranges.iter();
        ranges.map(move |range| (at, range.frames_touched()))
    });
    let (holders, pages): (Vec<usize>, Vec<MfnRange>) = pages.unzip();
    let index = Index::new(pages.into_iter());
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
    let pages = |device: usize| {
        let own = host.devices[device].ranges.iter();
        let near = own.flat_map(|range| index.touching(&range.frames_touched()));
        let mut near: Vec<usize> = near.map(|page| holders[page]).collect();
        near.sort_unstable();
        near.dedup();
        near
    };
    let interrupts = |device: usize| {
        let own = host.devices[device].interrupts.iter();
        let mut near: Vec<usize> = own
            .filter_map(|it| by_interrupt.get(it))
            .flatten()
            .copied()
            .collect();
        near.sort_unstable();
        near.dedup();
        near
    };
    let groups = |device: usize| {
        let group = host.devices[device].group;
        let near = group.and_then(|group| by_group.get(&group));
        near.cloned().unwrap_or_default()
    };
    let ties = [
        Tie {
            code: Code::DeviceSharesPage,
            why: "their registers lie in one page, and a page has one owner",
            others: &pages,
        },
        Tie {
            code: Code::DeviceSharesInterrupt,
            why: "they raise one interrupt, and an interrupt goes to one domain",
            others: &interrupts,
        },
        Tie {
            code: Code::DeviceSharesGroup,
            why: "nothing tells their DMA and their addresses apart: functions of one PCI device, or \
                  of one bus without access control, go to one domain",
            others: &groups,
        },
    ];
    for (index, domain) in request.domains.iter().enumerate() {
        for wanted in &domain.devices {
            let found = paths.get(wanted.path.as_str()).copied();
            let Some(device) = found.filter(|at| owners[*at] == Some(index)) else {
                continue;
            };
            for tie in &ties {
                let others = (tie.others)(device).into_iter().filter(|other| {
                    let theirs = owners[*other].is_some() || console == Some(*other);
                    theirs && owners[*other] != Some(index)
                });
                let others: Vec<usize> = others.take(MOST_NAMED).collect();
                if others.is_empty() {
                    continue;
                }
                let own = format!("{}, device {}", name(index, domain), wanted.path);
                let mut sides = vec![side(index, own, wanted.origin)];
                sides.extend(others.iter().map(|other| {
                    let device = &host.devices[*other];
                    let holder = owners[*other].map_or_else(
                        || String::from("the hypervisor"),
                        |owner| name(owner, &request.domains[owner]),
                    );
                    let what = format!("device {}, which {holder} has", device.path);
                    host_side(what, device.origin)
                }));
                let help = if console.is_some_and(|console| others.contains(&console)) {
                    format!(
                        "leave {} out of devices, or name another console for the hypervisor",
                        wanted.path
                    )
                } else {
                    let paths: Vec<&str> = others
                        .iter()
                        .map(|other| host.devices[*other].path.as_str())
                        .collect();
                    let own = domain.devices.iter().map(|it| it.path.as_str());
                    let all: Vec<&str> = own.chain(paths).collect();
                    format!("give all of them to one domain: devices = {all:?}")
                };
                report.error(tie.code, &[index], sides, String::from(tie.why), help);
            }
        }
    }
}
