//! Accesses to devices by port and by memory, of any width that they have.

use core::arch::asm;

/// How wide an access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits; memory only.
    Long,
}

impl Width {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Long => 8,
        }
    }

    /// All ones, as a read of nothing gives.
    #[must_use]
    pub const fn ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    /// The width of so many bytes.
    #[must_use]
    pub const fn of(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Half),
            4 => Some(Self::Word),
            8 => Some(Self::Long),
            _ => None,
        }
    }
}

/// IN. The caller is the port's owner, or does what the hardware domain asked for. Zero for 64 bits: there are no such ports.
pub(crate) fn read(port: u16, width: Width) -> u32 {
    let value: u32;
    match width {
        // SAFETY: the instructions touch no memory. That the device behind the port may be accessed is the caller's part.
        Width::Byte => unsafe {
            asm!("in al, dx", "movzx eax, al", in("dx") port, out("eax") value,
                options(nomem, nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Half => unsafe {
            asm!("in ax, dx", "movzx eax, ax", in("dx") port, out("eax") value,
                options(nomem, nostack, preserves_flags));
        },
        // SAFETY: as above.
        Width::Word => unsafe {
            asm!("in eax, dx", in("dx") port, out("eax") value,
                options(nomem, nostack, preserves_flags));
        },
        Width::Long => value = 0,
    }
    value
}

/// OUT, likewise.
pub(crate) fn write(port: u16, width: Width, value: u32) {
    match width {
        // SAFETY: as in `read`.
        Width::Byte => unsafe {
            asm!("out dx, al", in("dx") port, in("eax") value,
                options(nomem, nostack, preserves_flags));
        },
        // SAFETY: as in `read`.
        Width::Half => unsafe {
            asm!("out dx, ax", in("dx") port, in("eax") value,
                options(nomem, nostack, preserves_flags));
        },
        // SAFETY: as in `read`.
        Width::Word => unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") value,
                options(nomem, nostack, preserves_flags));
        },
        Width::Long => {}
    }
}

/// Reads a device's register in memory.
///
/// # Safety
/// The address is a multiple of the width, and [`super::super::mmu::map_device`] has mapped it.
pub(crate) unsafe fn load(address: u64, width: Width) -> u64 {
    match width {
        // SAFETY: the caller has mapped it; a device's register is no Rust object.
        Width::Byte => u64::from(unsafe { (address as *const u8).read_volatile() }),
        // SAFETY: as above.
        Width::Half => u64::from(unsafe { (address as *const u16).read_volatile() }),
        // SAFETY: as above.
        Width::Word => u64::from(unsafe { (address as *const u32).read_volatile() }),
        // SAFETY: as above.
        Width::Long => unsafe { (address as *const u64).read_volatile() },
    }
}

/// Writes a device's register in memory: the lowest bytes of `value`.
///
/// # Safety
/// As for [`load`]; and the device may be told that.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the width says how much of the value is meant"
)]
pub(crate) unsafe fn store(address: u64, width: Width, value: u64) {
    match width {
        // SAFETY: as in `load`.
        Width::Byte => unsafe { (address as *mut u8).write_volatile(value as u8) },
        // SAFETY: as in `load`.
        Width::Half => unsafe { (address as *mut u16).write_volatile(value as u16) },
        // SAFETY: as in `load`.
        Width::Word => unsafe { (address as *mut u32).write_volatile(value as u32) },
        // SAFETY: as in `load`.
        Width::Long => unsafe { (address as *mut u64).write_volatile(value) },
    }
}
