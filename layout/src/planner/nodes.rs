//! Which NUMA node each domain's RAM had better come from, and on which its RAM then is, for its
//! CPUs. A wish, not a demand: who doesn't fit on one node gets what there is.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::ground::Ground;
use super::home::Place;
use super::place::Want;
use super::report::Report;
use super::sets;
use crate::address::{MachineRange, MfnRange};
use crate::host::HostMap;
use crate::plan::Bank;
use crate::request::{DomainRequest, StaticRange, SystemRequest};
use crate::sort::sort_by_key;

/// A node with what nobody has yet of it.
struct Node {
    id: u32,
    ram: Rc<[MfnRange]>,
    frames: u64,
    cpus: usize,
}

/// The nodes of a host; none if there aren't two.
pub(crate) struct Nodes(Vec<Node>);

/// Where most of a domain's RAM is.
#[derive(Clone, Copy)]
pub(crate) struct Near {
    /// The number of the node.
    pub(crate) node: u32,
    /// Whether all of its RAM is there.
    pub(crate) whole: bool,
}

impl Nodes {
    pub(crate) fn new(ground: &Ground<'_>) -> Self {
        let host = ground.host;
        let mut ids: Vec<u32> = host.ram.iter().filter_map(|bank| bank.node).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() < 2 {
            return Self(Vec::new());
        }
        let node = |id: u32| {
            let banks = host.ram.iter().filter(|bank| bank.node == Some(id));
            let ram = sets::normalise(banks.map(|bank| bank.range.frames_inside()).collect());
            Node {
                id,
                ram: sets::intersect(&ram, &ground.usable).into(),
                frames: 0,
                cpus: host.cpus.iter().filter(|cpu| cpu.node == Some(id)).count(),
            }
        };
        Self(ids.into_iter().map(node).collect())
    }

    /// Chooses nodes for the wants, those with the most memory first, each on the node that it
    /// fills best beside the hypervisor, which is likely to have the first of the `places`. The
    /// other nodes that could hold it come after that.
    pub(crate) fn choose(
        &mut self,
        ground: &Ground<'_>,
        request: &SystemRequest,
        free: &[MfnRange],
        places: &[Place],
        report: &Report,
        wants: &mut [Want<'_>],
    ) {
        if self.0.is_empty() {
            return;
        }
        let host = ground.host;
        let region = places.first().map(|place| place.region);
        let free = sets::subtract(free, region.as_slice());
        for node in &mut self.0 {
            node.frames = sets::total(&sets::intersect(&node.ram, &free));
        }
        let good = request.domains.iter().enumerate();
        for (_, domain) in good.filter(|(index, _)| !report.is_refused(*index)) {
            for cpu in named_cpus(domain) {
                self.take(of_cpu(host, *cpu), 0, 1);
            }
            self.take(self.of_ranges(&domain.static_mem), 0, unnamed_cpus(domain));
        }
        let mut order: Vec<usize> = (0..wants.len()).collect();
        sort_by_key(&mut order, |at| {
            let want = &wants[*at];
            let index = u64::try_from(want.index).unwrap_or(u64::MAX);
            [!want.frames.unwrap_or(0), index, 0]
        });
        for at in order {
            let want = &mut wants[at];
            let domain = &request.domains[want.index];
            let frames = want.frames.unwrap_or(0);
            let cpus = unnamed_cpus(domain);
            let fitting = |cpus: usize| {
                let able = self.0.iter().filter(|node| could_hold(&node.ram, want));
                let fitting = able.filter(|node| node.frames >= frames && node.cpus >= cpus);
                // Who takes the rest takes most where most is.
                let best = fitting.min_by_key(|node| match want.frames {
                    None => !node.frames,
                    Some(_) => node.frames,
                });
                best.map(|node| node.id)
            };
            let named = one(named_cpus(domain).map(|cpu| of_cpu(host, *cpu)));
            let named = named.filter(|id| self.0.iter().any(|node| node.id == *id));
            let chosen = named.or_else(|| fitting(cpus)).or_else(|| fitting(0));
            self.take(chosen, frames, cpus);
            if chosen.is_none() || want.frames.is_none() {
                continue;
            }
            let first = self.0.iter().filter(|node| chosen == Some(node.id));
            let others = self
                .0
                .iter()
                .filter(|node| chosen != Some(node.id) && could_hold(&node.ram, want));
            let all = first.chain(others);
            want.nodes = all.map(|node| Rc::clone(&node.ram)).collect();
        }
    }

    /// Takes so much of a node.
    fn take(&mut self, id: Option<u32>, frames: u64, cpus: usize) {
        if let Some(node) = self.0.iter_mut().find(|node| Some(node.id) == id) {
            node.frames = node.frames.saturating_sub(frames);
            node.cpus = node.cpus.saturating_sub(cpus);
        }
    }

    /// Where most of some banks are; `None` if none of it is on a node.
    pub(crate) fn near(&self, banks: &[Bank]) -> Option<Near> {
        self.0.first()?;
        let machine = sets::normalise(banks.iter().map(Bank::machine).collect());
        let parts = self.0.iter().map(|node| {
            let part = sets::intersect(&node.ram, &machine);
            (sets::total(&part), node.id)
        });
        let parts = parts.filter(|(most, _)| *most > 0);
        let (most, node) = parts.max_by_key(|(most, id)| (*most, !*id))?;
        Some(Near {
            node,
            whole: most == sets::total(&machine),
        })
    }

    /// The node that holds all of these ranges.
    fn of_ranges(&self, ranges: &[StaticRange]) -> Option<u32> {
        let holder = |range: &StaticRange| {
            let start = crate::MachineAddress::new(range.start);
            let frames = MachineRange::new(start, range.size)?.frames_touched();
            let mut nodes = self.0.iter();
            let holder = nodes.find(|node| sets::covers(&node.ram, &frames))?;
            Some(holder.id)
        };
        one(ranges.iter().map(holder))
    }
}

/// The node of a CPU.
fn of_cpu(host: &HostMap, cpu: u32) -> Option<u32> {
    host.cpus.get(usize::try_from(cpu).ok()?)?.node
}

/// What all of them are, if they are the same.
fn one(mut all: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

fn named_cpus(domain: &DomainRequest) -> impl Iterator<Item = &u32> {
    domain.affinity.iter().flat_map(|affinity| &affinity.value)
}

/// How many CPUs a domain gets without naming them.
fn unnamed_cpus(domain: &DomainRequest) -> usize {
    match &domain.affinity {
        Some(_) => 0,
        None => usize::try_from(domain.cpus.value).unwrap_or(usize::MAX),
    }
}

/// Whether RAM would do for a domain if nobody else had any of it.
fn could_hold(ram: &[MfnRange], want: &Want<'_>) -> bool {
    let below = sets::below(ram, want.limit);
    let reached = match &want.reach {
        Some(reach) => sets::intersect(&below, reach),
        None => below,
    };
    let kernel = want.bounded_kernel();
    sets::total(&reached) >= want.frames.unwrap_or(0)
        && kernel.is_none_or(|kernel| reached.iter().any(|ram| kernel.lowest(ram).is_some()))
}
