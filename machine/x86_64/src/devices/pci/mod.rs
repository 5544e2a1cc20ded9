//! PCI configuration space as a domain reaches it: by ports 0xcf8 and 0xcfc, and by memory (ECAM).
//!
//! A device's registers are the hardware's, with two exceptions. Writes to a host bridge, which could move memory or
//! configuration space itself (PCIEXBAR, PAM, SMRAM, TSEG, TOLUD; AMD's address maps and its window to the system
//! management network) or to an IOMMU's function are dropped but for the few standard registers that move nothing. Message-signalled
//! interrupts are checked and translated: [`msi`] here in configuration space, [`msix`] in the device's memory.
//!
//! Not here: who owns which function, and BARs. A BAR over RAM stays without effect, since the memory controller decodes
//! RAM first; when one moves, the machine looks again where an MSI-X table is.
//!
//! PCI Local Bus 3.0: 3.2.2.3 (ports), 6.1 (header), 6.8 (MSI and MSI-X); PCI Express 5.0, 7.2.2 (ECAM).
#![allow(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of registers, and are as wide as the type that takes them"
)]

pub mod msi;
pub mod msix;

#[cfg(test)]
mod tests;

use core::fmt;

use super::interrupt::{Directory, Refusal};
use msi::Msi;
use msix::Place;

/// How wide an access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
}

impl Size {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }

    /// All ones, as a read of nothing gives.
    #[must_use]
    pub const fn ones(self) -> u32 {
        u32::MAX >> (32 - 8 * self.bytes())
    }
}

/// A function of a device, in the segment that the window belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The bus.
    pub bus: u8,
    /// The device, 0 to 31.
    pub device: u8,
    /// The function, 0 to 7.
    pub function: u8,
}

/// As Linux writes it: `00:1f.2`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

impl Address {
    const fn of(number: u32) -> Self {
        Self {
            bus: (number >> 8) as u8,
            device: (number >> 3) as u8 & 0x1f,
            function: number as u8 & 7,
        }
    }
}

/// Where an access by ECAM goes: `offset` from the address that bus 0 has or would have.
#[must_use]
pub const fn ecam(offset: u64) -> (Address, u16) {
    let number = (offset >> 12) as u32 & 0xffff;
    (Address::of(number), offset as u16 & 0xfff)
}

/// The address register at port 0xcf8, one for the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressPort(u32);

impl AddressPort {
    const ENABLE: u32 = 1 << 31;

    /// IN of 32 bits from port 0xcf8. Narrower accesses aren't this register's: 0xcf9 is the reset register.
    #[must_use]
    pub const fn read(self) -> u32 {
        self.0
    }

    /// OUT of 32 bits to port 0xcf8.
    pub const fn write(&mut self, value: u32) {
        self.0 = value & (Self::ENABLE | 0x00ff_fffc);
    }

    /// Where an access to port 0xcfc to 0xcff goes; `None` if the register isn't enabled, or the access not aligned.
    #[must_use]
    pub fn target(self, port: u16, size: Size) -> Option<(Address, u16)> {
        let within = port.checked_sub(0xcfc).filter(|within| *within < 4)?;
        let valid = self.0 & Self::ENABLE != 0 && within.is_multiple_of(size.bytes());
        valid.then_some((Address::of(self.0 >> 8), self.0 as u16 & 0xfc | within))
    }
}

/// One function's registers in hardware.
pub trait Registers {
    /// Reads at an offset that is aligned, 0 to 4095.
    fn read(&self, offset: u16, size: Size) -> u32;
    /// Writes there.
    fn write(&mut self, offset: u16, size: Size, value: u32);
}

/// Why a write wasn't done as the guest wanted. For the log; the guest isn't told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A register of a host bridge, an IOMMU or the chipset that may move memory: dropped.
    Kept,
    /// An interrupt that the domain can't have: off in hardware, while the guest reads what it wrote.
    Message(Refusal),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("a register that may move memory"),
            Self::Message(refusal) => refusal.fmt(f),
        }
    }
}

const VENDOR: u16 = 0x00;
const STATUS: u16 = 0x06;
const CLASS: u16 = 0x0a;
const CAPABILITIES: u16 = 0x34;
const STATUS_CAPABILITIES: u32 = 1 << 4;
const CLASS_HOST_BRIDGE: u32 = 0x0600;
const CLASS_IOMMU: u32 = 0x0806;
const CLASS_ISA_BRIDGE: u32 = 0x0601;
const VENDOR_INTEL: u32 = 0x8086;
const CLASS_BRIDGE: u32 = 0x06;
/// The command register.
pub const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// The first BAR of a function.
pub const FIRST_BAR: u16 = 0x10;
/// The last one of a function that is no bridge.
pub const LAST_BAR: u16 = 0x24;

/// What stands between a domain and one function that it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// A host bridge or an IOMMU.
    guarded: bool,
    /// Intel's bridge to the chipset's own registers.
    chipset: bool,
    /// A device, not a bridge of any kind.
    endpoint: bool,
    msi: Option<Msi>,
    msix: Option<Place>,
}

impl Function {
    /// Looks at a function; `None` if nothing answers there.
    #[must_use]
    pub fn find(hardware: &impl Registers) -> Option<Self> {
        let vendor = hardware.read(VENDOR, Size::Half);
        if vendor == Size::Half.ones() {
            return None;
        }
        let class = hardware.read(CLASS, Size::Half);
        Some(Self {
            guarded: matches!(class, CLASS_HOST_BRIDGE | CLASS_IOMMU),
            chipset: class == CLASS_ISA_BRIDGE && vendor == VENDOR_INTEL,
            endpoint: class >> 8 != CLASS_BRIDGE,
            msi: capability(hardware, msi::CAPABILITY).map(|at| Msi::find(at, hardware)),
            msix: capability(hardware, msix::CAPABILITY).map(|at| Place::find(at, hardware)),
        })
    }

    /// Where its MSI-X table is, if it has one.
    #[must_use]
    pub fn msix(&self) -> Option<Place> {
        self.msix
    }

    /// Stops what it does on its own, as before a restart of its domain: bus mastering of a device, and messages. A transfer
    /// under way may still end.
    pub fn quiet(&mut self, hardware: &mut impl Registers) {
        if self.endpoint {
            let command = hardware.read(COMMAND, Size::Half);
            hardware.write(COMMAND, Size::Half, command & !COMMAND_BUS_MASTER);
        }
        if let Some(msi) = &mut self.msi {
            msi.turn_off(hardware);
        }
        if let Some(place) = self.msix {
            place.turn_off(hardware);
        }
    }

    /// The guest's read. One that isn't aligned or passes the end gives ones.
    #[must_use]
    pub fn read(&self, offset: u16, size: Size, hardware: &impl Registers) -> u32 {
        if !valid(offset, size) {
            return size.ones();
        }
        let value = hardware.read(offset, size);
        match &self.msi {
            Some(msi) => msi.overlay(offset, size, value),
            None => value,
        }
    }

    /// The guest's write. One that isn't aligned or passes the end is dropped.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn write(
        &mut self,
        offset: u16,
        size: Size,
        value: u32,
        directory: &impl Directory,
        hardware: &mut impl Registers,
    ) -> Result<(), Refused> {
        if !valid(offset, size) {
            return Ok(());
        }
        if self.guarded && !moves_nothing(offset, size) {
            return if is_sized(offset) {
                Ok(())
            } else {
                Err(Refused::Kept)
            };
        }
        if self.chipset && moves_chipset(offset, size) {
            return Err(Refused::Kept);
        }
        match &mut self.msi {
            Some(msi) if msi.covers(offset, size) => msi
                .write(offset, size, value, directory, hardware)
                .map_err(Refused::Message),
            _ => {
                hardware.write(offset, size, value);
                Ok(())
            }
        }
    }
}

fn valid(offset: u16, size: Size) -> bool {
    offset < 0x1000 && offset.is_multiple_of(size.bytes())
}

/// Base addresses and the ROM's: an operating system writes ones there to learn their sizes, so nobody is told.
fn is_sized(offset: u16) -> bool {
    (0x10..0x28).contains(&offset) || (0x30..0x34).contains(&offset)
}

/// Command and status, cache line size and latency, interrupt line.
fn moves_nothing(offset: u16, size: Size) -> bool {
    let end = offset + size.bytes();
    [(0x04, 0x08), (0x0c, 0x0e), (0x3c, 0x3d)]
        .iter()
        .any(|(first, last)| *first <= offset && end <= *last)
}

/// Where ACPI's ports are (PMBASE, ACPI_CNTL), and the chipset's memory (RCBA), which in QEMU comes before RAM (Intel ICH9 data
/// sheet, 13.1).
fn moves_chipset(offset: u16, size: Size) -> bool {
    let end = offset + size.bytes();
    [(0x40, 0x48), (0xf0, 0xf4)]
        .iter()
        .any(|(first, last)| offset < *last && *first < end)
}

/// Where a capability is.
fn capability(hardware: &impl Registers, wanted: u8) -> Option<u16> {
    if hardware.read(STATUS, Size::Half) & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = hardware.read(CAPABILITIES, Size::Byte) as u16 & 0xfc;
    // The list has no more places than this; a device's may be a ring.
    for _ in 0..48 {
        if at < 0x40 {
            return None;
        }
        let header = hardware.read(at, Size::Half);
        if header as u8 == wanted {
            return Some(at);
        }
        at = (header >> 8) as u16 & 0xfc;
    }
    None
}
