//! Control, debug and extended control registers: a value that isn't taken gives #GP, and none kills the hypervisor.
//!
//! Which reserved bits an emulator takes is its own matter; those that a hypervisor answers for must be refused.

use rt::exception::{Fault, vector};
use rt::random::Random;
use rt::{cpu, say};

use super::watchdog;
use crate::common::violation;

/// Reads a control register by its number in the name.
macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reads a register.
        unsafe {
            core::arch::asm!(concat!("mov {}, ", $register), out(reg) value, options(nostack));
        }
        value
    }};
}

/// Writes a value, and in the next instruction the old one: nothing else runs under the new value.
macro_rules! swap {
    ($register:literal, $value:expr, $old:expr) => {{
        // SAFETY: the new value is in force for the length of one instruction, which is in the same page as the one
        // before it or mapped alike; the callers leave out bits with which even that couldn't run.
        unsafe {
            rt::attempt!(
                concat!("mov ", $register, ", {new}\nmov ", $register, ", {old}"),
                new = in(reg) $value,
                old = in(reg) $old
            )
        }
    }};
}

/// Tries every bit of every register.
pub fn every_bit(random: &mut Random) {
    let mut refused = 0;
    refused += cr0();
    refused += cr3();
    refused += cr4();
    refused += cr8(random);
    refused += debug(random);
    refused += xcr0(random);
    watchdog::rearm();
    say!("attacker: registers-refused={refused}");
}

/// Counts a fault; one that isn't #GP is a violation.
fn count(what: &str, bit: u64, fault: Option<Fault>) -> u32 {
    let Some(fault) = fault else {
        return 0;
    };
    if fault.vector != vector::GENERAL_PROTECTION {
        violation(format_args!("{what} with {bit:#x} gave {fault}"));
    }
    1
}

/// A reserved bit that was taken.
fn must_refuse(what: &str, bit: u64, fault: Option<Fault>) -> u32 {
    if fault.is_none() {
        violation(format_args!("{what} took {bit:#x}"));
    }
    count(what, bit, fault)
}

fn cr0() -> u32 {
    /// Without protection or paging the guest can't go on, on CPUs that let it.
    const NEEDED: u64 = 1 << 31 | 1;
    let old = read!("cr0");
    let mut refused = 0;
    for bit in 0..64 {
        watchdog::progress(7 << 40 | bit);
        let bit = 1 << bit;
        if bit & NEEDED == 0 {
            refused += count("CR0", bit, swap!("cr0", old ^ bit, old));
        }
    }
    refused
}

fn cr3() -> u32 {
    let old = read!("cr3");
    let width = u64::from(cpu::cpuid(0x8000_0008, 0).eax & 0xff).max(36);
    let mut refused = 0;
    for bit in width..64 {
        watchdog::progress(8 << 40 | bit);
        refused += must_refuse("CR3", 1 << bit, swap!("cr3", old | 1 << bit, old));
    }
    refused
}

fn cr4() -> u32 {
    /// Without the extension there is no long mode.
    const NEEDED: u64 = 1 << 5;
    const VMX: u64 = 1 << 13;
    /// Ring 0 may not run or touch pages of ring 3, which all pages of this guest are.
    const SUPERVISOR_ONLY: u64 = 1 << 20 | 1 << 21;
    let old = read!("cr4");
    let mut refused = 0;
    for bit in 0..64 {
        watchdog::progress(9 << 40 | bit);
        let bit = 1 << bit;
        if bit & (NEEDED | SUPERVISOR_ONLY) != 0 {
            continue;
        }
        let fault = swap!("cr4", old ^ bit, old);
        refused += if bit > u64::from(u32::MAX) || bit == VMX {
            must_refuse("CR4", bit, fault)
        } else {
            count("CR4", bit, fault)
        };
    }
    refused
}

fn cr8(random: &mut Random) -> u32 {
    let mut refused = 0;
    for bit in 0..64 {
        watchdog::progress(10 << 40 | bit);
        refused += count("CR8", 1 << bit, swap!("cr8", 1_u64 << bit, 0_u64));
    }
    refused + count("CR8", 0, swap!("cr8", random.word(), 0_u64))
}

/// Breakpoints that don't hit, since the last value of each is off.
fn debug(random: &mut Random) -> u32 {
    const OFF: u64 = 0x400;
    const QUIET: u64 = 0xffff_0ff0;
    /// Lets the next access to a debug register trap.
    const DETECT: u64 = 1 << 13;
    let mut refused = 0;
    for bit in 0..64 {
        watchdog::progress(11 << 40 | bit);
        let bit = 1_u64 << bit;
        refused += count("DR0", bit, swap!("dr0", bit | random.edge(), 0_u64));
        refused += count("DR3", bit, swap!("dr3", bit, 0_u64));
        refused += count("DR6", bit, swap!("dr6", QUIET ^ bit, QUIET));
        if bit != DETECT {
            refused += count("DR7", bit, swap!("dr7", OFF | bit, OFF));
        }
    }
    refused
}

/// XSETBV, if the CPU has it: component 0 must stay, reserved ones and other registers aren't there.
fn xcr0(random: &mut Random) -> u32 {
    const XSAVE: u32 = 1 << 26;
    const OSXSAVE: u64 = 1 << 18;
    if cpu::cpuid(1, 0).ecx & XSAVE == 0 {
        return 0;
    }
    let old = read!("cr4");
    // SAFETY: gives ring 0 the instruction, and nothing else.
    let refusal = unsafe { rt::attempt!("mov cr4, {new}", new = in(reg) old | OSXSAVE) };
    if refusal.is_some() {
        violation(format_args!("CR4 refused OSXSAVE, which CPUID has"));
        return 1;
    }
    let mut refused = must_refuse("XCR0", 0, set_extended(0, 0));
    refused += must_refuse("XCR0", 4, set_extended(0, 4 | 1));
    for bit in 0..64 {
        watchdog::progress(12 << 40 | bit);
        refused += count("XCR0", bit, set_extended(0, 1 | 1 << bit));
        refused += count("XCR0", bit, set_extended(0, random.word()));
    }
    refused += must_refuse("XCR0", u64::MAX, set_extended(0, u64::MAX));
    for register in [1, 2, u32::MAX] {
        refused += must_refuse("XCR", register.into(), set_extended(register, 1));
    }
    count("XCR0", 1, set_extended(0, 1));
    // SAFETY: as before.
    unsafe { rt::attempt!("mov cr4, {old}", old = in(reg) old) };
    refused
}

fn set_extended(register: u32, value: u64) -> Option<Fault> {
    let [low, high] = rt::exception::halves(value);
    // SAFETY: says which parts of the FPU's state may be used; this guest uses none.
    unsafe { rt::attempt!("xsetbv", in("ecx") register, in("eax") low, in("edx") high) }
}
