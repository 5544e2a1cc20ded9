//! The physical local APIC of each CPU, which is the hypervisor's alone: as x2APIC where the CPU has it, else in memory.
//!
//! Its only sources are the timer, the hypervisor's own messages and the devices that the platform has routed; the two
//! local lines are masked, since no PC of today has an 8259A behind one that anybody listens to.
//!
//! Intel SDM vol. 3A, "Advanced Programmable Interrupt Controller (APIC)"; AMD APM vol. 2, chapter 16.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

use super::instructions::{ThisCpu, read_msr, write_msr};
use super::mmu;
use crate::devices::interrupt::FIRST_HYPERVISOR_VECTOR;
use crate::devices::lapic::{BASE_ADDRESS, MSR_APIC_BASE, MSR_X2APIC_FIRST};
use crate::features::Cpuid;

/// Makes a CPU leave its guest and look around.
pub const KICK: u8 = FIRST_HYPERVISOR_VECTOR;
/// The local timer.
pub const TIMER: u8 = 0xf1;
/// The hypervisor's UART has received something.
pub const CONSOLE: u8 = 0xf2;
/// An error of the local APIC.
pub const ERROR: u8 = 0xfe;
/// An interrupt that was gone when the CPU asked for it: it isn't ended.
pub const SPURIOUS: u8 = 0xff;

/// Registers by their offset divided by 16.
mod register {
    pub(super) const ID: u32 = 0x02;
    pub(super) const TASK_PRIORITY: u32 = 0x08;
    pub(super) const END: u32 = 0x0b;
    pub(super) const SPURIOUS: u32 = 0x0f;
    pub(super) const ERRORS: u32 = 0x28;
    pub(super) const COMMAND: u32 = 0x30;
    pub(super) const COMMAND_HIGH: u32 = 0x31;
    pub(super) const TIMER: u32 = 0x32;
    pub(super) const THERMAL: u32 = 0x33;
    pub(super) const PERFORMANCE: u32 = 0x34;
    pub(super) const LINT0: u32 = 0x35;
    pub(super) const LINT1: u32 = 0x36;
    pub(super) const ERROR: u32 = 0x37;
    pub(super) const INITIAL: u32 = 0x38;
    pub(super) const CURRENT: u32 = 0x39;
    pub(super) const DIVIDE: u32 = 0x3e;
}

const MASKED: u32 = 1 << 16;
const ENABLED: u32 = 1 << 8;
const BASE_EXTD: u64 = 1 << 10;
const BASE_EN: u64 = 1 << 11;
/// Interrupt command: delivery status, the level that is asserted, delivery by INIT and by start-up.
const BUSY: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
const START_UP: u32 = 6 << 8;
const ALL_BUT_SELF: u32 = 3 << 18;
/// Timer: by TSC deadline.
const DEADLINE: u32 = 2 << 17;
/// Timer: counts at its clock's own pace.
const DIVIDE_BY_ONE: u32 = 0b1011;

/// Whether the CPUs' APICs are x2APICs: all of them or none.
static X2APIC: AtomicBool = AtomicBool::new(false);

/// Chooses the interface, and sets up the boot CPU's APIC. Called once, before any other function here.
pub fn start() {
    const HAS_X2APIC: u32 = 1 << 21;
    let x2apic = ThisCpu.leaf(1, 0).ecx & HAS_X2APIC != 0;
    X2APIC.store(x2apic, Ordering::Relaxed);
    if !x2apic && let Err(error) = mmu::map_device(BASE_ADDRESS, 0x1000) {
        super::console::say(format_args!("the local APIC can't be mapped: {error:?}"));
    }
    start_cpu();
}

/// Sets up this CPU's APIC: enabled, everything masked.
pub fn start_cpu() {
    let extended = if X2APIC.load(Ordering::Relaxed) {
        BASE_EXTD
    } else {
        0
    };
    // SAFETY: every CPU that has SVM has this register.
    let base = unsafe { read_msr(MSR_APIC_BASE) };
    // The x2APIC can be entered from the enabled xAPIC only.
    let kept = base & !(0x000f_ffff_ffff_f000 | BASE_EXTD);
    for mode in [BASE_EN, BASE_EN | extended] {
        // Where the firmware has left x2APIC on there is no way back to the xAPIC.
        if base & BASE_EXTD != 0 && mode & BASE_EXTD == 0 {
            continue;
        }
        // SAFETY: the mode is one that CPUID has; nothing else on this CPU uses its APIC.
        unsafe { write_msr(MSR_APIC_BASE, kept | BASE_ADDRESS | mode) };
    }
    for lvt in [
        register::TIMER,
        register::THERMAL,
        register::PERFORMANCE,
        register::LINT0,
        register::LINT1,
    ] {
        write(lvt, MASKED);
    }
    write(register::TASK_PRIORITY, 0);
    write(register::SPURIOUS, ENABLED | u32::from(SPURIOUS));
    write(register::ERROR, u32::from(ERROR));
    write(register::ERRORS, 0);
}

/// The APIC ID of this CPU.
pub fn id() -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        read(register::ID)
    } else {
        read(register::ID) >> 24
    }
}

/// Ends the interrupt in service with the highest vector.
pub fn end_of_interrupt() {
    write(register::END, 0);
}

/// The errors since the last call.
pub fn take_errors() -> u32 {
    write(register::ERRORS, 0);
    read(register::ERRORS)
}

/// Makes the CPU with that APIC ID look around; no use for the CPU itself.
pub fn send_kick(apic_id: u32) {
    command(apic_id, u32::from(KICK) | ASSERT);
}

/// Interrupts all other CPUs whatever they do.
pub fn send_nmi_to_others() {
    command(0, NMI | ASSERT | ALL_BUT_SELF);
}

/// Resets a CPU to the wait for start-up.
pub fn send_init(apic_id: u32) {
    command(apic_id, INIT | ASSERT);
}

/// Starts a waiting CPU at a page below 1 MiB.
pub fn send_start_up(apic_id: u32, page: u8) {
    command(apic_id, START_UP | ASSERT | u32::from(page));
}

fn command(apic_id: u32, low: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // The register isn't serialising: what the other CPU shall see has to be written before.
        core::sync::atomic::fence(Ordering::SeqCst);
        let value = u64::from(apic_id) << 32 | u64::from(low);
        // SAFETY: the mode is on; the message's vector is the hypervisor's own.
        unsafe { write_msr(MSR_X2APIC_FIRST + register::COMMAND, value) };
        return;
    }
    while read(register::COMMAND) & BUSY != 0 {
        spin_loop();
    }
    write(register::COMMAND_HIGH, apic_id << 24);
    write(register::COMMAND, low);
}

/// Sets the timer to fire by IA32_TSC_DEADLINE.
pub fn use_deadline() {
    write(register::TIMER, DEADLINE | u32::from(TIMER));
    // The two registers have no order between them where this one is memory.
    // SAFETY: a fence changes no memory.
    unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
}

/// Sets the timer to count down once at its clock's own pace.
pub fn use_counter() {
    write(register::DIVIDE, DIVIDE_BY_ONE);
    write(register::TIMER, u32::from(TIMER));
}

/// Starts the counter; zero stops it.
pub fn count_down(count: u32) {
    write(register::INITIAL, count);
}

/// What is left of the count.
pub fn count_left() -> u32 {
    read(register::CURRENT)
}

/// Counts down from the highest count without an interrupt, to be measured.
pub fn count_silently() {
    write(register::DIVIDE, DIVIDE_BY_ONE);
    write(register::TIMER, MASKED | u32::from(TIMER));
    write(register::INITIAL, u32::MAX);
}

fn read(register: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: the mode is on, and the register is one that it has. Registers but the command have 32 bits.
        let value = unsafe { read_msr(MSR_X2APIC_FIRST + register) };
        return (value & 0xffff_ffff) as u32;
    }
    let place = (BASE_ADDRESS + u64::from(register) * 16) as *const u32;
    // SAFETY: `start` has mapped the page; it holds this CPU's registers.
    unsafe { place.read_volatile() }
}

fn write(register: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: the mode is on, the register is one that it has, and no value here has reserved bits.
        unsafe { write_msr(MSR_X2APIC_FIRST + register, u64::from(value)) };
        return;
    }
    let place = (BASE_ADDRESS + u64::from(register) * 16) as *mut u32;
    // SAFETY: as in `read`; the APIC is the hypervisor's.
    unsafe { place.write_volatile(value) };
}
