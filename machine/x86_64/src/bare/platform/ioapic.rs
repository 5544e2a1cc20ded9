//! The physical IO-APICs: masked when the hypervisor starts, then programmed only with entries that have been checked.

use spin::Mutex;

use super::io::{self, Width};
use crate::bare::apic;
use crate::bare::mmu;
use crate::devices::acpi;
use crate::devices::ioapic::{Entry, IoApic, Pins};
use machine_paging::PagingError;

const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;
const VERSION: u32 = 1;
const FIRST_ENTRY: u32 = 0x10;

/// One IO-APIC's registers.
#[derive(Debug, Clone, Copy)]
pub struct Chip {
    /// Its ID, as the firmware says it.
    pub id: u8,
    /// Its registers, one page.
    pub address: u64,
    /// The global interrupt of its first pin.
    pub first_interrupt: u32,
    /// Its pins.
    pub pins: u8,
}

impl Chip {
    /// Maps its registers, and masks all of its pins.
    ///
    /// # Errors
    /// There are no tables left to map it.
    pub fn take(chip: &acpi::IoApic) -> Result<Self, PagingError> {
        let address = u64::from(chip.address);
        mmu::map_device(address, DATA + 4)?;
        let mut taken = Self {
            id: chip.id,
            address,
            first_interrupt: chip.first_interrupt,
            pins: 0,
        };
        let highest = taken.read(VERSION) >> 16 & 0xff;
        // The register has eight bits, of which the architecture uses values up to 239.
        taken.pins = u8::try_from(highest.min(239) + 1).unwrap_or(240);
        for pin in 0..taken.pins {
            taken.write(pin, Entry::MASKED);
        }
        Ok(taken)
    }

    /// Whether a global interrupt is one of its pins; which.
    pub fn pin(&self, interrupt: u32) -> Option<u8> {
        let pin = u8::try_from(interrupt.checked_sub(self.first_interrupt)?).ok()?;
        (pin < self.pins).then_some(pin)
    }

    /// Routes the UART's interrupt to a CPU: `level` and `low` as the firmware says, else an edge.
    pub fn route_console(&mut self, pin: u8, apic_id: u8, level: bool, low: bool) {
        let entry = u64::from(apic::CONSOLE)
            | u64::from(level) << 15
            | u64::from(low) << 13
            | u64::from(apic_id) << 56;
        self.write(pin, Entry(entry));
    }

    fn read(&self, register: u32) -> u32 {
        self.select(register);
        // SAFETY: `take` has mapped the page; reading the selected register changes nothing.
        let value = unsafe { io::load(self.address + DATA, Width::Word) };
        (value & 0xffff_ffff) as u32
    }

    fn write_register(&self, register: u32, value: u64) {
        self.select(register);
        // SAFETY: `take` has mapped the page; that the value may be written is what the callers see to.
        unsafe { io::store(self.address + DATA, Width::Word, value) };
    }

    fn select(&self, register: u32) {
        // SAFETY: `take` has mapped the page. Whoever accesses a chip holds the lock that it is under, or is the boot CPU
        // before there are others, so that nobody selects another register before the data are accessed.
        unsafe { io::store(self.address + SELECT, Width::Word, u64::from(register)) };
    }
}

impl Pins for Chip {
    fn write(&mut self, pin: u8, entry: Entry) {
        let low = FIRST_ENTRY + 2 * u32::from(pin);
        if entry.is_masked() {
            self.write_register(low, entry.0 & 0xffff_ffff);
            self.write_register(low + 1, entry.0 >> 32);
        } else {
            // Masked while the halves differ.
            self.write_register(low, Entry::MASKED.0);
            self.write_register(low + 1, entry.0 >> 32);
            self.write_register(low, entry.0 & 0xffff_ffff);
        }
    }
}

/// What a domain sees of a chip, and the chip.
pub struct Shared {
    /// The chip's page.
    pub address: u64,
    state: Mutex<(IoApic, Chip)>,
}

impl Shared {
    /// A chip for the hardware domain; `kept` is the pin that is the hypervisor's own.
    pub fn new(chip: Chip, kept: Option<u8>) -> Self {
        Self {
            address: chip.address,
            state: Mutex::new((
                IoApic::new(chip.id, chip.pins, |pin| Some(pin) != kept),
                chip,
            )),
        }
    }

    /// Does something with the model and the chip under it.
    pub fn with<R>(&self, work: impl FnOnce(&mut IoApic, &mut Chip) -> R) -> R {
        let mut state = self.state.lock();
        let (model, chip) = &mut *state;
        work(model, chip)
    }
}
