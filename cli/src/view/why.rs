//! Why something is where it is: the rule, or the line that says so.

use layout::{
    BootKind, DomainPlan, DomainRequest, MachineRange, MemoryRequest, OnStop, Origin, Owned, Owner,
};

use manifest::origin::{Position, WhichTree};

use super::{Kind, Source, shown};

/// A reason with the place where it was said, if there is one.
pub fn described(source: Source<'_>, reason: &str, origin: Origin) -> String {
    match source.origins.describe(origin) {
        Some(place) => format!("{reason} ({})", shown(&place)),
        None => reason.to_owned(),
    }
}

/// Why somebody owns this RAM.
pub fn ram(source: Source<'_>, owned: Owned) -> String {
    let bytes = owned.frames.bytes();
    match owned.owner {
        Owner::Hypervisor if source.plan.hypervisor.in_place => {
            "it stays where the boot loader put it".to_owned()
        }
        Owner::Hypervisor => {
            "the planner's choice: where it leaves the domains the most room".to_owned()
        }
        Owner::Domain(index) => match source.plan.domains.get(index) {
            Some(domain) => of_domain(source, domain, &bytes),
            None => String::new(),
        },
        Owner::Kept => kept(source, &bytes),
        Owner::Reserved => reserved(source, &bytes),
        Owner::Nobody => nobody(source),
    }
}

fn nobody(source: Source<'_>) -> String {
    let refused: Vec<String> = refused(source).map(name).collect();
    if refused.is_empty() {
        return "no domain asked for it".to_owned();
    }
    let names = refused.join(", ");
    format!("no domain that starts asked for it; refused: {names}")
}

/// The domains that were asked for and that conflicts keep out of the plan.
fn refused<'a>(source: Source<'a>) -> impl Iterator<Item = &'a DomainRequest> {
    let domains = source.request.domains.iter().enumerate();
    let refused = domains.filter(move |(index, _)| {
        let mut planned = source.plan.domains.iter();
        planned.all(|domain| domain.index != *index)
    });
    refused.map(|(_, domain)| domain)
}

fn name(domain: &DomainRequest) -> String {
    format!("`{}`", shown(&domain.name.value))
}

fn asked<'a>(source: Source<'a>, domain: &DomainPlan) -> Option<&'a DomainRequest> {
    source.request.domains.get(domain.index)
}

fn of_domain(source: Source<'_>, domain: &DomainPlan, bytes: &MachineRange) -> String {
    let Some(request) = asked(source, domain) else {
        return String::new();
    };
    let overlaps = |start: u64, size: u64| {
        start < bytes.end().raw() && bytes.start().raw() < start.saturating_add(size)
    };
    let named = request
        .static_mem
        .iter()
        .find(|one| overlaps(one.start, one.size));
    if let Some(named) = named {
        return described(source, "named by `static-mem`", named.origin);
    }
    let low =
        source.plan.architecture == layout::Architecture::X86_64 && bytes.end().raw() <= 1 << 20;
    if low {
        return "RAM below 1 MiB, where a PC's CPUs start".to_owned();
    }
    let origin = request.memory.origin;
    let reason = match (request.memory.value, &request.memory_below) {
        (MemoryRequest::Rest, _) => "`memory = \"rest\"`: what nobody else has",
        (_, Some(_)) => "the planner's choice for `memory`, below `memory-below`",
        (_, None) => "the planner's choice for `memory`",
    };
    described(source, reason, origin)
}

fn kept(source: Source<'_>, bytes: &MachineRange) -> String {
    let modules = |domain: &&DomainPlan| {
        let mut sources = std::iter::once(&domain.kernel).chain(domain.ramdisk.as_ref());
        sources.any(|module| module.source.overlaps(bytes))
    };
    let domains = source.plan.domains.iter().filter(modules);
    let names: Vec<String> = domains
        .map(|domain| {
            let policies = &domain.policies;
            let restarts = [
                ("on-poweroff", policies.on_poweroff),
                ("on-reboot", policies.on_reboot),
                ("on-crash", policies.on_crash),
            ];
            let by = restarts.iter().find(|(_, what)| *what == OnStop::Restart);
            let key = by.map_or("", |(key, _)| *key);
            format!("`{}` ({key} = \"restart\")", shown(&domain.name))
        })
        .collect();
    format!("modules needed again by {}", names.join(", "))
}

fn reserved(source: Source<'_>, bytes: &MachineRange) -> String {
    let boot = source
        .host
        .boot
        .iter()
        .find(|one| one.range.overlaps(bytes));
    match boot.map(|boot| boot.kind) {
        Some(BootKind::HostTree) => "the boot loader's device tree lies here".to_owned(),
        Some(BootKind::Container) => "the boot loader's container lies here".to_owned(),
        Some(BootKind::Hypervisor) => "the hypervisor's image was loaded here".to_owned(),
        None => "kept by the machine".to_owned(),
    }
}

/// Why a domain sees its RAM where it does.
pub fn seen(source: Source<'_>, domain: &DomainPlan) -> String {
    let request = asked(source, domain);
    let identity = &domain.identity;
    if identity.is_direct_mapped() {
        return match request.and_then(|request| request.direct_map) {
            Some(direct) => described(source, "direct-mapped: `direct-map`", direct.origin),
            None => "direct-mapped, as an auto-translated hardware domain is by default".to_owned(),
        };
    }
    if identity.uses_host_layout() {
        return "the host's layout, not direct-mapped".to_owned();
    }
    "the fixed layout of guests: not direct-mapped".to_owned()
}

/// Why a kernel or ramdisk is where it is.
pub fn module(source: Source<'_>, domain: &DomainPlan, kind: Kind) -> String {
    let request = asked(source, domain);
    let (placement, origin) = match kind {
        Kind::Ramdisk => {
            let asked = request.and_then(|request| request.ramdisk.as_ref());
            (domain.ramdisk.as_ref(), asked.map(|asked| asked.origin))
        }
        _ => {
            let asked = request.and_then(|request| request.kernel.as_ref());
            (Some(&domain.kernel), asked.map(|asked| asked.origin))
        }
    };
    let reason = match placement.map(|placement| placement.in_place) {
        Some(true) => "used where the boot loader left it",
        _ => "copied here before the start",
    };
    described(source, reason, origin.unwrap_or(Origin::NONE))
}

/// Why somebody drives a device.
pub fn device(source: Source<'_>, index: usize, owner: Option<Owner>) -> String {
    let path = source.host.devices.get(index).map(|device| &device.path);
    match owner {
        Some(Owner::Hypervisor) => {
            let console = source.request.hypervisor.console.as_ref();
            let origin = console.map_or(Origin::NONE, |console| console.origin);
            described(source, "the hypervisor's console", origin)
        }
        Some(Owner::Domain(domain)) => {
            let domain = source.plan.domains.get(domain);
            let request = domain.and_then(|domain| asked(source, domain));
            let mut named = request.iter().flat_map(|request| &request.devices);
            match named.find(|device| Some(&device.path) == path) {
                Some(device) => {
                    let key = match source.origins.get(device.origin) {
                        Some(Position::Node {
                            tree: WhichTree::Partial(_),
                            ..
                        }) => "passed through by the partial tree",
                        _ => "passed through by `devices`",
                    };
                    described(source, key, device.origin)
                }
                None => "the hardware domain has what no other domain is given".to_owned(),
            }
        }
        _ => without_driver(source, path.map_or("", String::as_str)),
    }
}

fn without_driver(source: Source<'_>, path: &str) -> String {
    for domain in refused(source) {
        let mut named = domain.devices.iter();
        if let Some(device) = named.find(|device| device.path == path) {
            let reason = format!("{} asks for it, and is refused", name(domain));
            return described(source, &reason, device.origin);
        }
    }
    let mut planned = source.plan.domains.iter();
    if planned.any(|domain| domain.identity.is_hardware()) {
        return "no domain is given it".to_owned();
    }
    match refused(source).find(|domain| domain.identity().is_hardware()) {
        Some(domain) => format!(
            "no domain is given it, and the hardware domain {} is refused",
            name(domain)
        ),
        None => "no domain is given it, and there is no hardware domain".to_owned(),
    }
}
