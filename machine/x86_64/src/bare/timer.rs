//! This CPU's timer: one interrupt at a value of the TSC, by TSC deadline or by the APIC's counter.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::apic;
use super::instructions::{ThisCpu, write_msr};
use super::tsc::{self, Frequencies};
use crate::devices::lapic::MSR_TSC_DEADLINE;
use crate::features::Cpuid;

/// Whether the CPUs have the TSC deadline: all of them or none.
static DEADLINE: AtomicBool = AtomicBool::new(false);
/// Counts of the APIC timer for one of the TSC, times 2^32.
static RATIO: AtomicU64 = AtomicU64::new(0);
/// A wait from which on the counter is set too short, in counts of the TSC: a 64th of a second, longer than a tick of any
/// system.
static LONG: AtomicU64 = AtomicU64::new(u64::MAX);

/// Chooses the way, and sets up the boot CPU's timer. Called once, after [`Frequencies::find`].
pub fn start(frequencies: &Frequencies) {
    const HAS_DEADLINE: u32 = 1 << 24;
    DEADLINE.store(
        ThisCpu.leaf(1, 0).ecx & HAS_DEADLINE != 0,
        Ordering::Relaxed,
    );
    let ratio = (u128::from(frequencies.apic) << 32) / u128::from(frequencies.tsc.max(1));
    RATIO.store(u64::try_from(ratio).unwrap_or(u64::MAX), Ordering::Relaxed);
    LONG.store(frequencies.tsc / 64, Ordering::Relaxed);
    start_cpu();
}

/// Sets up this CPU's timer: stopped.
pub fn start_cpu() {
    if DEADLINE.load(Ordering::Relaxed) {
        apic::use_deadline();
    } else {
        apic::use_counter();
    }
    stop();
}

/// Has the timer interrupt at that value of the TSC, or soon if it is past. It may come too early where the timer can't
/// reach so far; whoever set it looks at the TSC and sets it anew.
pub fn arm(deadline: u64) {
    if DEADLINE.load(Ordering::Relaxed) {
        // SAFETY: the CPU has the register, and the timer is the hypervisor's. Zero would disarm it.
        unsafe { write_msr(MSR_TSC_DEADLINE, deadline.max(1)) };
        return;
    }
    let left = deadline.saturating_sub(tsc::now());
    let counts = (u128::from(left) * u128::from(RATIO.load(Ordering::Relaxed))) >> 32;
    let count = u32::try_from(counts).unwrap_or(u32::MAX);
    // Both frequencies are measured. Over a short wait their error is some microseconds, cheaper than to have a second
    // interrupt for every tick; a long one is cut by more than the error, and set again for the rest.
    let early = if left < LONG.load(Ordering::Relaxed) {
        0
    } else {
        count / 256
    };
    apic::count_down((count - early).saturating_add(1));
}

/// Stops the timer.
pub fn stop() {
    if DEADLINE.load(Ordering::Relaxed) {
        // SAFETY: as in `arm`.
        unsafe { write_msr(MSR_TSC_DEADLINE, 0) };
    } else {
        apic::count_down(0);
    }
}
