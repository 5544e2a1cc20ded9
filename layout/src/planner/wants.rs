//! What each domain needs in its RAM, checked as far as that goes without placing anything.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::ground::{Ground, hardware_only, modules};
use super::guest;
use super::modules::{MOST_TEXT_OFFSET, Wanted};
use super::place::Want;
use super::report::{Report, host_side, name, side};
use crate::address::{FRAME_SHIFT, GuestRange, Mfn, MfnRange};
use crate::conflict::{Code, Side};
use crate::host::{Architecture, BootKind, Origin};
use crate::need::MOST_TREE_BYTES;
use crate::request::{DomainRequest, MemoryRequest, SystemRequest};
use crate::size::Size;

/// For each domain what it needs; `None` if it has no kernel that could be placed.
pub(crate) fn check(
    ground: &Ground<'_>,
    request: &SystemRequest,
    report: &mut Report,
) -> Vec<Option<Wanted>> {
    check_modules(ground, request, report);
    check_rests(request, report);
    check_fixed_kernels(ground.host.architecture, request, report);
    let domains = request.domains.iter().enumerate();
    domains
        .map(|(index, domain)| {
            check_tree(index, domain, report);
            check_kernel(index, domain, report);
            check_low(ground.host.architecture, index, domain, report);
            let wanted = Wanted::of(ground.host.architecture, domain)?;
            check_size(index, domain, &wanted, report);
            Some(wanted)
        })
        .collect()
}

/// The good domains that name no ranges.
pub(crate) fn collect<'a>(
    ground: &Ground<'_>,
    request: &SystemRequest,
    wanted: &'a [Option<Wanted>],
    reach: &[Option<Rc<[MfnRange]>>],
    report: &Report,
) -> Vec<Want<'a>> {
    let mut wants = Vec::new();
    let usable = super::sets::total(&ground.usable);
    for (index, domain) in request.domains.iter().enumerate() {
        let frames = match domain.memory.value {
            MemoryRequest::Size(size) => Some(size >> FRAME_SHIFT),
            MemoryRequest::Rest => None,
            MemoryRequest::SumOfStatic => continue,
        };
        let Some(modules) = wanted[index].as_ref() else {
            continue;
        };
        if report.is_refused(index) || !domain.static_mem.is_empty() {
            continue;
        }
        let identity = domain.identity();
        let limit = domain
            .memory_below
            .map_or(Mfn::MAX, |limit| Mfn::new(limit.value >> FRAME_SHIFT));
        let most = if identity.uses_host_layout() {
            usable
        } else {
            guest::most_frames(ground.host.architecture, &identity, &ground.usable)
        };
        wants.push(Want {
            index,
            identity,
            frames,
            most,
            limit,
            modules,
            reach: reach[index].clone(),
            nodes: Vec::new(),
        });
    }
    wants
}

/// Every module must be in RAM, and not where something else is that boot left there.
fn check_modules(ground: &Ground<'_>, request: &SystemRequest, report: &mut Report) {
    for (index, what, range, origin) in modules(request) {
        let own = || {
            let what = format!("{}, {what} {range}", name(index, &request.domains[index]));
            side(index, what, origin)
        };
        if !range.is_empty() && !ground.is_ram(&range) {
            let sides = vec![own(), ground.ram_side(Some(range))];
            let why = String::from("the module isn't in RAM as a whole");
            let help = String::from("load it at another address");
            report.error(Code::ModuleOutsideRam, &[index], sides, why, help);
        }
        for boot in &ground.host.boot {
            if boot.kind == BootKind::Container || !boot.range.overlaps(&range) {
                continue;
            }
            let other = match boot.kind {
                BootKind::Hypervisor => "the hypervisor's image",
                BootKind::HostTree | BootKind::Container => "the host's device tree",
            };
            let sides = vec![
                own(),
                host_side(format!("{other} {}", boot.range), boot.origin),
            ];
            let why = String::from("the boot loader put one over the other");
            let end = boot.range.end();
            let help = format!("load the module at {end} or above");
            report.error(Code::ModuleOutsideRam, &[index], sides, why, help);
        }
    }
}

fn check_rests(request: &SystemRequest, report: &mut Report) {
    let rests = request.domains.iter().enumerate();
    let mut rests = rests.filter(|(_, domain)| domain.memory.value == MemoryRequest::Rest);
    let Some((first, domain)) = rests.next() else {
        return;
    };
    let own = |index: usize, domain: &DomainRequest| {
        side(
            index,
            format!("{}, memory = \"rest\"", name(index, domain)),
            domain.memory.origin,
        )
    };
    for (second, other) in rests {
        let sides = vec![own(first, domain), own(second, other)];
        let why = String::from("only one domain can have what all others leave");
        let help = String::from("a size for one of them, such as memory = \"256MiB\"");
        report.error(Code::MemoryTwoRests, &[first, second], sides, why, help);
    }
}

fn check_tree(index: usize, domain: &DomainRequest, report: &mut Report) {
    if domain.tree_bytes > MOST_TREE_BYTES {
        let what = format!(
            "{}, device tree of {} bytes",
            name(index, domain),
            domain.tree_bytes
        );
        let own = side(index, what, domain.name.origin);
        let why = String::from("Linux maps 2 MiB of a device tree");
        let help = String::from("a smaller partial tree");
        report.error(Code::TreeTooLarge, &[index], vec![own], why, help);
    }
}

/// A PC has one first MiB, which only one direct-mapped domain can see.
fn check_low(
    architecture: Architecture,
    index: usize,
    domain: &DomainRequest,
    report: &mut Report,
) {
    let identity = domain.identity();
    if hardware_only(architecture).is_empty()
        || !identity.is_direct_mapped()
        || identity.is_hardware()
    {
        return;
    }
    let origin = domain
        .direct_map
        .map_or(domain.name.origin, |direct| direct.origin);
    let own = side(
        index,
        format!("{}, direct-mapped", name(index, domain)),
        origin,
    );
    let why = String::from(
        "it has no RAM below 1 MiB, which is the hardware domain's; Linux doesn't start without any",
    );
    let help = String::from("leave out direct-map, unless what it runs can do without");
    report.warning(Code::NoLowMemory, vec![own], why, help);
}

fn check_kernel(index: usize, domain: &DomainRequest, report: &mut Report) {
    let Some(kernel) = &domain.kernel else {
        let own = side(index, name(index, domain), domain.name.origin);
        let why = String::from("it has nothing to run");
        let help = String::from("kernel = \"Image\"");
        report.error(Code::KernelMissing, &[index], vec![own], why, help);
        return;
    };
    let own = |what: String| {
        side(
            index,
            format!("{}, {what}", name(index, domain)),
            kernel.origin,
        )
    };
    if !kernel.alignment.is_power_of_two() {
        let why = String::from("an alignment is a power of two");
        let sides = vec![own(format!("kernel aligned to {}", kernel.alignment))];
        report.error(
            Code::KernelHeader,
            &[index],
            sides,
            why,
            format!(
                "another kernel, or an alignment of {:#x}",
                kernel
                    .alignment
                    .checked_next_power_of_two()
                    .unwrap_or(1 << 63)
            ),
        );
    } else if kernel.text_offset >= MOST_TEXT_OFFSET {
        let why = String::from("the kernel's offset from its base is beyond all kernels'");
        let sides = vec![own(format!("kernel at offset {:#x}", kernel.text_offset))];
        report.error(
            Code::KernelHeader,
            &[index],
            sides,
            why,
            String::from("another kernel"),
        );
    }
}

/// Two direct-mapped kernels that can each lie at one place only can't both lie there. The first
/// has it.
fn check_fixed_kernels(architecture: Architecture, request: &SystemRequest, report: &mut Report) {
    let mut fixed: Vec<(usize, GuestRange)> = Vec::new();
    for (index, domain) in request.domains.iter().enumerate() {
        let only = Wanted::of(architecture, domain).and_then(|wanted| wanted.kernel.only_place());
        let Some(place) = only.filter(|_| domain.identity().is_direct_mapped()) else {
            continue;
        };
        if report.is_refused(index) {
            continue;
        }
        let Some((first, _)) = fixed.iter().find(|(_, other)| other.overlaps(&place)) else {
            fixed.push((index, place));
            continue;
        };
        let kernel = |at: usize| {
            let domain = &request.domains[at];
            let origin = domain.kernel.as_ref().map_or(Origin::NONE, |it| it.origin);
            let what = format!("{}, kernel that must lie at {place}", name(at, domain));
            side(at, what, origin)
        };
        let why = String::from(
            "a direct-mapped kernel's addresses are the machine's, and neither kernel can be moved",
        );
        let help = format!(
            "direct-map = false for {}, or a kernel that can be moved",
            name(index, domain)
        );
        let sides = vec![kernel(*first), kernel(index)];
        report.error(Code::KernelSameAddress, &[index], sides, why, help);
    }
}

/// Memory that can't hold what must be in it, wherever it is.
fn check_size(index: usize, domain: &DomainRequest, wanted: &Wanted, report: &mut Report) {
    let size = match domain.memory.value {
        MemoryRequest::Size(size) if size > 0 => size,
        _ => return,
    };
    if size >> FRAME_SHIFT < wanted.least_frames() {
        too_small(index, domain, wanted, size, report);
    }
}

/// The conflict of memory that holds less than the modules.
pub(crate) fn too_small(
    index: usize,
    domain: &DomainRequest,
    wanted: &Wanted,
    size: u64,
    report: &mut Report,
) {
    let label = name(index, domain);
    let origin = match domain.static_mem.first() {
        Some(first) => first.origin,
        None => domain.memory.origin,
    };
    let mut sides: Vec<Side> = vec![side(
        index,
        format!("{label}, memory of {}", Size(size)),
        origin,
    )];
    let kernel = domain.kernel.iter();
    sides.extend(kernel.map(|kernel| {
        let what = format!("{label}, kernel of {} bytes in memory", wanted.kernel.size);
        side(index, what, kernel.origin)
    }));
    sides.extend(domain.ramdisk.iter().map(|disk| {
        side(
            index,
            format!("{label}, ramdisk of {} bytes", disk.module.size()),
            disk.origin,
        )
    }));
    let least = wanted.comfortable_bytes();
    let why = String::from("kernel, ramdisk and device tree don't fit beside each other");
    let help = super::capacity::at_least(domain, least);
    report.error(Code::TooSmallForModules, &[index], sides, why, help);
}

/// Whether these ranges could hold the modules if they were one piece.
pub(crate) fn could_hold(wanted: &Wanted, owned: &[MfnRange]) -> bool {
    owned.len() > 1 && super::sets::total(owned) >= wanted.comfortable_bytes() >> FRAME_SHIFT
}
