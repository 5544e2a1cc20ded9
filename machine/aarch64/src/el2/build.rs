//! The system that the plan describes: interrupt controllers, second stages, guests' trees, CPUs.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use aarch64_cpu::registers::{CNTFRQ_EL0, ID_AA64MMFR0_EL1, MPIDR_EL1, Readable};
use hypervisor::{BuildError, Setup, System};
use layout::{DomainPlan, MachineRange};
use manifest::tree::blob::Tree;
use manifest::tree::guest::{self, GuestFrames, GuestGic};
use manifest::tree::host::{Gic as HostGic, GicVersion, Host};
use manifest::tree::writer::TooLarge;
use spin::Mutex;

use super::boot::{say, uart};
use super::domain::{Domain, DomainError, VirtualUart};
use super::launch::{Planned, contents};
use super::machine::{Arm, Interrupts, UPCALL};
use super::panic;
use super::smp::{self, Task};
use super::vcpu::Vcpu;
use crate::gic::{self, Facts, Gic, Hardware, Model, QUEUE_BYTES, Window};
use crate::stage2::Shape;
use crate::vgic::{Config, Layout, Owner, Refusal, VcpuConfig};
use crate::vpl011::Pl011;

/// The EL1 timers' interrupts: what Linux and the guests' trees expect, and every host's tree has.
const TIMERS: u32 = 1 << 27 | 1 << 30;
/// EL2's physical timer, where the host's tree doesn't say: Arm BSA's assignment.
const HYPERVISOR_TIMER: u32 = 26;
/// MPIDR_EL1 without U, MT and the reserved bit.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// Why there is no system.
#[derive(Debug)]
pub enum Error {
    /// The host has no interrupt controller that is known, or one without virtualisation.
    NoController,
    /// The interrupt controller refuses.
    Controller(gic::Error),
    /// A domain's second stage.
    Domain(DomainError),
    /// A guest's tree doesn't fit.
    Tree(TooLarge),
    /// The core refuses.
    Core(BuildError),
    /// The CPU that this runs on is not in the host's tree.
    UnknownCpu,
    /// More domains than VMIDs.
    TooManyDomains,
    /// The plan has no domain.
    NoDomain,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoController => f.write_str("no interrupt controller that can be used"),
            Self::Controller(error) => write!(f, "interrupt controller: {error}"),
            Self::Domain(error) => write!(f, "second stage: {error:?}"),
            Self::Tree(error) => write!(f, "guest's tree: {error}"),
            Self::Core(error) => write!(f, "{error}"),
            Self::UnknownCpu => f.write_str("the boot CPU is not in the host's tree"),
            Self::TooManyDomains => f.write_str("more than 255 domains"),
            Self::NoDomain => f.write_str("there is no domain to start"),
        }
    }
}

/// Makes the system, starts its CPUs and domains. Says whether this CPU has a vCPU to run.
///
/// # Errors
/// [`Error`]; then nothing runs.
pub fn build(planned: Planned<'_>) -> Result<bool, Error> {
    let Planned {
        tree,
        host,
        outcome,
    } = planned;
    if outcome.plan.domains.is_empty() {
        return Err(Error::NoDomain);
    }
    let gic = controller(&host)?;
    let mut setups = Vec::new();
    for (index, domain) in outcome.plan.domains.iter().enumerate() {
        let vmid = u8::try_from(index + 1).map_err(|_| Error::TooManyDomains)?;
        let partial_tree = partial(&host, domain);
        let partial_tree = partial_tree.as_ref();
        let bytes = guest::build(tree, &host, &outcome.plan, domain, partial_tree)
            .map_err(Error::Tree)?
            .bytes;
        let others = &outcome.plan.domains;
        setups.push(setup(gic, &host, domain, others, vmid, bytes)?);
    }

    let here = MPIDR_EL1.get() & AFFINITY;
    let here = host
        .map
        .cpus
        .iter()
        .position(|cpu| cpu.hardware_id == here)
        .ok_or(Error::UnknownCpu)?;
    let timer = host
        .timer
        .map_or(HYPERVISOR_TIMER, |timer| timer.hypervisor);
    let cpus = used_cpus(&host, &outcome.plan.domains);
    let machine = Arm {
        gic,
        uart: uart(),
        uart_interrupt: host.console.as_ref().and_then(|uart| uart.interrupt),
        uart_cpu: cpus.first().map_or(here, |&(first, _)| first),
        timer,
        frequency: CNTFRQ_EL0.get().max(1),
    };
    let system = System::new(machine, &host.map, outcome.plan, setups).map_err(Error::Core)?;
    let system: &'static System<Arm> = Box::leak(Box::new(system));

    panic::watch(gic, cpus.iter().map(|&(index, _)| index).collect());
    let mut own = None;
    for (index, affinity) in cpus {
        let Some(caller) = u32::try_from(index)
            .ok()
            .and_then(|cpu| system.caller_on_cpu(cpu))
        else {
            continue;
        };
        let task = Task { caller, index };
        if index == here {
            own = Some(task);
        } else if let Err(error) = smp::start_cpu(affinity, task) {
            say(format_args!("CPU {index} doesn't start: {error:?}"));
        }
    }
    if let Some(own) = &own {
        smp::prepare(own);
    }
    system.boot();
    Ok(own.is_some())
}

/// The CPUs that vCPUs are pinned to: index in the host map and MPIDR affinity.
fn used_cpus(host: &Host, domains: &[DomainPlan]) -> Vec<(usize, u64)> {
    let mut used: Vec<usize> = domains
        .iter()
        .flat_map(|domain| &domain.cpus)
        .filter_map(|&cpu| usize::try_from(cpu).ok())
        .collect();
    used.sort_unstable();
    used.dedup();
    used.into_iter()
        .filter_map(|cpu| Some((cpu, host.map.cpus.get(cpu)?.hardware_id)))
        .collect()
}

/// The physical interrupt controller, in its first state.
fn controller(host: &Host) -> Result<&'static Gic<Hardware>, Error> {
    let described = host.gic.as_ref().ok_or(Error::NoController)?;
    let facts = Facts {
        distributor: window_of(&described.distributor),
        model: model(described).ok_or(Error::NoController)?,
        cpus: host.map.cpus.iter().map(|cpu| cpu.hardware_id).collect(),
        maintenance: described.maintenance.ok_or(Error::NoController)?,
    };
    // SAFETY: the facts are the host tree's frames of its interrupt controller, which are mapped as
    // devices and given to no domain; memory that is read for a domain's ITS is checked by `Banks`.
    let hardware = unsafe { Hardware::new() };
    let gic = Gic::new(hardware, facts).map_err(Error::Controller)?;
    let gic: &'static Gic<Hardware> = Box::leak(Box::new(gic));
    gic.init_distributor();
    Ok(gic)
}

fn window_of(range: &MachineRange) -> Window {
    Window {
        start: range.start().raw(),
        bytes: range.size(),
    }
}

fn model(described: &HostGic) -> Option<Model> {
    Some(match &described.version {
        GicVersion::V2 {
            cpu_interface,
            hypervisor_interface,
            virtual_interface,
        } => Model::V2 {
            cpu_interface: window_of(cpu_interface),
            hypervisor_interface: window_of(hypervisor_interface.as_ref()?),
            virtual_interface: window_of(virtual_interface.as_ref()?),
        },
        GicVersion::V3 {
            redistributors,
            its,
            ..
        } => Model::V3 {
            redistributors: redistributors.iter().map(window_of).collect(),
            its: its.first().map(window_of),
        },
    })
}

/// The partial tree of a domain, if it has one that is a tree.
fn partial(host: &Host, domain: &DomainPlan) -> Option<Tree<'static>> {
    Tree::read(contents(host, domain.partial_tree?)?).ok()
}

/// What the machine brings for one domain.
fn setup(
    gic: &'static Gic<Hardware>,
    host: &Host,
    domain: &DomainPlan,
    all: &[DomainPlan],
    vmid: u8,
    tree: Vec<u8>,
) -> Result<Setup<Arm>, Error> {
    let affinities = guest::vcpu_affinities(host, domain);
    let pinned = domain
        .cpus
        .iter()
        .filter_map(|&cpu| usize::try_from(cpu).ok());
    let places: Vec<VcpuConfig> = pinned
        .zip(&affinities)
        .map(|(cpu, &affinity)| VcpuConfig { cpu, affinity })
        .collect();
    let seen = guest::gic(host, domain).ok_or(Error::NoController)?;
    let interface = match (&seen.frames, gic.guest_interface()) {
        (GuestFrames::CpuInterface(guest), Some(machine)) => {
            let bytes = guest.size().min(machine.bytes);
            Some((guest.start().raw(), machine.start, bytes))
        }
        _ => None,
    };
    let uart = guest::vpl011(host, domain).map(|(registers, interrupt)| VirtualUart {
        base: registers.start().raw(),
        interrupt,
        state: Mutex::new(Pl011::default()),
    });
    let virtual_spis = uart.iter().map(|uart| uart.interrupt).collect();
    let spis = owned_spis(gic, host, domain, all);
    let interrupts = interrupts(gic, domain, places.clone(), seen, spis, virtual_spis)?;
    let shape = Shape::new(ID_AA64MMFR0_EL1.get());
    // SAFETY: the plan has these frames for the domain's tables and nothing else; all RAM is mapped.
    let machine = unsafe { Domain::new(shape, vmid, domain.tables, interrupts, interface, uart) }
        .map_err(Error::Domain)?;
    let vcpus = places
        .iter()
        .enumerate()
        .map(|(index, place)| {
            // Bit 31 is reserved as one.
            Vcpu::new(index, place.cpu, place.affinity | 1 << 31, interrupts)
        })
        .collect();
    Ok(Setup {
        machine,
        vcpus,
        tree,
    })
}

/// The SPIs of devices that a domain has.
fn device_interrupts<'a>(host: &'a Host, domain: &'a DomainPlan) -> impl Iterator<Item = u32> + 'a {
    domain
        .devices
        .iter()
        .filter_map(|&device| host.map.devices.get(device))
        .flat_map(|device| device.interrupts.iter().copied())
}

/// The interrupts that a domain owns. The hardware domain has all that nobody else has: its buses and
/// MSI frames use more than the tree lists.
fn owned_spis(
    gic: &Gic<Hardware>,
    host: &Host,
    domain: &DomainPlan,
    all: &[DomainPlan],
) -> Vec<u32> {
    let console = host.console.as_ref().and_then(|uart| uart.interrupt);
    let is_free = |intid: &u32| Some(*intid) != console && (32..gic.lines).contains(intid);
    if !domain.identity.is_hardware() {
        return device_interrupts(host, domain).filter(is_free).collect();
    }
    let others: Vec<u32> = all
        .iter()
        .filter(|other| other.index != domain.index)
        .flat_map(|other| device_interrupts(host, other))
        .collect();
    (32..gic.lines.min(1020))
        .filter(is_free)
        .filter(|intid| !others.contains(intid))
        .collect()
}

fn interrupts(
    gic: &'static Gic<Hardware>,
    domain: &DomainPlan,
    vcpus: Vec<VcpuConfig>,
    seen: GuestGic,
    spis: Vec<u32>,
    virtual_spis: Vec<u32>,
) -> Result<&'static Interrupts, Error> {
    let distributor = Window {
        start: seen.distributor.start().raw(),
        bytes: seen.distributor.size(),
    };
    let layout = match seen.frames {
        GuestFrames::CpuInterface(_) => Layout::V2 { distributor },
        GuestFrames::Redistributors { regions, .. } => Layout::V3 {
            distributor,
            redistributors: regions
                .iter()
                .map(|region| Window {
                    start: region.start().raw(),
                    bytes: region.size(),
                })
                .collect(),
        },
    };
    let mut interrupts = Interrupts::new(
        gic,
        Config {
            layout,
            vcpus,
            spis,
            virtual_spis,
            forwarded_ppis: TIMERS,
            virtual_ppis: 1 << UPCALL,
        },
    )
    .map_err(Error::Controller)?;
    if let Model::V3 { its: Some(its), .. } = &gic.facts().model
        && domain.identity.is_hardware()
        && domain.identity.is_direct_mapped()
    {
        let queue = Box::leak(Box::new(Queue([0; QUEUE])));
        let owner = Banks {
            ranges: domain
                .banks
                .iter()
                .map(|bank| bank.machine().bytes())
                .collect(),
            said: AtomicU32::new(0),
        };
        interrupts
            .attach_its(*its, (&raw const *queue) as u64, Box::new(owner))
            .map_err(Error::Controller)?;
    }
    Ok(Box::leak(Box::new(interrupts)))
}

const QUEUE: usize = 4096;
const _: () = assert!(QUEUE as u64 == QUEUE_BYTES);

/// The command queue of the ITS.
#[repr(C, align(4096))]
struct Queue([u8; QUEUE]);

/// The memory that a domain may give its ITS for tables: its own RAM, which stays its own.
struct Banks {
    ranges: Vec<MachineRange>,
    /// How many refusals were logged: a guest can cause any number.
    said: AtomicU32,
}

/// How many refusals are logged.
const REFUSAL_LINES: u32 = 8;

impl Owner for Banks {
    fn owns(&self, start: u64, bytes: u64) -> bool {
        let wanted = layout::MachineRange::new(layout::MachineAddress::new(start), bytes);
        wanted.is_some_and(|wanted| self.ranges.iter().any(|bank| bank.covers(&wanted)))
    }

    fn refused(&self, refusal: Refusal) {
        if self.said.load(Ordering::Relaxed) < REFUSAL_LINES {
            self.said.fetch_add(1, Ordering::Relaxed);
            say(format_args!("ITS: {refusal}"));
        }
    }
}
