//! Domains that are wrong by themselves: kernels, CPUs, names, kinds.

use terrane_layout::*;

use super::*;

#[test]
fn kernels_and_modules() {
    let mut guest = sized(256 * MIB);
    guest.kernel = None;
    assert_eq!(named(guest), "kernel-missing");
    for (alignment, offset) in [(0, 0), (3 * MIB, 0), (2 * MIB, 1 << 40)] {
        let mut guest = sized(256 * MIB);
        let kernel = guest.kernel.as_mut().unwrap();
        (kernel.alignment, kernel.text_offset) = (alignment, offset);
        assert_eq!(named(guest), "kernel-header");
    }
    let mut guest = sized(256 * MIB);
    guest.kernel = Some(kernel(0x1000_0000, 20 * MIB));
    assert_eq!(named(guest), "module-outside-ram");
    let mut guest = sized(256 * MIB);
    guest.kernel = Some(kernel(0x4020_0000, 20 * MIB));
    assert_eq!(named(guest), "module-outside-ram");
    let mut guest = sized(256 * MIB);
    guest.tree_bytes = 3 * MIB;
    assert_eq!(named(guest), "tree-too-large");
}

#[test]
fn cpus_that_are_not_there() {
    let guest = |cpus: u32, affinity: Option<&[u32]>| {
        let mut guest = sized(256 * MIB);
        guest.cpus.value = cpus;
        guest.affinity = affinity.map(|cpus| Located::new(cpus.to_vec(), Origin(60)));
        guest
    };
    assert_eq!(named(guest(0, None)), "cpus-zero");
    let found = one(guest(3, None));
    assert_eq!(
        (found.code, found.help.as_str()),
        (Code::CpusTooMany, "cpus = 2")
    );
    assert_eq!(named(guest(1, Some(&[2]))), "affinity-invalid");
    assert_eq!(named(guest(2, Some(&[1]))), "affinity-invalid");
    let found = one(guest(2, Some(&[1, 1])));
    assert_eq!(
        (found.code, found.help.as_str()),
        (Code::AffinityInvalid, "affinity = [0, 1]")
    );
    let mut host = virt(2 * GIB, 4);
    host.controller.max_cpus = 1;
    let mut wide = guest(2, None);
    wide.direct_map = Some(true.into());
    assert_eq!(code(&host, &system(vec![wide])), "cpus-beyond-controller");

    let other = |cpus: u32, affinity: Option<&[u32]>| {
        let mut other = guest(cpus, affinity);
        other.name.value = "other".into();
        other
    };
    let host = virt(2 * GIB, 2);
    let found = conflict(
        &host,
        &system(vec![guest(1, Some(&[1])), other(1, Some(&[1]))]),
    );
    assert_eq!((found.code, found.sides.len()), (Code::CpuShared, 2));
    assert_eq!(found.help, "affinity = [0]");
    let found = conflict(&host, &system(vec![guest(2, None), other(1, None)]));
    assert_eq!((found.code, found.sides.len()), (Code::CpuShared, 2));
    // The one that names its CPU gets it, though it comes second.
    let outcome = plan(&host, &system(vec![guest(1, None), other(1, Some(&[0]))]));
    assert!(outcome.conflicts.is_empty());
    assert_eq!(outcome.plan.domains[0].cpus, [1]);
}

#[test]
fn names_and_roles() {
    let mut nameless = sized(256 * MIB);
    nameless.name.value.clear();
    assert_eq!(named(nameless), "name-empty");
    let host = virt(2 * GIB, 2);
    let twins = system(vec![sized(256 * MIB), sized(256 * MIB)]);
    assert_eq!(code(&host, &twins), "name-duplicate");
    let hardware = |name| domain(name, MemoryRequest::Size(256 * MIB), 0, true);
    let found = conflict(&host, &system(vec![hardware("one"), hardware("two")]));
    assert_eq!(
        (found.code, found.sides.len()),
        (Code::HardwareDomainTwice, 2)
    );
    let rest = |name| domain(name, MemoryRequest::Rest, 0, false);
    let found = conflict(&host, &system(vec![rest("one"), rest("two")]));
    assert_eq!((found.code, found.sides.len()), (Code::MemoryTwoRests, 2));
    let mut limited = sized(256 * MIB);
    limited.limits.max_event_channels = 4096;
    let found = one(limited);
    assert_eq!(
        (found.code, found.help.as_str()),
        (Code::LimitInvalid, "max-event-channels = 4095")
    );
}

#[test]
fn kinds() {
    let of_kind = |kind| {
        let mut guest = sized(256 * MIB);
        guest.kind = Some(Located::new(kind, Origin(70)));
        guest
    };
    let mut pc = virt(2 * GIB, 2);
    pc.architecture = Architecture::X86_64;
    for kind in [Kind::Pv, Kind::Hvm] {
        assert_eq!(named(of_kind(kind)), "kind-foreign");
        assert_eq!(code(&pc, &system(vec![of_kind(kind)])), "not-built-yet");
    }
    let mut pv = of_kind(Kind::Pv);
    pv.direct_map = Some(Located::new(true, Origin(71)));
    assert!(codes(&plan(&pc, &system(vec![pv]))).contains(&"pv-direct-map"));
}

#[test]
fn what_another_architecture_has() {
    let mut guest = sized(256 * MIB);
    guest.vpl011 = true;
    guest.partial_tree = Some(ModuleRequest {
        module: bytes(GIB, 0x1000),
        origin: Origin::NONE,
    });
    let on = |architecture| {
        let mut host = virt(2 * GIB, 2);
        host.architecture = architecture;
        let outcome = plan(&host, &system(vec![guest.clone()]));
        let foreign = outcome.conflicts.into_iter();
        let foreign = foreign.filter(|it| it.code == Code::KeyForeign);
        foreign.map(|it| it.help).collect::<Vec<_>>()
    };
    assert_eq!(on(Architecture::Aarch64), [] as [&str; 0]);
    assert_eq!(on(Architecture::Riscv64), ["leave out vpl011"]);
    assert_eq!(
        on(Architecture::X86_64),
        ["leave out dtb", "leave out vpl011"]
    );
}

#[test]
fn few_of_those_who_have_the_cpus_are_named() {
    let host = virt(8 * GIB, 60);
    let guests = (0..120).map(|at| {
        let mut guest = domain("", MemoryRequest::Size(32 * MIB), 0, false);
        guest.name.value = format!("guest{at}");
        guest
    });
    let outcome = plan(&host, &system(guests.collect()));
    let found = outcome
        .conflicts
        .iter()
        .filter(|it| it.code == Code::CpuShared);
    let sides: Vec<usize> = found.map(|found| found.sides.len()).collect();
    assert_eq!(sides, [9; 60]);
}
