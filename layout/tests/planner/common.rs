//! Machines and requests for tests.

use terrane_layout::*;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

pub fn bytes(start: u64, size: u64) -> MachineRange {
    MachineRange::new(MachineAddress::new(start), size).expect("a test's range")
}

/// A machine as QEMU's `virt` with RAM at 1 GiB: hypervisor, tree and container where its
/// loader puts them.
pub fn virt(memory: u64, cpus: u32) -> HostMap {
    let device = |path: &str, start, size, interrupt, dma| HostDevice {
        path: path.into(),
        ranges: vec![bytes(start, size)],
        interrupts: vec![interrupt],
        dma,
        origin: Origin(100),
        ..HostDevice::default()
    };
    let master = Dma::Possible { mask: u64::MAX };
    HostMap {
        architecture: Architecture::Aarch64,
        ram: vec![RamBank {
            node: None,
            range: bytes(GIB, memory),
            origin: Origin(1),
        }],
        reserved: vec![],
        devices: vec![
            device("/pl011@9000000", 0x900_0000, 0x1000, 33, Dma::None),
            device("/pl061@9030000", 0x903_0000, 0x1000, 39, Dma::None),
            device("/virtio_mmio@a000000", 0xa00_0000, 0x200, 48, master),
            device("/pcie@10000000", 0x40_1000_0000, 0x1000_0000, 35, master),
        ],
        controller: Controller {
            kind: ControllerKind::GicV3,
            ranges: vec![bytes(0x800_0000, 0x1_0000), bytes(0x80a_0000, 0xf6_0000)],
            max_cpus: 123,
            origin: Origin(2),
            ..Controller::default()
        },
        cpus: (0..cpus)
            .map(|id| HostCpu {
                node: None,
                hardware_id: id.into(),
                origin: Origin(3),
            })
            .collect(),
        iommus: vec![],
        boot: vec![
            BootRange {
                kind: BootKind::Hypervisor,
                range: bytes(0x4020_0000, 512 * KIB),
                origin: Origin(4),
            },
            BootRange {
                kind: BootKind::HostTree,
                range: bytes(0x4800_0000 - MIB, 64 * KIB),
                origin: Origin(5),
            },
            BootRange {
                kind: BootKind::Container,
                range: bytes(0x4800_0000, 0x600_0000),
                origin: Origin(6),
            },
        ],
    }
}

pub fn kernel(start: u64, size: u64) -> KernelRequest {
    KernelRequest {
        module: bytes(start, size),
        memory_size: size + 2 * MIB,
        alignment: 2 * MIB,
        text_offset: 0,
        bounds: None,
        entry: None,
        origin: Origin(20),
    }
}

/// A domain with its modules in the container of [`virt`], the hardware domain if `hardware`.
pub fn domain(name: &str, memory: MemoryRequest, slot: u64, hardware: bool) -> DomainRequest {
    let at = 0x4820_0000 + slot * 0x200_0000;
    DomainRequest {
        name: Located::new(name.into(), Origin(10)),
        capabilities: Located::new(
            if hardware {
                Capabilities::HARDWARE
            } else {
                Capabilities::empty()
            },
            Origin(11),
        ),
        cpus: Located::new(1, Origin(12)),
        memory: Located::new(memory, Origin(13)),
        kernel: Some(kernel(at, 20 * MIB)),
        ramdisk: Some(ModuleRequest {
            module: bytes(at + 24 * MIB, 4 * MIB),
            origin: Origin(21),
        }),
        tree_bytes: 64 * KIB,
        ..DomainRequest::default()
    }
}

pub fn system(domains: Vec<DomainRequest>) -> SystemRequest {
    SystemRequest {
        hypervisor: HypervisorRequest {
            tree_bytes: 64 * KIB,
            console: Some(Located::new("/pl011@9000000".into(), Origin(7))),
            ..HypervisorRequest::default()
        },
        domains,
    }
}

pub fn fixed(start: u64, size: u64) -> StaticRange {
    StaticRange {
        start,
        size,
        origin: Origin(30),
    }
}

pub fn codes(outcome: &Outcome) -> Vec<&'static str> {
    outcome
        .conflicts
        .iter()
        .map(|conflict| conflict.code.as_str())
        .collect()
}

/// Everything that must hold for any outcome.
pub fn check_invariants(host: &HostMap, request: &SystemRequest, outcome: &Outcome) {
    let plan = &outcome.plan;
    // Each frame of RAM has one owner, and all of them are accounted for.
    let owners = plan.owners();
    for pair in owners.windows(2) {
        assert!(
            pair[0].frames.end() <= pair[1].frames.start(),
            "two owners: {pair:?}"
        );
    }
    let mut ram: Vec<MachineRange> = host.ram.iter().map(|bank| bank.range).collect();
    ram.sort();
    let mut merged: Vec<MachineRange> = Vec::new();
    for range in ram.into_iter().filter(|range| !range.is_empty()) {
        match merged.last_mut() {
            Some(last) if range.start() <= last.end() => {
                *last = MachineRange::between(last.start(), last.end().max(range.end()));
            }
            _ => merged.push(range),
        }
    }
    let total: u64 = merged
        .iter()
        .map(|range| range.frames_inside().frames())
        .sum();
    let fits = |frames: &MfnRange| merged.iter().any(|ram| ram.frames_inside().covers(frames));
    let region = plan.hypervisor.region;
    let accounted: u64 = owners.iter().map(|owned| owned.frames.frames()).sum();
    if outcome
        .conflicts
        .iter()
        .all(|c| c.code != Code::NoRoomForHypervisor)
    {
        assert_eq!(accounted, total, "RAM is accounted for: {owners:?}");
        for owned in &owners {
            assert!(fits(&owned.frames), "{owned:?} isn't RAM");
        }
        assert_eq!(region.start().raw() % 512, 0);
    } else {
        assert!(plan.domains.is_empty());
    }
    // The hypervisor's parts lie in its region, apart from each other.
    let mut parts = plan.hypervisor.heap.clone();
    parts.push(plan.hypervisor.image);
    for domain in &plan.domains {
        parts.extend([domain.pool, domain.tables]);
        assert_eq!(domain.pool.frames(), need::pool_frames(&domain.limits));
        let request = &request.domains[domain.index];
        assert_eq!(domain.tables.frames(), need::table_frames(host, request));
        let needed = tables_for_ram(&domain.banks);
        assert!(
            needed <= domain.tables.frames(),
            "{}: {needed} tables for RAM alone, {} planned",
            domain.name,
            domain.tables.frames()
        );
    }
    parts.sort();
    for pair in parts.windows(2) {
        assert!(pair[0].end() <= pair[1].start());
    }
    assert!(
        parts.iter().all(|part| region.covers(part)),
        "{parts:?} in {region:?}"
    );
    let mut cpus: Vec<u32> = Vec::new();
    for domain in &plan.domains {
        check_domain(host, &request.domains[domain.index], domain);
        cpus.extend(&domain.cpus);
        assert!(
            outcome
                .refused
                .iter()
                .all(|refused| refused.domain != domain.index)
        );
    }
    cpus.sort_unstable();
    assert!(
        cpus.windows(2).all(|pair| pair[0] < pair[1]),
        "a CPU is shared: {cpus:?}"
    );
    // Every domain is in the plan or refused, and only for an error.
    assert_eq!(
        plan.domains.len() + outcome.refused.len(),
        request.domains.len()
    );
    for refusal in &outcome.refused {
        assert!(
            outcome
                .conflicts
                .iter()
                .any(|c| c.code == refusal.code && c.is_error())
        );
    }
    for conflict in &outcome.conflicts {
        assert!(
            !conflict.sides.is_empty() && !conflict.why.is_empty(),
            "{conflict:?}"
        );
    }
}

/// The fewest second-stage tables that map these banks by leaves of 4 KiB, 2 MiB and 1 GiB, beside
/// the root.
fn tables_for_ram(banks: &[Bank]) -> u64 {
    const LEVELS: [u64; 2] = [512, 512 * 512];
    let mut split: Vec<(u64, u64)> = Vec::new();
    let mut odd = 0;
    for bank in banks {
        for size in LEVELS {
            let (start, end) = (bank.gfn.raw(), bank.gfn.raw() + bank.frames);
            let (first, last) = (start / size, (end - 1) / size);
            if start % size != bank.mfn.raw() % size {
                // No leaf of this size fits anywhere.
                odd += last - first + 1;
                continue;
            }
            split.extend((start % size != 0).then_some((size, first)));
            split.extend((end % size != 0).then_some((size, last)));
        }
    }
    split.sort_unstable();
    split.dedup();
    odd + split.len() as u64
}

/// Frames of a PC's first MiB, which the hardware domain has beside what it asked for.
pub fn low_frames(host: &HostMap, plan: &DomainPlan) -> u64 {
    let low = MfnRange::between(Mfn::new(0), Mfn::new(256));
    let parts = plan.banks.iter();
    let parts = parts.filter_map(|bank| bank.machine().intersection(&low));
    match host.architecture {
        Architecture::X86_64 => parts.map(|part| part.frames()).sum(),
        _ => 0,
    }
}

fn check_domain(host: &HostMap, request: &DomainRequest, plan: &DomainPlan) {
    let low = low_frames(host, plan);
    let may_have_low = plan.identity.is_hardware() && plan.identity.uses_host_layout();
    assert!(low == 0 || may_have_low);
    let reserved: Vec<&Bank> = plan.banks.iter().filter(|bank| bank.reserved).collect();
    let frames = plan.frames() - low - reserved.iter().map(|bank| bank.frames).sum::<u64>();
    let direct = plan.identity.is_direct_mapped();
    assert!(reserved.is_empty() || direct && plan.identity.is_hardware());
    for bank in &plan.banks {
        assert!(bank.frames > 0);
        assert!(
            !direct || bank.gfn.raw() == bank.mfn.raw(),
            "direct-mapped: {bank:?}"
        );
    }
    for pair in plan.banks.windows(2) {
        assert!(
            pair[0].guest().end() <= pair[1].gfn,
            "banks are sorted and apart in the guest"
        );
    }
    match request.memory.value {
        MemoryRequest::Size(size) => assert_eq!(frames * FRAME_SIZE, size),
        MemoryRequest::Rest | MemoryRequest::SumOfStatic => {}
    }
    if !request.static_mem.is_empty() {
        let named: u64 = request.static_mem.iter().map(|range| range.size).sum();
        assert_eq!(frames * FRAME_SIZE, named);
    }
    let ram = plan.guest_ram_to_use();
    let ram: Vec<GuestRange> = ram.iter().map(GfnRange::bytes).collect();
    let mut used = vec![plan.kernel.range(), plan.tree];
    used.extend(plan.ramdisk.as_ref().map(Placement::range));
    for (at, one) in used.iter().enumerate() {
        assert!(ram.iter().any(|ram| ram.covers(one)), "{one} in {ram:?}");
        assert!(
            used[..at].iter().all(|other| !other.overlaps(one)),
            "{used:?}"
        );
    }
    let kernel = request
        .kernel
        .as_ref()
        .expect("planned domains have a kernel");
    assert_eq!(
        (plan.kernel.address.raw() - kernel.text_offset) % kernel.alignment,
        0
    );
    if let Some(bounds) = kernel.bounds {
        assert!(bounds.covers(&plan.kernel.range()), "{:?}", plan.kernel);
    }
    if let Some(limit) = request.memory_below {
        for bank in plan.banks.iter().filter(|bank| !bank.reserved) {
            assert!(bank.machine().end().address().raw() <= limit.value);
        }
    }
    if let Some(in_place) = [Some(&plan.kernel), plan.ramdisk.as_ref()]
        .into_iter()
        .flatten()
        .find(|item| item.in_place && !item.source.is_empty())
    {
        let file = GuestRange::saturating(in_place.address, in_place.source.size());
        assert_eq!(plan.machine_ranges(file), Some(vec![in_place.source]));
    }
}
