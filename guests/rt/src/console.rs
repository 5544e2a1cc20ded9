//! Whole lines to whoever listens: Xen's console hypercall when the tree has a hypervisor node that takes it, else the
//! PL011 that the tree names, else nobody.

use core::fmt::{self, Write as _};

use spin::Once;

use crate::tree::Facts;
use crate::{cpu, xen};

#[derive(Clone, Copy)]
enum Way {
    Hypercall,
    Pl011(u64),
    Nobody,
}

static WAY: Once<Way> = Once::new();

/// A line being put together, on the stack, since an exception may report in the midst of another line. What is over
/// 512 bytes is cut.
struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

/// Decides where lines go.
pub fn choose(facts: &Facts) {
    let uart = facts
        .pl011
        .map_or(Way::Nobody, |range| Way::Pl011(range.start));
    let way = match facts.xen {
        Some(_) if xen::console_write(b"") >= 0 => Way::Hypercall,
        _ => uart,
    };
    WAY.call_once(|| way);
}

/// Writes one line; [`crate::say`] is the shorter way.
pub fn line(text: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; 512],
        length: 0,
    };
    let _ = line.write_fmt(text);
    let _ = line.write_str("\n");
    let bytes = line.bytes.get(..line.length).unwrap_or_default();
    match WAY.get() {
        Some(Way::Hypercall) => {
            xen::console_write(bytes);
        }
        Some(Way::Pl011(base)) => bytes.iter().for_each(|byte| pl011(*base, *byte)),
        Some(Way::Nobody) | None => {}
    }
}

/// Formats one line as `println!` does.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::console::line(format_args!($($text)*)) };
}

/// One byte to a PL011 (Arm DDI 0183): data register at 0, flag register at 0x18 with "transmit FIFO full" in bit 5.
fn pl011(base: u64, byte: u8) {
    let carriage_return = (byte == b'\n').then_some(b'\r');
    for byte in carriage_return.into_iter().chain([byte]) {
        cpu::wait_for(100, || cpu::read32(base + 0x18) & 1 << 5 == 0);
        cpu::write32(base, u32::from(byte));
    }
}
