//! The hypervisor's own UART, found from the host tree's `stdout-path`: PL011 or 8250.
//!
//! Usable from the first instruction: no heap, no lock, no MMU. The boot loader has set speed and
//! frame format. Arm PL011 TRM (DDI 0183) chapter 3; 16550 data sheet for `ns16550a`.

use arrayvec::ArrayString;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

/// What kind of UART, with the access width and register spacing of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Pl011,
    /// `shift` and `wide` (32-bit accesses) come from `reg-shift` and `reg-io-width`.
    Ns16550 {
        shift: u8,
        wide: bool,
    },
}

/// A UART that the hypervisor alone uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uart {
    base: u64,
    model: Model,
}

mod pl011 {
    pub const DATA: u64 = 0x00;
    pub const FLAGS: u64 = 0x18;
    pub const CONTROL: u64 = 0x30;
    pub const INTERRUPT_MASK: u64 = 0x38;
    pub const INTERRUPT_CLEAR: u64 = 0x44;
    /// UART, transmitter and receiver on.
    pub const CONTROL_ON: u32 = 1 | 1 << 8 | 1 << 9;
    pub const RECEIVE_EMPTY: u32 = 1 << 4;
    pub const TRANSMIT_FULL: u32 = 1 << 5;
    /// Receive and receive timeout.
    pub const RECEIVE_INTERRUPTS: u32 = 1 << 4 | 1 << 6;
}

mod ns16550 {
    pub const DATA: u64 = 0;
    pub const INTERRUPT_ENABLE: u64 = 1;
    pub const LINE_STATUS: u64 = 5;
    pub const DATA_READY: u32 = 1;
    pub const TRANSMIT_EMPTY: u32 = 1 << 5;
}

impl Uart {
    /// The UART that `/chosen/stdout-path` names; `None` if there is none or of another kind.
    pub fn of_tree(tree: &Fdt<'_>) -> Option<Self> {
        let root = tree.root();
        let path = text(&root.child("chosen")?, "stdout-path")?;
        // What follows a colon is speed and format.
        let path = path.split(':').next()?;
        if path.starts_with('/') {
            return Self::of_path(tree, path);
        }
        Self::of_path(tree, &text(&root.child("aliases")?, path)?)
    }

    /// The UART of a node.
    pub fn of_path(tree: &Fdt<'_>, path: &str) -> Option<Self> {
        let mut node = tree.root();
        let mut cells = (2, 1);
        let mut offset = 0u64;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            cells = (
                node.address_cells().unwrap_or(2),
                node.size_cells().unwrap_or(1),
            );
            node = node.child(name)?;
            if let Some(ranges) = node.property("ranges") {
                offset = offset.wrapping_add(shift_of(&node, ranges.value(), cells.0));
            }
        }
        let reg = node.property("reg")?;
        let base = number(reg.value(), cells.0)?.wrapping_add(offset);
        let model = if node.is_compatible("arm,pl011") || node.is_compatible("arm,sbsa-uart") {
            Model::Pl011
        } else if [
            "ns16550a",
            "ns16550",
            "snps,dw-apb-uart",
            "brcm,bcm2835-aux-uart",
        ]
        .iter()
        .any(|name| node.is_compatible(name))
        {
            let cell = |name| node.property(name).and_then(|p| number(p.value(), 1));
            Model::Ns16550 {
                shift: u8::try_from(cell("reg-shift").unwrap_or(0)).ok()?,
                wide: cell("reg-io-width") == Some(4),
            }
        } else {
            return None;
        };
        Some(Self { base, model })
    }

    /// Switches it on where the boot loader left it off, as one without a console of its own does.
    pub fn enable(&self) {
        if self.model == Model::Pl011 {
            let control = self.read(pl011::CONTROL);
            if control & pl011::CONTROL_ON != pl011::CONTROL_ON {
                self.write(pl011::CONTROL, control | pl011::CONTROL_ON);
            }
        }
    }

    /// Machine address of the first register.
    pub const fn base(&self) -> u64 {
        self.base
    }

    fn read(&self, register: u64) -> u32 {
        match self.model {
            // SAFETY: the host tree says that this UART's registers are here, the EL2 map has them
            // as device memory (or the MMU is off), and no domain is given the UART.
            Model::Pl011 => unsafe { ((self.base + register) as *const u32).read_volatile() },
            Model::Ns16550 { shift, wide: true } => {
                // SAFETY: as above.
                unsafe { ((self.base + (register << shift)) as *const u32).read_volatile() }
            }
            Model::Ns16550 { shift, wide: false } => {
                // SAFETY: as above.
                let byte =
                    unsafe { ((self.base + (register << shift)) as *const u8).read_volatile() };
                u32::from(byte)
            }
        }
    }

    fn write(&self, register: u64, value: u32) {
        match self.model {
            // SAFETY: as in `read`; the registers written are the UART's own.
            Model::Pl011 => unsafe { ((self.base + register) as *mut u32).write_volatile(value) },
            Model::Ns16550 { shift, wide: true } => {
                // SAFETY: as above.
                unsafe { ((self.base + (register << shift)) as *mut u32).write_volatile(value) }
            }
            Model::Ns16550 { shift, wide: false } => {
                let byte = value.to_le_bytes()[0];
                // SAFETY: as above.
                unsafe { ((self.base + (register << shift)) as *mut u8).write_volatile(byte) }
            }
        }
    }

    /// Sends a byte as soon as the UART takes it.
    pub fn send(&self, byte: u8) {
        match self.model {
            Model::Pl011 => {
                while self.read(pl011::FLAGS) & pl011::TRANSMIT_FULL != 0 {}
                self.write(pl011::DATA, u32::from(byte));
            }
            Model::Ns16550 { .. } => {
                while self.read(ns16550::LINE_STATUS) & ns16550::TRANSMIT_EMPTY == 0 {}
                self.write(ns16550::DATA, u32::from(byte));
            }
        }
    }

    /// A byte that has come in, if any.
    pub fn receive(&self) -> Option<u8> {
        match self.model {
            Model::Pl011 => {
                if self.read(pl011::FLAGS) & pl011::RECEIVE_EMPTY != 0 {
                    return None;
                }
                Some(self.read(pl011::DATA).to_le_bytes()[0])
            }
            Model::Ns16550 { .. } => {
                if self.read(ns16550::LINE_STATUS) & ns16550::DATA_READY == 0 {
                    return None;
                }
                Some(self.read(ns16550::DATA).to_le_bytes()[0])
            }
        }
    }

    /// Has the UART interrupt when bytes come in.
    pub fn enable_receive_interrupt(&self) {
        match self.model {
            Model::Pl011 => {
                self.write(pl011::INTERRUPT_CLEAR, 0x7ff);
                self.write(pl011::INTERRUPT_MASK, pl011::RECEIVE_INTERRUPTS);
            }
            Model::Ns16550 { .. } => self.write(ns16550::INTERRUPT_ENABLE, 1),
        }
    }
}

impl core::fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}

/// A path longer than this is not looked for.
type Text = ArrayString<128>;

fn text(node: &FdtNode<'_>, name: &str) -> Option<Text> {
    let property = node.property(name)?;
    let bytes = property.value().split(|&byte| byte == 0).next()?;
    Text::from(core::str::from_utf8(bytes).ok()?).ok()
}

/// The first `cells` 32-bit cells of a property as one number.
fn number(value: &[u8], cells: u32) -> Option<u64> {
    let bytes = usize::try_from(cells).ok()?.checked_mul(4)?;
    Some(
        value
            .get(..bytes)?
            .iter()
            .fold(0, |all, &byte| all << 8 | u64::from(byte)),
    )
}

/// What a bus adds to its children's addresses, by the first entry of its `ranges`; zero if the bus is
/// transparent or its form is not that of a simple bus.
fn shift_of(bus: &FdtNode<'_>, ranges: &[u8], parent_cells: u32) -> u64 {
    let child_cells = bus.address_cells().unwrap_or(2);
    let parent = usize::try_from(child_cells).unwrap_or(0) * 4;
    let child = number(ranges, child_cells);
    let parent = ranges
        .get(parent..)
        .and_then(|rest| number(rest, parent_cells));
    match (child, parent) {
        (Some(child), Some(parent)) => parent.wrapping_sub(child),
        _ => 0,
    }
}
