//! Which NUMA node each domain's RAM and CPUs had better come from. A wish, not a demand: who
//! doesn't fit on one node gets what there is.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use super::ground::Ground;
use super::report::Report;
use super::sets;
use crate::address::{FRAME_SHIFT, MachineRange, MfnRange};
use crate::host::HostMap;
use crate::request::{DomainRequest, MemoryRequest, StaticRange, SystemRequest};
use crate::sort::sort_by_key;

/// A node with what is left of it.
struct Node {
    id: u32,
    ram: Rc<[MfnRange]>,
    frames: u64,
    cpus: usize,
}

/// For each domain its node.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    /// For each domain a place in `nodes`.
    chosen: Vec<Option<usize>>,
}

impl Nodes {
    /// The number of a domain's node.
    pub(crate) fn id(&self, domain: usize) -> Option<u32> {
        Some(self.nodes[self.chosen[domain]?].id)
    }

    /// The RAM of a domain's node.
    pub(crate) fn ram(&self, domain: usize) -> Option<Rc<[MfnRange]>> {
        Some(self.nodes[self.chosen[domain]?].ram.clone())
    }
}

/// Chooses a node for each domain, those with the most memory first, each on the node that it
/// fills best. No node is chosen on a host that has one or none.
pub(crate) fn choose(
    ground: &Ground<'_>,
    request: &SystemRequest,
    reach: &[Option<Rc<[MfnRange]>>],
    report: &Report,
) -> Nodes {
    let mut nodes = nodes(ground);
    let mut chosen = vec![None; request.domains.len()];
    if nodes.len() < 2 {
        return Nodes { nodes, chosen };
    }
    let good = |index: usize| !report.is_refused(index);
    let domains = || request.domains.iter().enumerate();
    for (index, domain) in domains().filter(|(index, _)| good(*index)) {
        chosen[index] = named(ground.host, domain, &nodes);
        if let (Some(at), Some(affinity)) = (chosen[index], &domain.affinity) {
            nodes[at].cpus = nodes[at].cpus.saturating_sub(affinity.value.len());
        }
        for range in &domain.static_mem {
            if let Some(at) = holder(&nodes, range) {
                nodes[at].frames = nodes[at].frames.saturating_sub(range.size >> FRAME_SHIFT);
            }
        }
    }
    let mut order: Vec<(usize, u64)> = domains()
        .filter(|(index, _)| good(*index))
        .filter_map(|(index, domain)| Some((index, frames(domain)?)))
        .collect();
    sort_by_key(&mut order, |(index, frames)| {
        [!frames, u64::try_from(*index).unwrap_or(u64::MAX), 0]
    });
    for (index, wanted) in order {
        let domain = &request.domains[index];
        let cpus = match &domain.affinity {
            Some(_) => 0,
            None => usize::try_from(domain.cpus.value).unwrap_or(usize::MAX),
        };
        let reached = |node: &Node| {
            let all = || sets::total(&node.ram);
            let some = |reach: &Rc<[MfnRange]>| sets::total(&sets::intersect(&node.ram, reach));
            reach[index].as_ref().map_or_else(all, some)
        };
        let fits = |node: &Node| {
            node.frames >= wanted && node.cpus >= cpus && (wanted == 0 || reached(node) >= wanted)
        };
        let at = chosen[index].or_else(|| {
            let fitting = nodes.iter().enumerate().filter(|(_, node)| fits(node));
            // Who takes the rest takes most where most is.
            let best = fitting.min_by_key(|(_, node)| match wanted {
                0 => !node.frames,
                _ => node.frames,
            });
            best.map(|(at, _)| at)
        });
        if let Some(node) = at.and_then(|at| nodes.get_mut(at)) {
            node.frames = node.frames.saturating_sub(wanted);
            node.cpus = node.cpus.saturating_sub(cpus);
        }
        chosen[index] = at;
    }
    Nodes { nodes, chosen }
}

fn nodes(ground: &Ground<'_>) -> Vec<Node> {
    let host = ground.host;
    let mut ids: Vec<u32> = host.ram.iter().filter_map(|bank| bank.node).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() < 2 {
        return Vec::new();
    }
    let node = |id: u32| {
        let banks = host.ram.iter().filter(|bank| bank.node == Some(id));
        let ram = sets::normalise(banks.map(|bank| bank.range.frames_inside()).collect());
        let ram = sets::intersect(&ram, &ground.usable);
        let cpus = host.cpus.iter().filter(|cpu| cpu.node == Some(id)).count();
        Node {
            id,
            frames: sets::total(&ram),
            ram: ram.into(),
            cpus,
        }
    };
    ids.into_iter().map(node).collect()
}

/// Frames to be placed; 0 for the rest.
fn frames(domain: &DomainRequest) -> Option<u64> {
    match domain.memory.value {
        MemoryRequest::Size(size) if domain.static_mem.is_empty() => Some(size >> FRAME_SHIFT),
        MemoryRequest::Rest => Some(0),
        MemoryRequest::Size(_) | MemoryRequest::SumOfStatic => None,
    }
}

/// The node that a domain names by its CPUs or its ranges, if they are of one.
fn named(host: &HostMap, domain: &DomainRequest, nodes: &[Node]) -> Option<usize> {
    let one = |mut all: alloc::vec::IntoIter<Option<usize>>| {
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    };
    if let Some(affinity) = &domain.affinity {
        let of = |cpu: &u32| {
            let id = host.cpus.get(usize::try_from(*cpu).ok()?)?.node?;
            nodes.iter().position(|node| node.id == id)
        };
        return one(affinity
            .value
            .iter()
            .map(of)
            .collect::<Vec<_>>()
            .into_iter());
    }
    let ranges = domain.static_mem.iter().map(|range| holder(nodes, range));
    one(ranges.collect::<Vec<_>>().into_iter())
}

fn holder(nodes: &[Node], range: &StaticRange) -> Option<usize> {
    let start = crate::MachineAddress::new(range.start);
    let frames = MachineRange::new(start, range.size)?.frames_touched();
    let covers = |node: &Node| sets::covers(&node.ram, &frames);
    nodes.iter().position(covers)
}
