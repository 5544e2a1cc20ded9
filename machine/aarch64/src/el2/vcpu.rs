//! A vCPU: where it is pinned, how it is started, and its registers at reset.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aarch64_cpu::registers::{
    CNTKCTL_EL1, CNTP_CTL_EL0, CNTV_CTL_EL0, CONTEXTIDR_EL1, CPACR_EL1, ELR_EL2, SCTLR_EL1,
    SPSR_EL2, TCR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, Writeable,
};
use hypervisor::machine::Start;
use spin::Mutex;

use super::machine::Interrupts;
use super::registers::write_register;
use super::vectors::Frame;

/// The machine's half of a vCPU.
pub struct Vcpu {
    /// Its index in its domain.
    pub index: usize,
    /// The CPU that it is pinned to, by index in the host map.
    pub cpu: usize,
    affinity: u64,
    /// The interrupt controller of its domain.
    pub interrupts: &'static Interrupts,
    start: Mutex<Option<Start>>,
    kicked: AtomicBool,
    /// When its one-shot timer fires, in counts of CNTPCT_EL0; all ones if it is stopped.
    pub deadline: AtomicU64,
}

/// EL1h with D, A, I and F masked.
const SPSR_RESET: u64 = 0x3c5;
/// SCTLR_EL1 with everything off: its bits that are reserved as one.
const SCTLR_RESET: u64 = 0x30d0_0800;

impl Vcpu {
    /// A vCPU that is off. `affinity` is its MPIDR_EL1.
    pub fn new(index: usize, cpu: usize, affinity: u64, interrupts: &'static Interrupts) -> Self {
        Self {
            index,
            cpu,
            affinity,
            interrupts,
            start: Mutex::new(None),
            kicked: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
        }
    }

    /// Its MPIDR_EL1.
    pub const fn affinity(&self) -> u64 {
        self.affinity
    }

    /// Leaves word for its CPU to start it.
    pub fn request_start(&self, start: Start) {
        *self.start.lock() = Some(start);
    }

    /// Takes the word that `request_start` left.
    pub fn take_start(&self) -> Option<Start> {
        self.start.lock().take()
    }

    /// Leaves word for its CPU to ask the core what to do.
    pub fn request_kick(&self) {
        self.kicked.store(true, Ordering::Release);
    }

    /// Takes the word that `request_kick` left.
    pub fn take_kick(&self) -> bool {
        self.kicked.load(Ordering::Relaxed) && self.kicked.swap(false, Ordering::Acquire)
    }
}

/// Gives this CPU's EL1 and `frame` the state of a CPU that PSCI or a boot loader starts: MMU and
/// caches off, interrupts masked, timers stopped.
pub fn reset(frame: &mut Frame, start: Start) {
    *frame = Frame::new();
    frame.x[0] = start.argument;
    ELR_EL2.set(start.entry.raw());
    SPSR_EL2.set(SPSR_RESET);
    SCTLR_EL1.set(SCTLR_RESET);
    TTBR0_EL1.set(0);
    TTBR1_EL1.set(0);
    TCR_EL1.set(0);
    VBAR_EL1.set(0);
    CONTEXTIDR_EL1.set(0);
    CPACR_EL1.set(0);
    CNTKCTL_EL1.set(0);
    CNTP_CTL_EL0.set(0);
    CNTV_CTL_EL0.set(0);
    write_register!("mair_el1", 0);
    write_register!("amair_el1", 0);
    write_register!("tpidr_el0", 0);
    write_register!("tpidrro_el0", 0);
    write_register!("tpidr_el1", 0);
    write_register!("sp_el0", 0);
    write_register!("sp_el1", 0);
    write_register!("par_el1", 0);
    // What an earlier run of the domain, with other tables, may have left.
    // SAFETY: dropping cached translations of EL1 makes the CPU walk again, nothing else.
    unsafe {
        core::arch::asm!(
            "tlbi vmalls12e1",
            "ic iallu",
            "dsb nsh",
            "isb",
            options(nostack)
        )
    };
}
