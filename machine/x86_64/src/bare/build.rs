//! The system that the plan describes: nested tables, devices, what guests start from, CPUs.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use abi::memory::MapEntry;
use hypervisor::{BuildError, Caller, PhysicalCpu, Setup, System};
use layout::{DomainPlan, HostMap, MachineRange, Plan};
use machine_paging::PagingError;
use manifest::pc::Description;

use super::console::say;
use super::cpu::Cpu;
use super::domain::{Domain, DomainError, Parts};
use super::launch::Planned;
use super::machine::Pc;
use super::platform::{Devices, Host, VirtualApic};
use super::vcpu::Vcpu;
use super::{apic, console, cpu, run, smp};
use crate::devices::acpi::{self, Madt};
use crate::devices::e820::{self, Entry, Kind};
use crate::devices::start_info::{FLAG_INITIAL_DOMAIN, FLAG_PRIVILEGED};
use crate::features::Features;
use crate::first::{First, TooLarge};
use crate::paging::LongMode;
use crate::windows::{Span, Windows};

/// Why there is no system.
#[derive(Debug)]
pub enum Error {
    /// A domain's nested tables.
    Domain(DomainError),
    /// A domain's devices.
    Devices(PagingError),
    /// What a domain starts from doesn't fit.
    Start(TooLarge),
    /// ACPI's tables.
    Acpi(acpi::Error),
    /// The core refuses.
    Core(BuildError),
    /// The plan names a CPU that the host map doesn't have.
    UnknownCpu,
    /// The plan has no domain.
    NoDomain,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(error) => write!(f, "nested tables: {error:?}"),
            Self::Devices(error) => write!(f, "devices: {error:?}"),
            Self::Start(TooLarge) => {
                f.write_str("memory map, command line or ACPI tables take more than their place")
            }
            Self::Acpi(error) => error.fmt(f),
            Self::Core(error) => error.fmt(f),
            Self::UnknownCpu => f.write_str("the plan has a CPU that isn't there"),
            Self::NoDomain => f.write_str("there is no domain to start"),
        }
    }
}

/// Makes the system, starts its CPUs and domains. Gives this CPU's record if it has a vCPU to run.
///
/// # Errors
/// [`Error`]; then nothing runs.
pub fn build(planned: Planned<'_>) -> Result<Option<&'static Cpu>, Error> {
    let plan = &planned.outcome.plan;
    if plan.domains.is_empty() {
        return Err(Error::NoDomain);
    }
    let madt = planned.tables.load(&planned.memory, *b"APIC");
    let madt = Madt::read(&madt.map_err(Error::Acpi)?);
    let entries: Vec<Entry> = planned.description.memory.iter().map(entry).collect();
    let entries = e820::tidy(&entries);
    let mut setups = Vec::new();
    for domain in &plan.domains {
        setups.push(setup(&planned, &madt, &entries, domain)?);
    }
    let cpus = used_cpus(&planned.map, plan)?;
    let here = apic::id();
    let machine = Pc {
        host: planned.host,
        memory: entries.iter().map(map_entry).collect(),
        cpus: physical_cpus(&madt),
        lines: lines(&planned.description),
    };
    let first = cpus.first().map(|&(_, apic_id)| apic_id);
    if planned.host.route_console(first.unwrap_or(here)) {
        console::interrupt_on_input();
    } else {
        say(format_args!(
            "no console input: the UART's interrupt can't be routed"
        ));
    }
    let features = planned.features;
    let system =
        System::new(machine, &planned.map, planned.outcome.plan, setups).map_err(Error::Core)?;
    let system: &'static System<Pc> = Box::leak(Box::new(system));
    let mut own = None;
    for (index, apic_id) in cpus {
        let Some(caller) = system.caller_on_cpu(index) else {
            continue;
        };
        if apic_id == here {
            own = Some(cpu::start(caller, features));
            continue;
        }
        let task: &'static Task = Box::leak(Box::new(Task { caller, features }));
        let argument = (&raw const *task) as u64;
        let clock = &planned.host.clock;
        let started = smp::start_cpu(planned.regions, clock, apic_id, run_cpu, argument);
        if let Err(error) = started {
            say(format_args!("CPU {index} doesn't start: {error:?}"));
        }
    }
    system.boot();
    Ok(own)
}

/// What a CPU that was just started is told.
struct Task {
    caller: Caller<'static, Pc>,
    features: Features,
}

extern "C" fn run_cpu(task: u64) -> ! {
    // SAFETY: `build` has leaked the task whose address it passes.
    let task = unsafe { &*(task as *const Task) };
    run::enter(cpu::start(task.caller, task.features))
}

fn entry(memory: &manifest::pc::Memory) -> Entry {
    Entry {
        range: memory.range,
        kind: Kind::of(memory.kind.number()),
    }
}

fn map_entry(entry: &Entry) -> MapEntry {
    MapEntry {
        address: entry.range.start().raw(),
        size: entry.range.size(),
        kind: entry.kind.number(),
    }
}

/// The CPUs that vCPUs are pinned to: index in the host map and APIC ID.
fn used_cpus(map: &HostMap, plan: &Plan) -> Result<Vec<(u32, u32)>, Error> {
    let mut used: Vec<u32> = plan
        .domains
        .iter()
        .flat_map(|domain| domain.cpus.iter().copied())
        .collect();
    used.sort_unstable();
    used.dedup();
    used.into_iter()
        .map(|cpu| Ok((cpu, apic_id(map, cpu)?)))
        .collect()
}

fn apic_id(map: &HostMap, cpu: u32) -> Result<u32, Error> {
    let index = usize::try_from(cpu).map_err(|_| Error::UnknownCpu)?;
    let found = map.cpus.get(index).ok_or(Error::UnknownCpu)?;
    u32::try_from(found.hardware_id).map_err(|_| Error::UnknownCpu)
}

fn physical_cpus(madt: &Madt) -> Box<[PhysicalCpu]> {
    let enabled = madt.processors.iter().filter(|cpu| cpu.enabled);
    enabled
        .map(|cpu| PhysicalCpu {
            hardware_id: cpu.apic_id,
            firmware_id: cpu.uid,
        })
        .collect()
}

/// How many global system interrupts there are.
fn lines(description: &Description) -> u32 {
    let ends = description
        .io_apics
        .iter()
        .map(|chip| chip.first_interrupt.saturating_add(chip.pins));
    ends.max().unwrap_or(0)
}

/// What the machine brings for one domain.
fn setup(
    planned: &Planned<'_>,
    madt: &Madt,
    entries: &[Entry],
    domain: &DomainPlan,
) -> Result<Setup<Pc>, Error> {
    let host: &'static Host = planned.host;
    let hardware = domain.identity.is_hardware();
    let apic_ids = domain
        .cpus
        .iter()
        .map(|&cpu| apic_id(&planned.map, cpu))
        .collect::<Result<Box<[u32]>, Error>>()?;
    let devices = Devices::new(host, domain.id, &apic_ids, hardware).map_err(Error::Devices)?;
    let vcpus = domain
        .cpus
        .iter()
        .enumerate()
        .map(|(index, &cpu)| {
            let apic = VirtualApic::new(&devices, index)?;
            Some(Vcpu::new(index, usize::try_from(cpu).ok()?, apic))
        })
        .collect::<Option<Vec<Vcpu>>>()
        .ok_or(Error::UnknownCpu)?;
    let windows = if hardware {
        windows(planned, entries, domain)
    } else {
        Windows::none()
    };
    let first = First {
        place: domain.tree,
        flags: if hardware {
            FLAG_PRIVILEGED | FLAG_INITIAL_DOMAIN
        } else {
            0
        },
        ramdisk: domain
            .ramdisk
            .as_ref()
            .map(|ramdisk| (ramdisk.address.raw(), ramdisk.source.size())),
        command_line: domain.command_line.as_bytes(),
        acpi: acpi::Guest {
            apic_ids: &apic_ids,
            io_apics: if hardware { &madt.io_apics } else { &[] },
            overrides: if hardware { &madt.overrides } else { &[] },
            host: if hardware { &planned.tables.list } else { &[] },
        },
    };
    let memory = memory(entries, domain);
    let (tree, memory) = first.write(&memory).map_err(Error::Start)?;
    let parts = Parts {
        tables: domain.tables,
        format: LongMode {
            gigabyte_pages: planned.features.gigabyte_pages,
        },
        windows,
        apic_ids,
        devices,
        memory_map: memory.iter().map(map_entry).collect(),
    };
    // SAFETY: the plan has these frames for the domain's tables and nothing else; all RAM is mapped.
    let machine = unsafe { Domain::new(parts) }.map_err(Error::Domain)?;
    Ok(Setup {
        machine,
        vcpus,
        tree,
    })
}

/// The memory map of a domain, without what it starts from.
fn memory(entries: &[Entry], domain: &DomainPlan) -> Vec<Entry> {
    let ram = domain.guest_ram().into_iter().map(|frames| {
        let bytes = frames.bytes();
        Entry::new(bytes.start().raw(), bytes.size(), Kind::Ram)
    });
    if !domain.identity.is_hardware() {
        return ram.collect();
    }
    // The hardware domain sees its memory in the host's layout, direct-mapped or not.
    let owned: Vec<MachineRange> = ram.map(|entry| entry.range).collect();
    e820::guest(entries, &owned, &[])
}

/// What the hardware domain reaches beside its memory: everything that isn't RAM, nor another domain's
/// device.
fn windows(planned: &Planned<'_>, entries: &[Entry], domain: &DomainPlan) -> Windows {
    let span = |range: MachineRange| Span {
        start: range.start().raw(),
        end: range.end().raw(),
    };
    let ram = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Ram)
        .map(|entry| entry.range.frames_inside().bytes());
    let others = planned
        .outcome
        .plan
        .domains
        .iter()
        .filter(|other| other.index != domain.index)
        .flat_map(|other| &other.devices)
        .filter_map(|&device| planned.map.devices.get(device))
        .flat_map(|device| device.ranges.iter().copied());
    let closed: Vec<Span> = ram.chain(others).map(span).collect();
    Windows::outside(&closed, 1 << planned.features.address_bits)
}
