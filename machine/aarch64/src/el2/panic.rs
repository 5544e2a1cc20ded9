//! The end of the hypervisor by its own fault: say where, and have every CPU stand still.

use alloc::boxed::Box;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, Readable};
use spin::Once;

use super::{boot, cpu};
use crate::gic::{Gic, Hardware};

/// A CPU has failed: no guest runs any more.
static FAILED: AtomicBool = AtomicBool::new(false);
/// How many CPUs stand still because another has failed.
static STOPPED: AtomicUsize = AtomicUsize::new(0);
static GUESTS: Once<Guests> = Once::new();

/// The CPUs that run guests, by their index in the host map, and how they are interrupted.
struct Guests {
    gic: &'static Gic<Hardware>,
    cpus: Box<[usize]>,
}

/// Says which CPUs run guests. Called once, before the first of them does.
pub fn watch(gic: &'static Gic<Hardware>, cpus: Box<[usize]>) {
    GUESTS.call_once(|| Guests { gic, cpus });
}

/// Stands still for good.
pub fn halt() -> ! {
    loop {
        aarch64_cpu::asm::wfi();
    }
}

/// Stands still if another CPU has failed. Each CPU looks on every interrupt that it takes.
pub fn halt_if_failed() {
    if FAILED.load(Ordering::Acquire) {
        STOPPED.fetch_add(1, Ordering::Relaxed);
        halt()
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if FAILED.swap(true, Ordering::AcqRel) {
        // Another CPU is writing its report, or this one failed in doing so.
        STOPPED.fetch_add(1, Ordering::Relaxed);
        halt()
    }
    let guests = GUESTS.get();
    if let Some(guests) = guests {
        // This one too, which takes no interrupt any more.
        guests.cpus.iter().for_each(|&cpu| guests.gic.kick(cpu));
    }
    let Some(mut uart) = boot::uart() else { halt() };
    // Straight to the UART: whoever holds the console's lock may be what failed.
    let _ = write!(uart, "\n(terrane) panic: {}", info.message());
    if let Some(place) = info.location() {
        let _ = write!(uart, ", at {place}");
    }
    let _ = writeln!(uart);
    if let Some(guests) = guests {
        let own = usize::from(cpu::try_this().is_some());
        let others = guests.cpus.len().saturating_sub(own);
        let stopped = wait_for(others);
        let _ = writeln!(uart, "(terrane) {stopped} of {others} other CPUs stopped");
    }
    halt()
}

/// Gives `others` CPUs a second to stop, and says how many have. One that waits for a lock of the failed CPU never looks, but
/// runs no guest either.
fn wait_for(others: usize) -> usize {
    let begun = CNTPCT_EL0.get();
    loop {
        let stopped = STOPPED.load(Ordering::Relaxed);
        if stopped >= others || CNTPCT_EL0.get().wrapping_sub(begun) > CNTFRQ_EL0.get() {
            return stopped;
        }
    }
}
