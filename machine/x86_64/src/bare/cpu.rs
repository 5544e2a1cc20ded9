//! Single instructions: ports, model-specific registers, CPUID.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

use hypervisor::Caller;

use super::machine::Pc;
use crate::features::{Cpuid, Leaf};

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

/// One CPU with the vCPU that is pinned to it.
pub struct Cpu {
    /// The way into the core for its vCPU.
    pub caller: Caller<'static, Pc>,
}

/// This CPU's record. Only once it has one.
pub fn this() -> &'static Cpu {
    loop {
        wait_with_interrupts_off();
    }
}
