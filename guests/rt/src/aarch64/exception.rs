//! Exception vectors that recover and report.
//!
//! Inside [`caught`] a synchronous exception is recorded and the instruction skipped; outside it is a bug of the guest
//! or an answer that it didn't expect: it is printed, and the guest powers off. Interrupts go to one handler.

use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use crate::{call, console, cpu};

/// What an exception saved, and where it will return to.
#[repr(C)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// ELR_EL1, where to go on.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    _pad: u64,
}

const FRAME_SIZE: usize = 288;
const _: () = assert!(size_of::<Frame>() == FRAME_SIZE);

/// A recorded exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// ESR_EL1.
    pub syndrome: u64,
    /// FAR_EL1; only some classes set it.
    pub address: u64,
}

impl Fault {
    /// The exception class, ESR_ELx.EC (Arm ARM D24.2).
    pub fn class(self) -> u64 {
        self.syndrome >> 26 & 0x3f
    }

    /// Whether it is a data abort taken without a change of level.
    pub fn is_data_abort(self) -> bool {
        self.class() == class::DATA_ABORT
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "esr={:#x} far={:#x}", self.syndrome, self.address)
    }
}

/// Exception classes that the guests tell apart.
pub mod class {
    /// Undefined instruction or anything without a class of its own.
    pub const UNKNOWN: u64 = 0x00;
    /// Illegal execution state.
    pub const ILLEGAL_STATE: u64 = 0x0e;
    /// Instruction abort at the same level.
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    /// PC alignment.
    pub const PC_ALIGNMENT: u64 = 0x22;
    /// Data abort at the same level.
    pub const DATA_ABORT: u64 = 0x25;
}

/// CPUs with a recorder of their own; those above share the last one.
const CPUS: usize = 64;

/// One CPU's recorder: how many `caught` are open, and what the innermost saw.
struct Recorder {
    open: AtomicU64,
    seen: AtomicU64,
    syndrome: AtomicU64,
    address: AtomicU64,
}

static RECORDERS: [Recorder; CPUS] = [const {
    Recorder {
        open: AtomicU64::new(0),
        seen: AtomicU64::new(0),
        syndrome: AtomicU64::new(0),
        address: AtomicU64::new(0),
    }
}; CPUS];

/// SErrors taken by all CPUs.
pub static SERRORS: AtomicU64 = AtomicU64::new(0);

static INTERRUPT: Once<fn(&mut Frame)> = Once::new();

fn recorder() -> &'static Recorder {
    let [.., last] = &RECORDERS;
    RECORDERS.get(cpu::number()).unwrap_or(last)
}

/// Runs `attempt`; each synchronous exception in it skips the instruction that made it. Gives the result and the last
/// exception. A jump to an address that can't be executed goes on at the caller, in x30.
pub fn caught<R>(attempt: impl FnOnce() -> R) -> (R, Option<Fault>) {
    let recorder = recorder();
    recorder.seen.store(0, Ordering::Relaxed);
    recorder.open.fetch_add(1, Ordering::Relaxed);
    let result = attempt();
    // An SError for what was attempted is taken before this.
    cpu::barrier();
    recorder.open.fetch_sub(1, Ordering::Relaxed);
    let fault = (recorder.seen.load(Ordering::Relaxed) != 0).then(|| Fault {
        syndrome: recorder.syndrome.load(Ordering::Relaxed),
        address: recorder.address.load(Ordering::Relaxed),
    });
    (result, fault)
}

/// Reads 32 bits of memory.
///
/// # Errors
/// The fault.
pub fn read32(address: u64) -> Result<u32, Fault> {
    let (value, fault) = caught(|| cpu::read32(address));
    fault.map_or(Ok(value), Err)
}

/// Writes 32 bits of memory that belong to no Rust value.
///
/// # Errors
/// The fault.
pub fn write32(address: u64, value: u32) -> Result<(), Fault> {
    let ((), fault) = caught(|| cpu::write32(address, value));
    fault.map_or(Ok(()), Err)
}

/// Reads 64 bits of memory.
///
/// # Errors
/// The fault.
pub fn read64(address: u64) -> Result<u64, Fault> {
    let (value, fault) = caught(|| cpu::read64(address));
    fault.map_or(Ok(value), Err)
}

/// Writes 64 bits of memory that belong to no Rust value.
///
/// # Errors
/// The fault.
pub fn write64(address: u64, value: u64) -> Result<(), Fault> {
    let ((), fault) = caught(|| cpu::write64(address, value));
    fault.map_or(Ok(()), Err)
}

/// How many exceptions the innermost [`caught`] of this CPU has seen so far, or the last one saw.
pub fn faults() -> u64 {
    recorder().seen.load(Ordering::Relaxed)
}

/// Sets the handler of interrupts, once; it runs with interrupts masked and acknowledges by itself.
pub fn on_interrupt(handler: fn(&mut Frame)) {
    INTERRUPT.call_once(|| handler);
}

// Each vector saves x0 and x1 and says which it is: 0 synchronous, 1 interrupt, 2 SError, 3 none that can come at EL1h.
global_asm!(
    r#"
    .macro vector kind
    .balign 0x80
    sub     sp, sp, #{frame}
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       common
    .endm

    .section .text.vectors, "ax"
    .balign 0x800
    .global terrane_guest_vectors
terrane_guest_vectors:
    vector  0
    vector  1
    vector  1
    vector  2
    vector  0
    vector  1
    vector  1
    vector  2
    vector  3
    vector  3
    vector  3
    vector  3
    vector  3
    vector  3
    vector  3
    vector  3

common:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, elr_el1
    stp     x30, x1, [sp, #240]
    mrs     x1, spsr_el1
    mrs     x2, esr_el1
    stp     x1, x2, [sp, #256]
    mrs     x1, far_el1
    str     x1, [sp, #272]
    mov     x1, sp
    bl      {handle}
    ldp     x1, x2, [sp, #248]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp]
    add     sp, sp, #{frame}
    eret
    "#,
    frame = const FRAME_SIZE,
    handle = sym handle,
);

/// Every exception. `frame` is on the interrupted stack, under everything live.
extern "C" fn handle(kind: u64, frame: &mut Frame) {
    match kind {
        0 => synchronous(frame),
        1 => match INTERRUPT.get() {
            Some(handler) => handler(frame),
            None => report("interrupt without a handler", frame),
        },
        2 => {
            SERRORS.fetch_add(1, Ordering::Relaxed);
            if recorder().open.load(Ordering::Relaxed) == 0 {
                report("SError", frame);
            }
            record(frame);
        }
        _ => report("exception of a lower level", frame),
    }
}

fn record(frame: &Frame) {
    let recorder = recorder();
    recorder.syndrome.store(frame.esr, Ordering::Relaxed);
    recorder.address.store(frame.far, Ordering::Relaxed);
    recorder.seen.fetch_add(1, Ordering::Relaxed);
}

fn synchronous(frame: &mut Frame) {
    if recorder().open.load(Ordering::Relaxed) == 0 {
        report("exception", frame);
    }
    record(frame);
    const ILLEGAL_STATE_BIT: u64 = 1 << 20;
    match frame.esr >> 26 & 0x3f {
        class::INSTRUCTION_ABORT | class::PC_ALIGNMENT => frame.elr = frame.x[30],
        class::ILLEGAL_STATE => frame.spsr &= !ILLEGAL_STATE_BIT,
        _ => frame.elr = frame.elr.wrapping_add(4),
    }
}

fn report(what: &str, frame: &Frame) -> ! {
    let base = crate::memory::image().start;
    console::line(format_args!(
        "guest: {what} on cpu {}: esr={:#x} far={:#x} elr={:#x} (image+{:#x}) x30=image+{:#x}",
        cpu::number(),
        frame.esr,
        frame.far,
        frame.elr,
        frame.elr.wrapping_sub(base),
        frame.x[30].wrapping_sub(base),
    ));
    call::power_off()
}
