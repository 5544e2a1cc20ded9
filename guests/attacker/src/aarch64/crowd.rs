//! All CPUs at once, so that the hypervisor's locks are tried too: each makes garbage hypercalls, stray accesses and
//! software-generated interrupts for the others, with a seed of its own.

use core::sync::atomic::{AtomicU64, Ordering};

use rt::exception::caught;
use rt::random::Random;
use rt::{cpu, gic, memory, say, smp};
use spin::Once;

use super::guest::Target;
use super::{stray, watchdog};
use crate::common::violation;
use crate::hypercalls;

/// Actions of each CPU.
const ACTIONS: u64 = 10_000;
/// The interrupt that they send to each other.
const NUMBER: u32 = 5;

static PLAN: Once<(Target, u64)> = Once::new();
static DONE: AtomicU64 = AtomicU64::new(0);

/// Starts the other CPUs, does as they do, and waits for them. They are off afterwards.
pub fn all_at_once(target: &Target, seed: u64) {
    PLAN.call_once(|| (*target, seed));
    let mut started = 0;
    for (place, affinity) in target.facts.cpus.iter().enumerate().take(smp::MOST) {
        if *affinity != cpu::affinity() && smp::start(place, *affinity, other) == 0 {
            started += 1;
        }
    }
    act(0);
    let all_done = || {
        let done = DONE.load(Ordering::Relaxed);
        watchdog::progress(done);
        done == started
    };
    if !cpu::wait_for(25_000, all_done) {
        violation(format_args!(
            "{} of {started} other CPUs came to an end",
            DONE.load(Ordering::Relaxed)
        ));
    }
    say!("attacker: crowd={}", (started + 1) * ACTIONS);
}

fn other(place: usize) {
    memory::turn_off_here();
    watchdog::rearm();
    act(place as u64);
    watchdog::quiet_here();
    DONE.fetch_add(1, Ordering::Relaxed);
}

fn act(place: u64) {
    let Some((target, seed)) = PLAN.get() else {
        return;
    };
    let mut random = Random::new(seed.wrapping_add(place + 1));
    gic::enable(NUMBER);
    for action in 0..ACTIONS {
        watchdog::progress(place << 32 | action);
        match random.below(4) {
            0 => stray::one(target, &mut random),
            1 => interrupt_another(target, &mut random),
            _ if target.facts.xen.is_some() => hypercalls::one(&target.reach(), &mut random),
            _ => {}
        }
    }
}

fn interrupt_another(target: &Target, random: &mut Random) {
    let count = target.facts.cpus.len() as u64;
    let place = usize::try_from(random.below(count)).unwrap_or(0);
    if let Some(affinity) = target.facts.cpus.get(place) {
        caught(|| gic::send(NUMBER, *affinity, place));
    }
}
