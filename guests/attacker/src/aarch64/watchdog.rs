//! The guest must itself never hang: a periodic timer ends it when an attack makes no progress.

use core::sync::atomic::{AtomicU64, Ordering};

use rt::exception::{Frame, on_interrupt};
use rt::tree::Facts;
use rt::{call, cpu, gic, say, write_register};
use spin::Once;

/// Interrupts a second.
const RATE: u64 = 50;
/// Seconds without progress after which the guest gives up.
const PATIENCE: u64 = 30;

static FACTS: Once<&'static Facts> = Once::new();
static PROGRESS: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static IDLE: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static ACTIVE: AtomicU64 = AtomicU64::new(0);

/// Says that an attack got on. `step` is printed when none follows: which attack, and where in it.
pub fn progress(step: u64) {
    PROGRESS.store(step, Ordering::Relaxed);
}

/// How many timer interrupts came.
pub fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// Starts the timer and takes its interrupts. Says whether one came within two seconds; without the watchdog nothing may
/// be tried that waits.
pub fn start(facts: &'static Facts) -> bool {
    FACTS.call_once(|| facts);
    on_interrupt(interrupt);
    ACTIVE.store(1, Ordering::Relaxed);
    rearm();
    cpu::wait_for(2000, || ticks() > 0)
}

/// Brings the interrupt controller and the timer into order again after an attack on them.
pub fn rearm() {
    let Some(facts) = FACTS.get() else {
        return;
    };
    cpu::mask_interrupts();
    let ((), _) = rt::exception::caught(|| {
        gic::start(facts);
        let [_, _, virtual_, _] = facts.timers;
        gic::forget(virtual_);
        gic::enable(virtual_);
    });
    again();
    cpu::unmask_interrupts();
}

/// Ends the watchdog, on the CPU that started it.
pub fn stop() {
    ACTIVE.store(0, Ordering::Relaxed);
    quiet_here();
}

/// Takes no more interrupts on this CPU.
pub fn quiet_here() {
    cpu::mask_interrupts();
    write_register!("cntv_ctl_el0", 0);
}

fn again() {
    write_register!("cntv_tval_el0", cpu::ticks_per_second() / RATE);
    write_register!("cntv_ctl_el0", 1);
    write_register!("cntp_ctl_el0", 0);
}

fn interrupt(_: &mut Frame) {
    // The timer first: whatever happened to the interrupt controller, its line is down then.
    again();
    let acknowledged = gic::acknowledge();
    if acknowledged & 0x3ff < 1020 {
        gic::end(acknowledged);
    }
    TICKS.fetch_add(1, Ordering::Relaxed);
    let now = PROGRESS.load(Ordering::Relaxed);
    if SEEN.swap(now, Ordering::Relaxed) != now || ACTIVE.load(Ordering::Relaxed) == 0 {
        IDLE.store(0, Ordering::Relaxed);
    } else if IDLE.fetch_add(1, Ordering::Relaxed) > RATE * PATIENCE {
        say!("attacker: fail stuck at step {now:#x}");
        call::power_off();
    }
}
