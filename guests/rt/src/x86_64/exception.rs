//! The interrupt table, and exceptions that are recovered from and reported.
//!
//! An instruction that may fault stands in [`attempt!`](crate::attempt), which names the place to go on at: x86's
//! instructions differ in length. A fault anywhere else is a bug of the guest or an answer that it didn't expect: it is
//! printed, and the guest powers off. Interrupts go to one handler.
//!
//! A CPU's record lies at the bottom of its stack, so it is found without a register that an attack could change.

use core::arch::{asm, global_asm};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use super::entry::STACK;
use crate::{call, console, memory};

/// What an exception or interrupt saved, and where it will return to.
#[repr(C)]
pub struct Frame {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8 to R15.
    pub registers: [u64; 15],
    /// Which.
    pub vector: u64,
    /// The CPU's error code, 0 where it has none.
    pub error: u64,
    /// Where to go on.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub flags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
}

/// Vectors that the guests tell apart.
pub mod vector {
    /// #DB.
    pub const DEBUG: u8 = 1;
    /// NMI.
    pub const NMI: u8 = 2;
    /// #UD.
    pub const UNDEFINED: u8 = 6;
    /// #GP.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// #PF.
    pub const PAGE_FAULT: u8 = 14;
    /// The first that isn't an exception's.
    pub const FIRST_INTERRUPT: u8 = 32;
}

/// A recorded exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `vector::*`.
    pub vector: u8,
    /// The CPU's error code.
    pub error: u64,
    /// CR2, for a page fault.
    pub address: u64,
    /// The instruction.
    pub at: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vector,
            error,
            address,
            at,
        } = self;
        write!(
            f,
            "vector={vector} error={error:#x} cr2={address:#x} rip={at:#x}"
        )
    }
}

/// A CPU's record.
#[repr(C)]
pub struct Recorder {
    /// Where an exception goes on, 0 if none is expected.
    recover: AtomicU64,
    number: AtomicU64,
    seen: AtomicU64,
    vector: AtomicU64,
    error: AtomicU64,
    address: AtomicU64,
    at: AtomicU64,
    /// The stack pointer to go on with after ring 3.
    stack: AtomicU64,
}

impl Recorder {
    /// Forgets what was seen.
    pub fn clear(&self) {
        self.seen.store(0, Ordering::Relaxed);
    }

    /// Where to put the address at which a fault goes on.
    pub fn recover(&self) -> *mut u64 {
        self.recover.as_ptr()
    }

    /// Where to put the stack pointer with which a fault in ring 3 goes on.
    pub fn stack(&self) -> *mut u64 {
        self.stack.as_ptr()
    }

    /// The exception that came since [`clear`](Self::clear).
    pub fn fault(&self) -> Option<Fault> {
        let vector = u8::try_from(self.vector.load(Ordering::Relaxed)).unwrap_or(u8::MAX);
        (self.seen.load(Ordering::Relaxed) != 0).then(|| Fault {
            vector,
            error: self.error.load(Ordering::Relaxed),
            address: self.address.load(Ordering::Relaxed),
            at: self.at.load(Ordering::Relaxed),
        })
    }
}

impl Recorder {
    fn words(&self) -> [&AtomicU64; 6] {
        let Self {
            recover,
            seen,
            vector,
            error,
            address,
            at,
            ..
        } = self;
        [recover, seen, vector, error, address, at]
    }

    /// What is being attempted and was seen.
    fn take(&self) -> [u64; 6] {
        self.words().map(|word| word.load(Ordering::Relaxed))
    }

    /// Goes on with it.
    fn put(&self, before: [u64; 6]) {
        for (word, value) in self.words().into_iter().zip(before) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// This CPU's record.
pub fn recorder() -> &'static Recorder {
    let stack: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) }
    let bottom = stack & !(STACK as u64 - 1);
    // SAFETY: every stack of this crate is aligned to its size, lives for ever and has the record at its bottom, which
    // is made of atomics.
    unsafe { &*(bottom as *const Recorder) }
}

/// The number of this CPU in ACPI's list; 0 is the boot CPU.
pub fn number() -> usize {
    usize::try_from(recorder().number.load(Ordering::Relaxed)).unwrap_or(0)
}

/// NMIs taken by all CPUs.
pub static NMIS: AtomicU64 = AtomicU64::new(0);

static INTERRUPT: Once<fn(u8)> = Once::new();

/// Runs assembler that may fault and gives the fault. Operands as in `asm!`; after a fault the rest of the assembler
/// hasn't run, so what it gives out means nothing. The assembler mustn't leave anything on the stack, nor use label 2.
#[macro_export]
macro_rules! attempt {
    ($body:expr $(, $($operands:tt)*)?) => {{
        let recorder = $crate::exception::recorder();
        recorder.clear();
        core::arch::asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{recover}], {scratch}",
            $body,
            "2:",
            "mov qword ptr [{recover}], 0",
            recover = in(reg) recorder.recover(),
            scratch = out(reg) _,
            $($($operands)*)?
        );
        recorder.fault()
    }};
}

/// Reads 32 bits of memory, by a MOV to EAX.
///
/// # Errors
/// The fault.
pub fn read32(address: u64) -> Result<u32, Fault> {
    let value: u32;
    // SAFETY: as `cpu::read32`.
    let fault =
        unsafe { crate::attempt!("mov eax, [{at}]", at = in(reg) address, out("eax") value) };
    fault.map_or(Ok(value), Err)
}

/// Writes 32 bits of memory that belong to no Rust value, by a MOV from EAX.
///
/// # Errors
/// The fault.
pub fn write32(address: u64, value: u32) -> Result<(), Fault> {
    // SAFETY: as `cpu::write32`.
    let fault =
        unsafe { crate::attempt!("mov [{at}], eax", at = in(reg) address, in("eax") value) };
    fault.map_or(Ok(()), Err)
}

/// Reads 64 bits of memory.
///
/// # Errors
/// The fault.
pub fn read64(address: u64) -> Result<u64, Fault> {
    let value: u64;
    // SAFETY: as `cpu::read32`.
    let fault = unsafe {
        crate::attempt!("mov {value}, [{at}]", at = in(reg) address, value = out(reg) value)
    };
    fault.map_or(Ok(value), Err)
}

/// Writes 64 bits of memory that belong to no Rust value.
///
/// # Errors
/// The fault.
pub fn write64(address: u64, value: u64) -> Result<(), Fault> {
    // SAFETY: as `cpu::write32`.
    let fault = unsafe {
        crate::attempt!("mov [{at}], {value}", at = in(reg) address, value = in(reg) value)
    };
    fault.map_or(Ok(()), Err)
}

/// RDMSR.
///
/// # Errors
/// The fault.
pub fn read_msr(msr: u32) -> Result<u64, Fault> {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing that Rust sees.
    let fault = unsafe { crate::attempt!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high) };
    fault.map_or(Ok(u64::from(high) << 32 | u64::from(low)), Err)
}

/// WRMSR of a register that no Rust value depends on.
///
/// # Errors
/// The fault.
pub fn write_msr(msr: u32, value: u64) -> Result<(), Fault> {
    let [low, high] = halves(value);
    // SAFETY: the caller names a register of the interrupt controller, the hypercall page or the like.
    let fault = unsafe { crate::attempt!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high) };
    fault.map_or(Ok(()), Err)
}

/// The lower and the upper half of a word.
pub fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

/// Sets the handler of interrupts, once; it is given the vector, runs with interrupts masked and ends them by itself.
pub fn on_interrupt(handler: fn(u8)) {
    INTERRUPT.call_once(|| handler);
}

// A stub for each vector: an error code where the CPU gives none, the vector, the common part. Each is 16 bytes long.
global_asm!(
    r#"
    .section .text.vectors, "ax"
    .balign 16
    .global terrane_guest_vectors
terrane_guest_vectors:
    .set    vector, 0
    .rept   256
    .balign 16
    .if     vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    pushq   $0
    .endif
    pushq   $vector
    jmp     terrane_guest_common
    .set    vector, vector + 1
    .endr

terrane_guest_common:
    pushq   %r15
    pushq   %r14
    pushq   %r13
    pushq   %r12
    pushq   %r11
    pushq   %r10
    pushq   %r9
    pushq   %r8
    pushq   %rbp
    pushq   %rdi
    pushq   %rsi
    pushq   %rdx
    pushq   %rcx
    pushq   %rbx
    pushq   %rax
    cld
    movq    %rsp, %rdi
    movq    %rsp, %rbp
    andq    $-16, %rsp
    call    {handle}
    movq    %rbp, %rsp
    popq    %rax
    popq    %rbx
    popq    %rcx
    popq    %rdx
    popq    %rsi
    popq    %rdi
    popq    %rbp
    popq    %r8
    popq    %r9
    popq    %r10
    popq    %r11
    popq    %r12
    popq    %r13
    popq    %r14
    popq    %r15
    addq    $16, %rsp
    iretq
    "#,
    handle = sym handle,
    options(att_syntax),
);

/// Every exception and interrupt. `frame` is on the interrupted stack, or on ring 0's if ring 3 was interrupted.
extern "C" fn handle(frame: &mut Frame) {
    let vector = u8::try_from(frame.vector).unwrap_or(u8::MAX);
    if vector >= vector::FIRST_INTERRUPT {
        let Some(handler) = INTERRUPT.get() else {
            report("interrupt without a handler", frame);
        };
        // The handler makes attempts of its own, in the midst of another.
        let recorder = recorder();
        let before = recorder.take();
        handler(vector);
        recorder.put(before);
        return;
    }
    if vector == vector::NMI {
        NMIS.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let recorder = recorder();
    let recover = recorder.recover.swap(0, Ordering::Relaxed);
    if recover == 0 {
        report("exception", frame);
    }
    recorder.vector.store(frame.vector, Ordering::Relaxed);
    recorder.error.store(frame.error, Ordering::Relaxed);
    recorder.address.store(cr2(), Ordering::Relaxed);
    recorder.at.store(frame.rip, Ordering::Relaxed);
    recorder.seen.store(1, Ordering::Relaxed);
    frame.rip = recover;
    if frame.cs & 3 != 0 {
        frame.cs = CODE;
        frame.ss = DATA;
        frame.rsp = recorder.stack.load(Ordering::Relaxed);
    }
    // A single-step trap mustn't come again; an attack on the flags ends here.
    frame.flags &= !(1 << 8);
}

fn cr2() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

fn report(what: &str, frame: &Frame) -> ! {
    let base = memory::image().start;
    console::line(format_args!(
        "guest: {what} {} on cpu {}: error={:#x} cr2={:#x} rip={:#x} (image+{:#x}) rsp={:#x}",
        frame.vector,
        number(),
        frame.error,
        cr2(),
        frame.rip,
        frame.rip.wrapping_sub(base),
        frame.rsp,
    ));
    call::power_off()
}

/// Ring 0's segments in the table of `entry`.
const CODE: u64 = 0x08;
const DATA: u64 = 0x10;

/// The interrupt table: two words a vector.
#[repr(C, align(16))]
struct Table([AtomicU64; 512]);
static TABLE: Table = Table([const { AtomicU64::new(0) }; 512]);

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

unsafe extern "C" {
    static terrane_guest_vectors: u8;
}

/// Makes this CPU, which runs on its own stack, take exceptions and interrupts by this module.
pub(crate) fn begin(number: usize) {
    const STUB: u64 = 16;
    const INTERRUPT_GATE: u64 = 0x8e;
    recorder().recover.store(0, Ordering::Relaxed);
    recorder().number.store(number as u64, Ordering::Relaxed);
    let vectors = (&raw const terrane_guest_vectors) as u64;
    for (index, entry) in (0u64..).zip(TABLE.0.chunks_exact(2)) {
        let target = vectors + index * STUB;
        let low = (target & 0xffff) | CODE << 16 | INTERRUPT_GATE << 40;
        let gate = [low | (target >> 16 & 0xffff) << 48, target >> 32];
        for (place, word) in entry.iter().zip(gate) {
            place.store(word, Ordering::Relaxed);
        }
    }
    let pointer = Pointer {
        limit: 4095,
        base: (&raw const TABLE) as u64,
    };
    // SAFETY: the table is complete and lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) }
}
