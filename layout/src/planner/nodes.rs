//! Which NUMA node each domain's RAM had better come from, and on which its RAM then is, for its
//! CPUs. A wish, not a demand: who doesn't fit on one node gets what there is.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::ground::Ground;
use super::home::Home;
use super::place::Want;
use super::report::Report;
use super::sets;
use crate::address::{MachineRange, MfnRange};
use crate::host::HostMap;
use crate::plan::Bank;
use crate::request::{DomainRequest, StaticRange, SystemRequest};
use crate::sort::sort_by_key;

/// A node.
struct Node {
    id: u32,
    ram: Rc<[MfnRange]>,
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

/// What nobody has yet of a node.
struct Left {
    frames: u64,
    cpus: usize,
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
            let ram = sets::intersect(&ram, &ground.usable).into();
            Node { id, ram }
        };
        Self(ids.into_iter().map(node).collect())
    }

    /// Chooses nodes for the wants, those with the most memory first, each on the node that it
    /// fills best beside the hypervisor's likely place. The other nodes that could hold it come
    /// after that.
    pub(crate) fn choose(
        &self,
        ground: &Ground<'_>,
        request: &SystemRequest,
        free: &[MfnRange],
        home: &Home,
        report: &Report,
        wants: &mut [Want<'_>],
    ) {
        if self.0.is_empty() {
            return;
        }
        let host = ground.host;
        let places = home.candidates(free);
        let region = places.first().map(|place| place.region);
        let free = sets::subtract(free, region.as_slice());
        let left = |node: &Node| Left {
            frames: sets::total(&sets::intersect(&node.ram, &free)),
            cpus: host
                .cpus
                .iter()
                .filter(|cpu| cpu.node == Some(node.id))
                .count(),
        };
        let mut left: Vec<Left> = self.0.iter().map(left).collect();
        let good = request.domains.iter().enumerate();
        for (_, domain) in good.filter(|(index, _)| !report.is_refused(*index)) {
            for at in named_cpus(domain).filter_map(|cpu| self.of_cpu(host, *cpu)) {
                left[at].cpus = left[at].cpus.saturating_sub(1);
            }
            if let Some(at) = self.of_ranges(&domain.static_mem) {
                left[at].cpus = left[at].cpus.saturating_sub(unnamed_cpus(domain));
            }
        }
        let mut order: Vec<usize> = (0..wants.len()).collect();
        sort_by_key(&mut order, |at| {
            let want = &wants[*at];
            let index = u64::try_from(want.index).unwrap_or(u64::MAX);
            [!want.frames.unwrap_or(0), index, 0]
        });
        for want in order {
            let want = &mut wants[want];
            let domain = &request.domains[want.index];
            let frames = want.frames.unwrap_or(0);
            let cpus = unnamed_cpus(domain);
            let able: Vec<usize> = (0..self.0.len())
                .filter(|at| could_hold(&self.0[*at].ram, want))
                .collect();
            let fitting = |cpus: usize| {
                let all = able.iter().copied();
                let fitting = all.filter(|at| left[*at].frames >= frames && left[*at].cpus >= cpus);
                // Who takes the rest takes most where most is.
                fitting.min_by_key(|at| match want.frames {
                    None => !left[*at].frames,
                    Some(_) => left[*at].frames,
                })
            };
            let named = self.of_cpus(host, domain);
            let chosen = named.or_else(|| fitting(cpus)).or_else(|| fitting(0));
            let Some(chosen) = chosen else {
                continue;
            };
            left[chosen].frames = left[chosen].frames.saturating_sub(frames);
            left[chosen].cpus = left[chosen].cpus.saturating_sub(cpus);
            if want.frames.is_some() {
                let others = able.into_iter().filter(|at| *at != chosen);
                let all = core::iter::once(chosen).chain(others);
                want.nodes = all.map(|at| self.0[at].ram.clone()).collect();
            }
        }
    }

    /// Where most of some banks are.
    pub(crate) fn near(&self, banks: &[Bank]) -> Option<Near> {
        let machine = sets::normalise(banks.iter().map(Bank::machine).collect());
        let parts = self.0.iter().map(|node| {
            let part = sets::intersect(&node.ram, &machine);
            (sets::total(&part), node.id)
        });
        let (most, node) = parts.max_by_key(|(most, id)| (*most, !*id))?;
        Some(Near {
            node,
            whole: most == sets::total(&machine),
        })
    }

    /// The node of a CPU.
    fn of_cpu(&self, host: &HostMap, cpu: u32) -> Option<usize> {
        let id = host.cpus.get(usize::try_from(cpu).ok()?)?.node?;
        self.0.iter().position(|node| node.id == id)
    }

    /// The node that a domain names by its CPUs, if they are of one.
    fn of_cpus(&self, host: &HostMap, domain: &DomainRequest) -> Option<usize> {
        one(named_cpus(domain).map(|cpu| self.of_cpu(host, *cpu)))
    }

    /// The node that holds all of these ranges.
    fn of_ranges(&self, ranges: &[StaticRange]) -> Option<usize> {
        let holder = |range: &StaticRange| {
            let start = crate::MachineAddress::new(range.start);
            let frames = MachineRange::new(start, range.size)?.frames_touched();
            let mut nodes = self.0.iter();
            nodes.position(|node| sets::covers(&node.ram, &frames))
        };
        one(ranges.iter().map(holder))
    }
}

/// What all of them are, if they are the same.
fn one(mut all: impl Iterator<Item = Option<usize>>) -> Option<usize> {
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
