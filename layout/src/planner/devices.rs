//! Which domain drives which device.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::guest;
use super::report::{Report, host_side, name, side};
use super::shares;
use crate::address::{GuestAddress, GuestRange};
use crate::conflict::Code;
use crate::host::{Architecture, HostMap, Origin};
use crate::plan::DomainPlan;
use crate::request::{DomainRequest, SystemRequest};
use crate::sort::sort_by_key;

/// So many devices are named in one conflict.
const MOST_NAMED: usize = 8;

/// The devices of a host by path.
pub(crate) type Paths<'a> = BTreeMap<&'a str, usize>;

/// For each domain its devices, by index in the host map and in that order.
pub(crate) fn assign(
    host: &HostMap,
    request: &SystemRequest,
    report: &mut Report,
) -> Vec<Vec<usize>> {
    let mut assigned: Vec<Vec<usize>> = vec![Vec::new(); request.domains.len()];
    let mut owners: Vec<Option<(usize, Origin)>> = vec![None; host.devices.len()];
    let console = console(host, request, report);
    let mut paths = Paths::new();
    if request
        .domains
        .iter()
        .any(|domain| !domain.devices.is_empty())
    {
        for (at, device) in host.devices.iter().enumerate() {
            paths.entry(&device.path).or_insert(at);
        }
    }
    for (index, domain) in request.domains.iter().enumerate() {
        for wanted in &domain.devices {
            let own = side(
                index,
                format!("{}, device {}", name(index, domain), wanted.path),
                wanted.origin,
            );
            let Some(device) = paths.get(wanted.path.as_str()).copied() else {
                unknown(host, index, own, &wanted.path, report);
                continue;
            };
            if console == Some(device) {
                let origin = request
                    .hypervisor
                    .console
                    .as_ref()
                    .map_or(Origin::NONE, |it| it.origin);
                let what = String::from("the hypervisor's console");
                let why = format!("{} is the hypervisor's console", wanted.path);
                let help = format!(
                    "leave {} out of devices, or name another console for the hypervisor",
                    wanted.path
                );
                let sides = vec![own, host_side(what, origin)];
                report.error(Code::DeviceTwice, &[index], sides, why, help);
            } else if let Some((first, origin)) = owners[device] {
                let what = format!(
                    "{}, device {}",
                    name(first, &request.domains[first]),
                    wanted.path
                );
                let why = format!("{} can have one driver", wanted.path);
                let help = format!(
                    "leave {} out of the devices of {}",
                    wanted.path,
                    name(index, &request.domains[index])
                );
                let sides = vec![side(first, what, origin), own];
                let both: &[usize] = if first == index {
                    &[index]
                } else {
                    &[first, index]
                };
                report.error(Code::DeviceTwice, both, sides, why, help);
            } else {
                owners[device] = Some((index, wanted.origin));
                assigned[index].push(device);
            }
        }
    }
    let hardware = request
        .domains
        .iter()
        .position(|domain| domain.identity().is_hardware());
    if let Some(hardware) = hardware {
        let free =
            (0..host.devices.len()).filter(|at| owners[*at].is_none() && console != Some(*at));
        assigned[hardware].extend(free);
    }
    if host.architecture == Architecture::X86_64 {
        for (index, domain) in request.domains.iter().enumerate() {
            registers_alone(host, index, domain, &assigned[index], report);
        }
    }
    for devices in &mut assigned {
        sort_by_key(devices, |device| {
            [u64::try_from(*device).unwrap_or(u64::MAX), 0, 0]
        });
    }
    shares::check(host, request, &paths, &assigned, console, report);
    assigned
}

/// On a PC the hypervisor routes interrupts, and answers PCI configuration, for the hardware domain only.
fn registers_alone(
    host: &HostMap,
    index: usize,
    domain: &DomainRequest,
    devices: &[usize],
    report: &mut Report,
) {
    if domain.identity().is_hardware() || devices.is_empty() {
        return;
    }
    let own = name(index, domain);
    let named = domain.devices.iter();
    let named = named.filter(|named| {
        let mut devices = devices.iter().map(|at| &host.devices[*at].path);
        devices.any(|path| *path == named.path)
    });
    let sides = named.take(MOST_NAMED).map(|named| {
        let what = format!("{own}, device {}", named.path);
        side(index, what, named.origin)
    });
    let why = String::from(
        "the domain gets the device's registers alone: interrupts and PCI configuration are the \
         hardware domain's, and by which line the device interrupts isn't known, so that it may hold \
         down one of the hardware domain's",
    );
    let help = String::from("leave it out of devices, unless its driver needs neither");
    report.warning(Code::NotBuiltYet, sides.collect(), why, help);
}

/// Devices are shown at their machine addresses, where a domain that isn't direct-mapped may have its
/// RAM, or what the hypervisor shows it.
pub(crate) fn check_seen(
    host: &HostMap,
    request: &SystemRequest,
    plan: &DomainPlan,
    report: &mut Report,
) {
    if plan.identity.is_direct_mapped() || plan.devices.is_empty() {
        return;
    }
    let domain = &request.domains[plan.index];
    let ram = plan.banks.iter().map(|bank| (bank.guest().bytes(), None));
    let emulated = guest::emulated(host, &plan.identity, plan.vpl011).into_iter();
    let emulated = emulated.map(|(range, what)| (range, Some(what)));
    let own: Vec<(GuestRange, Option<&str>)> = ram.chain(emulated).collect();
    for device in plan.devices.iter().map(|at| &host.devices[*at]) {
        let over = device.ranges.iter().find_map(|range| {
            let bytes = range.frames_touched().bytes();
            let seen = GuestRange::between(
                GuestAddress::new(bytes.start().raw()),
                GuestAddress::new(bytes.end().raw()),
            );
            let mut own = own.iter();
            Some((range, own.find(|(own, _)| own.overlaps(&seen))?))
        });
        let Some((range, (taken, what))) = over else {
            continue;
        };
        let (what, origin, help) = match what {
            None => {
                let help = String::from("less memory, or direct-map = true");
                ("RAM", domain.memory.origin, help)
            }
            Some(what) => {
                let mut named = domain.devices.iter();
                let named = named.find(|named| named.path == device.path);
                let origin = named.map_or(domain.name.origin, |named| named.origin);
                let path = &device.path;
                let help = format!("direct-map = true, or leave {path} out of devices");
                (*what, origin, help)
            }
        };
        let own = format!("{}, its {what} {taken}", name(plan.index, domain));
        let other = format!("{}, registers {range}", device.path);
        let sides = vec![
            side(plan.index, own, origin),
            host_side(other, device.origin),
        ];
        let why =
            format!("a domain finds its devices at the host's addresses, and its {what} there");
        report.error(Code::OverlapDomainMmio, &[plan.index], sides, why, help);
    }
}

/// The console's device, if the request names one and it is there.
pub(crate) fn console_device(host: &HostMap, request: &SystemRequest) -> Option<usize> {
    let console = request.hypervisor.console.as_ref()?;
    find(host, &console.value)
}

fn find(host: &HostMap, path: &str) -> Option<usize> {
    host.devices.iter().position(|device| device.path == path)
}

fn console(host: &HostMap, request: &SystemRequest, report: &mut Report) -> Option<usize> {
    let console = request.hypervisor.console.as_ref()?;
    let found = find(host, &console.value);
    if found.is_none() {
        let what = format!("the hypervisor's console {}", console.value);
        let why = String::from("the host has no such device, so nothing could be read or said");
        let help = nearest(host, &console.value);
        report.error(
            Code::DeviceUnknown,
            &[],
            vec![host_side(what, console.origin)],
            why,
            help,
        );
    }
    found
}

fn unknown(host: &HostMap, index: usize, own: crate::Side, path: &str, report: &mut Report) {
    let why = String::from("the host has no such device");
    report.error(
        Code::DeviceUnknown,
        &[index],
        vec![own],
        why,
        nearest(host, path),
    );
}

/// A help that names the device whose path is most like `path`.
fn nearest(host: &HostMap, path: &str) -> String {
    let nearest = host
        .devices
        .iter()
        .min_by_key(|device| distance(&device.path, path));
    nearest.map_or_else(String::new, |device| {
        format!("the nearest is \"{}\"", device.path)
    })
}

/// How many characters must be put in, taken out or changed to make one of the other
/// (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut corner = line;
        row[0] = line + 1;
        for (at, candidate) in other.iter().enumerate() {
            let changed = corner + usize::from(letter != *candidate);
            corner = row[at + 1];
            row[at + 1] = changed.min(corner + 1).min(row[at] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("/pl061@9030000", "/pl061@9030000"), 0);
        assert_eq!(distance("/pl011@9000000", "/pl061@9030000"), 2);
    }
}
