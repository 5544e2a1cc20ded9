//! What the architecture does when EL1 takes a synchronous exception, for those that the hypervisor
//! raises in a guest. Arm ARM DDI 0487, D1.3 (exception entry) and D24.2 ESR_EL1.

const MODE: u64 = 0x1f;
const MODE_EL1H: u64 = 0b00101;
const MODE_EL1T: u64 = 0b00100;
const AARCH32: u64 = 1 << 4;
const FLAGS: u64 = 0xf << 28;
const DIT: u64 = 1 << 24;
const PAN: u64 = 1 << 22;
const SSBS: u64 = 1 << 12;
const INTERRUPTS_MASKED: u64 = 0xf << 6;
const SCTLR_SPAN: u64 = 1 << 23;
const SCTLR_DSSBS: u64 = 1 << 44;

const INSTRUCTION_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;
const INSTRUCTION_LENGTH: u64 = 1 << 25;
const WRITE: u64 = 1 << 6;
/// Fault status: synchronous external abort, not in a table walk.
const EXTERNAL_ABORT: u64 = 0x10;

/// Where EL1 goes on: PSTATE as SPSR_EL2 holds it, and the offset of the vector from VBAR_EL1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The new PSTATE.
    pub pstate: u64,
    /// Bytes from VBAR_EL1.
    pub vector: u64,
}

/// The entry for an exception taken with `pstate` and SCTLR_EL1 `control`.
pub const fn entry(pstate: u64, control: u64) -> Entry {
    let vector = match pstate & MODE {
        MODE_EL1H => 0x200,
        MODE_EL1T => 0x000,
        mode if mode & AARCH32 != 0 => 0x600,
        _ => 0x400,
    };
    // AArch32 keeps its DIT in another place, and has something else here.
    let dit = if pstate & AARCH32 == 0 {
        pstate & DIT
    } else {
        0
    };
    // Without FEAT_PAN and FEAT_SSBS these control bits are reserved as one and zero.
    let pan = if control & SCTLR_SPAN == 0 {
        PAN
    } else {
        pstate & PAN
    };
    let ssbs = if control & SCTLR_DSSBS != 0 { SSBS } else { 0 };
    Entry {
        pstate: pstate & FLAGS | dit | pan | ssbs | INTERRUPTS_MASKED | MODE_EL1H,
        vector,
    }
}

/// ESR_EL1 of an instruction that isn't there.
pub const fn undefined() -> u64 {
    INSTRUCTION_LENGTH
}

/// ESR_EL1 of a synchronous external abort on the access that trapped with ESR_EL2 `trapped` and
/// `pstate`.
pub const fn external_abort(trapped: u64, pstate: u64, instruction: bool) -> u64 {
    let from_el1 = matches!(pstate & MODE, MODE_EL1H | MODE_EL1T);
    let class = if instruction {
        INSTRUCTION_ABORT
    } else {
        DATA_ABORT
    };
    // The class for an abort taken without a change of exception level is one higher.
    let class = class + from_el1 as u64;
    let write = if instruction { 0 } else { trapped & WRITE };
    class << 26 | trapped & INSTRUCTION_LENGTH | write | EXTERNAL_ABORT
}

#[cfg(test)]
mod tests {
    use super::*;

    const EL0: u64 = 0;

    #[test]
    fn each_source_has_its_vector() {
        let vector = |pstate| entry(pstate, SCTLR_SPAN).vector;
        assert_eq!(vector(MODE_EL1T), 0x000);
        assert_eq!(vector(MODE_EL1H | FLAGS), 0x200);
        assert_eq!(vector(EL0), 0x400);
        assert_eq!(vector(AARCH32), 0x600);
    }

    #[test]
    fn the_new_state_is_masked_and_keeps_the_flags() {
        let new = entry(FLAGS | DIT | 1 << 21 | 1 << 20 | 3 << 10, SCTLR_SPAN).pstate;
        assert_eq!(new, FLAGS | DIT | INTERRUPTS_MASKED | MODE_EL1H);
        assert_eq!(entry(AARCH32 | DIT, SCTLR_SPAN).pstate & DIT, 0);
    }

    #[test]
    fn pan_and_ssbs_follow_sctlr() {
        assert_ne!(entry(EL0, 0).pstate & PAN, 0);
        assert_eq!(entry(EL0, SCTLR_SPAN).pstate & PAN, 0);
        assert_ne!(entry(MODE_EL1H | PAN, SCTLR_SPAN).pstate & PAN, 0);
        assert_ne!(entry(EL0, SCTLR_DSSBS).pstate & SSBS, 0);
        assert_eq!(entry(SSBS, 0).pstate & SSBS, 0);
    }

    #[test]
    fn an_abort_says_who_and_how() {
        let trapped = 0x24 << 26 | INSTRUCTION_LENGTH | 1 << 24 | WRITE | 7;
        assert_eq!(
            external_abort(trapped, EL0, false),
            0x24 << 26 | INSTRUCTION_LENGTH | WRITE | 0x10
        );
        assert_eq!(external_abort(trapped, MODE_EL1H, false) >> 26, 0x25);
        assert_eq!(
            external_abort(0x20 << 26, MODE_EL1T, true),
            0x21 << 26 | 0x10
        );
    }
}
