//! The tests that are x86's: each says what is wrong, if anything. Those of Xen's interface pass where there is none.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::event_channel::VIRQ_TIMER;
use abi::memory::MapEntry;
use abi::shared_info::TimeInfo;
use abi::{number, version};
use rt::boot::Facts;
use rt::exception::on_interrupt;
use rt::xen::{self, SharedInfo};
use rt::{apic, arguments, call, cpu, pvh, say, smp};
use spin::Once;

use crate::common::{PATIENCE, Wrong};

/// Vectors: from itself, of the local APIC's timer, of event channels, of nothing.
const ITSELF: u8 = 0x40;
const TIMER: u8 = 0x41;
const UPCALL: u8 = 0x42;
const SPURIOUS: u8 = 0xff;

/// Taken interrupts by vector, over all CPUs.
static TAKEN: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
static SHARED: Once<SharedInfo> = Once::new();
static FACTS: Once<&'static Facts> = Once::new();

fn by_memory(facts: &Facts) -> bool {
    arguments::value(&facts.arguments, "apic") == Some("memory")
}

/// Starts the local APIC and takes interrupts from here on.
pub fn start_interrupts(facts: &'static Facts) -> Result<(), Wrong> {
    FACTS.call_once(|| facts);
    on_interrupt(interrupt);
    if !apic::start(by_memory(facts)) {
        return Err(Wrong::Missing("local APIC"));
    }
    say!(
        "apic=by {}",
        if apic::is_by_msr() { "msr" } else { "memory" }
    );
    if facts.cpus.first().is_some_and(|id| *id != apic::id()) {
        return Err(Wrong::Cpu(0, "wrong number", apic::id().into()));
    }
    cpu::unmask_interrupts();
    Ok(())
}

fn interrupt(vector: u8) {
    if vector == UPCALL
        && let Some(shared) = SHARED.get()
    {
        shared.take_upcall();
    }
    let [.., last] = &TAKEN;
    TAKEN
        .get(usize::from(vector))
        .unwrap_or(last)
        .fetch_add(1, Ordering::SeqCst);
    if vector != SPURIOUS {
        apic::end();
    }
}

/// Runs `cause` and waits until the vector was taken once more than before.
fn expect(vector: u8, cause: impl FnOnce()) -> Result<(), Wrong> {
    let [.., last] = &TAKEN;
    let count = TAKEN.get(usize::from(vector)).unwrap_or(last);
    let before = count.load(Ordering::SeqCst);
    cause();
    if cpu::wait_for(PATIENCE, || count.load(Ordering::SeqCst) != before) {
        Ok(())
    } else {
        Err(Wrong::NoInterrupt(vector.into()))
    }
}

/// Sends this CPU an interrupt, with the CPU awake and asleep.
pub fn interrupt_to_itself() -> Result<(), Wrong> {
    let send = || apic::send(apic::id(), apic::FIXED | u32::from(ITSELF));
    expect(ITSELF, send)?;
    cpu::mask_interrupts();
    expect(ITSELF, || {
        send();
        cpu::wait_for_interrupt();
    })
}

/// Lets the local APIC's timer fire once, with the CPU awake and asleep.
pub fn timer() -> Result<(), Wrong> {
    const TICKS: u32 = 100_000;
    expect(TIMER, || apic::timer(TIMER, TICKS))?;
    cpu::mask_interrupts();
    expect(TIMER, || {
        apic::timer(TIMER, TICKS);
        cpu::wait_for_interrupt();
    })?;
    apic::stop_timer();
    Ok(())
}

/// Lets the hypervisor fill the hypercall page and makes a call by it.
pub fn hypercall_page(facts: &Facts) -> Result<(), Wrong> {
    let Some(xen) = &facts.xen else {
        return Ok(());
    };
    let filled = call::fill_page(xen.page_msr);
    filled.map_err(|_| Wrong::Missing("MSR of the hypercall page"))?;
    let answer = call::by_page(number::XEN_VERSION, [version::VERSION, 0, 0, 0, 0]);
    if answer != xen::version() || answer != i64::from(xen.version) {
        return Err(Wrong::Hypercall("version by the page", answer));
    }
    Ok(())
}

const NOTHING: MapEntry = MapEntry {
    address: 0,
    size: 0,
    kind: 0,
};

/// The map by hypercall has the memory that the start structure has.
pub fn memory_maps(facts: &Facts) -> Result<(), Wrong> {
    const RAM: u32 = 1;
    if facts.xen.is_none() {
        return Ok(());
    }
    let mut entries = [NOTHING; 128];
    let failed = |what| move |error: xen::Error| Wrong::Hypercall(what, error.0);
    let count = pvh::memory_map(false, &mut entries).map_err(failed("memory_map"))?;
    let map = entries.get(..count).unwrap_or_default();
    let mut ram = map.iter().filter(|entry| entry.kind == RAM);
    let same = facts.ram.iter().all(|bank| {
        ram.next()
            .is_some_and(|entry| (entry.address, entry.size) == (bank.start, bank.size))
    });
    if !same || ram.next().is_some() {
        return Err(Wrong::Missing("agreement of the memory maps"));
    }
    let mut entries = [NOTHING; 128];
    match pvh::memory_map(true, &mut entries) {
        Ok(count) => say!("machine-map={count} entries"),
        Err(error) => say!("machine-map=error {}", error.0),
    }
    Ok(())
}

fn shared() -> Result<&'static SharedInfo, Wrong> {
    if let Some(shared) = SHARED.get() {
        return Ok(shared);
    }
    let shared = SharedInfo::map();
    let shared = shared.map_err(|error| Wrong::Hypercall("add_to_physmap", error.0))?;
    Ok(SHARED.call_once(|| shared))
}

/// System time by the clock in shared memory, in nanoseconds.
fn reckon(clock: TimeInfo) -> u64 {
    let ticks = u128::from(cpu::counter().wrapping_sub(clock.tsc_timestamp));
    let shift = u32::from(clock.tsc_shift.unsigned_abs());
    let ticks = if clock.tsc_shift < 0 {
        ticks >> shift
    } else {
        ticks << shift
    };
    let passed = (ticks * u128::from(clock.tsc_to_system_mul)) >> 32;
    clock
        .system_time
        .wrapping_add(u64::try_from(passed).unwrap_or(u64::MAX))
}

/// The clock in shared memory says what the hypervisor says.
pub fn clock(facts: &Facts) -> Result<(), Wrong> {
    const TOLERANCE: u64 = 100_000_000;
    if facts.xen.is_none() {
        return Ok(());
    }
    let clock = shared()?.clock();
    if clock.version == 0 || clock.version % 2 != 0 || clock.tsc_to_system_mul == 0 {
        return Err(Wrong::Missing("clock in shared memory"));
    }
    let told = pvh::time().map_err(|error| Wrong::Hypercall("get_time", error.0))?;
    let reckoned = reckon(clock);
    say!("time={told} reckoned={reckoned} flags={:#x}", clock.flags);
    if told.abs_diff(reckoned) > TOLERANCE {
        let difference = told.wrapping_sub(reckoned).cast_signed();
        return Err(Wrong::Hypercall("get_time less the clock", difference));
    }
    Ok(())
}

/// Chooses a vector for upcalls and sends itself an event three times.
pub fn event_channel(facts: &Facts) -> Result<(), Wrong> {
    if facts.xen.is_none() {
        return Ok(());
    }
    let failed = |what| move |error: xen::Error| Wrong::Hypercall(what, error.0);
    let shared = shared()?;
    pvh::set_upcall_vector(0, UPCALL).map_err(failed("set_evtchn_upcall_vector"))?;
    let port = xen::bind_ipi(0).map_err(failed("bind_ipi"))?;
    shared.unmask(port);
    for _ in 0..3 {
        let mut sent = Ok(());
        expect(UPCALL, || sent = xen::send(port))?;
        sent.map_err(failed("send"))?;
        if !shared.take_pending(port) {
            return Err(Wrong::Missing("pending bit of the event"));
        }
    }
    say!("event-port={port}");
    xen::close(port).map_err(failed("close"))
}

/// Lets the hypervisor's timer fire a millisecond ahead, with the CPU awake and asleep.
pub fn hypervisor_timer(facts: &Facts) -> Result<(), Wrong> {
    const AHEAD: u64 = 1_000_000;
    if facts.xen.is_none() {
        return Ok(());
    }
    let failed = |what| move |error: xen::Error| Wrong::Hypercall(what, error.0);
    let shared = shared()?;
    let port = pvh::bind_virq(VIRQ_TIMER, 0).map_err(failed("bind_virq"))?;
    shared.unmask(port);
    for asleep in [false, true] {
        let mut set = Ok(());
        expect(UPCALL, || {
            cpu::mask_interrupts();
            set = pvh::set_timer(0, reckon(shared.clock()) + AHEAD);
            if asleep {
                cpu::wait_for_interrupt();
            } else {
                cpu::unmask_interrupts();
            }
        })?;
        set.map_err(failed("set_singleshot_timer"))?;
        if !shared.take_pending(port) {
            return Err(Wrong::Missing("pending bit of the timer's event"));
        }
    }
    xen::close(port).map_err(failed("close"))
}

/// Results of the other CPUs: 0 not yet there, 1 good, else what went wrong.
static RESULTS: [AtomicU64; smp::MOST] = [const { AtomicU64::new(0) }; smp::MOST];
const GOOD: u64 = 1;
const NO_APIC: u64 = 2;
const WRONG_NUMBER: u64 = 3;
const NO_TIMER: u64 = 4;
const NO_INTERRUPT: u64 = 5;

/// Starts every other CPU of ACPI's list and lets it test its own timer and interrupts; under Xen's interface a second
/// time by hypercall.
pub fn other_cpus(facts: &Facts) -> Result<(), Wrong> {
    let mut started = 1;
    for (place, id) in facts.cpus.iter().enumerate().take(smp::MOST).skip(1) {
        if !smp::start(place, *id, other_cpu) {
            return Err(Wrong::Cpu(place, "didn't start", 0));
        }
        outcome(place)?;
        if facts.xen.is_some() {
            again_by_hypercall(place)?;
        }
        started += 1;
    }
    say!("cpus-started={started}");
    Ok(())
}

/// Waits for the result of a CPU, and takes it away.
fn outcome(place: usize) -> Result<(), Wrong> {
    let result = RESULTS.get(place).ok_or(Wrong::Missing("room for CPUs"))?;
    if !cpu::wait_for(PATIENCE * 8, || result.load(Ordering::SeqCst) != 0) {
        return Err(Wrong::Cpu(place, "doesn't answer", 0));
    }
    match result.swap(0, Ordering::SeqCst) {
        GOOD => Ok(()),
        NO_APIC => Err(Wrong::Cpu(place, "no local APIC", 0)),
        WRONG_NUMBER => Err(Wrong::Cpu(place, "wrong number", 0)),
        NO_TIMER => Err(Wrong::Cpu(place, "no timer interrupt", 0)),
        _ => Err(Wrong::Cpu(place, "no interrupt from itself", 0)),
    }
}

fn again_by_hypercall(place: usize) -> Result<(), Wrong> {
    let off = || pvh::vcpu_is_up(place) == Ok(false);
    if !cpu::wait_for(PATIENCE, off) {
        return Err(Wrong::Cpu(place, "isn't off", 0));
    }
    match smp::start_by_hypercall(place, other_cpu) {
        Ok(true) => outcome(place),
        Ok(false) => Err(Wrong::Cpu(place, "didn't start by hypercall", 0)),
        Err(error) => Err(Wrong::Hypercall("vcpu_up", error.0)),
    }
}

fn other_cpu(place: usize) {
    let result = test_other_cpu(place);
    cpu::mask_interrupts();
    apic::stop_timer();
    if let Some(slot) = RESULTS.get(place) {
        slot.store(result, Ordering::SeqCst);
    }
    if FACTS.get().is_some_and(|facts| facts.xen.is_some()) {
        pvh::vcpu_down(place);
    }
}

fn test_other_cpu(place: usize) -> u64 {
    let Some(facts) = FACTS.get() else {
        return NO_APIC;
    };
    if !apic::start(by_memory(facts)) {
        return NO_APIC;
    }
    if facts.cpus.get(place) != Some(&apic::id()) {
        return WRONG_NUMBER;
    }
    cpu::unmask_interrupts();
    if timer().is_err() {
        return NO_TIMER;
    }
    if interrupt_to_itself().is_err() {
        return NO_INTERRUPT;
    }
    GOOD
}
