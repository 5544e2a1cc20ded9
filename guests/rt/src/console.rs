//! Whole lines to whoever listens: Xen's console hypercall where there is a hypervisor that takes it, else the machine's
//! UART, else nobody.

use core::fmt::{self, Write as _};

use spin::Once;

use crate::{uart, xen};

#[derive(Clone, Copy)]
enum Way {
    Hypercall,
    /// At this address or port.
    Uart(u64),
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

/// Decides where lines go: `hypervisor` says whether there is one of Xen's ABI, `uart` where the machine's UART is.
pub(crate) fn choose(hypervisor: bool, uart: Option<u64>) {
    let way = if hypervisor && xen::console_write(b"") >= 0 {
        Way::Hypercall
    } else {
        uart.map_or(Way::Nobody, Way::Uart)
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
        Some(Way::Uart(at)) => {
            for byte in bytes {
                let carriage_return = (*byte == b'\n').then_some(b'\r');
                let bytes = carriage_return.into_iter().chain([*byte]);
                bytes.for_each(|byte| uart::write(*at, byte));
            }
        }
        Some(Way::Nobody) | None => {}
    }
}

/// Formats one line as `println!` does.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::console::line(format_args!($($text)*)) };
}
