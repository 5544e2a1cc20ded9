//! What the core needs of a machine: the one trait that every CPU architecture implements.
//!
//! The core is safe Rust and knows no register. Whatever touches memory, page tables, interrupts,
//! time or firmware goes through [`Machine`]; `machine/fake` implements it with memory in a `Vec`,
//! so that everything above this line runs on a workstation.
//!
//! # How the two halves meet
//! The machine crate owns the CPUs. A guest runs until it traps; the machine crate then calls one
//! entry point on the [`Caller`](crate::Caller) of that CPU's vCPU, and does what the returned
//! [`Next`] says. No entry point waits for another CPU, and none is entered twice at once on the
//! same CPU: the hypervisor runs with interrupts masked.
//!
//! | what happened | entry point |
//! | --- | --- |
//! | a hypercall | [`Caller::hypercall`](crate::Caller::hypercall) |
//! | an access that nothing answers | [`Caller::stray_access`](crate::Caller::stray_access) |
//! | firmware calls: start, stop, ask for a vCPU; power off, reset | `Caller::{vcpu_on, vcpu_off, vcpu_is_on, shutdown}` |
//! | the guest's virtual UART sent a byte | [`Caller::uart_output`](crate::Caller::uart_output) |
//! | a fault that the guest can't get past | [`Caller::crash`](crate::Caller::crash) |
//! | the timer set by [`Machine::set_timer`] ran out | [`Caller::timer_expired`](crate::Caller::timer_expired) |
//! | another CPU called [`Machine::kick`] | [`Caller::kicked`](crate::Caller::kicked) |
//! | a byte on the hypervisor's UART | [`System::console_input`](crate::System::console_input) |

use core::sync::atomic::AtomicU64;

use abi::hvm_vcpu::Context;
use abi::memory::MapEntry;
use abi::shared_info::TimeInfo;
use layout::{Gfn, GfnRange, GuestAddress, MachineAddress, Mfn};

use crate::console::Console;
use crate::ownership::Claim;

/// What the guest may do with a page behind stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Memory: read, written and executed.
    Ram,
    /// Memory: read and written, never executed.
    RamData,
    /// Memory: read only, never executed.
    RamReadOnly,
    /// Device registers: uncached, never executed.
    Device,
}

impl Access {
    /// Whether the guest may write there.
    #[must_use]
    pub const fn writable(self) -> bool {
        !matches!(self, Self::RamReadOnly)
    }
}

/// What the hypervisor is about to do with a guest's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The hypervisor reads what the guest wrote.
    FromGuest,
    /// The hypervisor writes an answer: the guest itself must be allowed to write there.
    ToGuest,
}

/// One page as stage 2 maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The machine frame behind the page.
    pub mfn: Mfn,
    /// What the guest may do with it.
    pub access: Access,
}

/// Why stage 2 couldn't be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// One more table is needed than the plan gave the domain.
    OutOfTables,
    /// The guest address is beyond what stage 2 translates.
    BeyondReach,
}

/// A guest's buffer that the guest itself could not have used: unmapped, or not writable for an
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault;

/// Where a vCPU begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first instruction, as the guest addresses it with translation off.
    pub entry: GuestAddress,
    /// The first argument register: the device tree's address for the first vCPU, PSCI's or SBI's
    /// context value for the others.
    pub argument: u64,
}

/// What the machine crate does with the vCPU after an entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Step past the trapped instruction and enter the guest. A hypercall's answer is in `args[0]`.
    Advance,
    /// Enter the guest where it was: nothing of it was trapped.
    Resume,
    /// A hypercall that isn't finished: write `args` back to the argument registers and enter the
    /// guest *at* the hypercall instruction again. Interrupts that came meanwhile are delivered
    /// first, which is the purpose.
    Again,
    /// Step past the instruction, then wait until an interrupt is pending for the guest or the time
    /// (of [`Machine::now`]) comes. Waking early is allowed.
    WaitUntil(Option<u64>),
    /// The vCPU runs no more. The CPU idles until [`Machine::start_vcpu`] names this vCPU again;
    /// that call may come from another CPU before this value has been looked at.
    Park,
}

/// What the machine crate does with an access that nothing answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum StrayAction {
    /// Give the guest the architecture's fault for an address that isn't there.
    Fault,
    /// Reads give ones, writes are dropped; step past the instruction.
    Ignore,
    /// As [`Next::Park`].
    Park,
}

/// A cache operation on a range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheFlush {
    /// Write dirty lines back to memory.
    pub clean: bool,
    /// Drop the lines.
    pub invalidate: bool,
}

/// A CPU of the machine, as a hardware domain can ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysicalCpu {
    /// The number by which hardware knows it (x86: of its local APIC).
    pub hardware_id: u32,
    /// The number by which firmware's tables know it (ACPI: its processor number).
    pub firmware_id: u32,
}

/// Registers with which a vCPU can't start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadContext;

/// The properties of an architecture that guests read through `xen_version`.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Bits of feature word 0 that every domain of this architecture sees; without those that
    /// follow from the domain itself (`dom0`, `direct_mapped`, `not_direct_mapped`).
    pub features: u32,
    /// `XENVER_capabilities`, such as `"xen-3.0-aarch64 "`.
    pub capabilities: &'static str,
    /// `XENVER_platform_parameters`: 0 for auto-translated guests.
    pub virtual_start: u64,
    /// Where things are in the page that guest and hypervisor share.
    pub shared_info: abi::shared_info::Layout,
}

/// One CPU architecture under the core.
///
/// Every method takes `&self` and may be called from any CPU at once; the implementation locks what
/// it must, and never calls back into the core.
///
/// # Memory
/// A [`Claim`] proves that its frames have the owner that it names: the ownership table makes
/// claims and nothing else can. Offsets are in bytes from the claim's first frame; a range that
/// leaves the claim is a bug of the core, which the implementation answers by touching nothing.
/// Guests may change that memory at the same time: implementations copy with volatile or atomic
/// accesses and hand out no plain reference.
pub trait Machine: Sized + Send + Sync + 'static {
    /// What the machine keeps for a domain: stage-2 root, virtual interrupt controller, trapped
    /// devices.
    type Domain: Send + Sync;
    /// What the machine keeps for a vCPU: saved registers, the CPU it is pinned to, pending
    /// interrupts.
    type Vcpu: Send + Sync;

    /// The properties of this architecture that guests can ask for.
    const FACTS: Facts;

    /// Whether a vCPU can be given its registers and be started by hypercall, beside what
    /// firmware or an interrupt controller offers.
    fn vcpus_by_hypercall(&self) -> bool {
        false
    }

    /// The console's line discipline. It lives in the machine crate because the machine speaks
    /// before there is a system.
    fn console(&self) -> &Console;

    /// Puts bytes on the hypervisor's UART. Waits for the UART, so callers keep it short.
    fn console_write(&self, bytes: &[u8]);

    /// Nanoseconds since reset, as the guest's own counter shows them. Never goes back.
    fn now(&self) -> u64;

    /// Seconds since 1970 when [`now`](Self::now) was 0, if the machine has a clock that the
    /// hypervisor reads.
    fn wall_clock(&self) -> Option<u64> {
        None
    }

    /// How guests reckon [`now`](Self::now) from the CPU's counter, for architectures that tell them
    /// in shared memory. One record holds for all CPUs and for ever, so the counter must not change
    /// its rate; its version is left to the core.
    fn guest_clock(&self) -> Option<TimeInfo> {
        None
    }

    /// The domain's physical memory map, as its start structure has it; empty where guests learn of
    /// memory in another way.
    fn memory_map<'a>(&'a self, _domain: &'a Self::Domain) -> &'a [MapEntry] {
        &[]
    }

    /// The machine's memory map as firmware gave it; empty where firmware gives none.
    fn machine_memory_map(&self) -> &[MapEntry] {
        &[]
    }

    /// The machine's CPUs, running or not; empty where no guest asks for them.
    fn physical_cpus(&self) -> &[PhysicalCpu] {
        &[]
    }

    /// Copies `bytes.len()` bytes at `offset` of the claim out of memory.
    fn read(&self, claim: &Claim, offset: u64, bytes: &mut [u8]);

    /// Copies bytes into memory at `offset` of the claim.
    fn write(&self, claim: &Claim, offset: u64, bytes: &[u8]);

    /// Fills the whole claim with zeroes, visible to a guest whose caches are still off.
    fn clear(&self, claim: &Claim);

    /// Copies `bytes` bytes from one claim to another, which may overlap, visible to a guest whose
    /// caches are still off. Boot modules are placed with this.
    fn copy(&self, from: &Claim, from_offset: u64, to: &Claim, to_offset: u64, bytes: u64);

    /// The aligned 8-byte word at `offset` of a claim on RAM, for bits that guest and hypervisor
    /// both change; `None` if the word is misaligned or not inside the claim.
    fn word<'a>(&'a self, claim: &'a Claim, offset: u64) -> Option<&'a AtomicU64>;

    /// Makes `bytes` bytes at `offset` of the claim coherent with observers that don't look into
    /// the caches.
    fn flush_cache(&self, claim: &Claim, offset: u64, bytes: u64, operation: CacheFlush);

    /// Maps all frames of the claim from `at` upwards, with the largest pages that fit, in place of
    /// whatever was there, whose translations no CPU uses any more when it returns. The caller has checked that the guest range doesn't wrap.
    ///
    /// # Errors
    /// [`MapError`]; then nothing has changed.
    fn map(
        &self,
        domain: &Self::Domain,
        at: Gfn,
        claim: &Claim,
        access: Access,
    ) -> Result<(), MapError>;

    /// Takes pages out of stage 2, also ones that aren't there. CPUs may go on using the old translations until
    /// [`settle`](Self::settle).
    ///
    /// # Errors
    /// [`MapError::OutOfTables`] if a larger page must be split; then nothing has changed.
    fn unmap(&self, domain: &Self::Domain, pages: GfnRange) -> Result<(), MapError>;

    /// Waits until no CPU uses a translation that [`unmap`](Self::unmap) has taken out. Called once for many of them, before
    /// a frame that isn't the domain's own changes hands, and before the guest is told that its pages are gone.
    fn settle(&self, domain: &Self::Domain);

    /// Drops every translation of the domain and gives its tables back to the domain's own pool: a
    /// domain that is built anew starts from this.
    fn unmap_all(&self, domain: &Self::Domain);

    /// What stage 2 has for a page.
    fn lookup(&self, domain: &Self::Domain, page: Gfn) -> Option<Mapping>;

    /// The machine address of one byte of a guest's buffer, by the translation that the running
    /// vCPU uses at this moment; good up to the end of that 4 KiB page. It is a bare address: the
    /// core looks up its owner before use.
    ///
    /// # Errors
    /// [`GuestFault`] if the guest couldn't have made that access itself.
    fn guest_buffer(
        &self,
        vcpu: &Self::Vcpu,
        address: u64,
        direction: Direction,
    ) -> Result<MachineAddress, GuestFault>;

    /// Starts a vCPU with the architecture's reset state. It was parked or never ran.
    fn start_vcpu(&self, vcpu: &Self::Vcpu, start: Start);

    /// Keeps the registers with which a vCPU is to start. It was parked or never ran. Called only if
    /// [`vcpus_by_hypercall`](Self::vcpus_by_hypercall).
    ///
    /// # Errors
    /// [`BadContext`] if the CPU couldn't start like this; then nothing has changed.
    fn initialise_vcpu(&self, _vcpu: &Self::Vcpu, _context: &Context) -> Result<(), BadContext> {
        Err(BadContext)
    }

    /// Starts a vCPU as [`start_vcpu`](Self::start_vcpu) does, but with the registers of
    /// [`initialise_vcpu`](Self::initialise_vcpu), which came before.
    fn start_initialised(&self, _vcpu: &Self::Vcpu) {}

    /// Takes back from a vCPU what it holds of the machine, such as interrupts on their way: it
    /// doesn't enter the guest again before [`start_vcpu`](Self::start_vcpu). Called on its own
    /// CPU, before it counts as stopped; so none of this is left to be done when another CPU
    /// resets the domain or starts the vCPU anew.
    fn stop_vcpu(&self, vcpu: &Self::Vcpu);

    /// Makes the vCPU's CPU leave the guest soon and call
    /// [`Caller::kicked`](crate::Caller::kicked); nothing if it is parked.
    fn kick(&self, vcpu: &Self::Vcpu);

    /// Delivers the event-channel upcall to a vCPU, running or not; stays pending until the guest
    /// takes it. Where the guest must first choose a way for upcalls, one that comes earlier may be
    /// dropped: the core repeats it after the choice.
    fn raise_upcall(&self, vcpu: &Self::Vcpu);

    /// Sets or stops the vCPU's one-shot timer of the hypervisor (not the architecture's guest
    /// timer). Called on the vCPU's own CPU, or while it is parked.
    fn set_timer(&self, vcpu: &Self::Vcpu, deadline: Option<u64>);

    /// Puts the domain's virtual interrupt controller and other trapped devices into their reset
    /// state; no vCPU of it runs.
    fn reset_domain(&self, domain: &Self::Domain);

    /// Gives console input to the domain's virtual UART, if it has one; says how many bytes it
    /// took.
    fn uart_input(&self, _domain: &Self::Domain, _bytes: &[u8]) -> usize {
        0
    }

    /// Chooses how upcalls reach the domain (`HVM_PARAM_CALLBACK_IRQ`).
    ///
    /// # Errors
    /// [`NotSupported`] where the architecture has one fixed way.
    fn set_callback(&self, _domain: &Self::Domain, _via: u64) -> Result<(), NotSupported> {
        Err(NotSupported)
    }

    /// Chooses the vector of one vCPU's upcall (`HVMOP_set_evtchn_upcall_vector`).
    ///
    /// # Errors
    /// [`NotSupported`] where the architecture has one fixed way.
    fn set_upcall_vector(&self, _vcpu: &Self::Vcpu, _vector: u32) -> Result<(), NotSupported> {
        Err(NotSupported)
    }

    /// Prepares an interrupt line (x86: a global system interrupt) for its domain: by level or by
    /// edge, active low or high.
    ///
    /// # Errors
    /// [`NotSupported`] where this isn't told by hypercall.
    fn set_up_line(
        &self,
        _domain: &Self::Domain,
        _line: u32,
        _by_level: bool,
        _active_low: bool,
    ) -> Result<(), NotSupported> {
        Err(NotSupported)
    }

    /// Switches the machine off through its firmware. May return before it happens; the caller
    /// parks.
    fn power_off(&self);

    /// Resets the machine through its firmware. May return before it happens; the caller parks.
    fn reset(&self);
}

/// An operation that this architecture doesn't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSupported;
