//! Exceptions that the hypervisor raises in a guest. Arm ARM DDI 0487, D1.3 (exception entry).

use aarch64_cpu::registers::{
    ELR_EL1, ELR_EL2, ESR_EL1, ESR_EL2, FAR_EL1, FAR_EL2, Readable, SCTLR_EL1, SPSR_EL1, SPSR_EL2,
    VBAR_EL1, Writeable,
};

const MODE: u64 = 0x1f;
const MODE_EL1H: u64 = 0b00101;
const MODE_EL1T: u64 = 0b00100;
const AARCH32: u64 = 1 << 4;
/// D, A, I and F.
const MASKED: u64 = 0xf << 6;
const PAN: u64 = 1 << 22;
/// NZCV, and DIT, which exceptions leave as they are.
const KEPT: u64 = 0xf << 28 | 1 << 24 | PAN;
const SCTLR_SPAN: u64 = 1 << 23;

const UNKNOWN: u64 = 0;
const INSTRUCTION_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;
const INSTRUCTION_LENGTH: u64 = 1 << 25;
/// Fault status: synchronous external abort, not in a table walk.
const EXTERNAL_ABORT: u64 = 0x10;
const WRITE: u64 = 1 << 6;

/// Raises a synchronous exception at EL1, as the CPU would at the trapped instruction.
fn raise(syndrome: u64) {
    let from = SPSR_EL2.get();
    let offset = match from & MODE {
        MODE_EL1H => 0x200,
        MODE_EL1T => 0x000,
        mode if mode & AARCH32 != 0 => 0x600,
        _ => 0x400,
    };
    ELR_EL1.set(ELR_EL2.get());
    SPSR_EL1.set(from);
    ESR_EL1.set(syndrome);
    // A CPU without PAN has no such bit in SCTLR, where it reads as one.
    let pan = if SCTLR_EL1.get() & SCTLR_SPAN == 0 {
        PAN
    } else {
        0
    };
    SPSR_EL2.set(from & KEPT | pan | MASKED | MODE_EL1H);
    ELR_EL2.set(VBAR_EL1.get() + offset);
}

/// An instruction that isn't there.
pub fn undefined() {
    raise(UNKNOWN << 26 | INSTRUCTION_LENGTH);
}

fn from_lower() -> bool {
    SPSR_EL2.get() & 0b1100 == 0 || SPSR_EL2.get() & AARCH32 != 0
}

/// The architecture's answer to a load, store or fetch at an address where nothing is: a synchronous
/// external abort.
pub fn external_abort(instruction: bool) {
    FAR_EL1.set(FAR_EL2.get());
    let class = if instruction {
        INSTRUCTION_ABORT
    } else {
        DATA_ABORT
    };
    // The class for an abort taken without a change of exception level is one higher.
    let class = class + u64::from(!from_lower());
    let write = if instruction {
        0
    } else {
        ESR_EL2.get() & WRITE
    };
    let length = ESR_EL2.get() & INSTRUCTION_LENGTH;
    raise(class << 26 | length | write | EXTERNAL_ABORT);
}
