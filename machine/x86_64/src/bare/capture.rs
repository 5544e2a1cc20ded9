//! What the hypervisor finds of the machine: read for planning, and on request printed for the workstation.

use machine_paging::PAGE_SIZE;
use manifest::pc::{self, Description};

use super::console::{self, say};
use super::mmu;
use super::platform::io::{self, Width};
use crate::boot_info::{BootInfo, E820_RAM, Physical, Region, Rsdp};
use crate::devices::acpi::{self, Tables};
use crate::devices::pci::{Address, Registers, Size};
use crate::discover::{self, Facts, Hardware, pci::Configuration};
use crate::features::Features;

/// Memory wherever firmware or boot loader say that they keep something: RAM, or mapped when it is read.
pub struct Firmware<'a> {
    regions: &'a [Region],
    address_bits: u8,
}

impl<'a> Firmware<'a> {
    /// All that the CPU can address.
    pub const fn new(regions: &'a [Region], features: &Features) -> Self {
        Self {
            regions,
            address_bits: features.address_bits,
        }
    }

    /// Whether a range is RAM in whole pages, which [`mmu::enable`] has mapped.
    fn is_ram(&self, start: u64, end: u64) -> bool {
        let mut ram = self.regions.iter().filter(|region| region.kind == E820_RAM);
        ram.any(|region| {
            let first = region.start.checked_next_multiple_of(PAGE_SIZE);
            let behind = region.start.saturating_add(region.bytes) & !(PAGE_SIZE - 1);
            first.is_some_and(|first| first <= start) && end <= behind
        })
    }
}

impl Physical for Firmware<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let end = address.checked_add(bytes.len() as u64)?;
        if address == 0 || end > 1 << self.address_bits {
            return None;
        }
        if !self.is_ram(address, end) {
            mmu::map_device(address, bytes.len() as u64).ok()?;
        }
        for (at, byte) in (address..).zip(bytes) {
            // SAFETY: the byte is mapped. Reading what isn't memory there has at worst an effect on a device
            // that firmware took for a table.
            *byte = unsafe { (at as *const u8).read_volatile() };
        }
        Some(())
    }
}

/// A function's registers by the ports of segment 0.
pub struct Function(Address);

/// PCI Local Bus 3.0, 3.2.2.3.2.
const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;

impl Function {
    fn select(&self, offset: u16) -> u16 {
        const ENABLE: u32 = 1 << 31;
        let Address {
            bus,
            device,
            function,
        } = self.0;
        let place = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
        let register = u32::from(offset & 0xfc);
        io::write(ADDRESS_PORT, Width::Word, ENABLE | place | register);
        DATA_PORT + (offset & 3)
    }
}

const fn width(size: Size) -> Width {
    match size {
        Size::Byte => Width::Byte,
        Size::Half => Width::Half,
        Size::Word => Width::Word,
    }
}

impl Registers for Function {
    fn read(&self, offset: u16, size: Size) -> u32 {
        // The ports don't reach extended configuration space.
        if offset >= 0x100 {
            return size.ones();
        }
        let port = self.select(offset);
        io::read(port, width(size))
    }

    fn write(&mut self, offset: u16, size: Size, value: u32) {
        let port = self.select(offset);
        io::write(port, width(size), value);
    }
}

/// The machine's own hardware.
struct Machine;

impl Configuration for Machine {
    type Function = Function;
    fn function(&self, address: Address) -> Function {
        Function(address)
    }
}

impl Hardware for Machine {
    /// IO-APIC specification (82093AA), 3.2.2: bits 23:16 of the version register count from zero.
    fn pins(&self, io_apic: u64) -> u32 {
        const SELECT: u64 = 0;
        const WINDOW: u64 = 0x10;
        const VERSION: u64 = 1;
        if mmu::map_device(io_apic, 0x20).is_err() || !io_apic.is_multiple_of(16) {
            return 0;
        }
        // SAFETY: the register selects another and does nothing; it is mapped, by firmware's word an IO-APIC's.
        unsafe { io::store(io_apic + SELECT, Width::Word, VERSION) };
        // SAFETY: as above; reading the version has no effect.
        let version = unsafe { io::load(io_apic + WINDOW, Width::Word) };
        u32::try_from(version >> 16 & 0xff).unwrap_or(0) + 1
    }
}

/// ACPI's tables.
///
/// # Errors
/// There are none, or the root pointer or list is bad.
pub fn tables(info: &BootInfo, memory: &Firmware<'_>) -> Result<Tables, acpi::Error> {
    match &info.rsdp {
        Some(Rsdp::Copy(copy)) => Tables::of_root(memory, copy, 0),
        Some(Rsdp::At(root)) => Tables::read(memory, *root),
        None => Tables::read(memory, acpi::find_root(memory)?),
    }
}

/// Describes the machine.
///
/// # Errors
/// The tables don't say which CPUs there are.
pub fn describe(
    info: &BootInfo,
    features: &Features,
    tables: &Tables,
    memory: &Firmware<'_>,
) -> Result<Description, acpi::Error> {
    let facts = Facts {
        regions: &info.regions,
        address_bits: features.address_bits,
        console: Some(console::PORT),
    };
    discover::describe(facts, tables, memory, &Machine)
}

/// Prints a description between two lines.
pub fn print(description: &Description) {
    say(format_args!("host begin"));
    say(format_args!("{}", pc::write(description)));
    say(format_args!("host end"));
}
