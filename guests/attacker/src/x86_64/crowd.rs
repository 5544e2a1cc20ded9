//! All CPUs at once, so that the hypervisor's locks are tried too: each makes garbage hypercalls, stray accesses and
//! interrupts for the others, with a seed of its own.

use core::sync::atomic::{AtomicU64, Ordering};

use rt::random::Random;
use rt::{apic, cpu, pvh, say, smp};
use spin::Once;

use super::guest::Target;
use super::{stray, watchdog};
use crate::common::violation;
use crate::hypercalls;

/// Actions of each CPU.
const ACTIONS: u64 = 5_000;
/// The interrupt that they send to each other.
const VECTOR: u32 = 0x51;

static PLAN: Once<(Target, u64)> = Once::new();
static DONE: AtomicU64 = AtomicU64::new(0);

/// Starts the other CPUs, does as they do, and waits for them.
pub fn all_at_once(target: &Target, seed: u64) {
    PLAN.call_once(|| (*target, seed));
    let mut started = 0;
    for (place, id) in target.facts.cpus.iter().enumerate().take(smp::MOST).skip(1) {
        watchdog::progress(18 << 40 | place as u64);
        if smp::start(place, *id, other) {
            started += 1;
        } else {
            violation(format_args!("CPU {place} doesn't start"));
        }
    }
    act(0);
    let all_done = || {
        let done = DONE.load(Ordering::Relaxed);
        watchdog::progress(19 << 40 | done);
        done == started
    };
    if !cpu::wait_for(50_000, all_done) {
        let done = DONE.load(Ordering::Relaxed);
        violation(format_args!(
            "{done} of {started} other CPUs came to an end"
        ));
    }
    say!("attacker: crowd={}", (started + 1) * ACTIONS);
}

fn other(place: usize) {
    watchdog::rearm();
    act(place as u64);
    watchdog::quiet_here();
    DONE.fetch_add(1, Ordering::Relaxed);
    if PLAN
        .get()
        .is_some_and(|(target, _)| target.facts.xen.is_some())
    {
        pvh::vcpu_down(place);
    }
}

fn act(place: u64) {
    let Some((target, seed)) = PLAN.get() else {
        return;
    };
    let mut random = Random::new(seed.wrapping_add(place + 1));
    for action in 0..ACTIONS {
        watchdog::progress(place << 32 | action);
        match random.below(4) {
            0 => stray::one(target, &mut random),
            1 => interrupt_another(target, &mut random),
            _ if target.facts.xen.is_some() => hypercalls::one(&target.reach, &mut random),
            _ => {}
        }
    }
}

fn interrupt_another(target: &Target, random: &mut Random) {
    let cpus = target.facts.cpus.as_slice();
    if let Some(id) = random.pick(cpus) {
        apic::send(id, apic::FIXED | VECTOR);
    }
}
