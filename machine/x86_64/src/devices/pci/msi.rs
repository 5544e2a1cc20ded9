//! The MSI capability: what the guest wrote, and what hardware gets of it.

use super::{Registers, Size};
use crate::devices::interrupt::{
    Delivery, Destination, DeviceInterrupt, Directory, FIRST_HYPERVISOR_VECTOR, Refusal,
};

/// The capability's ID.
pub const CAPABILITY: u8 = 0x05;

const CONTROL: u16 = 2;
const ADDRESS: u16 = 4;
const ENABLE: u16 = 1;
const WIDE: u16 = 1 << 7;
/// How many messages are enabled, as a power of two.
const MULTIPLE: u16 = 7 << 4;
const MULTIPLE_SHIFT: u16 = 4;

/// The control word after a write of `asked`: enable, and not more messages than the device has.
fn allowed(control: u16, asked: u16) -> u16 {
    const MOST: u16 = 5;
    let capable = (control >> 1 & 7).min(MOST);
    let multiple = ((asked & MULTIPLE) >> MULTIPLE_SHIFT).min(capable);
    control & !(ENABLE | MULTIPLE) | asked & ENABLE | multiple << MULTIPLE_SHIFT
}

/// A message that raises an interrupt: what a device writes, and where (Intel SDM vol. 3A, "Message Signalled Interrupts").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The address.
    pub address: u64,
    /// The data; 16 bits count.
    pub data: u32,
}

impl Message {
    /// The interrupt that the message asks for, if the domain can have it.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn check(self, directory: &impl Directory) -> Result<DeviceInterrupt, Refusal> {
        const LOCAL_APICS: u64 = 0xfee;
        /// Bits 11 to 4, and 1 and 0: extended destinations, interrupt remapping.
        const RESERVED: u64 = 0xff3;
        const LOGICAL: u64 = 1 << 2;
        const LEVEL: u32 = 1 << 15;
        if self.address >> 20 != LOCAL_APICS || self.address & RESERVED != 0 {
            return Err(Refusal::Address(self.address));
        }
        if self.data & LEVEL != 0 {
            return Err(Refusal::Level);
        }
        let destination =
            Destination::narrow((self.address >> 12) as u8, self.address & LOGICAL != 0);
        DeviceInterrupt::check(
            self.data as u8,
            Delivery::of(self.data),
            destination,
            directory,
        )
    }
}

impl From<DeviceInterrupt> for Message {
    /// The message for the hardware: fixed, edge, to one physical APIC ID.
    fn from(interrupt: DeviceInterrupt) -> Self {
        Self {
            address: 0xfee0_0000 | u64::from(interrupt.target.apic_id) << 12,
            data: u32::from(interrupt.vector),
        }
    }
}

/// The capability of one function. Mask and pending bits behind it are the hardware's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msi {
    at: u16,
    /// The capability's bytes as the guest sees them.
    bytes: [u8; 14],
}

impl Msi {
    /// The capability at `at`, with what hardware holds now.
    pub(super) fn find(at: u16, hardware: &impl Registers) -> Self {
        let mut bytes = [0; 14];
        for (offset, byte) in (at..).zip(&mut bytes) {
            *byte = hardware.read(offset, Size::Byte) as u8;
        }
        Self { at, bytes }
    }

    /// No message is enabled, for hardware and guest.
    pub(super) fn turn_off(&mut self, hardware: &mut impl Registers) {
        let control = self.control() & !(ENABLE | MULTIPLE);
        self.bytes[2..4].copy_from_slice(&control.to_le_bytes());
        hardware.write(self.at + CONTROL, Size::Half, u32::from(control));
    }

    fn half(&self, offset: u16) -> u16 {
        let at = usize::from(offset);
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn control(&self) -> u16 {
        self.half(CONTROL)
    }

    /// Where the data is, behind one word of address or two.
    fn data(&self) -> u16 {
        if self.control() & WIDE == 0 { 8 } else { 12 }
    }

    fn message(&self) -> Message {
        let word = |offset| u64::from(self.half(offset)) | u64::from(self.half(offset + 2)) << 16;
        let high = if self.control() & WIDE == 0 {
            0
        } else {
            word(ADDRESS + 4)
        };
        Message {
            address: word(ADDRESS) | high << 32,
            data: u32::from(self.half(self.data())),
        }
    }

    /// The bytes that are software's: from the control word to the data.
    fn is_software(&self, offset: u16) -> Option<usize> {
        let within = offset.checked_sub(self.at)?;
        (CONTROL..self.data() + 2)
            .contains(&within)
            .then_some(usize::from(within))
    }

    pub(super) fn covers(&self, offset: u16, size: Size) -> bool {
        (offset..offset + size.bytes()).any(|offset| self.is_software(offset).is_some())
    }

    /// `value`, as hardware has it, with what the guest wrote in its place.
    pub(super) fn overlay(&self, offset: u16, size: Size, value: u32) -> u32 {
        let mut bytes = value.to_le_bytes();
        for (offset, byte) in (offset..offset + size.bytes()).zip(&mut bytes) {
            if let Some(within) = self.is_software(offset) {
                *byte = self.bytes[within];
            }
        }
        u32::from_le_bytes(bytes)
    }

    /// A write of which a part at least is software's. What else it has in it is dropped: capability ID, and the reserved
    /// half behind the data.
    pub(super) fn write(
        &mut self,
        offset: u16,
        size: Size,
        value: u32,
        directory: &impl Directory,
        hardware: &mut impl Registers,
    ) -> Result<(), Refusal> {
        let control = self.control();
        for (offset, byte) in (offset..offset + size.bytes()).zip(value.to_le_bytes()) {
            if let Some(within) = self.is_software(offset) {
                self.bytes[within] = byte;
            }
        }
        let control = allowed(control, self.control());
        self.bytes[2..4].copy_from_slice(&control.to_le_bytes());
        // Off while address and data change: hardware must not send the half of each.
        hardware.write(self.at + CONTROL, Size::Half, u32::from(control & !ENABLE));
        if control & ENABLE == 0 {
            return Ok(());
        }
        let message = self.check(directory)?;
        let words = [message.address as u32, (message.address >> 32) as u32];
        hardware.write(self.at + ADDRESS, Size::Word, words[0]);
        if control & WIDE != 0 {
            hardware.write(self.at + ADDRESS + 4, Size::Word, words[1]);
        }
        hardware.write(self.at + self.data(), Size::Half, message.data);
        hardware.write(self.at + CONTROL, Size::Half, u32::from(control));
        Ok(())
    }

    /// The message for the hardware. A device with several counts in the lowest bits of the vector: all must be allowed.
    fn check(&self, directory: &impl Directory) -> Result<Message, Refusal> {
        let messages = 1_u8 << ((self.control() & MULTIPLE) >> MULTIPLE_SHIFT);
        let interrupt = self.message().check(directory)?;
        let last = interrupt.vector | (messages - 1);
        // The first of them is aligned, and 0x20 with it.
        if last >= FIRST_HYPERVISOR_VECTOR {
            return Err(Refusal::Vector(last));
        }
        Ok(interrupt.into())
    }
}
