//! The hypervisor's own exceptions: each is a fault of the hypervisor, and ends it with a report.
//! APM volume 2, 4.8.4 (gate descriptors), 8.2 (vectors), 8.9 (frames).

use core::arch::{asm, global_asm};

use super::entry::CODE_SELECTOR;
use super::{console, panic};

/// Exceptions of the architecture; the others are interrupts, which are masked.
const VECTORS: usize = 32;
/// Bytes of each stub, so that a vector's address can be computed.
const STUB_BYTES: usize = 16;

global_asm!(
    ".balign 16",
    "exception_stubs:",
    ".set vector, 0",
    ".rept {vectors}",
    "    .balign 16",
    // #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC and #SX push an error code themselves.
    "    .if !((0x60227d00 >> vector) & 1)",
    "    pushq $0",
    "    .endif",
    "    pushq $vector",
    "    jmp exception",
    "    .set vector, vector + 1",
    ".endr",
    "exception:",
    "    movq %rsp, %rdi",
    "    andq $-16, %rsp",
    "    call {report}",
    "    ud2",
    vectors = const VECTORS,
    report = sym report,
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

extern "C" fn report(frame: &Frame) -> ! {
    let fault_address: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) fault_address, options(nomem, nostack)) };
    console::say_at_the_end(format_args!(
        "panic: exception {} (error {:#x}) at {:#x}, stack {:#x}, CR2 {fault_address:#x}",
        frame.vector, frame.error, frame.rip, frame.rsp
    ));
    panic::halt()
}

/// Offset of the last byte of the gates, 16 bytes each.
const GATES_LIMIT: u16 = 32 * 16 - 1;
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

/// Makes this CPU report its exceptions. Called by the boot CPU, once, before other CPUs run.
pub fn start() {
    let first = exception_stubs as *const () as u64;
    let gates = &raw mut GATES;
    let filled = core::array::from_fn(|vector| gate(first + (vector * STUB_BYTES) as u64));
    // SAFETY: nobody else uses the static, and this function runs once.
    unsafe { gates.write(Gates(filled)) };
    let pointer = Pointer {
        limit: GATES_LIMIT,
        base: gates as u64,
    };
    // SAFETY: the gates lead to the stubs above and live as long as the hypervisor.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
}
