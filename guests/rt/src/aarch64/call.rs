//! Calls out of the guest: PSCI and SMCCC by the tree's conduit, hypercalls of Xen's ABI.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::cpu;
use crate::tree::Conduit;

static BY_SMC: AtomicBool = AtomicBool::new(false);

/// Function identifiers of PSCI (Arm DEN0022, 64-bit ones where there are two).
pub mod psci {
    /// PSCI_VERSION.
    pub const VERSION: u32 = 0x8400_0000;
    /// CPU_OFF.
    pub const CPU_OFF: u32 = 0x8400_0002;
    /// CPU_ON.
    pub const CPU_ON: u32 = 0xc400_0003;
    /// AFFINITY_INFO.
    pub const AFFINITY_INFO: u32 = 0xc400_0004;
    /// SYSTEM_OFF.
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    /// SYSTEM_RESET.
    pub const SYSTEM_RESET: u32 = 0x8400_0009;

    /// What x0 says: PSCI's results are signed and 32 bits wide, 0 for success, negative for an error.
    pub fn answer(x0: u64) -> i32 {
        let [a, b, c, d, ..] = x0.to_le_bytes();
        i32::from_le_bytes([a, b, c, d])
    }
}

/// Remembers how the tree says that PSCI is called; without a word it's `hvc`.
pub fn set_conduit(conduit: Option<Conduit>) {
    BY_SMC.store(conduit == Some(Conduit::Smc), Ordering::Relaxed);
}

/// Calls an SMCCC function (Arm DEN0028) with three arguments and gives back x0. An undefined call leaves `function`.
pub fn smccc(function: u32, arguments: [u64; 3]) -> u64 {
    let [a, b, c] = arguments;
    if BY_SMC.load(Ordering::Relaxed) {
        smc(u64::from(function), [a, b, c])
    } else {
        hvc(u64::from(function), [a, b, c])
    }
}

/// `hvc #0` by the SMCCC convention.
pub fn hvc(function: u64, arguments: [u64; 3]) -> u64 {
    let [a, b, c] = arguments;
    let mut result = function;
    // SAFETY: SMCCC lets x0-x17 change and nothing else; CPU_ON's entry point is `smp`'s own. No call of the tests asks
    // for a write to this guest's memory but hypercalls, which have a function of their own.
    unsafe {
        asm!("hvc #0", inout("x0") result, inout("x1") a => _, inout("x2") b => _, inout("x3") c => _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack));
    }
    result
}

/// `smc #0` by the SMCCC convention.
pub fn smc(function: u64, arguments: [u64; 3]) -> u64 {
    let [a, b, c] = arguments;
    let mut result = function;
    // SAFETY: as in `hvc`.
    unsafe {
        asm!("smc #0", inout("x0") result, inout("x1") a => _, inout("x2") b => _, inout("x3") c => _,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _, options(nostack));
    }
    result
}

/// A hypercall: `hvc #0xEA1`, number in x16, arguments in x0-x4, result in x0 (xen/include/public/arch-arm.h).
///
/// # Safety
/// What the call may write through its arguments must be memory that no live Rust value owns, or that the caller lends.
pub unsafe fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let [a, b, c, d, e] = arguments;
    let result: u64;
    // SAFETY: the ABI changes x0-x4 and x16 only; memory is the caller's promise.
    unsafe {
        asm!("hvc #0xEA1", inout("x0") a => result, inout("x1") b => _, inout("x2") c => _, inout("x3") d => _,
            inout("x4") e => _, inout("x16") number => _, options(nostack));
    }
    result.cast_signed()
}

/// Ends the machine or the domain by PSCI SYSTEM_OFF; comes back, asleep, only where there is no PSCI.
pub fn power_off() -> ! {
    smccc(psci::SYSTEM_OFF, [0; 3]);
    cpu::stop()
}

/// Restarts the machine or the domain by PSCI SYSTEM_RESET.
pub fn reset() -> ! {
    smccc(psci::SYSTEM_RESET, [0; 3]);
    cpu::stop()
}
