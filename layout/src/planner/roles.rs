//! Checks of what a domain is: name, kind, roles, limits. Placement isn't touched here.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::report::{Report, name, side};
use crate::conflict::Code;
use crate::domain::{Capabilities, Kind};
use crate::host::{Architecture, Origin};
use crate::need::{MOST_GRANT_FRAMES, MOST_PORTS};
use crate::request::{DomainRequest, SystemRequest};

pub(crate) fn check(architecture: Architecture, request: &SystemRequest, report: &mut Report) {
    let mut hardware = None;
    let mut names = BTreeMap::new();
    for (index, domain) in request.domains.iter().enumerate() {
        let first = *names.entry(domain.name.value.as_str()).or_insert(index);
        check_name(first, index, request, report);
        check_kind(architecture, index, domain, report);
        check_foreign(architecture, index, domain, report);
        check_limits(index, domain, report);
        if domain.capabilities.value.contains(Capabilities::HARDWARE) {
            match hardware {
                None => hardware = Some(index),
                Some(first) => two_hardware_domains(first, index, request, report),
            }
        }
    }
}

/// `first` is the first domain of the same name.
fn check_name(first: usize, index: usize, request: &SystemRequest, report: &mut Report) {
    let own = &request.domains[index].name;
    if own.value.is_empty() {
        report.error(
            Code::NameEmpty,
            &[index],
            vec![side(index, format!("domain {index}"), own.origin)],
            String::from("logs and commands name a domain by its name, and it has none"),
            format!("name = \"domain{index}\""),
        );
    } else if first != index {
        let label = |at: usize| format!("domain {at}, name \"{}\"", own.value);
        let other = &request.domains[first].name;
        report.error(
            Code::NameDuplicate,
            &[first, index],
            vec![
                side(first, label(first), other.origin),
                side(index, label(index), own.origin),
            ],
            String::from("two domains with one name can't be told apart"),
            format!("name = \"{}{index}\" for the second", own.value),
        );
    }
}

fn check_kind(
    architecture: Architecture,
    index: usize,
    domain: &DomainRequest,
    report: &mut Report,
) {
    let kind = domain.kind.map_or(Kind::Pvh, |kind| kind.value);
    let origin = domain.kind.map_or(Origin::NONE, |kind| kind.origin);
    let own = side(
        index,
        format!("{}, kind \"{}\"", name(index, domain), kind.as_str()),
        origin,
    );
    if let (Kind::Pv, Some(direct)) = (kind, domain.direct_map)
        && direct.value
    {
        let what = format!("{}, direct-map = true", name(index, domain));
        report.error(
            Code::PvDirectMap,
            &[index],
            vec![own.clone(), side(index, what, direct.origin)],
            String::from(
                "a PV domain has no second stage: its page tables hold machine frames, and there \
                 is nothing to map 1:1",
            ),
            String::from("leave out direct-map, or kind = \"pvh\""),
        );
    }
    if kind == Kind::Pvh {
        return;
    }
    if architecture == Architecture::X86_64 {
        report.error(
            Code::NotBuiltYet,
            &[index],
            vec![own],
            format!(
                "{} domains are planned and checked, but can't be run yet",
                kind.as_str()
            ),
            String::from("kind = \"pvh\""),
        );
    } else {
        report.error(
            Code::KindForeign,
            &[index],
            vec![own],
            format!(
                "{} has auto-translated domains of one kind only",
                architecture.as_str()
            ),
            String::from("leave out kind"),
        );
    }
}

/// What a domain of this architecture has no use for. It would go unheard, and a device or a console be missed.
fn check_foreign(
    architecture: Architecture,
    index: usize,
    domain: &DomainRequest,
    report: &mut Report,
) {
    let tree = domain.partial_tree.as_ref();
    let tree = tree.filter(|_| architecture == Architecture::X86_64);
    let uart = domain.vpl011 && architecture != Architecture::Aarch64;
    let found = [
        tree.map(|tree| ("dtb", tree.origin, "its domains have ACPI tables, no tree")),
        uart.then_some(("vpl011", domain.name.origin, "the virtual PL011 is arm64's")),
    ];
    for (key, origin, reason) in found.into_iter().flatten() {
        let what = format!("{}, {key}", name(index, domain));
        report.error(
            Code::KeyForeign,
            &[index],
            vec![side(index, what, origin)],
            format!("{} has no such thing: {reason}", architecture.as_str()),
            format!("leave out {key}"),
        );
    }
}

fn check_limits(index: usize, domain: &DomainRequest, report: &mut Report) {
    let ports = domain.limits.max_event_channels;
    let frames = domain.limits.max_grant_frames;
    let limits = [
        ("max-event-channels", ports, MOST_PORTS),
        ("max-grant-frames", frames, MOST_GRANT_FRAMES),
    ];
    for (key, value, most) in limits {
        if value == 0 || value > most {
            let what = format!("{}, {key} = {value}", name(index, domain));
            report.error(
                Code::LimitInvalid,
                &[index],
                vec![side(index, what, domain.name.origin)],
                format!("{key} is from 1 to {most}"),
                format!("{key} = {}", value.clamp(1, most)),
            );
        }
    }
}

/// The help that leaves a domain its other roles.
fn without_hardware(held: Capabilities) -> String {
    let roles = [
        (Capabilities::CONTROL, "control"),
        (Capabilities::XENSTORE, "xenstore"),
    ];
    let kept = roles.into_iter().filter(|(role, _)| held.contains(*role));
    let kept: Vec<&str> = kept.map(|(_, name)| name).collect();
    if kept.is_empty() {
        String::from("leave out capabilities")
    } else {
        format!("capabilities = {kept:?}")
    }
}

fn two_hardware_domains(first: usize, second: usize, request: &SystemRequest, report: &mut Report) {
    let one = |index: usize| {
        let domain = &request.domains[index];
        side(
            index,
            format!("{}, hardware", name(index, domain)),
            domain.capabilities.origin,
        )
    };
    report.error(
        Code::HardwareDomainTwice,
        &[first, second],
        vec![one(first), one(second)],
        String::from("the hardware domain has every device that no other has: there is only one"),
        format!(
            "{} for {}, and name its devices instead",
            without_hardware(request.domains[second].capabilities.value),
            name(second, &request.domains[second])
        ),
    );
}
