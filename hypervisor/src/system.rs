//! The whole: the machine, who owns its frames, and the domains on it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

use layout::{
    Copy as ModuleCopy, Gfn, GuestAddress, HostMap, MachineRange, Mfn, MfnRange, Plan, Scrub,
};
use spin::Mutex;

use crate::caller::Caller;
use crate::domain::{Domain, GivenBack, Said, Setup, Vcpu};
use crate::event::Events;
use crate::grant::Mappings;
use crate::hypercall::DomainConsole;
use crate::life::Life;
use crate::machine::{Machine, MapError};
use crate::ownership::{Claim, DomainIndex, Holding, Overlap, Owner, Ownership};
use crate::sorted;

/// The system, made once at boot and never undone.
pub struct System<M: Machine> {
    pub(crate) machine: M,
    pub(crate) ownership: Ownership,
    pub(crate) domains: Box<[Domain<M>]>,
    pub(crate) copies: Box<[ModuleCopy]>,
    /// Frames that held another domain's module.
    pub(crate) clear: Box<[Claim]>,
    pub(crate) scrub: Scrub,
    /// How many domains haven't ended for good.
    pub(crate) alive: AtomicUsize,
    /// All pages that are mapped by grants.
    pub(crate) mappings: Mutex<Mappings>,
    /// Nanoseconds since 1970 at system time 0.
    pub(crate) wall_clock: AtomicU64,
    /// The domain that has the console's focus, by its index.
    pub(crate) focus: AtomicU16,
    /// How many times the key that moves the focus was typed in a row.
    pub(crate) switch_typed: AtomicU8,
}

/// Why a system, or one domain of it, can't be built. The planner has seen to it that none of this
/// happens: each is a difference between what was planned and what the machine crate brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// A frame has two owners.
    Overlap(Overlap),
    /// The machine crate brought another number of domains or vCPUs than the plan has.
    Count,
    /// There are more domains than numbers for them.
    TooManyDomains,
    /// A domain's pool is too small or outside the hypervisor's region.
    Pool,
    /// A range that the plan names isn't the domain's.
    NotOwned(MachineRange),
    /// A bank's frames aren't the domain's.
    Bank(MfnRange),
    /// Stage 2 can't be made.
    Stage2(Gfn, MapError),
    /// The guest's device tree doesn't fit in its place.
    Tree,
    /// Another domain still has pages of this one mapped.
    StillMapped(DomainIndex),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap(Overlap { first, second }) => {
                write!(
                    f,
                    "{} ({:?}) and {} ({:?}) overlap",
                    first.frames.bytes(),
                    first.owner,
                    second.frames.bytes(),
                    second.owner
                )
            }
            Self::Count => f.write_str("the machine's domains or vCPUs aren't the plan's"),
            Self::TooManyDomains => f.write_str("too many domains"),
            Self::Pool => f.write_str("no memory for the shared page and the grant table"),
            Self::NotOwned(range) => write!(f, "{range} isn't the domain's"),
            Self::Bank(frames) => write!(f, "{} isn't the domain's", frames.bytes()),
            Self::Stage2(gfn, error) => {
                write!(f, "stage 2 at {:#x}: {error:?}", gfn.address().raw())
            }
            Self::StillMapped(holder) => {
                write!(
                    f,
                    "domain {} of the plan still has pages of it mapped",
                    holder.0
                )
            }
            Self::Tree => f.write_str("the guest's device tree is larger than its place"),
        }
    }
}

impl<M: Machine> System<M> {
    /// Makes the system: the ownership table and the domains, none of them built yet.
    ///
    /// `setups` holds what the machine crate brings for each domain of the plan, in the plan's
    /// order.
    ///
    /// # Errors
    /// [`BuildError`], if plan and machine don't fit together.
    pub fn new(
        machine: M,
        host: &HostMap,
        plan: Plan,
        setups: Vec<Setup<M>>,
    ) -> Result<Self, BuildError> {
        if plan.domains.len() != setups.len() {
            return Err(BuildError::Count);
        }
        if plan.domains.len() >= usize::from(u16::MAX) {
            return Err(BuildError::TooManyDomains);
        }
        let devices = devices(host, &plan);
        let mut holdings = memory(&plan, &devices)?;
        holdings.extend(devices);
        let ownership = Ownership::new(holdings).map_err(BuildError::Overlap)?;
        let clear = left_behind(&ownership, &plan.clear)?;

        let mut domains = Vec::with_capacity(setups.len());
        for ((index, planned), setup) in (0..).map(DomainIndex).zip(plan.domains).zip(setups) {
            domains.push(domain::<M>(&ownership, index, planned, setup)?);
        }
        let focus = domains
            .iter()
            .position(|domain| domain.plan.identity.is_hardware())
            .unwrap_or(0);
        Ok(Self {
            mappings: Mutex::new(Mappings::new(domains.len())),
            wall_clock: AtomicU64::new(Self::wall_clock_at_start(&machine)),
            focus: AtomicU16::new(u16::try_from(focus).unwrap_or(0)),
            switch_typed: AtomicU8::new(0),
            alive: AtomicUsize::new(domains.len()),
            machine,
            ownership,
            domains: domains.into_boxed_slice(),
            copies: plan.copies.into_boxed_slice(),
            clear,
            scrub: plan.hypervisor.scrub,
        })
    }

    /// The machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// Who owns which frames.
    pub const fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// The domains, in the plan's order.
    pub const fn domains(&self) -> &[Domain<M>] {
        &self.domains
    }

    /// The way into the core for one vCPU.
    #[must_use]
    pub fn caller(&self, domain: DomainIndex, vcpu: u32) -> Option<Caller<'_, M>> {
        let domain = self.domains.get(domain.get())?;
        let vcpu = domain.vcpus.get(vcpu as usize)?;
        Some(Caller {
            system: self,
            domain,
            vcpu,
        })
    }

    /// The vCPU that is pinned to a CPU, by the CPU's index in the host map.
    #[must_use]
    pub fn caller_on_cpu(&self, cpu: u32) -> Option<Caller<'_, M>> {
        self.domains.iter().find_map(|domain| {
            let vcpu = domain.plan.cpus.iter().position(|&pinned| pinned == cpu)?;
            Some(Caller {
                system: self,
                domain,
                vcpu: domain.vcpus.get(vcpu)?,
            })
        })
    }

    /// A line of the hypervisor on the console.
    pub fn log(&self, text: fmt::Arguments<'_>) {
        self.machine
            .console()
            .line(&|bytes| self.machine.console_write(bytes), text);
    }

    /// Places the boot modules, builds every domain and starts it. A domain that can't be built is
    /// refused with a line on the console; the others start.
    pub fn boot(&self) {
        let placed = self.place_modules();
        // Before the first domain runs: what firmware left there isn't a grant to it.
        for domain in &self.domains {
            self.machine.clear(&domain.shared_info);
            self.machine.clear(&domain.grant_frames);
        }
        for (domain, placed) in self.domains.iter().zip(placed) {
            match placed.and_then(|()| self.build(domain)) {
                Ok(()) => self.start(domain),
                Err(error) => {
                    self.log(format_args!(
                        "{}: refused: build-failed: {error}",
                        domain.name()
                    ));
                    self.end_for_good(domain);
                }
            }
        }
    }

    /// Carries out the plan's copies, and clears what they left of modules in the RAM of other
    /// domains. For each domain whether its modules are in place.
    fn place_modules(&self) -> Vec<Result<(), BuildError>> {
        let mut placed = alloc::vec![Ok(()); self.domains.len()];
        for copy in &self.copies {
            // No domain runs yet, so a module may be put aside in any of their RAM.
            let may_hold = |owner| matches!(owner, Owner::Domain(_) | Owner::Unowned);
            if let Some(all) = placed.get_mut(copy.domain) {
                *all = all.and_then(|()| self.place(copy, may_hold));
            }
        }
        for claim in &self.clear {
            self.machine.clear(claim);
        }
        for copy in &self.copies {
            self.clear_behind(copy);
        }
        placed
    }

    /// The guest page at which a domain finds a device's frame: devices are shown where the machine
    /// has them, also to a domain whose RAM isn't direct-mapped.
    pub(crate) fn device_page(mfn: Mfn) -> Gfn {
        GuestAddress::new(mfn.address().raw()).frame()
    }
}

/// The holdings of RAM. The pools are cut out of the hypervisor's region, and what drivers use of reserved RAM out of that.
fn memory(plan: &Plan, devices: &[Holding]) -> Result<Vec<Holding>, BuildError> {
    let region = plan.hypervisor.region;
    let mut holdings = Vec::new();
    let mut pools: Vec<(MfnRange, DomainIndex)> = Vec::with_capacity(plan.domains.len());
    for (domain, index) in plan.domains.iter().zip((0..).map(DomainIndex)) {
        sorted::insert(&mut pools, (domain.pool, index), |(pool, _)| pool.start());
    }
    let mut at = region.start();
    for (pool, index) in pools {
        if pool.start() < at || !region.covers(&pool) {
            return Err(BuildError::Pool);
        }
        holdings.push(Holding {
            frames: MfnRange::between(at, pool.start()),
            owner: Owner::Hypervisor,
        });
        holdings.push(Holding {
            frames: pool,
            owner: Owner::Pool(index),
        });
        at = pool.end();
    }
    holdings.push(Holding {
        frames: MfnRange::between(at, region.end()),
        owner: Owner::Hypervisor,
    });

    for (domain, index) in plan.domains.iter().zip((0..).map(DomainIndex)) {
        let banks = domain.banks.iter().map(|bank| Holding {
            frames: bank.machine(),
            owner: Owner::Domain(index),
        });
        holdings.extend(banks);
    }
    let others = [(&plan.kept, Owner::Module), (&plan.unowned, Owner::Unowned)];
    for (ranges, owner) in others {
        holdings.extend(ranges.iter().map(|&frames| Holding { frames, owner }));
    }
    let owner = Owner::Reserved;
    let devices: Vec<MfnRange> = devices.iter().map(|device| device.frames).collect();
    for &range in &plan.reserved {
        let left = without(range, &devices);
        holdings.extend(left.into_iter().map(|frames| Holding { frames, owner }));
    }
    Ok(holdings)
}

/// What is left of a range; pieces may be empty.
fn without(range: MfnRange, taken: &[MfnRange]) -> Vec<MfnRange> {
    let mut left = alloc::vec![range];
    for taken in taken {
        for index in 0..left.len() {
            let piece = left.get_mut(index);
            let Some((piece, hole)) =
                piece.and_then(|it| it.intersection(taken).map(|hole| (it, hole)))
            else {
                continue;
            };
            let above = MfnRange::between(hole.end(), piece.end());
            *piece = MfnRange::between(piece.start(), hole.start());
            left.push(above);
        }
    }
    left
}

/// Claims on the frames that held another domain's module.
fn left_behind(ownership: &Ownership, ranges: &[MachineRange]) -> Result<Box<[Claim]>, BuildError> {
    let mut claims = Vec::new();
    for range in ranges {
        let pieces = ownership.claim_all(range.frames_touched());
        for claim in pieces.ok_or(BuildError::NotOwned(*range))? {
            if !matches!(claim.owner(), Owner::Domain(_) | Owner::Unowned) {
                return Err(BuildError::NotOwned(*range));
            }
            claims.push(claim);
        }
    }
    Ok(claims.into_boxed_slice())
}

/// The holdings of device registers, and of reserved RAM that drivers use.
fn devices(host: &HostMap, plan: &Plan) -> Vec<Holding> {
    // A reserved region is a device of its driver's too, and can be RAM of the hardware domain in part.
    let banks = plan.domains.iter().flat_map(|domain| &domain.banks);
    let banks = banks.filter(|bank| bank.reserved);
    let mut ram: Vec<MfnRange> = banks.map(layout::Bank::machine).collect();
    ram.extend(plan.kept.iter().chain(&plan.reserved));
    let mut holdings = Vec::new();
    for (domain, index) in plan.domains.iter().zip((0..).map(DomainIndex)) {
        let devices = domain
            .devices
            .iter()
            .filter_map(|&device| host.devices.get(device));
        for range in devices.flat_map(|device| &device.ranges) {
            let frames = range.frames_touched();
            let reserved = plan.reserved.iter();
            let reserved = reserved.filter_map(|ram| ram.intersection(&frames));
            holdings.extend(reserved.map(|frames| Holding {
                frames,
                owner: Owner::DeviceMemory(index),
            }));
            let registers = without(frames, &ram).into_iter();
            holdings.extend(registers.map(|frames| Holding {
                frames,
                owner: Owner::Device(index),
            }));
        }
    }
    holdings
}

/// One domain, not built yet.
fn domain<M: Machine>(
    ownership: &Ownership,
    index: DomainIndex,
    plan: layout::DomainPlan,
    setup: Setup<M>,
) -> Result<Domain<M>, BuildError> {
    if setup.vcpus.is_empty() || setup.vcpus.len() != plan.cpus.len() {
        return Err(BuildError::Count);
    }
    let vcpus: Box<[Vcpu<M>]> = (0..)
        .zip(setup.vcpus)
        .map(|(index, machine)| Vcpu::new(index, machine))
        .collect();
    let vcpus_count = vcpus.len();
    let pool = ownership
        .claim(plan.pool, Owner::Pool(index))
        .ok_or(BuildError::Pool)?;
    let shared_info = pool.part(0, 1).ok_or(BuildError::Pool)?;
    let grant_frames = pool
        .part(1, u64::from(plan.limits.max_grant_frames))
        .ok_or(BuildError::Pool)?;
    let mut features = M::FACTS.features | 1 << plan.identity.memory_feature().bit();
    if plan.identity.is_hardware() {
        features |= abi::features::DOM0;
    }
    Ok(Domain {
        index,
        features,
        machine: setup.machine,
        life: Mutex::new(Life::new(vcpus_count)),
        vcpus,
        tree: setup.tree.into_boxed_slice(),
        shared_info,
        grant_frames,
        // Xen's initial size; Linux counts on the first frame.
        grant_frames_used: AtomicU32::new(1),
        given_back: Mutex::new(GivenBack::default()),
        events: Mutex::new(Events::new(
            plan.limits.max_event_channels,
            vcpus_count,
            M::FACTS.shared_info,
        )),
        console: Mutex::new(DomainConsole::default()),
        callback: AtomicU64::new(0),
        said: Said::default(),
        plan,
    })
}
