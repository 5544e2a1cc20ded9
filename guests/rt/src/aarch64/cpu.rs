//! Reading and writing this CPU: counters, waiting, physical memory by address.

use core::arch::asm;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, CNTVCT_EL0, MPIDR_EL1, Readable, TPIDR_EL1};

/// Reads a system register by its assembler name; the name is a literal and the read has no side effect that Rust sees.
#[macro_export]
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: a system register read changes no memory and no register but its result; one that isn't there traps,
        // and the vectors report or skip it.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack));
        }
        value
    }};
}

/// Writes a system register by its assembler name, then synchronizes. For registers that can't harm Rust's own state:
/// not SP, VBAR, TTBR or SCTLR.
#[macro_export]
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the caller names a register of the interrupt controller, a timer or the like, which no Rust value
        // depends on.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) value, options(nostack));
        }
    }};
}

/// The number of this CPU in the tree's list; 0 is the boot CPU.
pub fn number() -> usize {
    usize::try_from(TPIDR_EL1.get()).unwrap_or(0)
}

/// This CPU's affinity as MPIDR_EL1 has it: Aff3 in bits 39:32, Aff2..0 in 23:0.
pub fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// CNTVCT_EL0, in ticks, not read early.
pub fn virtual_counter() -> u64 {
    barrier();
    CNTVCT_EL0.get()
}

/// CNTPCT_EL0, in ticks, not read early.
pub fn physical_counter() -> u64 {
    barrier();
    CNTPCT_EL0.get()
}

/// Ticks of both counters in a second; at least 1.
pub fn ticks_per_second() -> u64 {
    CNTFRQ_EL0.get().max(1)
}

/// Waits until `done` or for `milliseconds` of the virtual counter. Says whether it was done.
pub fn wait_for(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = virtual_counter() + ticks_per_second() * milliseconds / 1000;
    loop {
        if done() {
            return true;
        }
        if virtual_counter() > end {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Takes interrupts from here on.
pub fn unmask_interrupts() {
    // SAFETY: the vectors are in place since the first instructions; handlers share only atomics with the rest.
    unsafe { asm!("msr daifclr, #7", options(nostack)) }
}

/// Takes no interrupts from here on.
pub fn mask_interrupts() {
    // SAFETY: masking changes nothing that Rust sees.
    unsafe { asm!("msr daifset, #7", options(nostack)) }
}

/// Sleeps until an interrupt is pending, even one that is masked by PSTATE.
pub fn wait_for_interrupt() {
    // SAFETY: WFI changes nothing that Rust sees.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) }
}

/// Sleeps for good.
pub fn stop() -> ! {
    mask_interrupts();
    loop {
        wait_for_interrupt();
    }
}

/// Orders everything before it, memory and system registers, against everything after.
pub fn barrier() {
    // SAFETY: barriers change nothing that Rust sees.
    unsafe { asm!("dsb sy", "isb", options(nostack)) }
}

/// Reads 32 bits at a physical address (memory is mapped 1:1). An abort goes to the vectors.
pub fn read32(address: u64) -> u32 {
    let value;
    // SAFETY: a load into a register; it's assembler, so the compiler believes nothing about the address, and whether
    // there is something is the question that the guest asks.
    unsafe {
        asm!("mov {0:w}, wzr", "ldr {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack));
    }
    value
}

/// Reads 64 bits at a physical address. An abort goes to the vectors.
pub fn read64(address: u64) -> u64 {
    let value;
    // SAFETY: as in `read32`.
    unsafe {
        asm!("mov {0}, xzr", "ldr {0}, [{1}]", out(reg) value, in(reg) address, options(nostack));
    }
    value
}

/// Writes 32 bits at a physical address that belongs to no Rust value: a device, or RAM outside the image.
pub fn write32(address: u64, value: u32) {
    // SAFETY: the callers keep off the image and the tree (`memory::is_own`), so no Rust value changes.
    unsafe {
        asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack));
    }
}

/// Writes 64 bits at a physical address that belongs to no Rust value.
pub fn write64(address: u64, value: u64) {
    // SAFETY: as in `write32`.
    unsafe {
        asm!("str {0}, [{1}]", in(reg) value, in(reg) address, options(nostack));
    }
}
