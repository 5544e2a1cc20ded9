//! Register offsets and bits of GICv2 (IHI 0048B) and GICv3 (IHI 0069), as far as they are used here.
//!
//! Numbers only: who may touch which is decided by the callers.

/// Distributor (GICD): the same offsets in GICv2 and GICv3.
pub(crate) mod gicd {
    pub(crate) const CTLR: u64 = 0x0000;
    pub(crate) const TYPER: u64 = 0x0004;
    pub(crate) const IIDR: u64 = 0x0008;
    pub(crate) const IGROUPR: u64 = 0x0080;
    pub(crate) const ISENABLER: u64 = 0x0100;
    pub(crate) const ICENABLER: u64 = 0x0180;
    pub(crate) const ISPENDR: u64 = 0x0200;
    pub(crate) const ICPENDR: u64 = 0x0280;
    pub(crate) const ISACTIVER: u64 = 0x0300;
    pub(crate) const ICACTIVER: u64 = 0x0380;
    pub(crate) const IPRIORITYR: u64 = 0x0400;
    pub(crate) const ITARGETSR: u64 = 0x0800;
    pub(crate) const ICFGR: u64 = 0x0c00;
    pub(crate) const IGRPMODR: u64 = 0x0d00;
    pub(crate) const NSACR: u64 = 0x0e00;
    pub(crate) const SGIR: u64 = 0x0f00;
    pub(crate) const CPENDSGIR: u64 = 0x0f10;
    pub(crate) const SPENDSGIR: u64 = 0x0f20;
    pub(crate) const IROUTER: u64 = 0x6000;
    /// Identification registers of GICv2 and GICv3; PIDR2 holds the architecture revision.
    pub(crate) const V2_PIDR2: u64 = 0x0fe8;
    pub(crate) const V3_PIDR2: u64 = 0xffe8;

    /// GICv2: forward pending interrupts.
    pub(crate) const CTLR_V2_ENABLE: u32 = 1;
    /// GICv3, Non-secure view or one security state: group 1 with affinity routing.
    pub(crate) const CTLR_ENABLE_GROUP1: u32 = 1 << 1;
    pub(crate) const CTLR_ARE: u32 = 1 << 4;
    pub(crate) const CTLR_RWP: u32 = 1 << 31;
    pub(crate) const TYPER_LPIS: u32 = 1 << 17;
    pub(crate) const TYPER_ID_BITS: u32 = 0x1f << 19;
    /// GICv3: bit 31 of IROUTER, "any participating CPU".
    pub(crate) const IROUTER_ANY: u64 = 1 << 31;
}

/// Redistributor (GICR): the control frame, then at 64 KiB the SGI frame.
pub(crate) mod gicr {
    pub(crate) const CTLR: u64 = 0x0000;
    pub(crate) const IIDR: u64 = 0x0004;
    pub(crate) const TYPER: u64 = 0x0008;
    pub(crate) const WAKER: u64 = 0x0014;
    pub(crate) const PROPBASER: u64 = 0x0070;
    pub(crate) const PIDR2: u64 = 0xffe8;
    /// The SGI frame repeats the distributor's layout for interrupts 0 to 31.
    pub(crate) const SGI_FRAME: u64 = 0x1_0000;
    /// Control frame and SGI frame; GICv4 adds two more frames.
    pub(crate) const STRIDE: u64 = 0x2_0000;
    pub(crate) const STRIDE_V4: u64 = 0x4_0000;

    pub(crate) const CTLR_ENABLE_LPIS: u32 = 1;
    pub(crate) const CTLR_RWP: u32 = 1 << 3;
    pub(crate) const TYPER_PLPIS: u64 = 1;
    pub(crate) const TYPER_VLPIS: u64 = 1 << 1;
    pub(crate) const TYPER_LAST: u64 = 1 << 4;
    pub(crate) const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    pub(crate) const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
}

/// Interrupt translation service (GITS), the control frame (IHI 0069, 12.18).
pub(crate) mod gits {
    pub(crate) const CTLR: u64 = 0x0000;
    pub(crate) const IIDR: u64 = 0x0004;
    pub(crate) const TYPER: u64 = 0x0008;
    pub(crate) const CBASER: u64 = 0x0080;
    pub(crate) const CWRITER: u64 = 0x0088;
    pub(crate) const CREADR: u64 = 0x0090;
    pub(crate) const BASER: u64 = 0x0100;
    pub(crate) const BASER_END: u64 = 0x013f;
    pub(crate) const PIDR2: u64 = 0xffe8;
    /// The control frame; the translation frame follows.
    pub(crate) const FRAME: u64 = 0x1_0000;

    pub(crate) const CTLR_ENABLED: u32 = 1;
    pub(crate) const CTLR_QUIESCENT: u32 = 1 << 31;
    /// RDbase is an address, not a processor number.
    pub(crate) const TYPER_PTA: u64 = 1 << 19;
    pub(crate) const VALID: u64 = 1 << 63;
    /// Bits 11:10 of CBASER and BASER: shareability, and its value "inner".
    pub(crate) const SHAREABILITY: u64 = 3 << 10;
    pub(crate) const INNER_SHAREABLE: u64 = 1 << 10;
    /// Normal inner cacheable, allocating and write-back.
    pub(crate) const WRITE_BACK: u64 = 7 << 59;
    pub(crate) const BASER_INDIRECT: u64 = 1 << 62;
    pub(crate) const CREADR_STALLED: u64 = 1;
}

/// CPU interface of GICv2 (GICC).
pub(crate) mod gicc {
    pub(crate) const CTLR: u64 = 0x0000;
    pub(crate) const PMR: u64 = 0x0004;
    pub(crate) const BPR: u64 = 0x0008;
    pub(crate) const IAR: u64 = 0x000c;
    pub(crate) const EOIR: u64 = 0x0010;
    pub(crate) const DIR: u64 = 0x1000;
    pub(crate) const CTLR_ENABLE: u32 = 1;
    /// EOIR drops the priority only; DIR deactivates.
    pub(crate) const CTLR_EOI_MODE: u32 = 1 << 9;
}

/// Virtual interface control of GICv2 (GICH); ICH_* of GICv3 has the same fields, wider.
pub(crate) mod gich {
    pub(crate) const HCR: u64 = 0x000;
    pub(crate) const VTR: u64 = 0x004;
    pub(crate) const VMCR: u64 = 0x008;
    pub(crate) const EISR: u64 = 0x020;
    pub(crate) const ELRSR: u64 = 0x030;
    pub(crate) const APR: u64 = 0x0f0;
    pub(crate) const LR: u64 = 0x100;
    pub(crate) const HCR_ENABLE: u64 = 1;
    /// Maintenance interrupt while at most one list register is valid.
    pub(crate) const HCR_UNDERFLOW: u64 = 1 << 1;
}

/// The system registers of a GICv3 CPU interface that EL2 uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CpuRegister {
    /// ICC_SRE_EL2: use system registers, let EL1 use them too.
    SreEl2,
    /// ICC_SRE_EL1, EL1's view.
    SreEl1,
    /// ICC_PMR_EL1, the priority mask.
    Pmr,
    /// ICC_BPR1_EL1, the binary point.
    Bpr1,
    /// ICC_CTLR_EL1; bit 1 is EOImode.
    Ctlr,
    /// ICC_IGRPEN1_EL1.
    Igrpen1,
    /// ICC_IAR1_EL1: reading acknowledges.
    Iar1,
    /// ICC_EOIR1_EL1: priority drop.
    Eoir1,
    /// ICC_DIR_EL1: deactivation.
    Dir,
    /// ICC_SGI1R_EL1: generates a software interrupt.
    Sgi1r,
    /// ICH_HCR_EL2.
    Hcr,
    /// ICH_VTR_EL2.
    Vtr,
    /// ICH_ELRSR_EL2: a bit for each list register that is free.
    Elrsr,
    /// ICH_VMCR_EL2.
    Vmcr,
    /// ICH_AP0R0_EL2.
    Ap0r0,
    /// ICH_AP1R0_EL2.
    Ap1r0,
    /// ICH_LR0_EL2 to ICH_LR15_EL2.
    Lr(u8),
}
