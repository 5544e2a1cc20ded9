//! The end of the hypervisor by its own fault: say where, and have every CPU stand still.
//!
//! The other CPUs get an NMI, which interrupts a guest and what the hypervisor does alike; its stub
//! (`super::exceptions`) looks at [`FAILED`].

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{apic, console, cpu, instructions, tsc};

/// A CPU has failed: no guest runs any more.
pub static FAILED: AtomicBool = AtomicBool::new(false);
/// How many CPUs stand still because another has failed.
pub static STOPPED: AtomicUsize = AtomicUsize::new(0);
/// How many CPUs run guests.
static GUESTS: AtomicUsize = AtomicUsize::new(0);

/// Another CPU is about to run guests.
pub fn watch() {
    GUESTS.fetch_add(1, Ordering::Relaxed);
}

/// Stands still for good.
pub fn halt() -> ! {
    loop {
        instructions::wait_with_interrupts_off();
    }
}

/// Ends the hypervisor with a report.
pub fn fail(report: fmt::Arguments<'_>) -> ! {
    if FAILED.swap(true, Ordering::AcqRel) {
        // Another CPU is writing its report, or this one failed in doing so.
        STOPPED.fetch_add(1, Ordering::Relaxed);
        halt()
    }
    let own = usize::from(cpu::try_this().is_some());
    let others = GUESTS.load(Ordering::Relaxed).saturating_sub(own);
    if others > 0 {
        apic::send_nmi_to_others();
    }
    console::say_at_the_end(format_args!("panic: {report}"));
    if others > 0 {
        let stopped = wait_for(others);
        console::say_at_the_end(format_args!("{stopped} of {others} other CPUs stopped"));
    }
    halt()
}

/// Gives `others` CPUs some time to stop, and says how many have.
fn wait_for(others: usize) -> usize {
    /// Counts of the TSC: about a second.
    const PATIENCE: u64 = 2_000_000_000;
    let begun = tsc::now();
    loop {
        let stopped = STOPPED.load(Ordering::Relaxed);
        if stopped >= others || tsc::now().wrapping_sub(begun) > PATIENCE {
            return stopped;
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => fail(format_args!("{}, at {place}", info.message())),
        None => fail(format_args!("{}", info.message())),
    }
}
