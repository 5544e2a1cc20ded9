//! Which trapped system registers a guest may use, and what it gets.

use crate::esr::{SystemAccess, SystemRegister};

const ICC_SGI1R: SystemRegister = SystemRegister::new(3, 0, 12, 11, 5);
const ICC_ASGI1R: SystemRegister = SystemRegister::new(3, 0, 12, 11, 6);
const ICC_SGI0R: SystemRegister = SystemRegister::new(3, 0, 12, 11, 7);
const ACTLR: SystemRegister = SystemRegister::new(3, 0, 1, 0, 1);
const OSLSR: SystemRegister = SystemRegister::new(2, 0, 1, 1, 4);

/// OSLSR_EL1 of a CPU whose OS lock is there and open (OSLM).
const OSLSR_OPEN: u64 = 1 << 3;

/// What is done for a trapped access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A read gives this value, a write is ignored.
    Constant(u64),
    /// A read gives the CPU's own ACTLR_EL1, a write is ignored.
    AuxiliaryControl,
    /// A write sends software interrupts of group 1.
    SendInterrupts,
    /// For this guest the register isn't there.
    Undefined,
}

/// Chooses the answer for a register that is not an ID register.
///
/// Debug registers (op0 2, but not the trace unit's op1 1) read as zero and ignore writes, as under Xen:
/// breakpoints are the machine's. Whatever else traps belongs to a feature that the ID registers hide
/// (PMU, trace, SVE, SME, activity monitors, RAS records, LORegions), or is implementation defined.
pub fn answer(access: SystemAccess) -> Answer {
    match access.register {
        ICC_SGI1R if !access.read => Answer::SendInterrupts,
        // Interrupts of group 0 and of the other security state: no guest has any.
        ICC_ASGI1R | ICC_SGI0R if !access.read => Answer::Constant(0),
        ACTLR => Answer::AuxiliaryControl,
        OSLSR => Answer::Constant(OSLSR_OPEN),
        register if register.op0() == 2 && register.op1() != 1 => Answer::Constant(0),
        _ => Answer::Undefined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(register: SystemRegister) -> Answer {
        answer(SystemAccess {
            register,
            general: 0,
            read: true,
        })
    }

    fn write(register: SystemRegister) -> Answer {
        answer(SystemAccess {
            register,
            general: 0,
            read: false,
        })
    }

    #[test]
    fn software_interrupts_are_written_only() {
        assert_eq!(write(ICC_SGI1R), Answer::SendInterrupts);
        assert_eq!(read(ICC_SGI1R), Answer::Undefined);
        assert_eq!(write(ICC_SGI0R), Answer::Constant(0));
    }

    #[test]
    fn debug_is_there_and_empty_but_trace_is_not() {
        // DBGBVR3_EL1, MDSCR_EL1, OSDLR_EL1; TRCPRGCTLR.
        assert_eq!(
            read(SystemRegister::new(2, 0, 0, 3, 4)),
            Answer::Constant(0)
        );
        assert_eq!(
            write(SystemRegister::new(2, 0, 0, 2, 2)),
            Answer::Constant(0)
        );
        assert_eq!(
            write(SystemRegister::new(2, 0, 1, 3, 4)),
            Answer::Constant(0)
        );
        assert_eq!(read(OSLSR), Answer::Constant(8));
        assert_eq!(read(SystemRegister::new(2, 1, 0, 1, 0)), Answer::Undefined);
    }

    #[test]
    fn hidden_features_have_no_registers() {
        for register in [
            SystemRegister::new(3, 3, 9, 12, 0), // PMCR_EL0
            SystemRegister::new(3, 0, 1, 2, 0),  // ZCR_EL1
            SystemRegister::new(3, 0, 5, 3, 0),  // ERRIDR_EL1
            SystemRegister::new(3, 0, 10, 4, 7), // LORID_EL1
            SystemRegister::new(3, 3, 13, 2, 0), // AMCR_EL0
            SystemRegister::new(3, 1, 15, 2, 1), // implementation defined
        ] {
            assert_eq!(read(register), Answer::Undefined);
            assert_eq!(write(register), Answer::Undefined);
        }
    }
}
