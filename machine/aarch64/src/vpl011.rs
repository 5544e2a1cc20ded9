//! A virtual PL011 for guests that know nothing of Xen: the registers that a driver of the SBSA generic
//! UART or of a PL011 uses. Sending takes no time, so the transmit queue is always empty.
//!
//! Arm PL011 TRM (DDI 0183), chapter 3; SBSA (DEN 0029), appendix B.

use arrayvec::ArrayVec;

/// Bytes that wait to be read, as many as the PL011's receive queue holds.
const RECEIVE_BYTES: usize = 32;

/// The flag register, UARTFR.
mod flag {
    pub const RECEIVE_EMPTY: u32 = 1 << 4;
    pub const RECEIVE_FULL: u32 = 1 << 6;
    pub const TRANSMIT_EMPTY: u32 = 1 << 7;
}

/// The interrupt registers.
mod interrupt {
    pub const RECEIVE: u32 = 1 << 4;
    pub const TRANSMIT: u32 = 1 << 5;
    pub const RECEIVE_TIMEOUT: u32 = 1 << 6;
    pub const ALL: u32 = 0x7ff;
}

/// Identification, UARTPeriphID0 to UARTPCellID3: a PL011 of revision 1.5.
const IDENTIFICATION: [u32; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The state of one UART.
#[derive(Debug, Default)]
pub struct Pl011 {
    received: ArrayVec<u8, RECEIVE_BYTES>,
    /// UARTIBRD, UARTFBRD, UARTLCR_H, UARTCR, UARTIFLS: kept for the driver, without effect.
    settings: [u32; 5],
    mask: u32,
    transmitted: bool,
}

/// What an access did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A read gives this value.
    Value(u32),
    /// A write sends this byte.
    Send(u8),
    /// A write did what it does inside the UART.
    Done,
}

const fn setting(offset: u64) -> Option<usize> {
    match offset {
        0x24 => Some(0),
        0x28 => Some(1),
        0x2c => Some(2),
        0x30 => Some(3),
        0x34 => Some(4),
        _ => None,
    }
}

impl Pl011 {
    fn raw_interrupts(&self) -> u32 {
        let received = if self.received.is_empty() {
            0
        } else {
            // There is no timeout to wait for: a byte that came is a byte to read.
            interrupt::RECEIVE | interrupt::RECEIVE_TIMEOUT
        };
        let transmitted = if self.transmitted {
            interrupt::TRANSMIT
        } else {
            0
        };
        received | transmitted
    }

    /// Whether the interrupt line is high.
    pub fn interrupts(&self) -> bool {
        self.raw_interrupts() & self.mask != 0
    }

    /// Takes as many bytes of input as there is room for, and says how many.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let room = self.received.remaining_capacity();
        let taken = bytes.iter().take(room);
        let before = self.received.len();
        self.received.extend(taken.copied());
        self.received.len() - before
    }

    /// A load from `offset` in bytes.
    pub fn read(&mut self, offset: u64) -> Effect {
        let value = match offset {
            0x00 => self.received.pop_at(0).map_or(0, u32::from),
            0x18 => {
                let empty = if self.received.is_empty() {
                    flag::RECEIVE_EMPTY
                } else {
                    0
                };
                let full = if self.received.is_full() {
                    flag::RECEIVE_FULL
                } else {
                    0
                };
                flag::TRANSMIT_EMPTY | empty | full
            }
            0x38 => self.mask,
            0x3c => self.raw_interrupts(),
            0x40 => self.raw_interrupts() & self.mask,
            0xfe0..=0xffc => {
                let place = usize::try_from((offset - 0xfe0) / 4).unwrap_or(0);
                IDENTIFICATION.get(place).copied().unwrap_or(0)
            }
            _ => setting(offset)
                .and_then(|place| self.settings.get(place).copied())
                .unwrap_or(0),
        };
        Effect::Value(value)
    }

    /// A store of `value` at `offset` in bytes.
    pub fn write(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            0x00 => {
                self.transmitted = true;
                return Effect::Send(value.to_le_bytes()[0]);
            }
            0x38 => self.mask = value & interrupt::ALL,
            0x44 => self.transmitted &= value & interrupt::TRANSMIT == 0,
            _ => {
                let place = setting(offset).and_then(|place| self.settings.get_mut(place));
                if let Some(setting) = place {
                    *setting = value & 0xffff;
                }
            }
        }
        Effect::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_read_in_order_and_interrupts() {
        let mut uart = Pl011::default();
        assert_eq!(uart.read(0x18), Effect::Value(0x90));
        assert_eq!(uart.receive(b"ab"), 2);
        assert!(!uart.interrupts());
        uart.write(0x38, 0x50);
        assert!(uart.interrupts());
        assert_eq!(uart.read(0x40), Effect::Value(0x50));
        assert_eq!(uart.read(0x00), Effect::Value(u32::from(b'a')));
        assert_eq!(uart.read(0x00), Effect::Value(u32::from(b'b')));
        assert!(!uart.interrupts());
        assert_eq!(uart.read(0x00), Effect::Value(0));
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let mut uart = Pl011::default();
        assert_eq!(uart.receive(&[0; 40]), RECEIVE_BYTES);
        assert_eq!(uart.read(0x18), Effect::Value(0xc0));
        assert_eq!(uart.receive(b"x"), 0);
    }

    #[test]
    fn sending_raises_the_transmit_interrupt_until_it_is_cleared() {
        let mut uart = Pl011::default();
        uart.write(0x38, 0x20);
        assert_eq!(uart.write(0x00, 0x1_0141), Effect::Send(b'A'));
        assert!(uart.interrupts());
        uart.write(0x44, 0x7ff);
        assert!(!uart.interrupts());
    }

    #[test]
    fn a_driver_finds_a_pl011() {
        let mut uart = Pl011::default();
        let id: u32 = (0..4).fold(0, |id, byte| match uart.read(0xfe0 + 4 * byte) {
            Effect::Value(value) => id | value << (8 * byte),
            _ => id,
        });
        assert_eq!(id & 0xfffff, 0x41011 & 0xfffff);
        uart.write(0x30, 0x301);
        assert_eq!(uart.read(0x30), Effect::Value(0x301));
    }
}
