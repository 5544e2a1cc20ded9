//! Stage 2 of a domain: its attribute bits and the register values that go with the tables.
//! Arm ARM DDI 0487, D8.3 (descriptors), D24.2 VTCR_EL2 and VTTBR_EL2.

use machine_paging::Regime;

use crate::descriptor::Vmsa;

/// What a domain may do with a page of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Normal write-back memory: read, write, execute.
    Ram,
    /// Normal write-back memory: read and write.
    RamData,
    /// Normal write-back memory: read only.
    RamReadOnly,
    /// Device-nGnRE, never executed. The guest's stage 1 can make it stricter only.
    Device,
}

const ACCESS_FLAG: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 3 << 8;
const READ: u64 = 1 << 6;
const WRITE: u64 = 2 << 6;
const NORMAL_WRITE_BACK: u64 = 0xf << 2;
const DEVICE_NGNRE: u64 = 1 << 2;
const EXECUTE_NEVER: u64 = 1 << 54;

impl Kind {
    /// The attribute bits of a stage 2 entry.
    pub const fn attributes(self) -> u64 {
        match self {
            Self::Ram => ACCESS_FLAG | INNER_SHAREABLE | READ | WRITE | NORMAL_WRITE_BACK,
            Self::RamData => Self::Ram.attributes() | EXECUTE_NEVER,
            Self::RamReadOnly => {
                ACCESS_FLAG | INNER_SHAREABLE | READ | NORMAL_WRITE_BACK | EXECUTE_NEVER
            }
            Self::Device => ACCESS_FLAG | READ | WRITE | DEVICE_NGNRE | EXECUTE_NEVER,
        }
    }

    /// The kind that attribute bits stand for; `None` for bits that this module never makes.
    pub fn of(attributes: u64) -> Option<Self> {
        [Self::Ram, Self::RamData, Self::RamReadOnly, Self::Device]
            .into_iter()
            .find(|kind| kind.attributes() == attributes)
    }
}

/// The shape of stage 2 on a CPU, from ID_AA64MMFR0_EL1.PARange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    input_bits: u8,
    parange: u8,
}

impl Shape {
    /// The shape for a value of ID_AA64MMFR0_EL1. A guest physical address is as wide as a machine
    /// address, at most 48 bits. A reserved PARange counts as the smallest.
    pub const fn new(mmfr0: u64) -> Self {
        let parange = (mmfr0 & 0xf) as u8;
        match parange {
            1 => Self {
                input_bits: 36,
                parange,
            },
            2 => Self {
                input_bits: 40,
                parange,
            },
            3 => Self {
                input_bits: 42,
                parange,
            },
            4 => Self {
                input_bits: 44,
                parange,
            },
            // 52 and 56 bits need descriptors of another form; 48 of them are used.
            5..=7 => Self {
                input_bits: 48,
                parange: 5,
            },
            _ => Self {
                input_bits: 32,
                parange: 0,
            },
        }
    }

    /// Width of a guest physical address in bits.
    pub const fn input_bits(self) -> u8 {
        self.input_bits
    }

    const fn start_level(self) -> u8 {
        // Up to 16 tables side by side replace a level: 43 bits from level 1.
        if self.input_bits <= 43 { 1 } else { 0 }
    }

    /// How many pages the root takes, and the alignment of its first in pages.
    pub const fn root_pages(self) -> u64 {
        let resolved = match self.start_level() {
            1 => 39,
            _ => 48,
        };
        if self.input_bits <= resolved {
            1
        } else {
            1 << (self.input_bits - resolved)
        }
    }

    /// The regime whose root lies at `root`.
    pub const fn regime(self, root: u64) -> Regime<Vmsa> {
        Regime::new(Vmsa, root, self.input_bits, self.start_level())
    }

    /// VTCR_EL2: 4 KiB granule, write-back inner-shareable walks, 8-bit VMIDs.
    pub const fn vtcr(self) -> u64 {
        const RES1: u64 = 1 << 31;
        const WALKS_WRITE_BACK_INNER: u64 = (1 << 8) | (1 << 10) | (3 << 12);
        // With this granule SL0 counts from the deepest possible start: 1 is level 1, 2 is level 0.
        let sl0 = if self.start_level() == 1 { 1 } else { 2 };
        RES1 | (self.parange as u64) << 16
            | WALKS_WRITE_BACK_INNER
            | sl0 << 6
            | (64 - self.input_bits as u64)
    }

    /// VTTBR_EL2 for a root and a VMID.
    pub const fn vttbr(root: u64, vmid: u8) -> u64 {
        root | (vmid as u64) << 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_cpus() {
        // cortex-a57: 44 bits, four levels. 40 bits: two concatenated tables at level 1.
        let a57 = Shape::new(0x1124);
        assert_eq!((a57.input_bits(), a57.root_pages()), (44, 1));
        assert_eq!(a57.vtcr(), 0x8000_0000 | 4 << 16 | 0x3500 | 2 << 6 | 20);
        let forty = Shape::new(2);
        assert_eq!((forty.input_bits(), forty.root_pages()), (40, 2));
        assert_eq!(forty.vtcr() & 0xff, 1 << 6 | 24);
        assert_eq!(Shape::new(6).input_bits(), 48);
        assert_eq!(Shape::new(0xf).input_bits(), 32);
    }

    #[test]
    fn kinds_are_told_apart() {
        for kind in [Kind::Ram, Kind::RamData, Kind::RamReadOnly, Kind::Device] {
            assert_eq!(Kind::of(kind.attributes()), Some(kind));
        }
        assert_eq!(Kind::of(0), None);
    }
}
