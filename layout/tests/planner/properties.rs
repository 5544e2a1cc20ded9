//! What holds for every machine and every request, however wrong.

use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use terrane_layout::*;

use crate::common::*;

/// Numbers as they go wrong: small, round, near a boundary, anything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..0x3000,
        (0_u64..4096).prop_map(|pages| pages << 12),
        (0_u64..4096).prop_map(|superpages| superpages << 21),
        (0_u64..64).prop_map(|below| u64::MAX - below),
        (0_u64..64).prop_map(|pages| u64::MAX - (pages << 12)),
        any::<u64>(),
    ]
}

fn range() -> impl Strategy<Value = MachineRange> {
    (number(), number())
        .prop_map(|(start, size)| MachineRange::saturating(MachineAddress::new(start), size))
}

/// A range that is likely to lie in the RAM of [`hosts`].
fn near_ram() -> impl Strategy<Value = MachineRange> {
    let inside = (0_u64..1024, 1_u64..256)
        .prop_map(|(start, size)| bytes(GIB + start * 256 * KIB, size * 256 * KIB));
    prop_oneof![4 => inside, 1 => range()]
}

fn hosts() -> impl Strategy<Value = HostMap> {
    let boot = prop_oneof![
        Just(BootKind::Hypervisor),
        Just(BootKind::HostTree),
        Just(BootKind::Container)
    ];
    let reservation = prop_oneof![
        Just(Reservation::Kept),
        Just(Reservation::NoMap),
        Just(Reservation::Kernel)
    ];
    (
        prop_oneof![Just(Architecture::Aarch64), Just(Architecture::X86_64)],
        prop::collection::vec(near_ram(), 0..4),
        prop::collection::vec((near_ram(), reservation), 0..4),
        prop::collection::vec((boot, near_ram()), 0..3),
        prop::collection::vec(range(), 0..3),
        0_u32..5,
        any::<bool>(),
    )
        .prop_map(
            |(architecture, ram, reserved, boot, devices, cpus, behind)| {
                let mut host = virt(256 * MIB, cpus);
                host.architecture = architecture;
                let bank = |range| RamBank {
                    node: None,
                    range,
                    origin: Origin(1),
                };
                host.ram.extend(ram.into_iter().map(bank));
                host.reserved = reserved
                    .into_iter()
                    .map(|(range, kind)| Reserved {
                        range,
                        name: "reserved".into(),
                        kind,
                        origin: Origin(2),
                    })
                    .collect();
                let placed = |(kind, range)| BootRange {
                    kind,
                    range,
                    origin: Origin(3),
                };
                host.boot = boot.into_iter().map(placed).collect();
                for (device, range) in host.devices.iter_mut().zip(devices) {
                    device.ranges.push(range);
                    device.behind_iommu = behind;
                }
                host
            },
        )
}

fn memory() -> impl Strategy<Value = MemoryRequest> {
    prop_oneof![
        4 => (1_u64..64).prop_map(|mib| MemoryRequest::Size(mib * MIB)),
        1 => number().prop_map(MemoryRequest::Size),
        2 => Just(MemoryRequest::Rest),
        2 => Just(MemoryRequest::SumOfStatic),
    ]
}

fn kernels() -> impl Strategy<Value = KernelRequest> {
    let alignment = prop_oneof![
        6 => (12_u32..22).prop_map(|shift| 1_u64 << shift),
        1 => number(),
    ];
    (
        near_ram(),
        number(),
        alignment,
        prop_oneof![4 => Just(0), 1 => number()],
    )
        .prop_map(|(module, memory, alignment, text_offset)| KernelRequest {
            module: MachineRange::saturating(module.start(), module.size().min(4 * MIB)),
            memory_size: memory.min(5 * MIB),
            alignment,
            text_offset,
            bounds: None,
            entry: None,
            origin: Origin(20),
        })
}

fn domains() -> impl Strategy<Value = DomainRequest> {
    let identity = (
        prop_oneof![8 => Just(Kind::Pvh), 1 => Just(Kind::Pv), 1 => Just(Kind::Hvm)],
        0_u32..8,
        prop::option::of(any::<bool>()),
        any::<bool>(),
    );
    let ranges = prop_oneof![
        near_ram().prop_map(|range| (range.start().raw(), range.size())),
        (number(), number()),
    ];
    let place = (
        memory(),
        prop::collection::vec(ranges, 0..3),
        prop::option::weighted(0.2, near_ram().prop_map(|range| range.end().raw())),
        prop::option::weighted(0.9, kernels()),
        prop::option::of(near_ram()),
        any::<bool>(),
    );
    let rest = (
        0_u32..4,
        prop::option::weighted(0.2, prop::collection::vec(0_u32..5, 0..4)),
        prop::collection::vec(0_usize..5, 0..2),
        number(),
        0_u8..3,
    );
    (identity, place, rest).prop_map(|(identity, place, rest)| {
        let (kind, capabilities, direct, allow) = identity;
        let (memory, ranges, below, kernel, ramdisk, keep) = place;
        let (cpus, affinity, devices, tree, name) = rest;
        let static_mem = match memory {
            MemoryRequest::SumOfStatic => ranges,
            _ => ranges.into_iter().take(usize::from(keep)).collect(),
        };
        let paths = [
            "/pl011@9000000",
            "/pl061@9030000",
            "/virtio_mmio@a000000",
            "/x",
            "",
        ];
        DomainRequest {
            name: Located::new(["", "a", "b"][usize::from(name)].into(), Origin(10)),
            kind: Some(kind.into()),
            capabilities: Capabilities::from_bits_truncate(capabilities).into(),
            direct_map: direct.map(Located::from),
            cpus: cpus.into(),
            affinity: affinity.map(Located::from),
            memory: memory.into(),
            static_mem: static_mem
                .into_iter()
                .map(|(start, size)| fixed(start, size))
                .collect(),
            memory_below: below.map(Located::from),
            kernel,
            ramdisk: ramdisk.map(|range| ModuleRequest {
                module: MachineRange::saturating(range.start(), range.size().min(3 * MIB)),
                origin: Origin(21),
            }),
            tree_bytes: tree.min(4 * MIB),
            devices: devices
                .into_iter()
                .map(|at| DeviceRequest {
                    path: paths[at].into(),
                    dma_mask: (at > 2).then_some(tree),
                    origin: Origin(22),
                })
                .collect(),
            allow_dma_without_iommu: allow,
            keep_modules: keep,
            ..DomainRequest::default()
        }
    })
}

/// A domain that is good in itself, so that most of these systems can be planned. Its modules
/// lie anywhere in RAM, over each other at times.
fn good_domains() -> impl Strategy<Value = Vec<DomainRequest>> {
    let page = |range: MachineRange, most: u64| {
        MachineRange::saturating(range.start(), range.size().min(most))
    };
    let inside = || {
        (0_u64..224, 1_u64..24)
            .prop_map(|(start, size)| bytes(GIB + 16 * MIB + start * MIB, size * 256 * KIB))
    };
    let one = (
        any::<bool>(),
        1_u64..16,
        (inside(), prop::option::of(inside())),
        13_u32..22,
        prop::option::weighted(0.3, 0_u64..4),
        prop::bool::weighted(0.1),
    );
    prop::collection::vec(one, 1..5).prop_map(move |all| {
        let mut domains = Vec::new();
        for (index, (direct, more, (kernel, ramdisk), shift, bank, keep)) in
            all.into_iter().enumerate()
        {
            let module = page(kernel, 4 * MIB);
            let ramdisk = ramdisk.map(|range| page(range, 3 * MIB));
            let modules = module.size() + ramdisk.map_or(0, |disk| disk.size());
            let size = modules.next_multiple_of(MIB) + more * MIB;
            let static_mem = bank.map(|at| fixed(GIB + (64 + at * 48) * MIB, size));
            domains.push(DomainRequest {
                name: Located::new(format!("domain{index}"), Origin(10)),
                direct_map: Some(direct.into()),
                cpus: 1.into(),
                memory: MemoryRequest::Size(size).into(),
                static_mem: static_mem.into_iter().collect(),
                kernel: Some(KernelRequest {
                    module,
                    memory_size: module.size() + MIB / 2,
                    alignment: 1 << shift,
                    text_offset: 0,
                    bounds: None,
                    entry: None,
                    origin: Origin(20),
                }),
                ramdisk: ramdisk.map(|module| ModuleRequest {
                    module,
                    origin: Origin(21),
                }),
                tree_bytes: 64 * KIB,
                keep_modules: keep,
                ..DomainRequest::default()
            });
        }
        domains
    })
}

/// Makes the copies on a memory whose every page holds its own number, and looks at what each
/// domain then finds. Gives the pages that were written.
fn check_copies(plan: &Plan) -> HashMap<u64, u64> {
    let mut memory: HashMap<u64, u64> = HashMap::new();
    for copy in &plan.copies {
        let read: Vec<u64> = pages(&copy.source)
            .map(|page| memory.get(&page).copied().unwrap_or(page))
            .collect();
        let written = copy.destination.iter().flat_map(pages);
        for (page, content) in written.zip(read) {
            memory.insert(page, content);
        }
    }
    for domain in &plan.domains {
        for module in [Some(&domain.kernel), domain.ramdisk.as_ref()]
            .into_iter()
            .flatten()
        {
            let file = GuestRange::saturating(module.address, module.source.size());
            let found = domain.machine_ranges(file).expect("modules are in RAM");
            let found = found.iter().flat_map(pages);
            for (page, expected) in found.zip(pages(&module.source)) {
                let content = memory.get(&page).copied().unwrap_or(page);
                assert_eq!(content, expected, "{} {module:?}", domain.name);
            }
            let kept = |range: &MfnRange| range.overlaps(&module.source.frames_touched());
            assert!(!module.in_place || !plan.kept.iter().any(kept));
        }
    }
    // No file is cleared.
    for range in &plan.clear {
        for domain in &plan.domains {
            let modules = [Some(&domain.kernel), domain.ramdisk.as_ref()];
            let files = modules
                .into_iter()
                .flatten()
                .map(|module| GuestRange::saturating(module.address, module.source.size()));
            for part in files.flat_map(|file| domain.machine_ranges(file).expect("in RAM")) {
                assert!(!part.overlaps(range), "{range} is cleared");
            }
        }
    }
    memory
}

/// Nothing of a domain's modules is left in another one's RAM when all is done, not under a
/// kernel's unfilled data or the tree either. `memory` is what the copies have left.
fn check_left_behind(request: &SystemRequest, plan: &Plan, mut memory: HashMap<u64, u64>) {
    for range in &plan.clear {
        memory.extend(pages(range).map(|page| (page, u64::MAX)));
    }
    let modules = modules(request);
    for domain in &plan.domains {
        let of = |own: bool| {
            let modules = modules.iter();
            let modules = modules.filter(move |(owner, _)| (*owner == domain.index) == own);
            modules
                .flat_map(|(_, range)| pages(range))
                .collect::<HashSet<u64>>()
        };
        let (own, foreign) = (of(true), of(false));
        for bank in &domain.banks {
            for page in bank.machine().start().raw()..bank.machine().end().raw() {
                let content = memory.get(&page).copied().unwrap_or(page);
                let secret = foreign.contains(&content) && !own.contains(&content);
                assert!(!secret, "{} has {content:#x} at {page:#x}", domain.name);
            }
        }
    }
}

fn pages(range: &MachineRange) -> std::ops::Range<u64> {
    let frames = range.frames_touched();
    frames.start().raw()..frames.end().raw()
}

/// Every module with its domain, refused ones' too.
fn modules(request: &SystemRequest) -> Vec<(usize, MachineRange)> {
    let all = request.domains.iter().enumerate();
    all.flat_map(|(index, domain)| {
        let kernel = domain.kernel.iter().map(|kernel| kernel.module);
        let others = domain.ramdisk.iter().chain(&domain.partial_tree);
        let modules = kernel.chain(others.map(|other| other.module));
        modules
            .map(move |module| (index, module))
            .collect::<Vec<_>>()
    })
    .collect()
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig::with_cases(if cfg!(miri) { 2 } else { count })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn whatever_is_asked_has_an_answer(
        host in hosts(),
        domains in prop::collection::vec(domains(), 0..5),
    ) {
        let request = system(domains);
        let outcome = plan(&host, &request);
        check_invariants(&host, &request, &outcome);
        check_copies(&outcome.plan);
        prop_assert_eq!(&outcome, &plan(&host, &request), "the same input, the same outcome");
        for conflict in &outcome.conflicts {
            if conflict.code.as_str().starts_with("overlap-") {
                prop_assert!(conflict.sides.len() >= 2, "{:?}", conflict);
                prop_assert!(!conflict.help.is_empty(), "{:?}", conflict);
            }
        }
    }

    #[test]
    fn modules_arrive_whole(domains in good_domains()) {
        let mut host = virt(256 * MIB, 8);
        host.boot.truncate(1);
        let request = system(domains);
        let outcome = plan(&host, &request);
        check_invariants(&host, &request, &outcome);
        let memory = check_copies(&outcome.plan);
        check_left_behind(&request, &outcome.plan, memory);
    }

    #[test]
    fn ranges_never_wrap(start in number(), size in number(), other in range()) {
        let start = MachineAddress::new(start);
        let range = MachineRange::saturating(start, size);
        prop_assert!(range.end() >= range.start());
        prop_assert_eq!(MachineRange::new(start, size).is_some(), start.raw().checked_add(size).is_some());
        prop_assert!(range.is_empty() || range.frames_touched().bytes().covers(&range)
            || range.end().raw() > Mfn::MAX.address().raw());
        prop_assert!(range.covers(&range.frames_inside().bytes()) || range.frames_inside().is_empty());
        prop_assert_eq!(range.overlaps(&other), other.overlaps(&range));
    }
}
