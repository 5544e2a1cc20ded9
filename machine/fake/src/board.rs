//! A small machine with its plan. The plan is put together here and not by the planner: what is
//! under test is that the core does what a plan says, whoever made it.

use std::sync::Arc;

use abi::memory::MapEntry;
use hypervisor::{BuildError, DomainIndex, PhysicalCpu, Setup, System};
use layout::{
    Architecture, Bank, Capabilities, Copy, DomainPlan, FRAME_SIZE, Gfn, GuestAddress, GuestRange,
    HostDevice, HostMap, HypervisorPlan, Identity, Item, Kind, Limits, MachineRange, Mfn, MfnRange,
    OnConflict, Placement, Plan, Policies, Scrub,
};

use crate::guest::Guest;
use crate::machine::{Fake, FakeDomain, FakeVcpu};

/// The first frame of RAM.
pub const RAM_START: u64 = 0x100;
/// The first guest frame of a domain that isn't direct-mapped.
const GUEST_START: u64 = 0x40000;
/// The first frame of device registers; each domain has one.
pub const DEVICES: u64 = 0x8_0000;
/// Frames of the hypervisor besides the pools.
const HYPERVISOR: u64 = 4;
/// Frames between domains that nobody owns.
const GAP: u64 = 1;
/// Frames of a boot module.
const MODULE: u64 = 1;
/// Bytes of it.
const MODULE_BYTES: u64 = 1024;
/// Frames that stage 2 can hold beyond the domain's RAM and device.
const SPARE_PAGES: u64 = 24;

/// The kinds of a memory map's entries.
const MEMORY: u32 = 1;
const RESERVED: u32 = 2;

/// The hardware and control domain's roles.
pub const HARDWARE: Capabilities = Capabilities::HARDWARE.union(Capabilities::CONTROL);
/// A guest's.
pub const NO_ROLE: Capabilities = Capabilities::empty();

/// A domain to be.
#[derive(Clone, Debug)]
pub struct DomainSpec {
    /// Its name.
    pub name: &'static str,
    /// Its roles.
    pub capabilities: Capabilities,
    /// Whether GFN == MFN.
    pub direct_map: bool,
    /// Frames of RAM, at least 4.
    pub frames: u64,
    /// vCPUs.
    pub cpus: u32,
    /// Frames of its device, which begins at [`DEVICES`] plus the domain's number.
    pub device_frames: u64,
    /// What follows what.
    pub policies: Policies,
    /// Bounds.
    pub limits: Limits,
    /// Bytes of its device tree; the plan has one frame for it.
    pub tree_bytes: usize,
    /// How often stage 2 can take pages out before its tables are used up.
    pub splits: u64,
}

impl DomainSpec {
    /// A domain of 16 frames and one vCPU.
    pub fn new(name: &'static str, capabilities: Capabilities, direct_map: bool) -> Self {
        Self {
            name,
            capabilities,
            direct_map,
            frames: 16,
            cpus: 1,
            device_frames: 1,
            policies: Policies::default(),
            limits: Limits {
                max_event_channels: 127,
                max_grant_frames: 2,
            },
            tree_bytes: 64,
            splits: u64::MAX,
        }
    }
}

/// A machine that has booted.
pub struct Board {
    /// The system.
    pub system: System<Fake>,
}

impl Board {
    /// A machine with these domains, all running.
    ///
    /// # Panics
    /// If the plan and the core don't agree.
    pub fn boot(specs: &[DomainSpec]) -> Self {
        Self::boot_with(specs, Scrub::Reused).expect("a plan that fits")
    }

    /// A hardware domain with so many vCPUs, and nobody else.
    pub fn one(cpus: u32) -> Self {
        Self::boot(&[DomainSpec {
            cpus,
            ..DomainSpec::new("control", HARDWARE, true)
        }])
    }

    /// A direct-mapped hardware domain and a guest that isn't.
    pub fn two() -> Self {
        Self::boot(&[
            DomainSpec::new("control", HARDWARE, true),
            DomainSpec::new("guest", NO_ROLE, false),
        ])
    }

    /// As [`boot`](Self::boot), for plans that may not fit.
    ///
    /// # Errors
    /// The core's.
    pub fn boot_with(specs: &[DomainSpec], scrub: Scrub) -> Result<Self, BuildError> {
        Self::boot_planned(specs, scrub, |_| ())
    }

    /// As [`boot_with`](Self::boot_with), with a plan that `change` has changed.
    ///
    /// # Errors
    /// The core's.
    pub fn boot_planned(
        specs: &[DomainSpec],
        scrub: Scrub,
        change: impl FnOnce(&mut Plan),
    ) -> Result<Self, BuildError> {
        let (host, mut plan) = plan(specs, scrub);
        change(&mut plan);
        let machine = Fake::new(ram(&plan));
        let setups = setups(&plan, specs, |_| Vec::new());
        Self::start(machine, &host, &plan, setups)
    }

    /// A machine with these domains that has all that only some architectures have.
    ///
    /// # Panics
    /// If the plan and the core don't agree.
    pub fn with_extras(specs: &[DomainSpec]) -> Self {
        let (host, plan) = plan(specs, Scrub::Reused);
        let ram = ram(&plan);
        let cpus = plan.domains.iter().flat_map(|domain| &domain.cpus);
        let cpus = cpus.map(|&cpu| PhysicalCpu {
            hardware_id: cpu * 2,
            firmware_id: cpu + 1,
        });
        let start = ram.bytes().start().raw();
        let map = vec![
            entry(0, start, RESERVED),
            entry(start, ram.bytes().size(), MEMORY),
        ];
        let machine = Fake::new(ram).with_extras(map, cpus.collect());
        let setups = setups(&plan, specs, |domain| {
            let bank = |bank: &Bank| {
                let bytes = bank.frames * FRAME_SIZE;
                entry(bank.gfn.address().raw(), bytes, MEMORY)
            };
            domain.banks.iter().map(bank).collect()
        });
        Self::start(machine, &host, &plan, setups).expect("a plan that fits")
    }

    fn start(
        machine: Fake,
        host: &HostMap,
        plan: &Plan,
        setups: Vec<Setup<Fake>>,
    ) -> Result<Self, BuildError> {
        let system = System::new(machine, host, plan.clone(), setups)?;
        system.boot();
        Ok(Self { system })
    }

    /// The guest on a vCPU.
    ///
    /// # Panics
    /// If there is no such vCPU.
    pub fn guest(&self, domain: u16, vcpu: u32) -> Guest<'_> {
        Guest::new(
            self.system
                .caller(DomainIndex(domain), vcpu)
                .expect("a vCPU"),
        )
    }

    /// The machine.
    pub fn machine(&self) -> &Fake {
        self.system.machine()
    }
}

const fn entry(address: u64, size: u64, kind: u32) -> MapEntry {
    MapEntry {
        address,
        size,
        kind,
    }
}

/// What the machine brings for each domain; `map` tells a domain's memory map.
fn setups(
    plan: &Plan,
    specs: &[DomainSpec],
    map: impl Fn(&DomainPlan) -> Vec<MapEntry>,
) -> Vec<Setup<Fake>> {
    plan.domains
        .iter()
        .zip(specs)
        .map(|(domain, spec)| {
            let mut tree = format!("tree of {}", domain.name).into_bytes();
            tree.resize(spec.tree_bytes, 0);
            let pages = usize::try_from(domain.frames() + 1 + SPARE_PAGES).unwrap_or(usize::MAX);
            let machine = FakeDomain::new(pages, spec.splits).with_map(map(domain));
            let machine = Arc::new(machine);
            let vcpus = domain.cpus.iter().map(|_| FakeVcpu::of(&machine)).collect();
            Setup {
                machine,
                vcpus,
                tree,
            }
        })
        .collect()
}

fn ram(plan: &Plan) -> MfnRange {
    let start = Mfn::new(RAM_START);
    let end = plan.owners().last().map_or(start, |last| last.frames.end());
    MfnRange::between(start, end)
}

/// Lays the domains out one after the other, gaps between them.
fn plan(specs: &[DomainSpec], scrub: Scrub) -> (HostMap, Plan) {
    let mut next = RAM_START;
    let mut take = |frames: u64| {
        let start = Mfn::new(next);
        next += frames;
        MfnRange::between(start, Mfn::new(next))
    };
    let image = take(HYPERVISOR);
    let pools: Vec<MfnRange> = specs
        .iter()
        .map(|spec| take(2 + u64::from(spec.limits.max_grant_frames)))
        .collect();
    let region = MfnRange::between(
        image.start(),
        pools.last().map_or(image.end(), MfnRange::end),
    );

    let mut host = HostMap {
        architecture: Architecture::Aarch64,
        ..HostMap::default()
    };
    let (mut domains, mut copies, mut kept, mut unowned) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut cpu = 0;
    for ((index, spec), pool) in specs.iter().enumerate().zip(pools) {
        unowned.push(take(GAP));
        let ram = take(spec.frames);
        let module = take(MODULE);
        kept.push(module);
        let bytes =
            |frames: MfnRange| MachineRange::saturating(frames.bytes().start(), MODULE_BYTES);
        let device = Mfn::new(DEVICES + index as u64).address();
        host.devices.push(HostDevice {
            path: format!("/device@{index}"),
            ranges: [MachineRange::saturating(
                device,
                spec.device_frames * FRAME_SIZE,
            )]
            .into(),
            interrupts: Vec::new(),
            ..HostDevice::default()
        });
        let gfn = Gfn::new(if spec.direct_map {
            ram.start().raw()
        } else {
            GUEST_START
        });
        let page = |index: u64| gfn.offset(index).address();
        let kernel = Placement {
            address: page(1),
            size: MODULE_BYTES,
            source: bytes(module),
            in_place: false,
        };
        let to = MfnRange::between(ram.start().offset(1), ram.start().offset(1 + MODULE));
        copies.push(Copy {
            domain: index,
            item: Item::Kernel,
            source: bytes(module),
            destination: [bytes(to)].into(),
        });
        domains.push(DomainPlan {
            index,
            id: domain_id(specs, index),
            name: spec.name.into(),
            identity: Identity {
                kind: Kind::Pvh,
                capabilities: spec.capabilities,
                direct_map: spec.direct_map,
            },
            banks: [Bank {
                reserved: false,
                gfn,
                mfn: ram.start(),
                frames: spec.frames,
            }]
            .into(),
            pool,
            tables: MfnRange::empty(region.start()),
            kernel,
            entry: None,
            ramdisk: None,
            tree: GuestRange::saturating(GuestAddress::new(page(2).raw()), FRAME_SIZE),
            partial_tree: None,
            cpus: (cpu..cpu + spec.cpus).collect(),
            devices: [index].into(),
            limits: spec.limits,
            policies: spec.policies,
            command_line: String::new(),
            vpl011: false,
        });
        cpu += spec.cpus;
    }
    unowned.push(take(GAP));
    let hypervisor = HypervisorPlan {
        region,
        image,
        in_place: true,
        on_conflict: OnConflict::Halt,
        print_plan: false,
        scrub,
        console: None,
        heap: Vec::new(),
    };
    let plan = Plan {
        architecture: Architecture::Aarch64,
        hypervisor,
        domains,
        copies,
        clear: Vec::new(),
        kept,
        reserved: Vec::new(),
        unowned,
    };
    (host, plan)
}

/// 0 for the hardware domain, the others count from 1.
fn domain_id(specs: &[DomainSpec], index: usize) -> u16 {
    let others = |spec: &&DomainSpec| !spec.capabilities.contains(Capabilities::HARDWARE);
    if specs.get(index).as_ref().is_some_and(others) {
        u16::try_from(specs.iter().take(index + 1).filter(others).count()).unwrap_or(u16::MAX)
    } else {
        0
    }
}
