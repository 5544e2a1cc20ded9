//! Nested page tables: what a domain may do with a page, as attribute bits of [`LongMode`]'s
//! descriptors. APM volume 2, 15.25.5 (permissions: a nested walk counts as a user's) and 15.25.8
//! (memory types: write-back here, so the guest's own PAT and the machine's MTRRs decide).
//!
//! [`LongMode`]: crate::paging::LongMode

/// What a domain may do with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Memory: read, write, execute.
    Ram,
    /// Memory: read and write.
    RamData,
    /// Memory: read only.
    RamReadOnly,
    /// Registers and ROMs of devices, never executed.
    Device,
    /// Registers that only the hypervisor writes, read without its help.
    DeviceReadOnly,
}

const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// One of the bits that the CPU leaves to software: what tells [`Kind::Device`] from memory.
const IS_DEVICE: u64 = 1 << 9;
const EXECUTE_NEVER: u64 = 1 << 63;

impl Kind {
    /// The attribute bits of a nested entry.
    #[must_use]
    pub const fn attributes(self) -> u64 {
        match self {
            Self::Ram => USER | WRITABLE,
            Self::RamData => USER | WRITABLE | EXECUTE_NEVER,
            Self::RamReadOnly => USER | EXECUTE_NEVER,
            Self::Device => USER | WRITABLE | EXECUTE_NEVER | IS_DEVICE,
            Self::DeviceReadOnly => USER | EXECUTE_NEVER | IS_DEVICE,
        }
    }

    /// The kind that attribute bits stand for; `None` for bits that this module never makes.
    #[must_use]
    pub fn of(attributes: u64) -> Option<Self> {
        [
            Self::Ram,
            Self::RamData,
            Self::RamReadOnly,
            Self::Device,
            Self::DeviceReadOnly,
        ]
        .into_iter()
        .find(|kind| kind.attributes() == attributes)
    }

    /// Whether memory is behind it, which the hypervisor may read without an effect on a device.
    #[must_use]
    pub const fn is_ram(self) -> bool {
        !matches!(self, Self::Device | Self::DeviceReadOnly)
    }
}

#[cfg(test)]
mod tests {
    use machine_paging::Format;

    use super::*;
    use crate::paging::LongMode;

    #[test]
    fn kinds_are_told_apart_in_an_entry() {
        let format = LongMode {
            gigabyte_pages: false,
        };
        for kind in [
            Kind::Ram,
            Kind::RamData,
            Kind::RamReadOnly,
            Kind::Device,
            Kind::DeviceReadOnly,
        ] {
            for level in [2, 3] {
                let entry = format.leaf(0x20_0000, kind.attributes(), level);
                assert_eq!(Kind::of(format.attributes(entry, level)), Some(kind));
            }
        }
        assert_eq!(Kind::of(0), None);
    }

    #[test]
    fn the_bits_of_the_manual() {
        let format = LongMode {
            gigabyte_pages: false,
        };
        assert_eq!(format.leaf(0x1000, Kind::Ram.attributes(), 3), 0x1067);
        let rom = format.leaf(0x1000, Kind::RamReadOnly.attributes(), 3);
        assert_eq!(rom, 0x8000_0000_0000_1065);
    }
}
