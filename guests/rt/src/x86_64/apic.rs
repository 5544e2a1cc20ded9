//! The local APIC: its timer, interrupts between CPUs, the end of an interrupt. By MSR (x2APIC) where CPUID has it, by
//! memory otherwise. Intel SDM volume 3, chapter 11.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::{cpu, exception};

/// Delivery mode INIT, asserted.
pub const INIT: u32 = 0x4500;
/// Delivery mode STARTUP, to be combined with the page's number.
pub const STARTUP: u32 = 0x4600;
/// Delivery mode NMI, asserted.
pub const NMI: u32 = 0x4400;
/// Delivery mode fixed, asserted, to be combined with the vector.
pub const FIXED: u32 = 0x4000;

/// Registers, by the number that is MSR - 0x800 and offset / 16.
pub mod register {
    /// Its number.
    pub const ID: u32 = 0x02;
    /// Its version.
    pub const VERSION: u32 = 0x03;
    /// The task's priority.
    pub const TASK_PRIORITY: u32 = 0x08;
    /// End of interrupt.
    pub const END: u32 = 0x0b;
    /// Logical destination.
    pub const LOGICAL: u32 = 0x0d;
    /// Spurious interrupt's vector, and software enable.
    pub const SPURIOUS: u32 = 0x0f;
    /// Interrupts that are requested, the first of eight.
    pub const REQUESTED: u32 = 0x20;
    /// Error status.
    pub const ERROR: u32 = 0x28;
    /// Command to other CPUs: 64 bits by MSR.
    pub const COMMAND: u32 = 0x30;
    /// Destination of the command, by memory only.
    pub const DESTINATION: u32 = 0x31;
    /// The timer's entry in the local vector table.
    pub const TIMER: u32 = 0x32;
    /// The timer's initial count.
    pub const INITIAL: u32 = 0x38;
    /// The timer's divisor.
    pub const DIVISOR: u32 = 0x3e;
}

/// MSR of the mode and the address.
pub const BASE: u32 = 0x1b;
/// The first MSR of the registers.
pub const MSRS: u32 = 0x800;
/// Where the registers are by memory.
pub const MEMORY: u64 = 0xfee0_0000;
const ENABLED: u64 = 1 << 11;
const BY_MSR: u64 = 1 << 10;

static MSR: AtomicBool = AtomicBool::new(false);

/// Whether registers are MSRs.
pub fn is_by_msr() -> bool {
    MSR.load(Ordering::Relaxed)
}

/// Turns this CPU's on, with interrupts of all priorities. Say `by_memory` to keep the MSRs out of use. Says whether it
/// is there.
pub fn start(by_memory: bool) -> bool {
    const X2APIC: u32 = 1 << 21;
    const SOFTWARE_ENABLED: u32 = 1 << 8;
    const SPURIOUS_VECTOR: u32 = 0xff;
    let by_msr = !by_memory && cpu::cpuid(1, 0).ecx & X2APIC != 0;
    let Ok(base) = exception::read_msr(BASE) else {
        return false;
    };
    let mode = if by_msr { ENABLED | BY_MSR } else { ENABLED };
    if exception::write_msr(BASE, base | mode).is_err() {
        return false;
    }
    MSR.store(by_msr, Ordering::Relaxed);
    write(register::SPURIOUS, SOFTWARE_ENABLED | SPURIOUS_VECTOR);
    write(register::TASK_PRIORITY, 0);
    read(register::SPURIOUS) & SOFTWARE_ENABLED != 0
}

/// Reads a register. One that isn't there gives 0.
pub fn read(register: u32) -> u32 {
    if is_by_msr() {
        let value = exception::read_msr(MSRS + register).unwrap_or(0);
        let [low, _] = exception::halves(value);
        low
    } else {
        cpu::read32(MEMORY + u64::from(register) * 16)
    }
}

/// Writes a register.
pub fn write(register: u32, value: u32) {
    if is_by_msr() {
        // One that isn't there: the checks that read see it.
        let _ = exception::write_msr(MSRS + register, value.into());
    } else {
        cpu::write32(MEMORY + u64::from(register) * 16, value);
    }
}

/// This CPU's number.
pub fn id() -> u32 {
    let id = read(register::ID);
    if is_by_msr() { id } else { id >> 24 }
}

/// Sends a command to the CPU with this number.
pub fn send(id: u32, command: u32) {
    if is_by_msr() {
        let value = u64::from(id) << 32 | u64::from(command);
        let _ = exception::write_msr(MSRS + register::COMMAND, value);
    } else {
        write(register::DESTINATION, id << 24);
        write(register::COMMAND, command);
    }
}

/// Ends the interrupt that this CPU took last.
pub fn end() {
    write(register::END, 0);
}

/// Lets the timer fire once, with this vector, after so many ticks of its own.
pub fn timer(vector: u8, ticks: u32) {
    const BY_ONE: u32 = 0b1011;
    write(register::DIVISOR, BY_ONE);
    write(register::TIMER, vector.into());
    write(register::INITIAL, ticks);
}

/// Lets the timer fire again and again.
pub fn periodic_timer(vector: u8, ticks: u32) {
    const PERIODIC: u32 = 1 << 17;
    const BY_ONE: u32 = 0b1011;
    write(register::DIVISOR, BY_ONE);
    write(register::TIMER, PERIODIC | u32::from(vector));
    write(register::INITIAL, ticks);
}

/// Stops the timer.
pub fn stop_timer() {
    const MASKED: u32 = 1 << 16;
    write(register::TIMER, MASKED);
    write(register::INITIAL, 0);
}
