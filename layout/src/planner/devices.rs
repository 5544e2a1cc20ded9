//! Which domain drives which device, and whether the device's DMA finds the domain's memory.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::report::{Report, host_side, name, side};
use crate::address::{MachineRange, MfnRange};
use crate::conflict::Code;
use crate::domain::Kind;
use crate::host::{Dma, HostDevice, HostMap, Origin};
use crate::plan::DomainPlan;
use crate::request::{DeviceRequest, SystemRequest};
use crate::sort::sort_by_key;

/// For each domain its devices, by index in the host map and in that order.
pub(crate) fn assign(
    host: &HostMap,
    request: &SystemRequest,
    report: &mut Report,
) -> Vec<Vec<usize>> {
    let mut assigned: Vec<Vec<usize>> = vec![Vec::new(); request.domains.len()];
    let mut owners: Vec<Option<(usize, Origin)>> = vec![None; host.devices.len()];
    let console = console(host, request, report);
    for (index, domain) in request.domains.iter().enumerate() {
        for wanted in &domain.devices {
            let own = side(
                index,
                format!("{}, device {}", name(index, domain), wanted.path),
                wanted.origin,
            );
            let Some(device) = find(host, &wanted.path) else {
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
                let help =
                    String::from("another console for the hypervisor, or leave the device out");
                let sides = vec![own, host_side(what, origin)];
                report.error(Code::DeviceTwice, &[index], sides, why, help);
            } else if let Some((first, origin)) = owners[device] {
                let what = format!(
                    "{}, device {}",
                    name(first, &request.domains[first]),
                    wanted.path
                );
                let why = format!("{} can have one driver", wanted.path);
                let help = String::from("take it out of one of them");
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
    for devices in &mut assigned {
        sort_by_key(devices, |device| {
            [u64::try_from(*device).unwrap_or(u64::MAX), 0, 0]
        });
    }
    check_pages(host, request, &assigned, console, report);
    check_dma(host, request, &assigned, report);
    assigned
}

/// Stage 2 maps whole pages: devices of different owners can't share one.
fn check_pages(
    host: &HostMap,
    request: &SystemRequest,
    assigned: &[Vec<usize>],
    console: Option<usize>,
    report: &mut Report,
) {
    let mut owners: Vec<Option<usize>> = vec![None; host.devices.len()];
    for (domain, devices) in assigned.iter().enumerate() {
        for device in devices {
            owners[*device] = Some(domain);
        }
    }
    for (index, domain) in request.domains.iter().enumerate() {
        for wanted in &domain.devices {
            let Some(device) = find(host, &wanted.path) else {
                continue;
            };
            let others: Vec<usize> = (0..host.devices.len())
                .filter(|other| owners[*other].is_some() || console == Some(*other))
                .filter(|other| owners[*other] != Some(index) && owners[device] == Some(index))
                .filter(|other| share_a_page(&host.devices[device], &host.devices[*other]))
                .collect();
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
            let why = String::from("their registers lie in one page, and a page has one owner");
            let help = if console.is_some_and(|console| others.contains(&console)) {
                String::from("leave the device out, or choose another console for the hypervisor")
            } else {
                let paths: Vec<&str> = others
                    .iter()
                    .map(|other| host.devices[*other].path.as_str())
                    .collect();
                format!("give {} to the same domain", paths.join(", "))
            };
            report.error(Code::DeviceSharesPage, &[index], sides, why, help);
        }
    }
}

fn share_a_page(one: &HostDevice, other: &HostDevice) -> bool {
    let pages = |device: &HostDevice| -> Vec<MfnRange> {
        let ranges = device.ranges.iter();
        ranges.map(MachineRange::frames_touched).collect()
    };
    let others = pages(other);
    let mut pages = pages(one).into_iter();
    pages.any(|page| others.iter().any(|other| page.overlaps(other)))
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

/// A domain whose frames aren't at their machine addresses can't tell a device where to go:
/// without an IOMMU that knows, DMA lands in somebody else's memory.
fn check_dma(
    host: &HostMap,
    request: &SystemRequest,
    assigned: &[Vec<usize>],
    report: &mut Report,
) {
    for (index, domain) in request.domains.iter().enumerate() {
        let identity = domain.identity();
        // PV guests know machine frames; what confines them is a question for when they run.
        if identity.is_direct_mapped() || identity.kind == Kind::Pv {
            continue;
        }
        let masters: Vec<&HostDevice> = assigned[index]
            .iter()
            .map(|at| &host.devices[*at])
            .filter(|device| device.dma != Dma::None)
            .collect();
        let origin = domain
            .direct_map
            .map_or(domain.name.origin, |direct| direct.origin);
        let own = side(
            index,
            format!("{}, not direct-mapped", name(index, domain)),
            origin,
        );
        let listed = |free: bool| {
            let some = masters
                .iter()
                .filter(move |device| device.behind_iommu != free);
            some.map(|device| {
                host_side(
                    format!("device {}, which may do DMA", device.path),
                    device.origin,
                )
            })
        };
        if listed(true).next().is_some() {
            let sides: Vec<_> = core::iter::once(own.clone())
                .chain(listed(true).take(4))
                .collect();
            let why = String::from(
                "the addresses that it tells a device aren't machine addresses, and no IOMMU \
                 translates them: DMA would reach memory that isn't the domain's",
            );
            let help = String::from("direct-map = true");
            if domain.allow_dma_without_iommu {
                report.warning(Code::DmaWithoutIommu, sides, why, help);
            } else {
                report.error(Code::DmaWithoutIommu, &[index], sides, why, help);
            }
        }
        if listed(false).next().is_some() && !domain.allow_dma_without_iommu {
            let sides: Vec<_> = core::iter::once(own).chain(listed(false).take(4)).collect();
            let why = String::from(
                "an IOMMU could translate its DMA, but no driver for one is built yet",
            );
            report.error(
                Code::NotBuiltYet,
                &[index],
                sides,
                why,
                String::from("direct-map = true"),
            );
        }
    }
}

/// Checks what a direct-mapped domain's named devices can address, once its RAM is known.
/// A device that reaches none of it is an error, one that reaches a part is worth a warning;
/// the hardware domain's other devices are its driver's concern.
pub(crate) fn check_reach(
    host: &HostMap,
    request: &SystemRequest,
    plan: &DomainPlan,
    report: &mut Report,
) {
    if !plan.identity.is_direct_mapped() {
        return;
    }
    let index = plan.index;
    let lowest = plan
        .banks
        .iter()
        .map(|bank| bank.mfn.address().raw())
        .min()
        .unwrap_or(0);
    let highest = plan
        .banks
        .iter()
        .map(|bank| bank.machine().bytes().end().raw() - 1)
        .max();
    let highest = highest.unwrap_or(0);
    for wanted in &request.domains[index].devices {
        let Some(mask) = mask(host, wanted) else {
            continue;
        };
        if mask >= highest {
            continue;
        }
        let what = format!(
            "device {}, which reaches addresses up to {mask:#x}",
            wanted.path
        );
        let ram = format!(
            "{}, RAM from {lowest:#x} to {highest:#x}",
            name(index, &request.domains[index])
        );
        let sides = vec![
            side(index, what, wanted.origin),
            side(index, ram, request.domains[index].memory.origin),
        ];
        let help = format!("memory-below = {:#x}", mask.saturating_add(1));
        if mask < lowest {
            let why = String::from("the device reaches none of the domain's RAM");
            report.error(Code::DmaMask, &[index], sides, why, help);
        } else {
            let why = String::from(
                "the device reaches a part of the domain's RAM only: its driver must bounce",
            );
            report.warning(Code::DmaMask, sides, why, help);
        }
    }
}

fn mask(host: &HostMap, wanted: &DeviceRequest) -> Option<u64> {
    let device = host
        .devices
        .iter()
        .find(|device| device.path == wanted.path)?;
    match (wanted.dma_mask, device.dma) {
        (Some(mask), _) => Some(mask),
        (None, Dma::Possible { mask }) => Some(mask),
        (None, Dma::None) => None,
    }
}

/// A help that names the device whose path is most like `path`.
fn nearest(host: &HostMap, path: &str) -> String {
    let nearest = host
        .devices
        .iter()
        .min_by_key(|device| distance(&device.path, path));
    nearest.map_or_else(String::new, |device| {
        format!("the nearest is {}", device.path)
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
