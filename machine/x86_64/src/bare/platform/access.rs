//! A guest's accesses to ports, and to memory that isn't in its nested tables.

use super::devices::{Devices, Surroundings, VirtualApic};
use super::io::{self, Width};
use crate::bare::console::say;
use crate::devices::ioapic::WINDOW_BYTES;
use crate::devices::lapic::BASE_ADDRESS;
use crate::devices::pci::Size;
use crate::devices::ports::Access;

/// What IN gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRead {
    /// This, in the lowest bits.
    Value(u32),
    /// Nothing is there: all ones.
    Stray,
}

/// What OUT does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWritten {
    /// It is done.
    Done,
    /// Done, and the trapped pages are others now: the nested tables must lose them.
    Moved,
    /// The domain asks for its reboot.
    Reset,
    /// The domain asks for its power-off.
    PowerOff,
    /// Nothing is there: dropped.
    Stray,
}

/// The rule that decides an access: the first byte's that doesn't pass.
fn rule(devices: &Devices, port: u16, width: Width) -> Access {
    (0..width.bytes())
        .map(|byte| devices.rule(port.wrapping_add(byte)))
        .find(|rule| *rule != Access::Pass)
        .unwrap_or(Access::Pass)
}

/// IN of 8, 16 or 32 bits.
pub fn port_read(devices: &Devices, port: u16, width: Width) -> PortRead {
    let Some(bus) = devices.bus.as_ref() else {
        return PortRead::Stray;
    };
    match rule(devices, port, width) {
        Access::Pass | Access::Sleep | Access::Keyboard => PortRead::Value(io::read(port, width)),
        Access::Nobody => PortRead::Stray,
        Access::PciAddress if port == 0xcf8 && width == Width::Word => {
            PortRead::Value(bus.read_address())
        }
        Access::PciAddress | Access::PciAddressUnread => PortRead::Stray,
        Access::PciData if (0xcfc..0xd00).contains(&port) => {
            PortRead::Value(bus.read_data(port, Size::from(width)))
        }
        Access::PciData => PortRead::Stray,
        Access::Reset | Access::Zero => PortRead::Value(0),
    }
}

/// OUT, likewise.
pub fn port_write(devices: &Devices, port: u16, width: Width, value: u32) -> PortWritten {
    let Some(bus) = devices.bus.as_ref() else {
        return PortWritten::Stray;
    };
    match rule(devices, port, width) {
        Access::Pass => {
            io::write(port, width, value);
            PortWritten::Done
        }
        Access::PciAddress | Access::PciAddressUnread if port == 0xcf8 && width == Width::Word => {
            bus.write_address(value);
            PortWritten::Done
        }
        Access::PciData if (0xcfc..0xd00).contains(&port) => {
            match bus.write_data(port, Size::from(width), value, devices.apics) {
                true => PortWritten::Moved,
                false => PortWritten::Done,
            }
        }
        Access::Zero => PortWritten::Done,
        Access::Nobody | Access::PciAddress | Access::PciAddressUnread | Access::PciData => {
            PortWritten::Stray
        }
        Access::Reset => {
            /// In the chipset's register at 0xcf9; ACPI's own register resets by its value.
            const RESET_CPU: u32 = 1 << 2;
            let wanted = match devices.host.fadt.and_then(|fadt| fadt.reset) {
                Some((register, value)) if register.port() == Some(port) && port != 0xcf9 => {
                    u32::from(value)
                }
                _ => RESET_CPU,
            };
            if value & wanted == wanted {
                PortWritten::Reset
            } else {
                PortWritten::Done
            }
        }
        Access::Sleep => sleep(devices, value),
        Access::Keyboard => keyboard(port, width, value),
    }
}

/// A write of PM1 control: soft-off is the domain's power-off, everything else is dropped.
fn sleep(devices: &Devices, value: u32) -> PortWritten {
    const ENABLE: u32 = 1 << 13;
    let kind = (value >> 10 & 7) as u8;
    let is_off = devices
        .host
        .soft_off()
        .is_none_or(|sleep| sleep.a == kind || sleep.b == kind);
    if value & ENABLE != 0 && is_off {
        PortWritten::PowerOff
    } else {
        PortWritten::Done
    }
}

/// A command for the keyboard controller: one that pulses the CPU's reset line is the domain's reboot, and those that
/// write the output port, where that line is too, are dropped.
fn keyboard(port: u16, width: Width, value: u32) -> PortWritten {
    const WRITE_OUTPUT: u32 = 0xd1;
    match value & 0xff {
        pulse @ 0xf0..=0xff if pulse & 1 == 0 => PortWritten::Reset,
        WRITE_OUTPUT => PortWritten::Done,
        _ if width == Width::Byte => {
            io::write(port, width, value);
            PortWritten::Done
        }
        _ => PortWritten::Stray,
    }
}

/// A read of `width` at an address that isn't in the nested tables; `None` if nothing is there.
pub fn mmio_read(devices: &Devices, vcpu: &VirtualApic, address: u64, width: Width) -> Option<u64> {
    if let Some(offset) = local(address) {
        let value = vcpu.local.lock().mmio_read(offset, &Surroundings(devices));
        return Some(u64::from(value) & width.ones());
    }
    for shared in &devices.chips {
        if let Some(offset) = within(address, shared.address) {
            return Some(u64::from(shared.with(|model, _| model.read(offset))) & width.ones());
        }
    }
    devices.bus.as_ref()?.load(address, width)
}

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmioWritten {
    /// It is done.
    Done,
    /// Done, and the trapped pages are others now: the nested tables must lose them.
    Moved,
}

/// A write, likewise.
pub fn mmio_write(
    devices: &Devices,
    vcpu: &VirtualApic,
    address: u64,
    width: Width,
    value: u64,
) -> Option<MmioWritten> {
    let word = (value & 0xffff_ffff) as u32;
    if let Some(offset) = local(address) {
        let surroundings = Surroundings(devices);
        vcpu.local.lock().mmio_write(offset, word, &surroundings);
        return Some(MmioWritten::Done);
    }
    for (index, shared) in devices.chips.iter().enumerate() {
        if let Some(offset) = within(address, shared.address) {
            let written = shared.with(|model, chip| model.write(offset, word, devices.apics, chip));
            if let Err(refusal) = written
                && devices.may_complain()
            {
                say(format_args!("IO-APIC {index}: {refusal}"));
            }
            return Some(MmioWritten::Done);
        }
    }
    let bus = devices.bus.as_ref()?;
    let moved = bus.store(address, width, value, devices.apics)?;
    Some(if moved {
        MmioWritten::Moved
    } else {
        MmioWritten::Done
    })
}

fn local(address: u64) -> Option<u32> {
    u32::try_from(within(address, BASE_ADDRESS)?).ok()
}

fn within(address: u64, window: u64) -> Option<u64> {
    address
        .checked_sub(window)
        .filter(|offset| *offset < WINDOW_BYTES)
}
