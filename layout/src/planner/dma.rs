//! Whether devices' DMA finds the memory of the domains that drive them.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::ground::Ground;
use super::report::{Report, host_side, name, side};
use super::sets;
use crate::address::{FRAME_SIZE, MachineAddress, MachineRange, MfnRange};
use crate::conflict::{Code, Side};
use crate::domain::Kind;
use crate::host::{Dma, DmaWindow, HostDevice, HostMap};
use crate::plan::{Bank, DomainPlan};
use crate::reach;
use crate::request::{DeviceRequest, DomainRequest, SystemRequest};

/// So many devices are named in one conflict.
const MOST_NAMED: usize = 4;

/// A domain whose frames aren't at their machine addresses can't tell a device where to go:
/// without an IOMMU that knows, DMA lands in somebody else's memory.
pub(crate) fn check(
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
        let devices = assigned[index].iter().map(|at| &host.devices[*at]);
        let (behind, free): (Vec<&HostDevice>, Vec<&HostDevice>) = devices
            // Who gives a mask says that it does DMA.
            .filter(|device| device.dma != Dma::None || domain.dma_mask(&device.path).is_some())
            .partition(|device| device.behind_iommu);
        let sides = |devices: &[&HostDevice]| {
            let origin = domain
                .direct_map
                .map_or(domain.name.origin, |direct| direct.origin);
            let own = format!("{}, not direct-mapped", name(index, domain));
            let named = devices.iter().take(MOST_NAMED).map(|device| {
                let what = format!("device {}, which may do DMA", device.path);
                host_side(what, device.origin)
            });
            let sides: Vec<Side> = core::iter::once(side(index, own, origin))
                .chain(named)
                .collect();
            sides
        };
        let help = String::from("direct-map = true");
        if !free.is_empty() {
            let why = format!(
                "the addresses that it tells a device aren't machine addresses, and {}: DMA would \
                 reach memory that isn't the domain's",
                untranslated(host, &free)
            );
            if domain.allow_dma_without_iommu {
                report.warning(Code::DmaWithoutIommu, sides(&free), why, help.clone());
            } else {
                let sides = sides(&free);
                report.error(Code::DmaWithoutIommu, &[index], sides, why, help.clone());
            }
        }
        if !behind.is_empty() && domain.allow_dma_without_iommu {
            let why = String::from(
                "the addresses that it tells a device aren't machine addresses, and the IOMMU before \
                 it is left in bypass: DMA would reach memory that isn't the domain's",
            );
            report.warning(Code::DmaWithoutIommu, sides(&behind), why, help);
        } else if !behind.is_empty() {
            let why = String::from(
                "an IOMMU could translate its DMA, but no driver for one is built yet",
            );
            report.error(Code::NotBuiltYet, &[index], sides(&behind), why, help);
        }
    }
}

/// Why nothing translates for these devices: an IOMMU that is there need not be of use.
fn untranslated(host: &HostMap, devices: &[&HostDevice]) -> String {
    let private = devices.iter().find(|device| device.private_iommu);
    if let Some(device) = private {
        return format!(
            "the IOMMU before {} is its driver's own, without a second stage that could translate \
             for a domain",
            device.path
        );
    }
    let usable = host.iommus.iter().find(|iommu| iommu.usable);
    match (usable, host.iommus.first(), devices.first()) {
        (Some(iommu), _, Some(device)) => format!(
            "the IOMMU {} doesn't translate them: {} is outside of it, or bypasses it",
            iommu.path, device.path
        ),
        (None, Some(iommu), _) => format!(
            "the IOMMU {} can't translate them: it has no second stage",
            iommu.path
        ),
        _ => String::from("no IOMMU translates them"),
    }
}

/// What some devices reach, and the usable RAM in that, if it is some and not all.
type Class = (Vec<MachineRange>, Option<Rc<[MfnRange]>>);

/// For each direct-mapped domain the usable RAM that all of its devices reach; `None` if that is
/// all of it, or if a device reaches none: then no placement helps.
pub(crate) fn reaches(
    ground: &Ground<'_>,
    request: &SystemRequest,
    assigned: &[Vec<usize>],
) -> Vec<Option<Rc<[MfnRange]>>> {
    let mut known: Vec<Class> = Vec::new();
    let domains = request.domains.iter().enumerate();
    let reaches = domains.map(|(index, domain)| {
        if !domain.identity().is_direct_mapped() {
            return None;
        }
        let mut classes: Vec<usize> = Vec::new();
        for device in &assigned[index] {
            let device = &ground.host.devices[*device];
            let Some(machine) = reach::of_device(device, domain.dma_mask(&device.path)) else {
                continue;
            };
            let class = known.iter().position(|(other, _)| *other == machine);
            let class = class.unwrap_or_else(|| {
                let limited = limited(ground, &machine);
                known.push((machine, limited.map(Rc::from)));
                known.len() - 1
            });
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
        let limited = classes.iter().filter_map(|class| known[*class].1.as_ref());
        limited.fold(None, |all: Option<Rc<[MfnRange]>>, reach| {
            let Some(all) = all else {
                return Some(Rc::clone(reach));
            };
            let both = sets::intersect(&all, reach);
            // Devices of which one reaches nothing that the other does can't all be served.
            Some(if both.is_empty() { all } else { both.into() })
        })
    });
    reaches.collect()
}

/// The usable RAM in `machine`, if that is some and not all.
fn limited(ground: &Ground<'_>, machine: &[MachineRange]) -> Option<Vec<MfnRange>> {
    let frames = machine.iter().map(MachineRange::frames_inside);
    let frames = sets::normalise(frames.collect());
    let limited = |first: &MfnRange, last: &MfnRange| {
        let all = MfnRange::between(first.start(), last.end());
        !frames.iter().any(|frames| frames.covers(&all))
    };
    let usable = &ground.usable;
    if !limited(usable.first()?, usable.last()?) {
        return None;
    }
    let reached = sets::intersect(usable, &frames);
    (!reached.is_empty() && reached != *usable).then_some(reached)
}

/// Checks what a direct-mapped domain's devices can address, once its RAM is known. A named
/// device that reaches none of it is an error, one that reaches a part is worth a warning. Of the
/// hardware domain's other devices those are named that reach RAM, but none of its own.
pub(crate) fn check_reach(
    ground: &Ground<'_>,
    request: &SystemRequest,
    plan: &DomainPlan,
    report: &mut Report,
) {
    if !plan.identity.is_direct_mapped() || plan.devices.is_empty() {
        return;
    }
    let domain = &request.domains[plan.index];
    // What is reserved doesn't count: a driver's buffers come from it only if it is a pool for them
    // (`shared-dma-pool`, `restricted-dma-pool`), and which region is one isn't known here.
    let own = plan.banks.iter().filter(|bank| !bank.reserved);
    let own = sets::normalise(own.map(Bank::machine).collect());
    let mut stranded: Vec<&HostDevice> = Vec::new();
    let mut fine: Vec<Vec<MachineRange>> = Vec::new();
    for at in &plan.devices {
        let device = &ground.host.devices[*at];
        let wanted = domain.devices.iter().find(|it| it.path == device.path);
        let mask = wanted.and_then(|wanted| wanted.dma_mask);
        let Some(machine) = reach::of_device(device, mask) else {
            continue;
        };
        if fine.contains(&machine) {
            continue;
        }
        let frames = machine.iter().map(MachineRange::frames_inside);
        let frames = sets::normalise(frames.collect());
        let reached = sets::intersect(&own, &frames);
        if reached == own {
            fine.push(machine);
        } else if let Some(wanted) = wanted {
            let reaches_ram = !sets::intersect(&ground.ram, &frames).is_empty();
            let partly = !reached.is_empty();
            match smallest_mask(ground, device).filter(|_| !reaches_ram) {
                Some(least) => below_memory(plan.index, wanted, device, least, report),
                None => short_reach(plan.index, domain, &own, wanted, &machine, partly, report),
            }
        } else if reached.is_empty() && !sets::intersect(&ground.ram, &frames).is_empty() {
            stranded.push(device);
        }
    }
    if !stranded.is_empty() {
        let named = stranded.iter().take(MOST_NAMED).map(|device| {
            let what = format!("device {}, which the domain has", device.path);
            host_side(what, device.origin)
        });
        let ram = ram_side(plan.index, domain, &own);
        let sides = core::iter::once(ram).chain(named).collect();
        let why = format!(
            "{} of the domain's devices reach RAM, but none of its own",
            stranded.len()
        );
        let help = String::from("leave it RAM where the devices reach it");
        report.warning(Code::DmaMask, sides, why, help);
    }
}

/// The smallest mask, all ones, with which a device would reach RAM that a domain could have.
fn smallest_mask(ground: &Ground<'_>, device: &HostDevice) -> Option<u64> {
    let lowest = |range: &MachineRange| {
        let usable = sets::intersect(&ground.usable, &[range.frames_inside()]);
        Some(usable.first()?.bytes())
    };
    let everything = DmaWindow {
        bus: 0,
        machine: MachineRange::saturating(MachineAddress::new(0), u64::MAX),
    };
    let windows: &[DmaWindow] = match device.dma_windows.as_slice() {
        [] => &[everything],
        windows => windows,
    };
    let buses = windows.iter().filter_map(|window| {
        let first = lowest(&window.machine)?.start().raw() + (FRAME_SIZE - 1);
        let ahead = first - window.machine.start().raw();
        window.bus.checked_add(ahead)
    });
    // The last byte of a frame, so never 0.
    let bus = buses.min()?;
    Some(u64::MAX >> bus.leading_zeros())
}

/// A named device whose mask ends before its bus shows any RAM: no place for the domain helps.
fn below_memory(
    index: usize,
    wanted: &DeviceRequest,
    device: &HostDevice,
    least: u64,
    report: &mut Report,
) {
    let mask = match (wanted.dma_mask, device.dma) {
        (Some(mask), _) | (None, Dma::Possible { mask }) => mask,
        (None, Dma::None) => 0,
    };
    let what = format!(
        "device {}, which puts addresses up to {mask:#x} on its bus",
        wanted.path
    );
    let seen = device.dma_windows.iter().take(MOST_NAMED).map(|window| {
        let what = format!(
            "{}, whose bus has memory {} from {:#x} on",
            device.path, window.machine, window.bus
        );
        host_side(what, device.origin)
    });
    let own = side(index, what, wanted.origin);
    let sides = core::iter::once(own).chain(seen).collect();
    let why = String::from(
        "the device reaches no memory: a mask counts bus addresses, and none up to it leads to RAM",
    );
    let help = format!(
        "dma-mask = {least:#x}, the smallest that reaches RAM; who has less can't have the device"
    );
    report.error(Code::DmaMask, &[index], sides, why, help);
}

fn ram_side(index: usize, domain: &DomainRequest, own: &[MfnRange]) -> Side {
    let lowest = own.first().map_or(0, |range| range.start().address().raw());
    let highest = own
        .last()
        .map_or(0, |range| range.end().address().raw() - 1);
    let what = format!(
        "{}, RAM from {lowest:#x} to {highest:#x}",
        name(index, domain)
    );
    side(index, what, domain.memory.origin)
}

/// A named device that doesn't reach all of its domain's RAM; of none it is an error.
fn short_reach(
    index: usize,
    domain: &DomainRequest,
    own: &[MfnRange],
    wanted: &DeviceRequest,
    machine: &[MachineRange],
    partly: bool,
    report: &mut Report,
) {
    let what = match machine {
        [only] if only.start().raw() == 0 => {
            format!("up to {:#x}", only.end().raw().saturating_sub(1))
        }
        several => {
            let several: Vec<String> = several.iter().map(|it| format!("{it}")).collect();
            several.join(", ")
        }
    };
    let what = format!("device {}, which reaches addresses {what}", wanted.path);
    let sides = vec![
        side(index, what, wanted.origin),
        ram_side(index, domain, own),
    ];
    let help = format!(
        "leave {} out of devices, or RAM to the domain that the device reaches",
        wanted.path
    );
    if partly {
        let why = String::from(
            "the device reaches a part of the domain's RAM only: its driver must bounce",
        );
        report.warning(Code::DmaMask, sides, why, help);
    } else {
        let why = String::from("the device reaches none of the domain's RAM");
        report.error(Code::DmaMask, &[index], sides, why, help);
    }
}
