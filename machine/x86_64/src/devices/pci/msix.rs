//! The MSI-X table, which lies in the device's memory: the page with it isn't mapped for the domain, and its accesses come
//! here.

use alloc::vec;
use alloc::vec::Vec;

use super::msi::Message;
use super::{COMMAND, COMMAND_MEMORY, FIRST_BAR, LAST_BAR, Registers, Size};
use crate::devices::interrupt::{Directory, Refusal};

/// The capability's ID.
pub const CAPABILITY: u8 = 0x11;

/// Bytes of an entry: address, data, control.
pub const ENTRY_BYTES: u32 = 16;
const MASKED: u32 = 1;

/// Where a function's table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The BAR, 0 to 5.
    pub bar: u8,
    /// Bytes from the BAR's address, a multiple of 8.
    pub offset: u32,
    /// Entries, 1 to 2048.
    pub entries: u16,
    /// Where the capability's control word is.
    control: u16,
}

impl Place {
    /// The capability at `at`.
    pub(super) fn find(at: u16, hardware: &impl Registers) -> Self {
        let control = hardware.read(at + 2, Size::Half) as u16;
        let table = hardware.read(at + 4, Size::Word);
        Self {
            bar: table as u8 & 7,
            offset: table & !7,
            entries: (control & 0x7ff) + 1,
            control: at + 2,
        }
    }

    /// The table's bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.entries) * u64::from(ENTRY_BYTES)
    }

    /// The machine address of the table by the function's registers as they are; `None` while it doesn't decode memory,
    /// or if no address is that high.
    #[must_use]
    pub fn address(self, hardware: &impl Registers) -> Option<u64> {
        const IO: u32 = 1;
        const WIDE: u32 = 2 << 1;
        if hardware.read(COMMAND, Size::Half) & COMMAND_MEMORY == 0 || self.bar > 5 {
            return None;
        }
        let at = FIRST_BAR + 4 * u16::from(self.bar);
        let low = hardware.read(at, Size::Word);
        if low & IO != 0 {
            return None;
        }
        let high = if low & 6 == WIDE && at < LAST_BAR {
            u64::from(hardware.read(at + 4, Size::Word))
        } else {
            0
        };
        let bar = high << 32 | u64::from(low & !0xf);
        bar.checked_add(u64::from(self.offset)).filter(|_| bar != 0)
    }

    /// No message is enabled.
    pub(super) fn turn_off(self, hardware: &mut impl Registers) {
        const ENABLE: u32 = 1 << 15;
        let control = hardware.read(self.control, Size::Half);
        hardware.write(self.control, Size::Half, control & !ENABLE);
    }
}

/// The table in hardware.
pub trait Memory {
    /// Writes 32 bits, `offset` bytes from the table's start.
    fn write(&mut self, offset: u32, value: u32);
}

/// A table as the guest sees it. All entries are masked at first, as after a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    words: Vec<[u32; 4]>,
}

impl Table {
    /// A table of 1 to 2048 entries.
    #[must_use]
    pub fn new(entries: u16) -> Self {
        Self {
            words: vec![[0, 0, 0, MASKED]; usize::from(entries.clamp(1, 2048))],
        }
    }

    /// The guest's read of 32 bits at a multiple of 4; 64-bit accesses are two. Zero behind the table.
    #[must_use]
    pub fn read(&self, offset: u32) -> u32 {
        self.words
            .get((offset / ENTRY_BYTES) as usize)
            .map_or(0, |entry| entry[offset as usize / 4 % 4])
    }

    /// The guest's write of 32 bits at a multiple of 4; behind the table it is dropped.
    ///
    /// # Errors
    /// The entry is unmasked and asks for what the domain can't have: it stays masked in hardware, while the guest reads
    /// what it wrote.
    pub fn write(
        &mut self,
        offset: u32,
        value: u32,
        directory: &impl Directory,
        hardware: &mut impl Memory,
    ) -> Result<(), Refusal> {
        let index = offset / ENTRY_BYTES;
        let Some(entry) = self.words.get_mut(index as usize) else {
            return Ok(());
        };
        let word = offset as usize / 4 % 4;
        entry[word] = if word == 3 { value & MASKED } else { value };
        program(index * ENTRY_BYTES, *entry, directory, hardware)
    }

    /// Writes all entries to a table that isn't known to hold them: one that has moved, or that a reset has cleared.
    pub fn restore(&self, directory: &impl Directory, hardware: &mut impl Memory) {
        for (index, entry) in (0..).zip(&self.words) {
            // The guest's write of a refused entry was told of already; it stays masked.
            let _ = program(index * ENTRY_BYTES, *entry, directory, hardware);
        }
    }
}

/// Gives one entry to the hardware, as far as the domain can have it.
fn program(
    base: u32,
    entry: [u32; 4],
    directory: &impl Directory,
    hardware: &mut impl Memory,
) -> Result<(), Refusal> {
    // Masked while address and data change.
    hardware.write(base + 12, MASKED);
    if entry[3] & MASKED != 0 {
        return Ok(());
    }
    let asked = Message {
        address: u64::from(entry[1]) << 32 | u64::from(entry[0]),
        data: entry[2],
    };
    let message = Message::from(asked.check(directory)?);
    hardware.write(base, message.address as u32);
    hardware.write(base + 4, (message.address >> 32) as u32);
    hardware.write(base + 8, message.data);
    hardware.write(base + 12, 0);
    Ok(())
}
