//! Domains stay on one NUMA node where that is possible.

use terrane_layout::*;

use crate::common::*;

/// Two nodes of 2 GiB and four CPUs each.
fn two_nodes() -> HostMap {
    let mut host = virt(2 * GIB, 8);
    host.ram[0].node = Some(0);
    host.ram.push(RamBank {
        node: Some(1),
        range: bytes(3 * GIB, 2 * GIB),
        origin: Origin(1),
    });
    for (at, cpu) in (0..).zip(&mut host.cpus) {
        cpu.node = Some(at / 4);
    }
    host
}

fn guest(name: &str, size: u64, cpus: u32) -> DomainRequest {
    let mut guest = domain(name, MemoryRequest::Size(size), 1, false);
    guest.direct_map = Some(true.into());
    guest.cpus.value = cpus;
    guest
}

/// The nodes that a domain's RAM and its CPUs are on.
fn nodes(host: &HostMap, plan: &DomainPlan) -> (Vec<u32>, Vec<u32>) {
    let mut ram: Vec<u32> = Vec::new();
    for bank in &plan.banks {
        let bytes = bank.machine().bytes();
        let on = host.ram.iter().filter(|ram| ram.range.overlaps(&bytes));
        ram.extend(on.filter_map(|ram| ram.node));
    }
    let cpus = plan.cpus.iter();
    let mut cpus: Vec<u32> = cpus
        .filter_map(|cpu| host.cpus[*cpu as usize].node)
        .collect();
    ram.sort_unstable();
    ram.dedup();
    cpus.sort_unstable();
    cpus.dedup();
    (ram, cpus)
}

fn planned(host: &HostMap, request: &SystemRequest) -> Outcome {
    let outcome = plan(host, request);
    check_invariants(host, request, &outcome);
    assert_eq!(codes(&outcome), [""; 0]);
    outcome
}

#[test]
fn memory_and_cpus_are_on_one_node() {
    let host = two_nodes();
    let all = vec![
        guest("a", 1536 * MIB, 3),
        guest("b", 1536 * MIB, 3),
        guest("c", 256 * MIB, 1),
    ];
    let outcome = planned(&host, &system(all));
    for domain in &outcome.plan.domains {
        let (ram, cpus) = nodes(&host, domain);
        assert_eq!((ram.len(), &ram), (1, &cpus), "{}", domain.name);
    }
}

#[test]
fn the_named_cpus_node_gives_the_memory() {
    let host = two_nodes();
    for (cpu, node) in [(1, 0), (6, 1)] {
        let mut pinned = guest("a", 512 * MIB, 1);
        pinned.affinity = Some(vec![cpu].into());
        let outcome = planned(&host, &system(vec![pinned]));
        let on = nodes(&host, &outcome.plan.domains[0]);
        assert_eq!(on, (vec![node], vec![node]));
    }
}

#[test]
fn the_named_memorys_node_gives_the_cpus() {
    let host = two_nodes();
    let mut named = guest("a", 0, 2);
    named.memory.value = MemoryRequest::SumOfStatic;
    named.static_mem = vec![fixed(4 * GIB, 256 * MIB)];
    let outcome = planned(&host, &system(vec![named]));
    assert_eq!(outcome.plan.domains[0].cpus, [4, 5]);
}

#[test]
fn what_fits_on_no_node_is_planned_all_the_same() {
    let host = two_nodes();
    let outcome = planned(&host, &system(vec![guest("a", 3 * GIB, 5)]));
    assert_eq!(nodes(&host, &outcome.plan.domains[0]).0, [0, 1]);
}
