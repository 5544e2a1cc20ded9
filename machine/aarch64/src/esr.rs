//! Exception syndromes: what ESR_EL2 says of a trap. Arm ARM DDI 0487, D24.2 ESR_EL2.

/// Exception classes (ESR_EL2.EC) of traps from a guest that have a handler.
pub mod class {
    /// HVC from AArch64.
    pub const HVC64: u64 = 0x16;
    /// SMC from AArch64.
    pub const SMC64: u64 = 0x17;
    /// MSR, MRS or a system instruction.
    pub const SYSTEM: u64 = 0x18;
    /// Instruction abort from EL1 or EL0.
    pub const INSTRUCTION_ABORT: u64 = 0x20;
    /// Data abort from EL1 or EL0.
    pub const DATA_ABORT: u64 = 0x24;
}

/// The value of ESR_EL2 after an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syndrome(pub u64);

impl Syndrome {
    /// EC, one of [`class`] or another.
    pub const fn class(self) -> u64 {
        self.0 >> 26 & 0x3f
    }

    /// The immediate of an HVC or SMC.
    pub const fn immediate(self) -> u64 {
        self.0 & 0xffff
    }

    /// The register of a system access and its direction.
    pub const fn system(self) -> SystemAccess {
        SystemAccess {
            register: SystemRegister(self.0 & SystemRegister::FIELDS),
            general: (self.0 >> 5 & 31) as u8,
            read: self.0 & 1 != 0,
        }
    }

    /// The fault of an instruction or data abort.
    pub const fn fault(self) -> Fault {
        match self.0 >> 2 & 0xf {
            0b0001 => Fault::Translation,
            0b0010 => Fault::AccessFlag,
            0b0011 => Fault::Permission,
            0b0000 => Fault::AddressSize,
            _ => Fault::Other,
        }
    }

    /// Whether an abort came from the guest's own table walk (S1PTW).
    pub const fn in_table_walk(self) -> bool {
        self.0 & 1 << 7 != 0
    }

    /// Whether FAR_EL2 doesn't hold the address (FnV).
    pub const fn far_invalid(self) -> bool {
        self.0 & 1 << 10 != 0
    }

    /// Whether a data abort was a write. Cache maintenance counts as one.
    pub const fn write(self) -> bool {
        self.0 & 1 << 6 != 0
    }

    /// What a data abort's instruction loads or stores; `None` if the syndrome doesn't say (pairs,
    /// write-back, SIMD, cache maintenance).
    pub const fn transfer(self) -> Option<Transfer> {
        if self.0 & 1 << 24 == 0 {
            return None;
        }
        Some(Transfer {
            bytes_log2: (self.0 >> 22 & 3) as u8,
            sign_extend: self.0 & 1 << 21 != 0,
            general: (self.0 >> 16 & 31) as u8,
            wide: self.0 & 1 << 15 != 0,
        })
    }
}

/// Why stage 2 stopped an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is mapped there.
    Translation,
    /// Mapped, and never used before.
    AccessFlag,
    /// Mapped without the right that the access needs.
    Permission,
    /// An address wider than stage 2 takes.
    AddressSize,
    /// Not a fault of stage 2: an external abort, an alignment fault.
    Other,
}

/// A load or store of one general register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// 0 for a byte to 3 for a doubleword.
    pub bytes_log2: u8,
    /// A load that sign-extends.
    pub sign_extend: bool,
    /// The register, 31 for the zero register.
    pub general: u8,
    /// Whether the register is X and not W.
    pub wide: bool,
}

impl Transfer {
    /// What the register gets when the load gives `value`.
    pub const fn extend(self, value: u64) -> u64 {
        let unused = 64 - (8u32 << self.bytes_log2);
        let value = value << unused;
        if !self.sign_extend {
            return value >> unused;
        }
        let value = (value.cast_signed() >> unused).cast_unsigned();
        if self.wide {
            value
        } else {
            value & 0xffff_ffff
        }
    }
}

/// A system register (or instruction), as its five encoding fields in their places of ISS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemRegister(pub u64);

impl SystemRegister {
    const FIELDS: u64 = 0x003f_fc1e;

    /// The register S`op0`_`op1`_C`crn`_C`crm`_`op2`.
    pub const fn new(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> Self {
        Self(op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1)
    }

    /// The place of an ID register (S3_0_C0_C0..7_x) in a table of 64; `None` for any other register.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "three bits and three bits; a const function has no TryFrom"
    )]
    pub const fn id_index(self) -> Option<usize> {
        const ANY: u64 = SystemRegister::new(0, 0, 0, 7, 7).0;
        if self.0 & !ANY == Self::new(3, 0, 0, 0, 0).0 {
            let op2 = self.0 >> 17 & 7;
            Some((self.crm() << 3 | op2) as usize)
        } else {
            None
        }
    }

    /// Its op0 field.
    pub const fn op0(self) -> u64 {
        self.0 >> 20 & 3
    }

    /// Its op1 field.
    pub const fn op1(self) -> u64 {
        self.0 >> 14 & 7
    }

    /// Its CRm field.
    pub const fn crm(self) -> u64 {
        self.0 >> 1 & 15
    }
}

/// A trapped MRS, MSR or system instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemAccess {
    /// Which register.
    pub register: SystemRegister,
    /// The general register, 31 for the zero register.
    pub general: u8,
    /// MRS, and not MSR.
    pub read: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_a_word() {
        // ldr w3, [gicd]: EC 0x24, IL, ISV, SAS 2, SRT 3, translation fault level 1.
        let syndrome = Syndrome(0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 3 << 16 | 5);
        assert_eq!(syndrome.class(), class::DATA_ABORT);
        assert_eq!(syndrome.fault(), Fault::Translation);
        assert!(!syndrome.write());
        let transfer = syndrome.transfer();
        assert_eq!(transfer.map(|t| (t.bytes_log2, t.general)), Some((2, 3)));
        assert_eq!(
            transfer.map(|t| t.extend(0xffff_ffff_8000_0001)),
            Some(0x8000_0001)
        );
    }

    #[test]
    fn sign_extension_stops_at_w() {
        let load = Transfer {
            bytes_log2: 0,
            sign_extend: true,
            general: 0,
            wide: false,
        };
        assert_eq!(load.extend(0x80), 0xffff_ff80);
        let load = Transfer { wide: true, ..load };
        assert_eq!(load.extend(0x80), 0xffff_ffff_ffff_ff80);
        let load = Transfer {
            bytes_log2: 3,
            ..load
        };
        assert_eq!(load.extend(u64::MAX), u64::MAX);
    }

    #[test]
    fn id_registers_have_a_place() {
        // mrs x7, ID_AA64PFR0_EL1
        let access =
            Syndrome(0x18 << 26 | SystemRegister::new(3, 0, 0, 4, 0).0 | 7 << 5 | 1).system();
        assert_eq!(access.register.id_index(), Some(32));
        assert!(access.read);
        assert_eq!(access.general, 7);
        assert_eq!(SystemRegister::new(3, 0, 0, 7, 7).id_index(), Some(63));
        assert_eq!(SystemRegister::new(3, 0, 1, 0, 1).id_index(), None);
        assert_eq!(SystemRegister::new(3, 0, 0, 8, 0).id_index(), None);
        assert_eq!(SystemRegister::new(2, 0, 0, 1, 0).id_index(), None);
    }
}
