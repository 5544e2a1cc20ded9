//! Which host CPU each vCPU is pinned to. No CPU is shared.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::nodes::Near;
use super::report::{Report, host_side, name, side};
use crate::conflict::Code;
use crate::host::{ControllerKind, HostMap, Origin};
use crate::request::{DomainRequest, SystemRequest};

/// Where a domain's RAM is, as far as that can be said.
pub(crate) type Place = Option<Near>;

/// So many other domains are named when CPUs run out.
const MOST_NAMED: usize = 8;

/// For each domain the CPUs that it names; empty for one that names none, or was refused before
/// or is here. Whoever isn't refused finds as many as it needs.
///
/// Named CPUs are given out first, whatever the order of the domains, so that a domain without
/// affinity never takes what another one names.
pub(crate) fn check(host: &HostMap, request: &SystemRequest, report: &mut Report) -> Vec<Vec<u32>> {
    let mut named: Vec<Vec<u32>> = vec![Vec::new(); request.domains.len()];
    let mut owners: Vec<Option<usize>> = vec![None; host.cpus.len()];
    for (index, domain) in request.domains.iter().enumerate() {
        let good = count_is_good(host, index, domain, report);
        if let Some(affinity) = &domain.affinity {
            let cpus = &affinity.value;
            if names_are_good(host, index, domain, cpus, affinity.origin, report)
                && good
                && !report.is_refused(index)
                && claim(index, cpus, request, &mut owners, report)
            {
                named[index].clone_from(cpus);
            }
        }
    }
    let mut held: Vec<usize> = named.iter().map(Vec::len).collect();
    let mut free = owners.iter().filter(|owner| owner.is_none()).count();
    for (index, domain) in request.domains.iter().enumerate() {
        if domain.affinity.is_some() || report.is_refused(index) {
            continue;
        }
        let count = usize::try_from(domain.cpus.value).unwrap_or(usize::MAX);
        if count > free {
            too_few(host, request, index, free, &held, report);
        } else {
            held[index] = count;
            free -= count;
        }
    }
    named
}

/// For each domain its CPUs: those that it has `named`, else the lowest that nobody has, of the
/// node on which most of its RAM is if that has enough. A domain without a place has none.
pub(crate) fn assign(
    host: &HostMap,
    request: &SystemRequest,
    named: Vec<Vec<u32>>,
    places: &[Option<Place>],
) -> Vec<Vec<u32>> {
    let mut assigned = named;
    let mut free = vec![true; host.cpus.len()];
    let taken = assigned.iter().flatten();
    for cpu in taken.filter_map(|cpu| usize::try_from(*cpu).ok()) {
        free[cpu] = false;
    }
    // No CPU below this one is free.
    let mut lowest = 0;
    // Those of a node come before those to whom it matters less, or not at all.
    for turn in [Some(true), Some(false), None] {
        for (index, domain) in request.domains.iter().enumerate() {
            let Some(near) = places[index].filter(|_| domain.affinity.is_none()) else {
                continue;
            };
            if near.map(|near| near.whole) != turn {
                continue;
            }
            let count = usize::try_from(domain.cpus.value).unwrap_or(usize::MAX);
            while free.get(lowest) == Some(&false) {
                lowest += 1;
            }
            let all = (lowest..free.len()).filter(|at| free[*at]);
            let node = near.map(|near| near.node);
            let local = all
                .clone()
                .filter(|at| node.is_some() && host.cpus[*at].node == node);
            let local: Vec<usize> = local.take(count).collect();
            let mine = if local.len() == count {
                local
            } else {
                all.take(count).collect()
            };
            mine.iter().for_each(|at| free[*at] = false);
            let mine = mine.into_iter().filter_map(|at| u32::try_from(at).ok());
            assigned[index] = mine.collect();
        }
    }
    assigned
}

fn count_is_good(
    host: &HostMap,
    index: usize,
    domain: &DomainRequest,
    report: &mut Report,
) -> bool {
    let count = domain.cpus.value;
    let own = side(
        index,
        format!("{}, cpus = {count}", name(index, domain)),
        domain.cpus.origin,
    );
    let most = u32::try_from(host.cpus.len()).unwrap_or(u32::MAX);
    if count == 0 {
        let why = String::from("a domain without a CPU runs nothing");
        report.error(
            Code::CpusZero,
            &[index],
            vec![own],
            why,
            String::from("cpus = 1"),
        );
        return false;
    }
    if count > most {
        let origin = host.cpus.first().map_or(Origin::NONE, |cpu| cpu.origin);
        report.error(
            Code::CpusTooMany,
            &[index],
            vec![own, host_side(format!("the host's {most} CPUs"), origin)],
            String::from("each vCPU has a CPU of its own"),
            format!("cpus = {most}"),
        );
        return false;
    }
    let covered = host.controller.max_cpus;
    if domain.identity().uses_host_layout() && count > covered {
        let controller = match host.controller.kind {
            ControllerKind::None | ControllerKind::Other => "interrupt controller",
            kind => kind.as_str(),
        };
        let what = format!("the host's {controller}, laid out for {covered} CPUs");
        report.error(
            Code::CpusBeyondController,
            &[index],
            vec![own, host_side(what, host.controller.origin)],
            String::from("a domain with the host layout finds its interrupt controller there"),
            format!("cpus = {covered}"),
        );
        return false;
    }
    true
}

fn names_are_good(
    host: &HostMap,
    index: usize,
    domain: &DomainRequest,
    cpus: &[u32],
    origin: Origin,
    report: &mut Report,
) -> bool {
    let count = domain.cpus.value;
    let why = if usize::try_from(count) != Ok(cpus.len()) {
        Some(format!(
            "affinity names {} CPUs for {count} vCPUs",
            cpus.len()
        ))
    } else if let Some(cpu) = cpus.iter().find(|cpu| host_cpu(host, **cpu).is_none()) {
        Some(format!(
            "the host's CPUs are 0 to {}, there is no {cpu}",
            host.cpus.len().max(1) - 1
        ))
    } else {
        let again = cpus
            .iter()
            .enumerate()
            .find(|(at, cpu)| cpus[..*at].contains(cpu));
        again.map(|(_, cpu)| format!("affinity names CPU {cpu} twice"))
    };
    let Some(why) = why else { return true };
    let what = format!(
        "{}, affinity = {cpus:?}, cpus = {count}",
        name(index, domain)
    );
    let fitting: Vec<u32> = (0..count.min(u32::try_from(host.cpus.len()).unwrap_or(0))).collect();
    let help = format!("affinity = {fitting:?}");
    report.error(
        Code::AffinityInvalid,
        &[index],
        vec![side(index, what, origin)],
        why,
        help,
    );
    false
}

/// Where it is said how many vCPUs a domain has; at its name if that is the default.
fn cpus_origin(domain: &DomainRequest) -> Origin {
    match domain.cpus.origin {
        Origin::NONE => domain.name.origin,
        said => said,
    }
}

/// The help if all CPUs are taken: one fewer for the domain that has most.
fn fewer_elsewhere(request: &SystemRequest, held: &[usize]) -> String {
    let most = held.iter().enumerate().max_by_key(|(_, held)| **held);
    match most {
        Some((index, held @ 2..)) => {
            let owner = name(index, &request.domains[index]);
            format!("cpus = {} for {owner}", held - 1)
        }
        _ => String::from("leave the domain out: each has a CPU of its own"),
    }
}

fn host_cpu(host: &HostMap, cpu: u32) -> Option<&crate::HostCpu> {
    host.cpus.get(usize::try_from(cpu).ok()?)
}

/// Gives a domain the CPUs that it names, or none if one has an owner.
fn claim(
    index: usize,
    cpus: &[u32],
    request: &SystemRequest,
    owners: &mut [Option<usize>],
    report: &mut Report,
) -> bool {
    let slots: Vec<usize> = cpus
        .iter()
        .filter_map(|cpu| usize::try_from(*cpu).ok())
        .collect();
    let clash = slots.iter().find_map(|slot| Some((*slot, owners[*slot]?)));
    if let Some((cpu, first)) = clash {
        let affinity = |at: usize| {
            let domain = &request.domains[at];
            let origin = domain
                .affinity
                .as_ref()
                .map_or(Origin::NONE, |it| it.origin);
            side(
                at,
                format!("{}, affinity with CPU {cpu}", name(at, domain)),
                origin,
            )
        };
        report.error(
            Code::CpuShared,
            &[index],
            vec![affinity(index), affinity(first)],
            format!(
                "CPU {cpu} is {}'s, and vCPUs are pinned",
                name(first, &request.domains[first])
            ),
            free_affinity(cpus.len(), owners),
        );
        return false;
    }
    for slot in slots {
        owners[slot] = Some(index);
    }
    true
}

/// The help that names so many CPUs that nobody has named.
fn free_affinity(count: usize, owners: &[Option<usize>]) -> String {
    let free = owners
        .iter()
        .enumerate()
        .filter(|(_, owner)| owner.is_none());
    let free: Vec<usize> = free.map(|(cpu, _)| cpu).take(count).collect();
    match free.len() {
        0 => String::from("fewer CPUs for the other domain"),
        few if few < count => format!("cpus = {few}, affinity = {free:?}"),
        _ => format!("affinity = {free:?}"),
    }
}

/// More vCPUs than nobody has named or has been given.
fn too_few(
    host: &HostMap,
    request: &SystemRequest,
    index: usize,
    free: usize,
    held: &[usize],
    report: &mut Report,
) {
    let domain = &request.domains[index];
    let what = format!("{}, cpus = {}", name(index, domain), domain.cpus.value);
    let mut sides = vec![side(index, what, cpus_origin(domain))];
    let others = request.domains.iter().enumerate().zip(held);
    let others = others.filter(|(_, held)| **held > 0).take(MOST_NAMED);
    sides.extend(others.map(|((other, domain), held)| {
        let what = format!("{}, which has {held} CPUs", name(other, domain));
        side(other, what, cpus_origin(domain))
    }));
    let why = format!(
        "of the host's {} CPUs {free} are free, and vCPUs are pinned",
        host.cpus.len(),
    );
    let help = match free {
        0 => fewer_elsewhere(request, held),
        left => format!("cpus = {left}"),
    };
    report.error(Code::CpuShared, &[index], sides, why, help);
}
