//! The multiple APIC description table: CPUs, IO-APICs, ISA interrupts that are wired otherwise.
//!
//! ACPI 6.5, 5.2.12.

use alloc::vec::Vec;

use super::{HEADER_BYTES, half, word};

/// A CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// Its ACPI processor UID.
    pub uid: u32,
    /// Its APIC ID.
    pub apic_id: u32,
    /// Whether it is there. One that isn't may come later, by hot-plug.
    pub enabled: bool,
}

/// An IO-APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApic {
    /// Its ID.
    pub id: u8,
    /// Its registers.
    pub address: u32,
    /// The global interrupt of its first pin.
    pub first_interrupt: u32,
}

/// An ISA interrupt that isn't the global interrupt of the same number, active high and edge-triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// The ISA interrupt.
    pub source: u8,
    /// The global interrupt.
    pub interrupt: u32,
    /// Polarity in bits 1:0, trigger in bits 3:2, as MPS has them.
    pub flags: u16,
}

/// What is taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Madt {
    /// CPUs in the table's order.
    pub processors: Vec<Processor>,
    /// IO-APICs.
    pub io_apics: Vec<IoApic>,
    /// Interrupt source overrides.
    pub overrides: Vec<Override>,
}

impl Madt {
    /// Reads a MADT whose header is checked. An entry that is too short for its type is left out, and so are types that
    /// nobody here needs; one with no length ends the table.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let mut madt = Self {
            processors: Vec::new(),
            io_apics: Vec::new(),
            overrides: Vec::new(),
        };
        let mut rest = bytes.get(HEADER_BYTES + 8..).unwrap_or_default();
        while let [kind, length, ..] = *rest {
            let Some((entry, after)) = rest.split_at_checked(usize::from(length)) else {
                break;
            };
            if length < 2 {
                break;
            }
            // `None` means too short; there is nothing to do about it.
            let _ = madt.entry(kind, &entry[2..]);
            rest = after;
        }
        madt
    }

    /// One entry, without type and length.
    fn entry(&mut self, kind: u8, bytes: &[u8]) -> Option<()> {
        let byte = |offset: usize| bytes.get(offset).copied();
        let half = |offset| half(bytes, offset);
        let word = |offset| word(bytes, offset);
        match kind {
            // 0xff is what firmware writes for a CPU that isn't there.
            0 => self.processor(u32::from(byte(0)?), u32::from(byte(1)?), word(2)?, 0xff),
            9 => self.processor(word(10)?, word(2)?, word(6)?, u32::MAX),
            1 => self.io_apics.push(IoApic {
                id: byte(0)?,
                address: word(2)?,
                first_interrupt: word(6)?,
            }),
            2 => self.overrides.push(Override {
                source: byte(1)?,
                interrupt: word(2)?,
                flags: half(6)?,
            }),
            _ => {}
        }
        Some(())
    }

    fn processor(&mut self, uid: u32, apic_id: u32, flags: u32, nobody: u32) {
        let known = self.processors.iter().any(|cpu| cpu.apic_id == apic_id);
        if apic_id != nobody && !known {
            self.processors.push(Processor {
                uid,
                apic_id,
                enabled: flags & 1 != 0,
            });
        }
    }
}
