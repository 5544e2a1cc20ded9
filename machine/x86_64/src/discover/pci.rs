//! The PCI functions of segment 0, found by looking at every place where one could be.
//!
//! PCI Local Bus 3.0, 6.1 and 6.2.5; PCI-to-PCI Bridge Architecture 1.2, 3.2; PCI Express 5.0, 7.5.3.2, 7.6.3 and 7.7.8.

use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange};
use manifest::pc::{Bridge, Function, PciAddress};

use crate::devices::pci::{Address, Registers, Size};

/// Configuration space of segment 0.
pub trait Configuration {
    /// One function's registers.
    type Function: Registers;
    /// The registers of a function, which need not be there.
    fn function(&self, address: Address) -> Self::Function;
}

const VENDOR: u16 = 0x00;
const DEVICE: u16 = 0x02;
const COMMAND: u16 = 0x04;
const CLASS: u16 = 0x08;
const HEADER_TYPE: u16 = 0x0e;
const FIRST_BAR: u16 = 0x10;
const SECONDARY_BUS: u16 = 0x19;
const SUBORDINATE_BUS: u16 = 0x1a;

const MANY_FUNCTIONS: u32 = 1 << 7;
const DECODES: u32 = 3;
const CLASS_HOST_BRIDGE: u32 = 0x0600;
const BAR_IS_PORT: u32 = 1;
const BAR_IS_WIDE: u32 = 1 << 2;
const BAR_ADDRESS: u32 = !0xf;

/// Redirection of requests and of completions.
const REDIRECTS: u32 = 1 << 2 | 1 << 3;
/// Those, source validation and upstream forwarding.
const KEEPS_APART: u32 = REDIRECTS | 1 << 0 | 1 << 4;

/// Finds all functions on the buses from 0 to `last_bus`, by address, and the bridges among them.
#[must_use]
pub fn scan(space: &impl Configuration, last_bus: u8) -> (Vec<Function>, Vec<Bridge>) {
    let (mut functions, mut bridges) = (Vec::new(), Vec::new());
    for bus in 0..=last_bus {
        for device in 0..32 {
            for number in 0..8 {
                let address = Address {
                    bus,
                    device,
                    function: number,
                };
                let mut registers = space.function(address);
                let vendor = registers.read(VENDOR, Size::Half);
                let header = registers.read(HEADER_TYPE, Size::Byte);
                if vendor != Size::Half.ones() {
                    functions.push(describe(address, &mut registers));
                    bridges.extend(bridge(address, &registers));
                }
                let alone = vendor == Size::Half.ones() || header & MANY_FUNCTIONS == 0;
                if number == 0 && alone {
                    break;
                }
            }
        }
    }
    (functions, bridges)
}

fn place(address: Address) -> PciAddress {
    PciAddress {
        segment: 0,
        bus: address.bus,
        device: address.device,
        function: address.function,
    }
}

fn kind(registers: &impl Registers) -> u32 {
    registers.read(HEADER_TYPE, Size::Byte) & !MANY_FUNCTIONS
}

fn describe(address: Address, registers: &mut impl Registers) -> Function {
    let half = |offset| u16::try_from(registers.read(offset, Size::Half)).unwrap_or(u16::MAX);
    let (vendor, device) = (half(VENDOR), half(DEVICE));
    let class = registers.read(CLASS, Size::Word) >> 8;
    // A host bridge's registers may move memory; its own are left alone.
    let bars = match kind(registers) {
        _ if class >> 8 == CLASS_HOST_BRIDGE => 0,
        0 => 6,
        1 => 2,
        _ => 0,
    };
    Function {
        address: place(address),
        vendor,
        device,
        class,
        bars: find_bars(registers, bars),
        behind_iommu: false,
        isolated: access_control(registers) & REDIRECTS == REDIRECTS,
    }
}

fn bridge(address: Address, registers: &impl Registers) -> Option<Bridge> {
    let byte = |offset| u8::try_from(registers.read(offset, Size::Byte)).ok();
    (kind(registers) == 1).then_some(Bridge {
        address: place(address),
        secondary: byte(SECONDARY_BUS)?,
        subordinate: byte(SUBORDINATE_BUS)?,
        isolates: access_control(registers) & KEEPS_APART == KEEPS_APART,
    })
}

/// What the function's access control services can do, as its capability register says; 0 without them. A bridge that is
/// no port has none.
fn access_control(registers: &impl Registers) -> u32 {
    const FIRST: u32 = 0x100;
    const LAST: u32 = 0xff8;
    const SERVICES: u32 = 0x000d;
    /// More than there is room for.
    const MOST: usize = 1024;
    let mut at = FIRST;
    for _ in 0..MOST {
        let is_place = (FIRST..=LAST).contains(&at) && at.is_multiple_of(4);
        let Some(offset) = u16::try_from(at).ok().filter(|_| is_place) else {
            return 0;
        };
        let header = registers.read(offset, Size::Word);
        // A function without extended configuration space answers with ones or zeros.
        if header == 0 || header == u32::MAX {
            return 0;
        }
        if header & 0xffff == SERVICES {
            return registers.read(offset + 4, Size::Half);
        }
        at = header >> 20;
    }
    0
}

/// The ranges of the memory BARs that firmware has placed. The device answers no access meanwhile.
fn find_bars(registers: &mut impl Registers, count: u16) -> Vec<MachineRange> {
    if count == 0 {
        return Vec::new();
    }
    let command = registers.read(COMMAND, Size::Half);
    registers.write(COMMAND, Size::Half, command & !DECODES);
    let mut found = Vec::new();
    let mut index = 0;
    while index < count {
        let offset = FIRST_BAR + index * 4;
        let low = registers.read(offset, Size::Word);
        let is_wide = low & (BAR_IS_PORT | BAR_IS_WIDE) == BAR_IS_WIDE && index + 1 < count;
        index += if is_wide { 2 } else { 1 };
        if low & BAR_IS_PORT != 0 {
            continue;
        }
        let high = if is_wide {
            registers.read(offset + 4, Size::Word)
        } else {
            0
        };
        let mask = size_mask(registers, offset, is_wide);
        let start = u64::from(high) << 32 | u64::from(low & BAR_ADDRESS);
        let size = (!mask).wrapping_add(1);
        if start != 0 && size != 0 {
            let range = MachineRange::saturating(MachineAddress::new(start), size);
            found.push(range);
        }
    }
    registers.write(COMMAND, Size::Half, command);
    found
}

/// What is left of all ones in a BAR: the address bits that can be set.
fn size_mask(registers: &mut impl Registers, offset: u16, is_wide: bool) -> u64 {
    let mut probe = |offset| {
        let before = registers.read(offset, Size::Word);
        registers.write(offset, Size::Word, u32::MAX);
        let mask = registers.read(offset, Size::Word);
        registers.write(offset, Size::Word, before);
        mask
    };
    let low = u64::from(probe(offset) & BAR_ADDRESS);
    let high = if is_wide {
        u64::from(probe(offset + 4))
    } else {
        u64::from(u32::MAX)
    };
    // A BAR that doesn't exist keeps no bit.
    if low == 0 && (!is_wide || high == 0) {
        0
    } else {
        high << 32 | low
    }
}
