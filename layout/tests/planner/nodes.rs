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
fn memory_of_no_node_gives_no_cpus() {
    let mut host = two_nodes();
    host.ram.push(RamBank {
        node: None,
        range: bytes(8 * GIB, GIB),
        origin: Origin(1),
    });
    let mut without = guest("without", 0, 1);
    without.memory.value = MemoryRequest::SumOfStatic;
    without.static_mem = vec![fixed(8 * GIB, 256 * MIB)];
    let mut with = guest("with", 0, 4);
    with.memory.value = MemoryRequest::SumOfStatic;
    with.static_mem = vec![fixed(GIB + 256 * MIB, 256 * MIB), fixed(4 * GIB, 64 * MIB)];
    // The node's are for who has some of its RAM there.
    let outcome = planned(&host, &system(vec![without, with]));
    assert_eq!(outcome.plan.domains[1].cpus, [0, 1, 2, 3]);
}

#[test]
fn what_fits_on_no_node_is_planned_all_the_same() {
    let host = two_nodes();
    let outcome = planned(&host, &system(vec![guest("a", 3 * GIB, 5)]));
    assert_eq!(nodes(&host, &outcome.plan.domains[0]).0, [0, 1]);
}

/// Whether all of a domain's RAM and CPUs are on one node.
fn is_whole(host: &HostMap, plan: &DomainPlan) -> bool {
    let (ram, cpus) = nodes(host, plan);
    ram.len() == 1 && ram == cpus
}

#[test]
fn the_hypervisor_has_its_part_of_a_node() {
    let host = two_nodes();
    // The large one leaves no room for the hypervisor, which lies on node 0.
    let large = guest("large", 2044 * MIB, 1);
    let small = |at| guest(&format!("small{at}"), 480 * MIB, 1);
    for count in [1, 4] {
        let all = core::iter::once(large.clone()).chain((0..count).map(small));
        let outcome = planned(&host, &system(all.collect()));
        for domain in &outcome.plan.domains {
            assert!(is_whole(&host, domain), "{domain:#?}");
        }
    }
}

#[test]
fn cpus_come_from_where_the_memory_is() {
    let mut host = two_nodes();
    host.ram[1].range = bytes(3 * GIB, 1536 * MIB);
    // It takes all of one node, which the small one would fill better.
    let large = guest("large", 2560 * MIB, 5);
    for count in [1, 3] {
        let mut all = vec![large.clone()];
        all.extend((0..count).map(|at| guest(&format!("small{at}"), 256 * MIB, 1)));
        let outcome = planned(&host, &system(all));
        for domain in &outcome.plan.domains[1..] {
            assert!(is_whole(&host, domain), "{domain:#?}");
        }
    }
    // A limit leaves one node only.
    let mut low = guest("low", 512 * MIB, 2);
    low.memory_below = Some((3 * GIB).into());
    let outcome = planned(&host, &system(vec![low]));
    assert!(is_whole(&host, &outcome.plan.domains[0]));
}

#[test]
fn memory_stays_whole_though_cpus_cannot() {
    let host = two_nodes();
    // What they leave of the nodes meets in the middle.
    let mut low = guest("low", 1600 * MIB, 3);
    low.memory_below = Some((3 * GIB).into());
    let all = [
        low,
        guest("high", 1800 * MIB, 3),
        guest("middle", 300 * MIB, 2),
    ];
    let outcome = planned(&host, &system(all.to_vec()));
    for domain in &outcome.plan.domains {
        assert_eq!(nodes(&host, domain).0.len(), 1, "{domain:#?}");
    }
    let (_, cpus) = nodes(&host, &outcome.plan.domains[2]);
    assert_eq!(cpus, [0, 1]);
}
