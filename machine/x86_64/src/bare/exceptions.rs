//! The hypervisor's interrupt table. APM volume 2, 4.8.4 (gate descriptors), 8.2 (vectors), 8.9 (frames).
//!
//! An exception is a fault of the hypervisor, and ends it with a report; but for an access to an MSR that may not be
//! there ([`super::instructions::try_read_msr`]). Interrupts are let in at two instructions only, those of
//! [`super::instructions::take_interrupt`] and [`super::instructions::wait_for_interrupt`]: their stubs say the vector in a register.

use core::arch::{asm, global_asm};

use super::entry::CODE_SELECTOR;
use super::instructions::msr_recovery;
use super::panic::{self, FAILED, STOPPED};

/// Vectors of the architecture.
const VECTORS: usize = 256;
/// Exceptions; all others are interrupts.
const EXCEPTIONS: usize = 32;
/// Bytes of each stub, so that a vector's address can be computed.
const STUB_BYTES: usize = 16;
/// RFLAGS.IF, cleared in what an interrupt returns to, so that one is taken at a time.
const INTERRUPT_FLAG: i32 = 1 << 9;

global_asm!(
    ".balign 16",
    "exception_stubs:",
    ".set vector, 0",
    ".rept {exceptions}",
    "    .balign 16",
    "    .if vector == 2",
    // An NMI: the exit that it caused has said so; one that came while the hypervisor ran is dropped.
    "    cmpb $0, {failed}(%rip)",
    "    jne stop_here",
    "    iretq",
    "    .else",
    // #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC and #SX push an error code themselves.
    "    .if !((0x60227d00 >> vector) & 1)",
    "    pushq $0",
    "    .endif",
    "    pushq $vector",
    "    jmp exception",
    "    .endif",
    "    .set vector, vector + 1",
    ".endr",
    ".rept {vectors} - {exceptions}",
    "    .balign 16",
    "    movl $vector, %edi",
    "    andl ${others}, 16(%rsp)",
    "    iretq",
    "    .set vector, vector + 1",
    ".endr",
    "stop_here:",
    "    lock incq {stopped}(%rip)",
    "1:  cli",
    "    hlt",
    "    jmp 1b",
    "exception:",
    "    pushq %rax",
    "    pushq %rcx",
    "    pushq %rdx",
    "    pushq %rsi",
    "    pushq %rdi",
    "    pushq %r8",
    "    pushq %r9",
    "    pushq %r10",
    "    pushq %r11",
    "    pushq %rbp",
    "    leaq 80(%rsp), %rdi",
    "    movq %rsp, %rbp",
    "    andq $-16, %rsp",
    "    call {report}",
    "    movq %rbp, %rsp",
    "    popq %rbp",
    "    popq %r11",
    "    popq %r10",
    "    popq %r9",
    "    popq %r8",
    "    popq %rdi",
    "    popq %rsi",
    "    popq %rdx",
    "    popq %rcx",
    "    popq %rax",
    "    addq $16, %rsp",
    "    iretq",
    vectors = const VECTORS,
    exceptions = const EXCEPTIONS,
    others = const !INTERRUPT_FLAG,
    report = sym report,
    failed = sym FAILED,
    stopped = sym STOPPED,
    options(att_syntax),
);

unsafe extern "C" {
    fn exception_stubs();
}

/// What stub and CPU have pushed.
#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Returns if the instruction is one that may fault.
extern "C" fn report(frame: &mut Frame) {
    if let Some(recovery) = msr_recovery(frame.vector, frame.rip) {
        frame.rip = recovery;
        return;
    }
    let fault_address: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) fault_address, options(nomem, nostack)) };
    panic::fail(format_args!(
        "exception {} (error {:#x}) at {:#x}, stack {:#x}, CR2 {fault_address:#x}",
        frame.vector, frame.error, frame.rip, frame.rsp
    ))
}

/// Offset of the last byte of the gates, 16 bytes each.
const GATES_LIMIT: u16 = 256 * 16 - 1;
const _: () = assert!(size_of::<Gates>() == GATES_LIMIT as usize + 1);

#[repr(C, align(16))]
struct Gates([[u64; 2]; VECTORS]);

static mut GATES: Gates = Gates([[0; 2]; VECTORS]);

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// An interrupt gate of the hypervisor's privilege (APM volume 2, figure 4-24).
fn gate(handler: u64) -> [u64; 2] {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    let low = handler & 0xffff
        | u64::from(CODE_SELECTOR) << 16
        | PRESENT_INTERRUPT_GATE
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

/// Fills the table and makes this CPU use it. Called by the boot CPU, once, before other CPUs run.
pub fn start() {
    let first = exception_stubs as *const () as u64;
    let gates = &raw mut GATES;
    let filled = core::array::from_fn(|vector| gate(first + (vector * STUB_BYTES) as u64));
    // SAFETY: nobody else uses the static, and this function runs once.
    unsafe { gates.write(Gates(filled)) };
    load();
}

/// Makes this CPU use the table that [`start`] has filled.
pub fn load() {
    let pointer = Pointer {
        limit: GATES_LIMIT,
        base: (&raw const GATES) as u64,
    };
    // SAFETY: the gates lead to the stubs above and live as long as the hypervisor.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
}
