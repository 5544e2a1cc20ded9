//! Hypercalls of ring 3: a process of the guest isn't the guest.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{number, version};
use rt::{exception, say};

use crate::common::violation;

const EPERM: i64 = -1;
/// No result of these calls: the call itself faulted.
const FAULTED: i64 = 1;

global_asm!(
    r#"
    .section .text.user, "ax"
    .global terrane_attacker_user
terrane_attacker_user:
    vmmcall
    ud2
    "#
);

unsafe extern "C" {
    fn terrane_attacker_user();
    static terrane_guest_gdt_task: [AtomicU64; 2];
}

/// The task state: of it only ring 0's stack is used, at byte 4.
#[repr(C, align(16))]
struct Task([AtomicU64; 14]);
static TASK: Task = Task([const { AtomicU64::new(0) }; 14]);

/// Makes calls from ring 3: each gives -EPERM or a fault.
pub fn hypercalls() {
    load_task();
    for number in 0..64 {
        let answer = from_ring_3(number, [version::VERSION, 0, 0, 0, 0]);
        if answer != EPERM && answer != FAULTED {
            violation(format_args!("hypercall {number} of ring 3 gave {answer}"));
        }
    }
    let answer = from_ring_3(number::XEN_VERSION, [version::VERSION, 0, 0, 0, 0]);
    say!("attacker: ring-3={answer}");
}

/// Lets the CPU know where ring 0's stack is written down.
fn load_task() {
    const SELECTOR: u16 = 0x28;
    const AVAILABLE_TASK: u64 = 0x89 << 40;
    const LIMIT: u64 = 103;
    let base = (&raw const TASK) as u64;
    let low = LIMIT | (base & 0xff_ffff) << 16 | AVAILABLE_TASK | (base >> 24 & 0xff) << 56;
    // SAFETY: the two words of the table are there for this, and nobody else uses them.
    let descriptor = unsafe { &terrane_guest_gdt_task };
    for (place, word) in descriptor.iter().zip([low, base >> 32]) {
        place.store(word, Ordering::SeqCst);
    }
    // SAFETY: the descriptor is complete. It is loaded once.
    unsafe { asm!("ltr {0:x}", in(reg) SELECTOR, options(nostack)) }
}

/// Calls from ring 3, which comes back by an undefined instruction. Gives RAX, or [`FAULTED`].
fn from_ring_3(number: u64, arguments: [u64; 5]) -> i64 {
    const LENGTH_OF_CALL: u64 = 3;
    let recorder = exception::recorder();
    recorder.clear();
    let [a, b, c, d, e] = arguments;
    let code = terrane_attacker_user as *const () as u64;
    let result: u64;
    let stack_of_ring_0 = (&raw const TASK) as u64 + 4;
    // SAFETY: ring 3 runs two instructions, on no stack, and the second faults; the exception comes back to label 2 in
    // ring 0 with the stack pointer that was written down, at which everything is as it was. Interrupts are off there.
    unsafe {
        asm!(
            "pushfq",
            "cli",
            "mov [{stack}], rsp",
            "mov [{task}], rsp",
            "lea {scratch}, [rip + 2f]",
            "mov [{recover}], {scratch}",
            "push 0x23",
            "push 0",
            "push 2",
            "push 0x1b",
            "push {code}",
            "iretq",
            "2:",
            "mov qword ptr [{recover}], 0",
            "popfq",
            stack = in(reg) recorder.stack(),
            task = in(reg) stack_of_ring_0,
            recover = in(reg) recorder.recover(),
            scratch = out(reg) _,
            code = in(reg) code,
            inout("rax") number => result,
            inout("rdi") a => _, inout("rsi") b => _, inout("rdx") c => _, inout("r10") d => _,
            inout("r8") e => _, out("r9") _, out("r11") _,
        );
    }
    match recorder.fault() {
        // The instruction behind the call.
        Some(fault) if fault.at == code + LENGTH_OF_CALL => result.cast_signed(),
        _ => FAULTED,
    }
}
