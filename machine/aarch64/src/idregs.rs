//! What the ID registers say to a guest: an allow-list.
//!
//! A feature is shown if it needs nothing of EL2, or if EL2 leaves it enabled (pointer
//! authentication). Whatever is not listed reads as "not there", so a feature of a later CPU stays
//! hidden until somebody has looked at what it needs. Arm ARM DDI 0487, D24.2 ID_*.

/// One field of an ID register that a guest sees.
#[derive(Clone, Copy)]
struct Field {
    register: usize,
    low: u8,
    width: u8,
    rule: Rule,
}

/// What a guest sees of a field.
#[derive(Clone, Copy)]
enum Rule {
    /// What the CPU has.
    Show,
    /// What the CPU has, but not more than this.
    AtMost(u64),
    /// Always this.
    Fixed(u64),
}

use Rule::{AtMost, Fixed, Show};

const fn field(register: usize, low: u8, rule: Rule) -> Field {
    Field {
        register,
        low,
        width: 4,
        rule,
    }
}

/// Places in the table of 64: CRm * 8 + op2.
const fn place(crm: usize, op2: usize) -> usize {
    crm * 8 + op2
}

const PFR0_32: usize = place(1, 0);
const PFR1_32: usize = place(1, 1);
const DFR0_32: usize = place(1, 2);
const PFR2_32: usize = place(3, 4);
const PFR0: usize = place(4, 0);
const PFR1: usize = place(4, 1);
const DFR0: usize = place(5, 0);
const ISAR0: usize = place(6, 0);
const ISAR1: usize = place(6, 1);
const ISAR2: usize = place(6, 2);
const MMFR0: usize = place(7, 0);
const MMFR1: usize = place(7, 1);
const MMFR2: usize = place(7, 2);

/// Registers that describe AArch32 at EL0 and are shown whole: memory model, instruction sets, and
/// media and VFP features need nothing of EL2.
const WHOLE: [usize; 18] = [
    place(1, 4), // ID_MMFR0
    place(1, 5),
    place(1, 6),
    place(1, 7), // ID_MMFR3
    place(2, 0), // ID_ISAR0
    place(2, 1),
    place(2, 2),
    place(2, 3),
    place(2, 4),
    place(2, 5), // ID_ISAR5
    place(2, 6), // ID_MMFR4
    place(2, 7), // ID_ISAR6
    place(3, 0), // MVFR0
    place(3, 1),
    place(3, 2), // MVFR2
    place(3, 6), // ID_MMFR5
    PFR1_32,
    PFR2_32,
];

/// Everything else that is shown, field by field.
const FIELDS: &[Field] = &[
    // AArch32 instruction sets; not RAS, AMU.
    field(PFR0_32, 0, Show),
    field(PFR0_32, 4, Show),
    field(PFR0_32, 8, Show),
    field(PFR0_32, 12, Show),
    field(PFR0_32, 16, Show), // CSV2
    field(PFR0_32, 24, Show), // DIT
    // v8 debug; no PMU, no trace.
    field(DFR0_32, 0, AtMost(6)),
    field(PFR0, 0, Show),       // EL0, with AArch32 if the CPU has it
    field(PFR0, 4, Fixed(1)),   // EL1: AArch64 only, as HCR_EL2.RW says
    field(PFR0, 16, Show),      // FP
    field(PFR0, 20, Show),      // AdvSIMD
    field(PFR0, 24, Show),      // GIC system registers; cleared for a GICv2 domain
    field(PFR0, 48, Show),      // DIT
    field(PFR0, 56, AtMost(1)), // CSV2: 2 and more have SCXTNUM, which HCR_EL2.EnSCXT traps
    field(PFR0, 60, Show),      // CSV3
    field(PFR1, 0, Show),       // BTI
    field(PFR1, 4, Show),       // SSBS
    // Debug registers read as zero and ignore writes, so the fewest of them; no PMU, trace,
    // profiling, branch record.
    field(DFR0, 0, Fixed(6)),    // Armv8 debug
    field(DFR0, 12, Fixed(1)),   // two breakpoints
    field(DFR0, 20, Fixed(1)),   // two watchpoints
    field(DFR0, 36, Fixed(0xf)), // no OS double lock
    field(ISAR0, 4, Show),       // AES
    field(ISAR0, 8, Show),       // SHA1
    field(ISAR0, 12, Show),      // SHA2
    field(ISAR0, 16, Show),      // CRC32
    field(ISAR0, 20, Show),      // LSE atomics
    field(ISAR0, 28, Show),      // RDM
    field(ISAR0, 32, Show),      // SHA3
    field(ISAR0, 36, Show),      // SM3
    field(ISAR0, 40, Show),      // SM4
    field(ISAR0, 44, Show),      // dot product
    field(ISAR0, 48, Show),      // FHM
    field(ISAR0, 52, Show),      // flag manipulation
    field(ISAR0, 56, Show),      // TLB range and outer-shareable maintenance
    field(ISAR0, 60, Show),      // RNDR
    field(ISAR1, 0, Show),       // DC CVAP
    field(ISAR1, 4, Show),       // APA  ┐
    field(ISAR1, 8, Show),       // API  │ pointer authentication: HCR_EL2.API and APK are set
    field(ISAR1, 24, Show),      // GPA  │
    field(ISAR1, 28, Show),      // GPI  ┘
    field(ISAR1, 12, Show),      // JSCVT
    field(ISAR1, 16, Show),      // FCMA
    field(ISAR1, 20, Show),      // LRCPC
    field(ISAR1, 32, Show),      // FRINT
    field(ISAR1, 36, Show),      // SB
    field(ISAR1, 40, AtMost(1)), // SPECRES
    field(ISAR1, 44, Show),      // BF16
    field(ISAR1, 48, Show),      // DGH
    field(ISAR1, 52, Show),      // I8MM
    field(ISAR2, 0, Show),       // WFET, WFIT: waits are not trapped
    field(ISAR2, 4, Show),       // RPRES
    field(ISAR2, 8, Show),       // GPA3: pointer authentication as above
    field(ISAR2, 12, Show),      // APA3
    field(ISAR2, 20, Show),      // BC
    field(ISAR2, 24, Show),      // PAC_frac
    field(ISAR2, 28, Show),      // CLRBHB
    field(ISAR2, 48, Show),      // RPRFM
    field(ISAR2, 52, Show),      // CSSC
    field(MMFR0, 0, AtMost(5)),  // PARange: stage 2 takes 48 bits at most
    field(MMFR0, 4, Show),       // ASID size
    field(MMFR0, 8, Show),       // BigEnd
    field(MMFR0, 12, Show),      // SNSMem
    field(MMFR0, 16, Show),      // BigEndEL0
    field(MMFR0, 20, Show),      // 16 KiB granule
    field(MMFR0, 24, Show),      // 64 KiB granule
    field(MMFR0, 28, AtMost(0)), // 4 KiB granule, without 52-bit addresses; 0xf would be none
    field(MMFR1, 0, AtMost(2)),  // hardware access flag and dirty state
    field(MMFR1, 12, Show),      // HPDS
    field(MMFR1, 20, Show),      // PAN
    field(MMFR1, 36, Show),      // ETS
    field(MMFR1, 44, Show),      // AFP
    field(MMFR1, 48, Show),      // nTLBPA
    field(MMFR1, 60, Show),      // ECBHB
    field(MMFR2, 0, Show),       // CnP
    field(MMFR2, 4, Show),       // UAO
    field(MMFR2, 8, Show),       // LSM
    field(MMFR2, 16, AtMost(1)), // VARange
    field(MMFR2, 20, Show),      // CCIDX
    field(MMFR2, 28, Show),      // ST
    field(MMFR2, 32, Show),      // AT
    field(MMFR2, 36, Show),      // IDS
    field(MMFR2, 48, Show),      // TTL
    field(MMFR2, 52, Show),      // BBM
    field(MMFR2, 60, Show),      // E0PD
];

/// The ID registers as a guest reads them, by CRm * 8 + op2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdRegisters([u64; 64]);

impl IdRegisters {
    /// Makes the guest's view of a CPU whose own registers are `host`, in the same order.
    /// `gic_registers` tells whether the guest's interrupt controller is a GICv3.
    pub fn new(host: &[u64; 64], gic_registers: bool) -> Self {
        let mut guest = [0u64; 64];
        for register in WHOLE {
            guest[register] = host[register];
        }
        for field in FIELDS {
            let mask = (1u64 << field.width) - 1;
            let has = host[field.register] >> field.low & mask;
            let shown = match field.rule {
                Show => has,
                AtMost(most) => has.min(most),
                Fixed(value) => value,
            };
            guest[field.register] |= shown << field.low;
        }
        if !gic_registers {
            guest[PFR0] &= !(0xf << 24);
            guest[PFR1_32] &= !(0xf << 28);
        }
        Self(guest)
    }

    /// The register at a place below 64.
    #[inline]
    pub fn get(&self, place: usize) -> u64 {
        self.0[place & 63]
    }
}

/// Whether a CPU has pointer authentication of any kind, so that HCR_EL2.API and APK exist.
pub fn has_pointer_authentication(host: &[u64; 64]) -> bool {
    host[ISAR1] & 0xff00_0ff0 != 0 || host[ISAR2] & 0xff00 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_line_lists_is_hidden() {
        let all = IdRegisters::new(&[u64::MAX; 64], true);
        // SVE, RAS, AMU, MPAM, RME, EL2 and EL3.
        assert_eq!(
            all.get(PFR0) & 0x00f0_ffff_f000_ff00 & !(0xf << 24 | 0xff << 16 | 0xf << 48),
            0
        );
        assert_eq!(all.get(PFR1), 0xff);
        assert_eq!(all.get(place(4, 2)), 0);
        assert_eq!(all.get(DFR0), 0x0000_00f0_0010_1006);
        assert_eq!(all.get(ISAR2) >> 16 & 0xf, 0, "MOPS");
        assert_eq!(all.get(ISAR1) >> 60, 0, "LS64");
        assert_eq!(all.get(MMFR0) & 0xf, 5);
        assert_eq!(all.get(MMFR1) >> 8 & 0xf, 0, "VHE");
        assert_eq!(all.get(MMFR1) >> 40 & 0xf, 0, "HCX");
        assert_eq!(all.get(place(7, 3)), 0);
    }

    #[test]
    fn a_gicv2_domain_sees_no_system_register_interface() {
        let mut host = [0; 64];
        host[PFR0] = 0x0100_0022;
        assert_eq!(IdRegisters::new(&host, true).get(PFR0), 0x0100_0012);
        assert_eq!(IdRegisters::new(&host, false).get(PFR0), 0x0000_0012);
    }

    #[test]
    fn pointer_authentication_of_any_algorithm_is_seen() {
        let mut host = [0; 64];
        assert!(!has_pointer_authentication(&host));
        host[ISAR2] = 5 << 12;
        assert!(has_pointer_authentication(&host));
        host[ISAR2] = 0;
        host[ISAR1] = 1 << 28;
        assert!(has_pointer_authentication(&host));
    }
}
