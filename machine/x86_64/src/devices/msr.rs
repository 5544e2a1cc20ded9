//! Which model-specific registers a domain reaches.
//!
//! An allow-list: whatever isn't named here raises #GP, reads and writes alike, as on a CPU that doesn't have it.
//! The machine crate makes SVM's permission map of the [`Access::Pass`] entries and asks [`rule`] at an exit.
//!
//! Numbers: AMD APM vol. 2, appendix A; Intel SDM vol. 4; Xen's from `arch-x86/cpuid.h` and `arch-x86/hvm`.

/// What happens to an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The hardware does it, with the guest's own register: no exit.
    Pass,
    /// It exits.
    Model(Model),
    /// Reads give this value; writes are dropped.
    Fixed(u64),
    /// #GP(0).
    Fault,
}

/// Who answers an access that exits: a model here, or the vCPU's own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// [`super::lapic::LocalApic::base`] and `set_base`.
    ApicBase,
    /// The x2APIC's registers.
    X2Apic,
    /// `tsc_deadline` and `set_tsc_deadline`.
    TscDeadline,
    /// The guest's EFER: SVME is set in hardware and reads as clear to the guest, which may set [`EFER_WRITABLE`].
    Efer,
    /// The guest's page-attribute table, in the VMCB.
    Pat,
    /// Where Xen's hypercall page is to be written.
    HypercallPage,
    /// The hardware's value (zero if the CPU lacks the register), writes dropped: the guest may know it and not change it.
    ReadOnly,
}

/// A range of registers, and what becomes of accesses.
#[derive(Debug, Clone, Copy)]
struct Entry {
    first: u32,
    last: u32,
    access: Access,
    /// Why.
    reason: &'static str,
}

const fn entry(first: u32, last: u32, access: Access, reason: &'static str) -> Entry {
    Entry {
        first,
        last,
        access,
        reason,
    }
}

/// Xen's hypercall page register; CPUID leaf 0x40000002 names it.
pub const MSR_HYPERCALL_PAGE: u32 = 0x4000_0000;
/// EFER.
pub const MSR_EFER: u32 = 0xc000_0080;
/// The EFER bits that a guest may set, as far as CPUID has them: SCE, LME, NXE, FFXSR, TCE. LMA is the CPU's, SVME the
/// hypervisor's.
pub const EFER_WRITABLE: u64 = 1 << 0 | 1 << 8 | 1 << 11 | 1 << 14 | 1 << 15;

/// In ascending order, without overlap.
const TABLE: &[Entry] = &[
    entry(
        0x10,
        0x10,
        Access::Model(Model::ReadOnly),
        "TSC: the guest's is the host's, and moving it would move every other domain's",
    ),
    entry(0x1b, 0x1b, Access::Model(Model::ApicBase), "IA32_APIC_BASE"),
    entry(
        0x48,
        0x48,
        Access::Pass,
        "SPEC_CTRL: a CPU has one domain; the hypervisor runs with the guest's; only where CPUID has it",
    ),
    entry(
        0x49,
        0x49,
        Access::Pass,
        "PRED_CMD: a barrier for the CPU's own predictors; only where CPUID has it",
    ),
    entry(
        0x8b,
        0x8b,
        Access::Model(Model::ReadOnly),
        "patch level: Linux reads it; loading microcode is the hypervisor's",
    ),
    entry(
        0xfe,
        0xfe,
        Access::Fixed(0x400),
        "MTRRcap: no ranges, so that there is nothing to set; without the MTRRs Linux gives up the PAT",
    ),
    entry(
        0x174,
        0x176,
        Access::Pass,
        "SYSENTER: the hypervisor doesn't use it, and a CPU has one domain",
    ),
    entry(
        0x179,
        0x179,
        Access::Fixed(0),
        "MCG_CAP: no machine-check banks",
    ),
    entry(0x17a, 0x17a, Access::Fixed(0), "MCG_STATUS: with the above"),
    entry(
        0x1d9,
        0x1d9,
        Access::Fixed(0),
        "DebugCtl: last-branch records are hidden",
    ),
    entry(0x277, 0x277, Access::Model(Model::Pat), "PAT"),
    entry(
        0x2ff,
        0x2ff,
        Access::Fixed(0x806),
        "MTRRdefType: on, all memory write-back; nested paging leaves types to the PAT and the host",
    ),
    entry(
        0x6e0,
        0x6e0,
        Access::Model(Model::TscDeadline),
        "IA32_TSC_DEADLINE",
    ),
    entry(
        super::lapic::MSR_X2APIC_FIRST,
        super::lapic::MSR_X2APIC_LAST,
        Access::Model(Model::X2Apic),
        "x2APIC",
    ),
    entry(
        MSR_HYPERCALL_PAGE,
        MSR_HYPERCALL_PAGE,
        Access::Model(Model::HypercallPage),
        "Xen's hypercall page",
    ),
    entry(
        MSR_EFER,
        MSR_EFER,
        Access::Model(Model::Efer),
        "EFER: SVME must stay set, and the guest must not see it",
    ),
    entry(
        0xc000_0081,
        0xc000_0084,
        Access::Pass,
        "STAR, LSTAR, CSTAR, SFMASK: likewise",
    ),
    entry(
        0xc000_0100,
        0xc000_0102,
        Access::Pass,
        "FS.Base, GS.Base, KernelGSBase: likewise",
    ),
    entry(
        0xc000_0103,
        0xc000_0103,
        Access::Pass,
        "TSC_AUX: the hypervisor doesn't use it, and a CPU has one domain",
    ),
    entry(
        0xc001_0010,
        0xc001_0010,
        Access::Model(Model::ReadOnly),
        "SYSCFG: Linux reads whether memory is encrypted",
    ),
    entry(
        0xc001_0015,
        0xc001_0015,
        Access::Model(Model::ReadOnly),
        "HWCR: Linux reads whether the TSC counts at P0",
    ),
    entry(
        0xc001_001a,
        0xc001_001a,
        Access::Model(Model::ReadOnly),
        "TOP_MEM: Linux compares memory types and host bridges with it",
    ),
    entry(
        0xc001_001d,
        0xc001_001d,
        Access::Model(Model::ReadOnly),
        "TOM2, likewise",
    ),
    entry(
        0xc001_001f,
        0xc001_001f,
        Access::Model(Model::ReadOnly),
        "northbridge configuration: Linux asks for extended configuration cycles",
    ),
    entry(
        0xc001_0055,
        0xc001_0055,
        Access::Fixed(0),
        "interrupt pending messages: no C1E",
    ),
    entry(
        0xc001_0061,
        0xc001_0063,
        Access::Model(Model::ReadOnly),
        "P-state limit, control, status: the machine's, not a domain's",
    ),
    entry(
        0xc001_0064,
        0xc001_006b,
        Access::Model(Model::ReadOnly),
        "P-state definitions: Linux computes the TSC's frequency from P0",
    ),
    entry(
        0xc001_1020,
        0xc001_1029,
        Access::Model(Model::ReadOnly),
        "LS_CFG to DE_CFG: workarounds that firmware or the hypervisor applies",
    ),
];

fn find(msr: u32) -> Option<&'static Entry> {
    let after = TABLE.partition_point(|entry| entry.first <= msr);
    let entry = TABLE.get(after.checked_sub(1)?)?;
    (msr <= entry.last).then_some(entry)
}

/// What becomes of RDMSR and WRMSR of that register.
#[must_use]
pub fn rule(msr: u32) -> Access {
    find(msr).map_or(Access::Fault, |entry| entry.access)
}

/// Why a register is treated as it is; `None` for one that isn't in the list.
#[must_use]
pub fn reason(msr: u32) -> Option<&'static str> {
    find(msr).map(|entry| entry.reason)
}

/// The registers that hardware accesses for the guest, as ranges with both ends in them: for the permission map.
pub fn passed() -> impl Iterator<Item = (u32, u32)> {
    TABLE
        .iter()
        .filter(|entry| entry.access == Access::Pass)
        .map(|entry| (entry.first, entry.last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_overlap() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].last < pair[1].first, "{:#x}", pair[1].first);
        }
        assert!(TABLE.iter().all(|entry| entry.first <= entry.last));
        assert!(TABLE.iter().all(|entry| !entry.reason.is_empty()));
    }

    #[test]
    fn a_register_that_nobody_named_faults() {
        for msr in [
            0,
            0x11,
            0x1a0,
            0x7ff,
            0x900,
            0x4000_0001,
            0xc000_0104,
            u32::MAX,
        ] {
            assert_eq!(rule(msr), Access::Fault, "{msr:#x}");
            assert_eq!(reason(msr), None);
        }
    }

    #[test]
    fn what_is_the_hypervisors_never_passes() {
        // EFER, PAT, APIC base, x2APIC, VM_CR, VM_HSAVE_PA, SMM's, SYSCFG, TSC.
        let kept = [
            0xc000_0080,
            0x277,
            0x1b,
            0x830,
            0xc001_0114,
            0xc001_0117,
            0xc001_0112,
            0xc001_0010,
            0x10,
        ];
        for msr in kept {
            assert_ne!(rule(msr), Access::Pass, "{msr:#x}");
            assert!(!passed().any(|(first, last)| (first..=last).contains(&msr)));
        }
        assert_eq!(rule(0xc001_0117), Access::Fault);
        assert_eq!(EFER_WRITABLE & (1 << 12 | 1 << 10), 0, "SVME, LMA");
    }

    #[test]
    fn what_passes_lies_in_the_permission_map() {
        // AMD APM vol. 2, 15.11: the three ranges that the map has.
        for (first, last) in passed() {
            assert!([0, 0xc000_0000, 0xc001_0000].iter().any(|base| {
                (*base..*base + 0x2000).contains(&first) && (*base..*base + 0x2000).contains(&last)
            }));
        }
    }
}
