//! Stage 1 of EL2 (E2H = 0): attribute bits and register values of the hypervisor's own map.
//! Arm ARM DDI 0487, D8.3 (descriptors), D24.2 TCR_EL2, MAIR_EL2, SCTLR_EL2.

use machine_paging::Regime;

use crate::descriptor::Vmsa;

/// How the hypervisor sees a range of machine addresses. Nothing is both writable and executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its own instructions.
    Code,
    /// Its own constants.
    Constants,
    /// RAM, its own and that of domains.
    Ram,
    /// Registers of a device: Device-nGnRnE.
    Device,
}

const ACCESS_FLAG: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
const READ_ONLY: u64 = 1 << 7;
/// AP[1] is reserved as one where EL2 has no EL0.
const RES1: u64 = 1 << 6;
const EXECUTE_NEVER: u64 = 1 << 54;
/// Index of normal memory in [`MAIR`]; device memory is index 0.
const NORMAL: u64 = 1 << 2;

/// MAIR_EL2: attribute 0 is Device-nGnRnE, attribute 1 normal write-back memory.
pub const MAIR: u64 = 0xff << 8;

impl Kind {
    /// The attribute bits of a stage 1 entry at EL2.
    pub const fn attributes(self) -> u64 {
        const MEMORY: u64 = ACCESS_FLAG | INNER_SHAREABLE | RES1 | NORMAL;
        match self {
            Self::Code => MEMORY | READ_ONLY,
            Self::Constants => MEMORY | READ_ONLY | EXECUTE_NEVER,
            Self::Ram => MEMORY | EXECUTE_NEVER,
            Self::Device => ACCESS_FLAG | RES1 | EXECUTE_NEVER,
        }
    }
}

const INPUT_BITS: u8 = 48;

/// EL2's regime, whose root lies at `root`: input addresses of 48 bits, walked from level 0.
pub const fn regime(root: u64) -> Regime<Vmsa> {
    Regime::new(Vmsa, root, INPUT_BITS, 0)
}

/// TCR_EL2 for a value of ID_AA64MMFR0_EL1: 4 KiB granule, write-back inner-shareable walks.
pub const fn tcr(mmfr0: u64) -> u64 {
    const RES1: u64 = 1 << 31 | 1 << 23;
    const WALKS_WRITE_BACK_INNER: u64 = 1 << 8 | 1 << 10 | 3 << 12;
    let parange = mmfr0 & 0xf;
    // 6 and 7 (52 and 56 bits) are reserved with descriptors of 48 bits.
    let size = if parange > 5 { 5 } else { parange };
    RES1 | size << 16 | WALKS_WRITE_BACK_INNER | (64 - INPUT_BITS as u64)
}

/// SCTLR_EL2 with the MMU and caches on, stack alignment checked, writable memory never executed.
pub const SCTLR: u64 = {
    const RES1: u64 = 0x30c5_0830;
    const MMU: u64 = 1;
    const DATA_CACHE: u64 = 1 << 2;
    const STACK_ALIGNMENT: u64 = 1 << 3;
    const INSTRUCTION_CACHE: u64 = 1 << 12;
    const WRITE_IMPLIES_XN: u64 = 1 << 19;
    RES1 | MMU | DATA_CACHE | STACK_ALIGNMENT | INSTRUCTION_CACHE | WRITE_IMPLIES_XN
};

/// SCTLR_EL2 with everything off: the state in which the image is entered.
pub const SCTLR_OFF: u64 = 0x30c5_0830;
