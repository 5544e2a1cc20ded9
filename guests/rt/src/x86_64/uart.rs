//! A 16550, output only.

use crate::cpu;

/// The port of the first one on a PC.
pub(crate) const COM1: u64 = 0x3f8;

/// One byte: data register at 0, line status at 5 with "holding register empty" in bit 5.
pub(crate) fn write(base: u64, byte: u8) {
    let Ok(port) = u16::try_from(base) else {
        return;
    };
    cpu::wait_for(100, || cpu::in8(port + 5) & 1 << 5 != 0);
    cpu::out8(port, byte);
}
