//! The real registers: loads and stores at device addresses, and the system registers of the CPU interface.
//!
//! Nothing here decides anything; `Gic` and `VirtualGic` do.

use core::arch::asm;
use core::ptr;

use super::Registers;
use super::registers::CpuRegister;

/// The interrupt controller of the machine that this code runs on.
#[derive(Debug, Clone, Copy)]
pub struct Hardware(());

impl Hardware {
    /// Grants access to the machine's interrupt controller and, through `Registers`, to memory by machine address.
    ///
    /// # Safety
    /// Whatever is built on it must be given only addresses of the interrupt controller's register frames, and of
    /// memory that the reading domain owns; both must be identity-mapped at EL2, the frames as Device.
    #[must_use]
    pub unsafe fn new() -> Self {
        Self(())
    }
}

macro_rules! read_system {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: a read of a GIC system register at EL2 touches no memory; `Gic::init_cpu` enabled access to them.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
        value
    }};
}

macro_rules! write_system {
    ($name:literal, $value:expr) => {{
        // SAFETY: a write of a GIC system register at EL2 changes interrupt delivery only, which `Gic` and
        // `VirtualGic` keep consistent; `Gic::init_cpu` enabled access to them.
        unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) $value, options(nostack, preserves_flags)) }
    }};
}

macro_rules! read_list_register {
    ($index:expr; $($number:literal $name:literal),*) => {
        match $index { $($number => read_system!($name),)* _ => 0 }
    };
}

macro_rules! write_list_register {
    ($index:expr, $value:expr; $($number:literal $name:literal),*) => {
        match $index { $($number => write_system!($name, $value),)* _ => {} }
    };
}

macro_rules! memory {
    ($read:ident $write:ident $type:ty) => {
        #[inline]
        fn $read(&self, address: u64) -> $type {
            let pointer = ptr::with_exposed_provenance::<$type>(address as usize);
            // SAFETY: `Hardware::new`'s caller promised that only identity-mapped register frames and owned memory
            // are named; the callers of `Registers` pass aligned addresses.
            unsafe { ptr::read_volatile(pointer) }
        }

        #[inline]
        fn $write(&self, address: u64, value: $type) {
            let pointer = ptr::with_exposed_provenance_mut::<$type>(address as usize);
            // SAFETY: as for reading; no Rust object lives at these addresses.
            unsafe { ptr::write_volatile(pointer, value) }
        }
    };
}

impl Registers for Hardware {
    memory!(read8 write8 u8);
    memory!(read32 write32 u32);
    memory!(read64 write64 u64);

    #[inline]
    fn cpu_register(&self, register: CpuRegister) -> u64 {
        match register {
            CpuRegister::SreEl2 => read_system!("ICC_SRE_EL2"),
            CpuRegister::SreEl1 => read_system!("ICC_SRE_EL1"),
            CpuRegister::Pmr => read_system!("ICC_PMR_EL1"),
            CpuRegister::Bpr1 => read_system!("ICC_BPR1_EL1"),
            CpuRegister::Ctlr => read_system!("ICC_CTLR_EL1"),
            CpuRegister::Igrpen1 => read_system!("ICC_IGRPEN1_EL1"),
            CpuRegister::Iar1 => read_system!("ICC_IAR1_EL1"),
            CpuRegister::Hcr => read_system!("ICH_HCR_EL2"),
            CpuRegister::Vtr => read_system!("ICH_VTR_EL2"),
            CpuRegister::Elrsr => read_system!("ICH_ELRSR_EL2"),
            CpuRegister::Vmcr => read_system!("ICH_VMCR_EL2"),
            CpuRegister::Ap0r0 => read_system!("ICH_AP0R0_EL2"),
            CpuRegister::Ap1r0 => read_system!("ICH_AP1R0_EL2"),
            CpuRegister::Lr(index) => read_list_register!(index;
                0 "ICH_LR0_EL2", 1 "ICH_LR1_EL2", 2 "ICH_LR2_EL2", 3 "ICH_LR3_EL2",
                4 "ICH_LR4_EL2", 5 "ICH_LR5_EL2", 6 "ICH_LR6_EL2", 7 "ICH_LR7_EL2",
                8 "ICH_LR8_EL2", 9 "ICH_LR9_EL2", 10 "ICH_LR10_EL2", 11 "ICH_LR11_EL2",
                12 "ICH_LR12_EL2", 13 "ICH_LR13_EL2", 14 "ICH_LR14_EL2", 15 "ICH_LR15_EL2"),
            // Write-only registers.
            CpuRegister::Eoir1 | CpuRegister::Dir | CpuRegister::Sgi1r => 0,
        }
    }

    #[inline]
    fn set_cpu_register(&self, register: CpuRegister, value: u64) {
        match register {
            CpuRegister::SreEl2 => write_system!("ICC_SRE_EL2", value),
            CpuRegister::SreEl1 => write_system!("ICC_SRE_EL1", value),
            CpuRegister::Pmr => write_system!("ICC_PMR_EL1", value),
            CpuRegister::Bpr1 => write_system!("ICC_BPR1_EL1", value),
            CpuRegister::Ctlr => write_system!("ICC_CTLR_EL1", value),
            CpuRegister::Igrpen1 => write_system!("ICC_IGRPEN1_EL1", value),
            CpuRegister::Eoir1 => write_system!("ICC_EOIR1_EL1", value),
            CpuRegister::Dir => write_system!("ICC_DIR_EL1", value),
            CpuRegister::Sgi1r => write_system!("ICC_SGI1R_EL1", value),
            CpuRegister::Hcr => write_system!("ICH_HCR_EL2", value),
            CpuRegister::Vmcr => write_system!("ICH_VMCR_EL2", value),
            CpuRegister::Ap0r0 => write_system!("ICH_AP0R0_EL2", value),
            CpuRegister::Ap1r0 => write_system!("ICH_AP1R0_EL2", value),
            CpuRegister::Lr(index) => write_list_register!(index, value;
                0 "ICH_LR0_EL2", 1 "ICH_LR1_EL2", 2 "ICH_LR2_EL2", 3 "ICH_LR3_EL2",
                4 "ICH_LR4_EL2", 5 "ICH_LR5_EL2", 6 "ICH_LR6_EL2", 7 "ICH_LR7_EL2",
                8 "ICH_LR8_EL2", 9 "ICH_LR9_EL2", 10 "ICH_LR10_EL2", 11 "ICH_LR11_EL2",
                12 "ICH_LR12_EL2", 13 "ICH_LR13_EL2", 14 "ICH_LR14_EL2", 15 "ICH_LR15_EL2"),
            // Read-only registers.
            CpuRegister::Iar1 | CpuRegister::Vtr | CpuRegister::Elrsr => {}
        }
    }

    #[inline]
    fn synchronize(&self) {
        // SAFETY: barriers have no operands and touch no memory of their own.
        unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) }
    }

    fn clean(&self, address: u64) {
        // SAFETY: cleaning a line changes no memory contents that this CPU can see.
        unsafe { asm!("dc cvac, {}", in(reg) address, options(nostack, preserves_flags)) }
    }
}
