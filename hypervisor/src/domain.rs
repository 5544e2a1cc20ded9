//! A domain and its vCPUs: what the core keeps of them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use abi::DomainId;
use layout::{DomainPlan, Gfn, Mfn};
use spin::Mutex;

use crate::event::Events;
use crate::hypercall::DomainConsole;
use crate::life::Life;
use crate::machine::Machine;
use crate::ownership::{Claim, DomainIndex};
use crate::timer::Timers;

/// A domain, from its planning to the machine's end. A restart builds it anew in the same place.
pub struct Domain<M: Machine> {
    /// Its place in the system.
    pub(crate) index: DomainIndex,
    /// What the plan says of it; it is built by this and nothing else.
    pub(crate) plan: DomainPlan,
    /// Feature word 0.
    pub(crate) features: u32,
    /// The machine crate's half.
    pub(crate) machine: M::Domain,
    /// Its vCPUs, at least one.
    pub(crate) vcpus: Box<[Vcpu<M>]>,
    /// The guest's device tree, kept for a restart.
    pub(crate) tree: Box<[u8]>,
    /// The frame of its `shared_info`.
    pub(crate) shared_info: Claim,
    /// The frames of its grant table, as many as the plan allows.
    pub(crate) grant_frames: Claim,
    /// How many of those frames the guest has asked for.
    pub(crate) grant_frames_used: AtomicU32,
    /// What of its RAM it doesn't use. The lock also keeps changes of its stage 2 apart.
    pub(crate) given_back: Mutex<GivenBack>,
    /// Its event channels.
    pub(crate) events: Mutex<Events>,
    /// Its side of the console.
    pub(crate) console: Mutex<DomainConsole>,
    /// `HVM_PARAM_CALLBACK_IRQ`.
    pub(crate) callback: AtomicU64,
    /// Which of its vCPUs run, and whether it is ending.
    pub(crate) life: Mutex<Life>,
    /// What was said about it once and needs no saying again.
    pub(crate) said: Said,
}

impl<M: Machine> Domain<M> {
    /// Its name in the manifest.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its number, as other domains know it.
    #[must_use]
    pub fn id(&self) -> DomainId {
        DomainId(self.plan.id)
    }

    /// Its place in the system.
    #[must_use]
    pub const fn index(&self) -> DomainIndex {
        self.index
    }

    /// What the plan says of it.
    #[must_use]
    pub const fn plan(&self) -> &DomainPlan {
        &self.plan
    }

    /// The machine crate's half.
    #[must_use]
    pub const fn machine(&self) -> &M::Domain {
        &self.machine
    }

    /// Its vCPUs.
    #[must_use]
    pub const fn vcpus(&self) -> &[Vcpu<M>] {
        &self.vcpus
    }

    /// The frame that the plan put behind a page of its RAM, whether it is mapped there now or not.
    ///
    /// This is `populate_physmap`'s answer for every kind of domain: for a direct-mapped one it is
    /// the frame with the same number, for others the one that it had at boot. No page has another
    /// frame, so none is behind two pages.
    pub(crate) fn home(&self, gfn: Gfn) -> Option<Mfn> {
        self.plan.machine_frame(gfn)
    }
}

/// Pages of RAM that a domain doesn't use at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenBack {
    /// Pages that don't have their home mapped.
    pub(crate) absent: u64,
    /// Pages that were given back and are mapped all the same: taking them out would have needed
    /// one more table than the plan has. They are reserved for the domain either way.
    pub(crate) left: u64,
}

impl GivenBack {
    /// Counts a page that something else was mapped over, or that was taken out.
    pub(crate) fn displaced(&mut self, was_home: bool) {
        self.absent = self.absent.saturating_add(was_home.into());
    }

    /// All of them.
    pub(crate) fn pages(self) -> u64 {
        self.absent.saturating_add(self.left)
    }
}

/// A virtual CPU, pinned to one CPU of the machine.
pub struct Vcpu<M: Machine> {
    /// Its number in the domain, from 0.
    pub(crate) index: u32,
    /// The machine crate's half.
    pub(crate) machine: M::Vcpu,
    /// Its timers.
    pub(crate) timers: Mutex<Timers>,
    /// Whether it waits for a port, which may be one that causes no upcall.
    pub(crate) polls: AtomicBool,
    /// When it was started last, in nanoseconds of system time.
    pub(crate) since: AtomicU64,
}

impl<M: Machine> Vcpu<M> {
    /// A vCPU that hasn't run.
    pub(crate) fn new(index: u32, machine: M::Vcpu) -> Self {
        Self {
            index,
            machine,
            timers: Mutex::new(Timers::default()),
            polls: AtomicBool::new(false),
            since: AtomicU64::new(0),
        }
    }

    /// Its number in the domain, from 0.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The machine crate's half.
    #[must_use]
    pub const fn machine(&self) -> &M::Vcpu {
        &self.machine
    }
}

/// What the machine crate brings for each domain of the plan.
pub struct Setup<M: Machine> {
    /// Its half of the domain.
    pub machine: M::Domain,
    /// Its half of each vCPU, in order, as many as the plan has.
    pub vcpus: Vec<M::Vcpu>,
    /// The guest's device tree, at most as large as the plan's place for it.
    pub tree: Vec<u8>,
}

/// Log lines that a guest can cause, each of them once or a few times and no more.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// A bit for each hypercall number that was refused as absent.
    absent: AtomicU64,
    /// A bit for each hypercall number of which an operation was refused.
    refused: AtomicU64,
    /// How many stray accesses were logged.
    stray: AtomicU32,
}

/// How many stray accesses of a domain are logged.
const STRAY_LINES: u32 = 16;

impl Said {
    /// Whether this is the first time that the domain used a hypercall that isn't there. All
    /// numbers above the interface's count as one.
    pub(crate) fn absent_first(&self, number: u64) -> bool {
        first(&self.absent, number)
    }

    /// Whether this is the first time that an operation of this hypercall was refused.
    pub(crate) fn refused_first(&self, number: u64) -> bool {
        first(&self.refused, number)
    }

    /// The number of this stray access from 1 while they are to be logged, and whether it is the
    /// last one.
    pub(crate) fn stray(&self) -> Option<bool> {
        let before = self
            .stray
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < STRAY_LINES).then_some(count + 1)
            });
        before.ok().map(|count| count + 1 == STRAY_LINES)
    }

    /// Forgets everything: the domain starts anew.
    pub(crate) fn reset(&self) {
        self.absent.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
        self.stray.store(0, Ordering::Relaxed);
    }
}

fn first(seen: &AtomicU64, number: u64) -> bool {
    let bit = 1 << number.min(63);
    seen.fetch_or(bit, Ordering::Relaxed) & bit == 0
}
