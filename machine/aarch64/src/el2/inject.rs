//! Exceptions that the hypervisor raises in the running guest.

use aarch64_cpu::registers::{
    ELR_EL1, ELR_EL2, ESR_EL1, ESR_EL2, FAR_EL1, FAR_EL2, Readable, SCTLR_EL1, SPSR_EL1, SPSR_EL2,
    VBAR_EL1, Writeable,
};

use crate::exception;

/// Has EL1 take a synchronous exception at the trapped instruction.
fn raise(syndrome: u64) {
    let pstate = SPSR_EL2.get();
    let entry = exception::entry(pstate, SCTLR_EL1.get());
    ELR_EL1.set(ELR_EL2.get());
    SPSR_EL1.set(pstate);
    ESR_EL1.set(syndrome);
    SPSR_EL2.set(entry.pstate);
    ELR_EL2.set(VBAR_EL1.get().wrapping_add(entry.vector));
}

/// An instruction that isn't there.
pub fn undefined() {
    raise(exception::undefined());
}

/// The architecture's answer to a load, store or fetch at an address where nothing is.
pub fn external_abort(instruction: bool) {
    FAR_EL1.set(FAR_EL2.get());
    raise(exception::external_abort(
        ESR_EL2.get(),
        SPSR_EL2.get(),
        instruction,
    ));
}
