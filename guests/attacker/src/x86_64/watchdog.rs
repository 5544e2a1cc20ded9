//! The guest must itself never hang: the local APIC's timer ends it when an attack makes no progress.

use core::sync::atomic::{AtomicU64, Ordering};

use rt::exception::on_interrupt;
use rt::{apic, call, cpu, say};

/// The timer's vector.
const VECTOR: u8 = 0x50;
/// The timer's ticks between two interrupts; at 1 GHz, twenty milliseconds.
const TICKS: u32 = 20_000_000;
/// Seconds without progress after which the guest gives up.
const PATIENCE: u64 = 60;

static PROGRESS: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
/// The counter when progress was seen last.
static SINCE: AtomicU64 = AtomicU64::new(0);
static TICKED: AtomicU64 = AtomicU64::new(0);
static ACTIVE: AtomicU64 = AtomicU64::new(0);
/// A bit for each vector that has come.
static TAKEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Says that an attack got on. `step` is printed when none follows: which attack, and where in it.
pub fn progress(step: u64) {
    PROGRESS.store(step, Ordering::Relaxed);
}

/// Whether an interrupt with this vector has come to any CPU.
pub fn taken(vector: u8) -> bool {
    let word = TAKEN.get(usize::from(vector / 64));
    word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (vector % 64) != 0)
}

/// Starts the timer and takes its interrupts. Says whether one came within two seconds.
pub fn start() -> bool {
    on_interrupt(interrupt);
    ACTIVE.store(1, Ordering::Relaxed);
    SINCE.store(cpu::counter(), Ordering::Relaxed);
    rearm();
    cpu::wait_for(2000, || TICKED.load(Ordering::Relaxed) > 0)
}

/// Brings the local APIC and its timer into order again after an attack on them.
pub fn rearm() {
    cpu::mask_interrupts();
    apic::start(false);
    // Whatever vectors an attack has left in service.
    for _ in 0..256 {
        apic::end();
    }
    apic::periodic_timer(VECTOR, TICKS);
    cpu::unmask_interrupts();
}

/// Ends the watchdog.
pub fn stop() {
    ACTIVE.store(0, Ordering::Relaxed);
    quiet_here();
}

/// Takes no more interrupts on this CPU.
pub fn quiet_here() {
    cpu::mask_interrupts();
    apic::stop_timer();
}

fn interrupt(vector: u8) {
    apic::end();
    if let Some(word) = TAKEN.get(usize::from(vector / 64)) {
        word.fetch_or(1 << (vector % 64), Ordering::Relaxed);
    }
    TICKED.fetch_add(1, Ordering::Relaxed);
    let step = PROGRESS.load(Ordering::Relaxed);
    let now = cpu::counter();
    if SEEN.swap(step, Ordering::Relaxed) != step || ACTIVE.load(Ordering::Relaxed) == 0 {
        SINCE.store(now, Ordering::Relaxed);
        return;
    }
    let idle = now.saturating_sub(SINCE.load(Ordering::Relaxed));
    if idle / cpu::ticks_per_millisecond() > PATIENCE * 1000 {
        say!("attacker: fail stuck at step {step:#x}");
        call::power_off();
    }
}
