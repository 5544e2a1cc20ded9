//! Reading and writing this CPU: counter, CPUID, MSRs, ports, waiting, physical memory by address.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

pub use core::arch::x86_64::CpuidResult;

pub use super::exception::number;

/// Ticks of the counter in a millisecond. Without a word from the hypervisor, that of QEMU's counter under `-icount`.
static TICKS: AtomicU64 = AtomicU64::new(1_000_000);

/// Sets the rate of the counter.
pub(crate) fn set_ticks_per_millisecond(ticks: u64) {
    TICKS.store(ticks.max(1), Ordering::Relaxed);
}

/// Ticks of the counter in a millisecond; at least 1.
pub fn ticks_per_millisecond() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// The time stamp counter.
pub fn counter() -> u64 {
    // SAFETY: reads a register; CR4.TSD is clear and the guest is in ring 0.
    unsafe { _rdtsc() }
}

/// CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Waits until `done` or for `milliseconds` of the counter. Says whether it was done.
pub fn wait_for(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = counter().saturating_add(ticks_per_millisecond().saturating_mul(milliseconds));
    loop {
        if done() {
            return true;
        }
        if counter() > end {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Takes interrupts from here on.
pub fn unmask_interrupts() {
    // SAFETY: the interrupt table is in place since `exception::begin`; handlers share only atomics with the rest.
    unsafe { asm!("sti", options(nostack)) }
}

/// Takes no interrupts from here on.
pub fn mask_interrupts() {
    // SAFETY: masking changes nothing that Rust sees.
    unsafe { asm!("cli", options(nostack)) }
}

/// Takes interrupts and sleeps until one has come.
pub fn wait_for_interrupt() {
    // SAFETY: as in `unmask_interrupts`; nothing comes between the two instructions.
    unsafe { asm!("sti", "hlt", options(nostack)) }
}

/// Sleeps for good.
pub fn stop() -> ! {
    loop {
        // SAFETY: sleeping changes nothing that Rust sees.
        unsafe { asm!("cli", "hlt", options(nostack)) }
    }
}

/// Reads a byte from a port that exists, or that gives ones.
pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: a port of the guests' own choice, of which no Rust value depends.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack)) }
    value
}

/// Writes a byte to a port.
pub fn out8(port: u16, value: u8) {
    // SAFETY: as in `in8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack)) }
}

/// Writes two bytes to a port.
pub fn out16(port: u16, value: u16) {
    // SAFETY: as in `in8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack)) }
}

/// Reads 32 bits at a physical address (memory is mapped 1:1), by a MOV to EAX.
pub fn read32(address: u64) -> u32 {
    let value;
    // SAFETY: a load into a register; it's assembler, so the compiler believes nothing about the address, and whether
    // there is something is the question that the guest asks.
    unsafe { asm!("mov eax, [{}]", in(reg) address, out("eax") value, options(nostack)) }
    value
}

/// Reads 64 bits at a physical address.
pub fn read64(address: u64) -> u64 {
    let value;
    // SAFETY: as in `read32`.
    unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack)) }
    value
}

/// Writes 32 bits at a physical address that belongs to no Rust value: a device, or RAM outside the image.
pub fn write32(address: u64, value: u32) {
    // SAFETY: the callers keep off the image (`memory::is_own`), so no Rust value changes.
    unsafe { asm!("mov [{}], eax", in(reg) address, in("eax") value, options(nostack)) }
}

/// Writes 64 bits at a physical address that belongs to no Rust value.
pub fn write64(address: u64, value: u64) {
    // SAFETY: as in `write32`.
    unsafe { asm!("mov [{}], {}", in(reg) address, in(reg) value, options(nostack)) }
}
