//! A PL011 (Arm DDI 0183), output only.

use crate::cpu;

/// One byte: data register at 0, flag register at 0x18 with "transmit FIFO full" in bit 5.
pub(crate) fn write(base: u64, byte: u8) {
    cpu::wait_for(100, || cpu::read32(base + 0x18) & 1 << 5 == 0);
    cpu::write32(base, u32::from(byte));
}
