//! Instructions made at run time, and run under [`caught`].

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use rt::exception::{self, caught};
use rt::{cpu, memory};

/// Instructions that fit, the last one (`ret`) included.
pub const CAPACITY: usize = 2048;

#[repr(C, align(4096))]
struct Page([AtomicU32; CAPACITY]);
static PAGE: Page = Page([const { AtomicU32::new(RET) }; CAPACITY]);

const RET: u32 = 0xd65f_03c0;

/// Runs `words` and a `ret` with x0 to x8 as given. The words may change x0 to x17 and flags, and must not touch the
/// stack. Says how many of them made an exception. What doesn't fit isn't run.
pub fn run(words: &[u32], registers: [u64; 9]) -> u64 {
    let code = words.iter().copied().take(CAPACITY - 1).chain([RET]);
    for (place, word) in PAGE.0.iter().zip(code) {
        place.store(word, Ordering::Relaxed);
    }
    let start = (&raw const PAGE) as u64;
    memory::clean(start, (words.len() as u64 + 1) * 4);
    // SAFETY: drops instructions fetched before the words were written.
    unsafe { asm!("ic iallu", "dsb sy", "isb", options(nostack)) }
    caught(|| call(start, registers));
    exception::faults()
}

/// Calls `address` with x0 to x8 as given. Under [`caught`], an address that can't be executed comes back at once.
pub fn call(address: u64, registers: [u64; 9]) {
    let [x0, x1, x2, x3, x4, x5, x6, x7, x8] = registers;
    // SAFETY: what is called keeps the procedure call standard: it is this module's page, whose words the callers choose
    // so, or an address that aborts.
    unsafe {
        asm!("blr {address}", address = in(reg) address,
            inout("x0") x0 => _, inout("x1") x1 => _, inout("x2") x2 => _, inout("x3") x3 => _, inout("x4") x4 => _,
            inout("x5") x5 => _, inout("x6") x6 => _, inout("x7") x7 => _, inout("x8") x8 => _,
            clobber_abi("C"));
    }
    cpu::barrier();
}
