//! COM1: where the hypervisor speaks. 16550 registers: National Semiconductor PC16550D, 8.0.

use core::fmt::{self, Write};

use hypervisor::console::{Console, HYPERVISOR};

use super::instructions::{in8, out8};

const COM1: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const DIVISOR_LOW: u16 = COM1;
const DIVISOR_HIGH: u16 = COM1 + 1;

const RECEIVED: u8 = 1;
const DIVISOR_ACCESS: u8 = 1 << 7;
const EIGHT_BITS: u8 = 3;
const FIFO_ON_AND_CLEARED: u8 = 7;
/// DTR and RTS, and OUT2, which lets the interrupt out of the chip.
const READY_AND_REQUEST: u8 = 0xb;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// What the transmitter's FIFO holds, in bytes.
const FIFO_BYTES: usize = 16;
/// A UART that is there takes a byte within 100 microseconds; one that isn't reads as ones.
const PATIENCE: u32 = 100_000;

static CONSOLE: Console = Console::new();

/// The first port of the UART that the hypervisor speaks on.
pub const PORT: u16 = COM1;

/// The console's line discipline.
pub fn console() -> &'static Console {
    &CONSOLE
}

/// Puts bytes on the UART. The console's lock keeps CPUs apart.
pub fn send(bytes: &[u8]) {
    for piece in bytes.chunks(FIFO_BYTES) {
        for _ in 0..PATIENCE {
            // SAFETY: reading the line status has no effect but to clear its error bits.
            if unsafe { in8(LINE_STATUS) } & TRANSMITTER_EMPTY != 0 {
                break;
            }
        }
        for &byte in piece {
            // SAFETY: the port is COM1's, which the hypervisor owns.
            unsafe { out8(COM1, byte) };
        }
    }
}

/// A byte that was typed.
pub fn receive() -> Option<u8> {
    // SAFETY: as in `send`.
    let status = unsafe { in8(LINE_STATUS) };
    // Ones are what a port without a UART reads.
    if status & RECEIVED == 0 || status == u8::MAX {
        return None;
    }
    // SAFETY: the port is COM1's, which the hypervisor owns.
    Some(unsafe { in8(COM1) })
}

/// Has the UART interrupt for each byte that comes.
pub fn interrupt_on_input() {
    // SAFETY: the port is COM1's, which the hypervisor owns.
    unsafe { out8(INTERRUPT_ENABLE, RECEIVED) };
}

/// Sets COM1 to 115200 baud, 8 bits, no parity, without interrupts. Called once.
pub fn start() {
    let divisor: u8 = 1;
    for (port, value) in [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, DIVISOR_ACCESS | EIGHT_BITS),
        (DIVISOR_LOW, divisor),
        (DIVISOR_HIGH, 0),
        (LINE_CONTROL, EIGHT_BITS),
        (FIFO_CONTROL, FIFO_ON_AND_CLEARED),
        (MODEM_CONTROL, READY_AND_REQUEST),
    ] {
        // SAFETY: the ports are COM1's, which the hypervisor owns.
        unsafe { out8(port, value) };
    }
}

/// A line of the hypervisor on its console.
pub fn say(text: fmt::Arguments<'_>) {
    CONSOLE.line(&send, text);
}

/// A last line, past the lock: whoever holds it may be what failed.
pub fn say_at_the_end(text: fmt::Arguments<'_>) {
    struct Past;
    impl Write for Past {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            send(text.as_bytes());
            Ok(())
        }
    }
    // Writing to the UART can't fail.
    let _ = write!(Past, "\r\n({HYPERVISOR}) {text}\r\n");
}
