//! What each CPU keeps for itself, and how it is set up to run a guest.

use alloc::boxed::Box;

use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTVOFF_EL2, CPTR_EL2, HCR_EL2, ID_AA64MMFR0_EL1, MDCR_EL2, MIDR_EL1, Readable,
    TPIDR_EL2, VMPIDR_EL2, VTCR_EL2, VTTBR_EL2, Writeable,
};
use hypervisor::Caller;

use super::machine::Arm;
use super::registers::{host_id_registers, read_register, write_register};
use super::vectors;
use crate::idregs::{IdRegisters, has_pointer_authentication};
use crate::stage2::Shape;

/// One CPU with the vCPU that is pinned to it. Made once, by the CPU itself, and never changed.
pub struct Cpu {
    /// The way into the core for its vCPU.
    pub caller: Caller<'static, Arm>,
    /// The vCPU's index in its domain.
    pub vcpu: usize,
    /// The ID registers as its guest sees them.
    pub ids: IdRegisters,
    /// ACTLR_EL1, implementation defined: the guest may look at it.
    pub auxiliary_control: u64,
}

/// HCR_EL2 while a guest runs: see the Arm ARM, D24.2 HCR_EL2.
mod hcr {
    /// Stage 2 is on.
    pub const VM: u64 = 1;
    /// DC ISW cleans as well, so that a guest's set/way operation loses nobody's data.
    pub const SWIO: u64 = 1 << 1;
    /// FIQ, IRQ and SError come to EL2, and virtual ones go to EL1.
    pub const FMO_IMO_AMO: u64 = 7 << 3;
    /// ID registers trap.
    pub const TID3: u64 = 1 << 18;
    /// SMC traps.
    pub const TSC: u64 = 1 << 19;
    /// Implementation defined registers trap.
    pub const TIDCP: u64 = 1 << 20;
    /// ACTLR_EL1 traps.
    pub const TACR: u64 = 1 << 21;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// LORegion registers trap: the feature is hidden.
    pub const TLOR: u64 = 1 << 35;
    /// RAS error records trap: the feature is hidden.
    pub const TERR: u64 = 1 << 36;
    /// Pointer authentication keys and instructions don't trap.
    pub const APK_API: u64 = 3 << 40;
}

/// SVE, SME, trace and activity monitors trap; FP and SIMD are the guest's.
const CPTR: u64 = 0x33ff | 1 << 20 | 1 << 30;
/// Debug, OS lock, debug ROM, PMU, profiling and trace filter registers trap.
const MDCR: u64 = 1 << 9 | 1 << 10 | 1 << 11 | 1 << 6 | 1 << 5 | 1 << 14 | 1 << 19;

/// This CPU's record. Only after [`start`] has run on it.
pub fn this() -> &'static Cpu {
    let record = TPIDR_EL2.get() as *const Cpu;
    // SAFETY: traps from guests are the only way here, and a guest runs only after `start` has put the
    // address of a leaked record into TPIDR_EL2; nothing else writes that register.
    unsafe { &*record }
}

/// This CPU's record, if [`start`] has run on it.
pub fn try_this() -> Option<&'static Cpu> {
    (TPIDR_EL2.get() != 0).then(this)
}

/// Sets this CPU up to run its vCPU.
pub fn start(caller: Caller<'static, Arm>) -> &'static Cpu {
    let host = host_id_registers();
    let cpu: &'static Cpu = Box::leak(Box::new(Cpu {
        caller,
        vcpu: caller.vcpu.index() as usize,
        ids: IdRegisters::new(&host, !caller.domain.machine().is_gicv2()),
        auxiliary_control: read_register!("actlr_el1"),
    }));
    TPIDR_EL2.set((&raw const *cpu) as u64);
    vectors::install();

    let mut control = hcr::VM
        | hcr::SWIO
        | hcr::FMO_IMO_AMO
        | hcr::TID3
        | hcr::TSC
        | hcr::TIDCP
        | hcr::TACR
        | hcr::RW
        | hcr::TLOR
        | hcr::TERR;
    if has_pointer_authentication(&host) {
        control |= hcr::APK_API;
    }
    HCR_EL2.set(control);
    CPTR_EL2.set(CPTR);
    let counters = if host[40] >> 8 & 0xf != 0 {
        // The guest has no PMU; EL2 reserves none of the counters either.
        read_register!("pmcr_el0") >> 11 & 0x1f
    } else {
        0
    };
    MDCR_EL2.set(MDCR | counters);
    write_register!("hstr_el2", 0);
    // The guest has both timers of EL1, and its counters are the machine's.
    CNTHCTL_EL2.set(3);
    CNTVOFF_EL2.set(0);
    write_register!("vpidr_el2", MIDR_EL1.get());
    VMPIDR_EL2.set(caller.vcpu.machine().affinity());
    let has_hcx = host[57] >> 40 & 0xf != 0;
    if has_hcx {
        // Whatever HCRX_EL2 could enable is hidden.
        write_register!("s3_4_c1_c2_2", 0);
    }
    let fine_grained = host[56] >> 56 & 0xf;
    if fine_grained != 0 {
        // HFGRTR, HFGWTR, HFGITR, HDFGRTR and HDFGWTR: no trap beyond those above; what their
        // inverted bits trap is hidden.
        write_register!("s3_4_c1_c1_4", 0);
        write_register!("s3_4_c1_c1_5", 0);
        write_register!("s3_4_c1_c1_6", 0);
        write_register!("s3_4_c3_c1_4", 0);
        write_register!("s3_4_c3_c1_5", 0);
    }
    VTCR_EL2.set(Shape::new(ID_AA64MMFR0_EL1.get()).vtcr());
    VTTBR_EL2.set(caller.domain.machine().vttbr());
    super::cache::complete();
    cpu
}
