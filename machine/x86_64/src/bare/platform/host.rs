//! The machine's side of the platform, found and set up once on the boot CPU: interrupt controllers taken over, ACPI
//! mode, clocks, power.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::io::{self, Width};
use super::ioapic::Chip;
use crate::bare::console::say;
use crate::bare::tsc::{Frequencies, References};
use crate::bare::{apic, timer, tsc};
use crate::boot_info::Physical;
use crate::devices::acpi::{self, Ecam, Fadt, Madt, Override, Sleep, Tables, soft_off};
use crate::time::{Clock, Cmos};

/// The machine, as the platform knows it. There is one, made at boot and never changed.
pub struct Host {
    /// Nanoseconds by the TSC; 0 when the hypervisor started.
    pub clock: Clock,
    /// The IO-APICs that could be mapped.
    pub chips: Vec<Chip>,
    /// Interrupt source overrides.
    pub overrides: Vec<Override>,
    /// Configuration space in memory.
    pub ecams: Vec<Ecam>,
    /// The fixed hardware, where there is a FADT.
    pub fadt: Option<Fadt>,
    /// Registers in memory that no domain sees: those of HPET and IOMMUs. Start and bytes.
    pub hidden: Vec<(u64, u64)>,
    /// The first port of the hypervisor's UART.
    pub console: Option<u16>,
    /// Whether the machine has QEMU's firmware configuration device.
    pub emulator: bool,
    soft_off: Option<Sleep>,
    born: Option<u64>,
}

impl Host {
    /// Takes the machine over. `console` is the first port of the hypervisor's UART. Called once, on the boot CPU, with
    /// interrupts off.
    pub fn start(tables: &Tables, memory: &impl Physical, console: Option<u16>) -> &'static Self {
        mask_8259();
        apic::start();
        let madt = tables
            .load(memory, *b"APIC")
            .map(|bytes| Madt::read(&bytes))
            .ok();
        let (io_apics, overrides) =
            madt.map_or_else(Default::default, |madt| (madt.io_apics, madt.overrides));
        let mut chips = Vec::new();
        for found in &io_apics {
            match Chip::take(found) {
                Ok(chip) => chips.push(chip),
                Err(error) => say(format_args!("IO-APIC {} isn't used: {error:?}", found.id)),
            }
        }
        let fadt = tables
            .load(memory, *b"FACP")
            .ok()
            .and_then(|bytes| Fadt::read(&bytes));
        if let Some(fadt) = &fadt {
            enter_acpi_mode(fadt);
        }
        let hpet = tables
            .load(memory, *b"HPET")
            .ok()
            .and_then(|bytes| acpi::hpet(&bytes));
        let references = References {
            hpet,
            pm_timer: fadt
                .and_then(|fadt| fadt.pm_timer)
                .and_then(|register| register.port()),
        };
        let frequencies = Frequencies::find(references);
        say(format_args!(
            "TSC {} kHz by {:?}, APIC timer {} kHz",
            frequencies.tsc / 1000,
            frequencies.source,
            frequencies.apic / 1000
        ));
        timer::start(&frequencies);
        let clock = Clock::new(tsc::now(), frequencies.tsc);
        let mut hidden: Vec<(u64, u64)> = hpet.map(|base| (base, 0x1000)).into_iter().collect();
        for signature in [*b"DMAR", *b"IVRS"] {
            if let Ok(bytes) = tables.load(memory, signature) {
                hidden.extend(acpi::iommu_registers(&bytes));
            }
        }
        let ecams = tables
            .load(memory, *b"MCFG")
            .map(|bytes| acpi::ecams(&bytes))
            .unwrap_or_default();
        let born = read_cmos(fadt.and_then(|fadt| fadt.century));
        Box::leak(Box::new(Self {
            clock,
            chips,
            overrides,
            ecams,
            soft_off: fadt.and_then(|fadt| find_soft_off(&fadt, tables, memory)),
            fadt,
            hidden,
            console,
            emulator: has_firmware_configuration(),
            born,
        }))
    }

    /// Nanoseconds since the hypervisor started, as every guest counts them.
    pub fn now(&self) -> u64 {
        self.clock.nanoseconds(tsc::now())
    }

    /// Seconds since 1970 when [`Self::now`] was 0, by the CMOS clock.
    pub fn wall_clock(&self) -> Option<u64> {
        self.born
    }

    /// The power-off that ACPI describes. Returns if it doesn't happen.
    pub fn power_off(&self) {
        let (Some(fadt), Some(sleep)) = (&self.fadt, self.soft_off) else {
            return;
        };
        for (control, second) in [(fadt.pm1a_control, false), (fadt.pm1b_control, true)] {
            let Some(port) = control.and_then(|register| register.port()) else {
                continue;
            };
            let now = io::read(port, Width::Half);
            let (a, b) = sleep.values(u16::try_from(now).unwrap_or(0));
            io::write(port, Width::Half, u32::from(if second { b } else { a }));
        }
    }

    /// The reset that ACPI describes, then the ones that every PC has. Returns if none happens.
    pub fn reset(&self) {
        if let Some((register, value)) = self.fadt.and_then(|fadt| fadt.reset)
            && let Some(port) = register.port()
        {
            io::write(port, Width::Byte, u32::from(value));
        }
        // The chipset's reset register: a hard reset of CPU and system, by its rising edge.
        io::write(0xcf9, Width::Byte, 0x02);
        io::write(0xcf9, Width::Byte, 0x06);
        // The keyboard controller pulses the CPU's reset line.
        io::write(0x64, Width::Byte, 0xfe);
    }

    /// Which sleep types of PM1 control are soft-off; `None` if nobody knows.
    pub(super) fn soft_off(&self) -> Option<Sleep> {
        self.soft_off
    }

    /// The chip, the pin, and whether the UART's interrupt is level-triggered and active low.
    pub(super) fn console_pin(&self) -> Option<(usize, u8, bool, bool)> {
        let isa = match self.console? {
            0x3f8 | 0x3e8 => 4,
            0x2f8 | 0x2e8 => 3,
            _ => return None,
        };
        let redirected = self.overrides.iter().find(|entry| entry.source == isa);
        let interrupt = redirected.map_or(u32::from(isa), |entry| entry.interrupt);
        let flags = redirected.map_or(0, |entry| entry.flags);
        let (low, level) = (flags & 3 == 3, flags >> 2 & 3 == 3);
        self.chips
            .iter()
            .enumerate()
            .find_map(|(index, chip)| Some((index, chip.pin(interrupt)?, level, low)))
    }

    /// Has the UART interrupt the CPU with that APIC ID, by [`apic::CONSOLE`]. Called on the boot CPU before guests run;
    /// whether it can be routed.
    pub fn route_console(&self, apic_id: u32) -> bool {
        let (Some((index, pin, level, low)), Ok(apic_id)) =
            (self.console_pin(), u8::try_from(apic_id))
        else {
            return false;
        };
        let mut chip = self.chips[index];
        chip.route_console(pin, apic_id, level, low);
        true
    }
}

/// Whether QEMU's firmware configuration device answers (docs/specs/fw_cfg.rst): item 0 is its signature.
fn has_firmware_configuration() -> bool {
    io::write(0x510, Width::Half, 0);
    let signature: [u32; 4] = core::array::from_fn(|_| io::read(0x511, Width::Byte));
    signature == (*b"QEMU").map(u32::from)
}

/// Masks both 8259As for good: nobody takes their interrupts.
fn mask_8259() {
    io::write(0x21, Width::Byte, 0xff);
    io::write(0xa1, Width::Byte, 0xff);
}

/// Asks the firmware to leave the fixed hardware to software, as a domain has no port that raises an SMI.
fn enter_acpi_mode(fadt: &Fadt) {
    const SCI_ENABLE: u32 = 1;
    let Some(port) = fadt.pm1a_control.and_then(|register| register.port()) else {
        return;
    };
    let enabled = || io::read(port, Width::Half) & SCI_ENABLE != 0;
    let Ok(command) = u16::try_from(fadt.smi_command) else {
        return;
    };
    if enabled() || command == 0 || fadt.acpi_enable == 0 {
        return;
    }
    io::write(command, Width::Byte, u32::from(fadt.acpi_enable));
    // ACPI 6.5, 16.3.1 gives no time; Linux waits for up to 3 seconds. A read takes about a microsecond.
    if !(0..100_000).any(|_| enabled()) {
        say(format_args!("the firmware doesn't enter ACPI mode"));
    }
}

fn find_soft_off(fadt: &Fadt, tables: &Tables, memory: &impl Physical) -> Option<Sleep> {
    let dsdt = acpi::load(memory, fadt.dsdt, *b"DSDT").ok();
    dsdt.and_then(|aml| soft_off(&aml)).or_else(|| {
        tables
            .list
            .iter()
            .filter(|table| table.signature == *b"SSDT")
            .filter_map(|table| acpi::load(memory, table.address, *b"SSDT").ok())
            .find_map(|aml| soft_off(&aml))
    })
}

/// The CMOS clock, read twice so that no update is in between; `None` if it shows no date.
fn read_cmos(century: Option<u8>) -> Option<u64> {
    const UPDATING: u8 = 1 << 7;
    let register = |number: u8| {
        // Bit 7 of the index would mask NMIs; it stays clear.
        io::write(0x70, Width::Byte, u32::from(number & 0x7f));
        (io::read(0x71, Width::Byte) & 0xff) as u8
    };
    let read = || Cmos {
        registers: [0, 2, 4, 7, 8, 9].map(register),
        century: century.map(register),
        mode: register(0x0b),
    };
    // An update takes two milliseconds at most.
    let mut patience = 10_000;
    while register(0x0a) & UPDATING != 0 && patience > 0 {
        patience -= 1;
    }
    let mut last = read();
    for _ in 0..3 {
        let next = read();
        if next == last {
            return next.seconds();
        }
        last = next;
    }
    None
}
