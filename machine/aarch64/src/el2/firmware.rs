//! Calls to the machine's firmware by SMC or HVC, as its tree says.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use manifest::tree::host::PsciConduit;

use crate::smccc;

/// 0: none known, 1: SMC, 2: HVC.
static CONDUIT: AtomicU8 = AtomicU8::new(0);

/// Sets how the firmware is called; nothing is called before.
pub fn set_conduit(conduit: Option<PsciConduit>) {
    let value = match conduit {
        None => 0,
        Some(PsciConduit::Smc) => 1,
        Some(PsciConduit::Hvc) => 2,
    };
    CONDUIT.store(value, Ordering::Relaxed);
}

/// Calls the firmware; `NOT_SUPPORTED` if the tree doesn't say how.
pub fn call(function: u32, arguments: [u64; 3]) -> u64 {
    let [first, second, third] = arguments;
    let mut result = u64::from(function);
    match CONDUIT.load(Ordering::Relaxed) {
        // SAFETY: by SMCCC a call clobbers X0 to X17 and no memory but what the function is
        // documented to change; the functions called here change none.
        1 => unsafe {
            asm!("smc #0", inout("x0") result, inout("x1") first => _, inout("x2") second => _,
                inout("x3") third => _, clobber_abi("C"), options(nostack))
        },
        // SAFETY: as above.
        2 => unsafe {
            asm!("hvc #0", inout("x0") result, inout("x1") first => _, inout("x2") second => _,
                inout("x3") third => _, clobber_abi("C"), options(nostack))
        },
        _ => result = smccc::NOT_SUPPORTED,
    }
    result
}

/// What SMCCC_ARCH_FEATURES says of a function on this CPU, in 32 bits: what the others hold isn't defined.
pub fn feature(function: u32) -> u64 {
    call(smccc::ARCH_FEATURES, [function.into(), 0, 0]) & 0xffff_ffff
}
