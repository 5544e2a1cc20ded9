//! The tests that are arm64's: each says what is wrong, if anything.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rt::exception::{Frame, on_interrupt};
use rt::tree::Facts;
use rt::xen::{self, SharedInfo};
use rt::{cpu, gic, smp, write_register};
use spin::Once;

use crate::common::{PATIENCE, Wrong};

/// Taken interrupts by number, of private and software-generated ones, over all CPUs.
static TAKEN: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
static SHARED: Once<SharedInfo> = Once::new();
static FACTS: Once<&'static Facts> = Once::new();

/// Starts the interrupt controller and takes interrupts from here on.
pub fn start_interrupts(facts: &'static Facts) -> Result<(), Wrong> {
    FACTS.call_once(|| facts);
    on_interrupt(interrupt);
    if !gic::start(facts) {
        return Err(Wrong::Missing("interrupt controller"));
    }
    cpu::unmask_interrupts();
    Ok(())
}

fn interrupt(_: &mut Frame) {
    let acknowledged = gic::acknowledge();
    let number = acknowledged & 0x3ff;
    if number >= 1020 {
        return;
    }
    if let Some(facts) = FACTS.get() {
        let [_, physical, virtual_, _] = facts.timers;
        if number == virtual_ {
            write_register!("cntv_ctl_el0", 0);
        } else if number == physical {
            write_register!("cntp_ctl_el0", 0);
        }
    }
    if let Some(shared) = SHARED.get() {
        shared.take_upcall();
    }
    if let Some(count) = TAKEN.get(number as usize) {
        count.fetch_add(1, Ordering::SeqCst);
    }
    gic::end(acknowledged);
}

/// Runs `cause` and waits until interrupt `number` was taken once more than before.
fn expect(number: u32, cause: impl FnOnce()) -> Result<(), Wrong> {
    let count = TAKEN
        .get(number as usize)
        .ok_or(Wrong::NoInterrupt(number))?;
    let before = count.load(Ordering::SeqCst);
    cause();
    if cpu::wait_for(PATIENCE, || count.load(Ordering::SeqCst) != before) {
        Ok(())
    } else {
        Err(Wrong::NoInterrupt(number))
    }
}

/// Lets this CPU's virtual and physical timers fire, a millisecond ahead.
pub fn timers(facts: &Facts) -> Result<(), Wrong> {
    let [_, physical, virtual_, _] = facts.timers;
    if physical == 0 || virtual_ == 0 {
        return Err(Wrong::Missing("timer"));
    }
    let ahead = cpu::ticks_per_second() / 1000;
    gic::enable(virtual_);
    expect(virtual_, || {
        write_register!("cntv_tval_el0", ahead);
        write_register!("cntv_ctl_el0", 1);
    })?;
    gic::enable(physical);
    expect(physical, || {
        write_register!("cntp_tval_el0", ahead);
        write_register!("cntp_ctl_el0", 1);
    })
}

/// Sends this CPU, `place` in the tree's list, a software-generated interrupt.
pub fn software_interrupt(place: usize, affinity: u64) -> Result<(), Wrong> {
    const NUMBER: u32 = 3;
    gic::enable(NUMBER);
    expect(NUMBER, || gic::send(NUMBER, affinity, place))
}

/// Sends this CPU every software-generated interrupt while it takes none, more than a virtual CPU interface holds at a
/// time: each must come, once.
pub fn all_at_once(place: usize, affinity: u64) -> Result<(), Wrong> {
    const NUMBERS: core::ops::Range<u32> = 0..16;
    let count = |number: u32| TAKEN[number as usize].load(Ordering::SeqCst);
    NUMBERS.for_each(gic::enable);
    let before: [u32; 16] = core::array::from_fn(|number| TAKEN[number].load(Ordering::SeqCst));
    cpu::mask_interrupts();
    for number in NUMBERS {
        gic::send(number, affinity, place);
    }
    cpu::unmask_interrupts();
    for (number, before) in NUMBERS.zip(before) {
        if !cpu::wait_for(PATIENCE, || count(number) != before) || count(number) != before + 1 {
            return Err(Wrong::NoInterrupt(number));
        }
    }
    Ok(())
}

/// Maps the shared info page, binds a channel to this vCPU, sends to it, and expects its interrupt and its pending bit.
pub fn event_channel(facts: &Facts) -> Result<(), Wrong> {
    let Some(node) = &facts.xen else {
        return Ok(());
    };
    let upcall = node
        .upcall
        .ok_or(Wrong::Missing("event channel interrupt"))?;
    let failed = |what| move |error: xen::Error| Wrong::Hypercall(what, error.0);
    let shared = SharedInfo::map().map_err(failed("add_to_physmap"))?;
    let shared = SHARED.call_once(|| shared);
    gic::enable(upcall);
    let port = xen::bind_ipi(0).map_err(failed("bind_ipi"))?;
    shared.unmask(port);
    for _ in 0..3 {
        let mut sent = Ok(());
        expect(upcall, || sent = xen::send(port))?;
        sent.map_err(failed("send"))?;
        if !shared.take_pending(port) {
            return Err(Wrong::Missing("pending bit of the event"));
        }
    }
    rt::say!("event-port={port}");
    xen::close(port).map_err(failed("close"))
}

/// Results of the other CPUs: 0 not yet there, 1 good, else what went wrong.
static RESULTS: [AtomicU64; smp::MOST] = [const { AtomicU64::new(0) }; smp::MOST];
const GOOD: u64 = 1;
const WRONG_AFFINITY: u64 = 2;
const NO_CONTROLLER: u64 = 3;
const NO_TIMER: u64 = 4;
const NO_SGI: u64 = 5;

/// Turns every other CPU of the tree on, lets it test its own timers and interrupts, and sees it off again.
pub fn other_cpus(facts: &Facts) -> Result<(), Wrong> {
    let mut started = 1;
    for (place, affinity) in facts.cpus.iter().enumerate().take(smp::MOST) {
        if *affinity == cpu::affinity() {
            continue;
        }
        let result = RESULTS.get(place).ok_or(Wrong::Missing("room for CPUs"))?;
        match smp::start(place, *affinity, other_cpu) {
            0 => {}
            error => return Err(Wrong::Cpu(place, "CPU_ON refused", i64::from(error))),
        }
        let done = || result.load(Ordering::SeqCst) != 0;
        if !cpu::wait_for(PATIENCE * 4, done) {
            return Err(Wrong::Cpu(place, "didn't start", 0));
        }
        match result.load(Ordering::SeqCst) {
            GOOD => {}
            WRONG_AFFINITY => return Err(Wrong::Cpu(place, "wrong affinity", 0)),
            NO_CONTROLLER => return Err(Wrong::Cpu(place, "no interrupt controller", 0)),
            NO_TIMER => return Err(Wrong::Cpu(place, "no timer interrupt", 0)),
            _ => return Err(Wrong::Cpu(place, "no software interrupt", 0)),
        }
        if !cpu::wait_for(PATIENCE, || smp::state(*affinity) == 1) {
            return Err(Wrong::Cpu(
                place,
                "isn't off",
                i64::from(smp::state(*affinity)),
            ));
        }
        started += 1;
    }
    rt::say!("cpus-started={started}");
    Ok(())
}

fn other_cpu(place: usize) {
    let result = test_other_cpu(place);
    cpu::mask_interrupts();
    if let Some(slot) = RESULTS.get(place) {
        slot.store(result, Ordering::SeqCst);
    }
}

fn test_other_cpu(place: usize) -> u64 {
    let Some(facts) = FACTS.get() else {
        return NO_CONTROLLER;
    };
    if facts.cpus.get(place) != Some(&cpu::affinity()) {
        return WRONG_AFFINITY;
    }
    if !gic::start_cpu() {
        return NO_CONTROLLER;
    }
    cpu::unmask_interrupts();
    if timers(facts).is_err() {
        return NO_TIMER;
    }
    if software_interrupt(place, cpu::affinity()).is_err() {
        return NO_SGI;
    }
    GOOD
}
