//! Calls out of the guest: hypercalls of Xen's ABI, and ACPI's ways to end.

use core::arch::asm;
use core::sync::atomic::AtomicU8;

use crate::xen::{self, Shutdown};
use crate::{boot, cpu, exception};

/// A hypercall by VMMCALL: number in RAX, arguments in RDI, RSI, RDX, R10, R8, result in RAX (arch-x86/xen-x86_64.h).
///
/// # Safety
/// What the call may write through its arguments must be memory that no live Rust value owns, or that the caller lends.
pub unsafe fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let [a, b, c, d, e] = arguments;
    let result: u64;
    // SAFETY: the ABI lets RAX and the argument registers change; memory is the caller's promise.
    unsafe {
        asm!("vmmcall", inout("rax") number => result, inout("rdi") a => _, inout("rsi") b => _,
            inout("rdx") c => _, inout("r10") d => _, inout("r8") e => _, out("r9") _, out("r11") _,
            options(nostack));
    }
    result.cast_signed()
}

/// The hypercall page: 32 bytes for each number.
#[repr(C, align(4096))]
struct Page([AtomicU8; 4096]);
static PAGE: Page = Page([const { AtomicU8::new(0xcc) }; 4096]);

/// Lets the hypervisor fill the hypercall page, as guests do that don't know the CPU's instruction.
///
/// # Errors
/// The fault of the write to the MSR that names the page.
pub fn fill_page(msr: u32) -> Result<(), exception::Fault> {
    exception::write_msr(msr, (&raw const PAGE) as u64)
}

/// A hypercall without pointers by the page, which has been filled.
pub fn by_page(number: u64, arguments: [u64; 5]) -> i64 {
    let [a, b, c, d, e] = arguments;
    let entry = (&raw const PAGE) as u64 + number % 128 * 32;
    let result: u64;
    // SAFETY: the hypervisor has put a call there that returns; see `hypercall`. The page has INT3 before it is filled.
    unsafe {
        asm!("call {entry}", entry = in(reg) entry, out("rax") result, inout("rdi") a => _, inout("rsi") b => _,
            inout("rdx") c => _, inout("r10") d => _, inout("r8") e => _, out("r9") _, out("r11") _, out("rcx") _);
    }
    result.cast_signed()
}

/// Ends the machine or the domain by ACPI's S5, else by the hypervisor; comes back, asleep, only where there is neither.
pub fn power_off() -> ! {
    const ENABLE: u16 = 1 << 13;
    if let Some(facts) = boot::facts() {
        let port = facts.fixed.pm1a_control;
        if let Some(off) = facts.off.filter(|_| port != 0) {
            cpu::out16(port, u16::from(off) << 10 | ENABLE);
        }
        if facts.xen.is_some() {
            xen::shutdown(Shutdown::PowerOff);
        }
    }
    cpu::stop()
}

/// Restarts the machine or the domain by ACPI's reset register.
pub fn reset() -> ! {
    if let Some((port, value)) = boot::facts().and_then(|facts| facts.fixed.reset) {
        cpu::out8(port, value);
    }
    cpu::stop()
}
