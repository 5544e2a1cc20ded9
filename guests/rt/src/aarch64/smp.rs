//! Starting the other CPUs of the tree by PSCI.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use crate::call::{psci, smccc};
use crate::{cpu, memory};

/// CPUs that a guest can use, the boot CPU included; those after them in the tree aren't started.
pub const MOST: usize = 32;
const STACK: usize = 16 * 1024;

#[repr(C, align(16))]
struct Stack([AtomicU64; STACK / 8]);
static STACKS: [Stack; MOST] = [const { Stack([const { AtomicU64::new(0) }; STACK / 8]) }; MOST];

/// What a starting CPU finds at x0; the assembler of `entry` reads it.
#[repr(C)]
struct Start {
    stack: AtomicU64,
    number: AtomicU64,
}
static STARTS: [Start; MOST] = [const {
    Start {
        stack: AtomicU64::new(0),
        number: AtomicU64::new(0),
    }
}; MOST];

static MAIN: Once<fn(usize)> = Once::new();

unsafe extern "C" {
    /// The entry point of another CPU.
    fn terrane_guest_secondary();
}

/// Starts the CPU that is `number` in the tree's list, with `affinity` as its MPIDR, in `main` (the same for all: the
/// first one given counts); when that returns the CPU is turned off. Gives PSCI's answer: 0 or a negative error.
pub fn start(number: usize, affinity: u64, main: fn(usize)) -> i32 {
    let (Some(start), Some(stack)) = (STARTS.get(number), STACKS.get(number)) else {
        return -1;
    };
    let top = (&raw const *stack) as u64 + STACK as u64;
    start.stack.store(top, Ordering::Relaxed);
    start.number.store(number as u64, Ordering::Relaxed);
    MAIN.call_once(|| main);
    memory::clean(&raw const *start as u64, size_of::<Start>() as u64);
    cpu::barrier();
    let entry = terrane_guest_secondary as *const () as u64;
    psci::answer(smccc(
        psci::CPU_ON,
        [affinity, entry, &raw const *start as u64],
    ))
}

/// PSCI AFFINITY_INFO: 0 on, 1 off, 2 on its way, negative for an error.
pub fn state(affinity: u64) -> i32 {
    psci::answer(smccc(psci::AFFINITY_INFO, [affinity, 0, 0]))
}

/// Where Rust begins on another CPU.
pub(crate) extern "C" fn secondary() -> ! {
    memory::turn_on_here();
    if let Some(main) = MAIN.get() {
        main(cpu::number());
    }
    smccc(psci::CPU_OFF, [0; 3]);
    cpu::stop()
}
