//! COM1: where the hypervisor speaks. 16550 registers: National Semiconductor PC16550D, 8.0.

use core::fmt::{self, Write};

use spin::Mutex;

use super::cpu::{in8, out8};

const COM1: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const DIVISOR_LOW: u16 = COM1;
const DIVISOR_HIGH: u16 = COM1 + 1;

const DIVISOR_ACCESS: u8 = 1 << 7;
const EIGHT_BITS: u8 = 3;
const FIFO_ON_AND_CLEARED: u8 = 7;
const READY_AND_REQUEST: u8 = 3;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// A UART that is there takes a byte within 100 microseconds; one that isn't reads as ones.
const PATIENCE: u32 = 100_000;

/// The UART's transmitter.
struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    for _ in 0..PATIENCE {
        // SAFETY: reading the line status has no effect but to clear its error bits.
        if unsafe { in8(LINE_STATUS) } & TRANSMITTER_EMPTY != 0 {
            break;
        }
    }
    // SAFETY: the port is COM1's, which the hypervisor owns.
    unsafe { out8(COM1, byte) };
}

static UART: Mutex<Uart> = Mutex::new(Uart);

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
    // Writing to the UART can't fail.
    let _ = writeln!(UART.lock(), "(terrane) {text}");
}

/// A last line, past the lock: whoever holds it may be what failed.
pub fn say_at_the_end(text: fmt::Arguments<'_>) {
    let _ = writeln!(Uart, "\n(terrane) {text}");
}
