//! Single instructions: ports, model-specific registers, CPUID, XCR0, waiting for interrupts.

use core::arch::x86_64::__cpuid_count;
use core::arch::{asm, global_asm};

use crate::features::{Cpuid, Leaf};

/// CPUID 1 ECX.
pub const XSAVE: u32 = 1 << 26;

/// Reads a byte from a port.
///
/// # Safety
/// The port belongs to a device that the hypervisor drives.
pub unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller owns the device; the instruction touches no memory.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a byte to a port.
///
/// # Safety
/// As for [`in8`].
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller owns the device; the instruction touches no memory.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    };
}

/// Reads a model-specific register.
///
/// # Safety
/// The CPU has this register.
pub unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller knows that the register is there.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The CPU has this register, and the hypervisor's own execution bears the value.
pub unsafe fn write_msr(register: u32, value: u64) {
    let halves = value.to_le_bytes();
    let low = u32::from_le_bytes([halves[0], halves[1], halves[2], halves[3]]);
    let high = u32::from_le_bytes([halves[4], halves[5], halves[6], halves[7]]);
    // SAFETY: the caller vouches for register and value.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") low, in("edx") high,
            options(nostack, preserves_flags));
    }
}

/// CPUID of the CPU that runs this.
pub struct ThisCpu;

impl Cpuid for ThisCpu {
    fn leaf(&self, leaf: u32, subleaf: u32) -> Leaf {
        let found = __cpuid_count(leaf, subleaf);
        Leaf {
            eax: found.eax,
            ebx: found.ebx,
            ecx: found.ecx,
            edx: found.edx,
        }
    }
}

/// Stops the CPU until an NMI or INIT.
pub fn wait_with_interrupts_off() {
    // SAFETY: stopping has no effect on memory.
    unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
}

/// XCR0 as after a reset: x87 only. Nothing on a CPU without XSAVE.
pub fn reset_extended_state() {
    if ThisCpu.leaf(1, 0).ecx & XSAVE != 0 {
        // SAFETY: bit 0 alone is always valid.
        unsafe { set_extended_state(1) };
    }
}

/// Writes XCR0.
///
/// # Safety
/// [`super::cpu::start`] has run on this CPU, which has XSAVE, and the CPU allows the value.
pub unsafe fn set_extended_state(value: u64) {
    let (low, high) = (value & 0xffff_ffff, value >> 32);
    // SAFETY: the hypervisor uses none of the registers that XCR0 is about.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("rax") low, in("rdx") high, options(nomem, nostack));
    }
}

/// Writes all dirty cache lines back and drops all lines.
pub fn write_back_caches() {
    // SAFETY: memory stays as the CPU sees it.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Lets one interrupt in that is pending, and gives its vector. It isn't ended: the local APIC delivers none of the same
/// or lower priority until that is done. Interrupts are masked before and after.
pub fn take_interrupt() -> Option<u8> {
    let vector: u32;
    // SAFETY: an interrupt's stub (`super::exceptions`) changes EDI and the flags only, and returns with IF clear; the
    // hypervisor's stack has room for its frame.
    unsafe {
        asm!("xor edi, edi", "sti", "nop", "cli", out("edi") vector);
    }
    interrupt_vector(vector)
}

/// Stops the CPU until an interrupt comes, and gives its vector as [`take_interrupt`] does; nothing if something else,
/// such as an NMI, ended the wait.
pub fn wait_for_interrupt() -> Option<u8> {
    let vector: u32;
    // SAFETY: as for `take_interrupt`. STI lets nothing in before HLT, so no interrupt is lost between the two.
    unsafe {
        asm!("xor edi, edi", "sti", "hlt", "cli", out("edi") vector);
    }
    interrupt_vector(vector)
}

fn interrupt_vector(found: u32) -> Option<u8> {
    u8::try_from(found).ok().filter(|&vector| vector != 0)
}

global_asm!(
    // edi: the register; rsi: where the value goes. Gives 1, or 0 after #GP.
    "msr_read_or_fail:",
    "    movl %edi, %ecx",
    "msr_read_instruction:",
    "    rdmsr",
    "    movl %eax, (%rsi)",
    "    movl %edx, 4(%rsi)",
    "    movl $1, %eax",
    "    retq",
    // edi: the register; rsi: the value. Gives 1, or 0 after #GP.
    "msr_write_or_fail:",
    "    movl %edi, %ecx",
    "    movl %esi, %eax",
    "    movq %rsi, %rdx",
    "    shrq $32, %rdx",
    "msr_write_instruction:",
    "    wrmsr",
    "    movl $1, %eax",
    "    retq",
    "msr_failed:",
    "    xorl %eax, %eax",
    "    retq",
    options(att_syntax),
);

unsafe extern "C" {
    fn msr_read_or_fail(register: u32, value: &mut u64) -> u32;
    fn msr_write_or_fail(register: u32, value: u64) -> u32;
    fn msr_read_instruction();
    fn msr_write_instruction();
    fn msr_failed();
}

/// Where an exception continues that an access to an MSR has raised here; `None` for any other.
pub fn msr_recovery(vector: u64, at: u64) -> Option<u64> {
    const PROTECTION: u64 = 13;
    let may_fault = [
        msr_read_instruction as *const () as u64,
        msr_write_instruction as *const () as u64,
    ];
    (vector == PROTECTION && may_fault.contains(&at)).then_some(msr_failed as *const () as u64)
}

/// Reads a model-specific register; `None` if the CPU doesn't have it.
pub fn try_read_msr(register: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: reading has no effect on memory but the value's; the #GP of a register that isn't there is recovered.
    let found = unsafe { msr_read_or_fail(register, &mut value) };
    (found != 0).then_some(value)
}

/// Writes a model-specific register; whether the CPU has it and took the value.
///
/// # Safety
/// If the register is there, the hypervisor's own execution bears the value.
pub unsafe fn try_write_msr(register: u32, value: u64) -> bool {
    // SAFETY: the caller vouches for the value; a #GP is recovered.
    unsafe { msr_write_or_fail(register, value) != 0 }
}
