//! The IO-APIC that a domain sees: the physical one's pins, each checked before it is programmed.
//!
//! A pin keeps the guest's vector and trigger; its destination becomes one of the domain's own CPUs, by APIC ID. A
//! level interrupt is masked at its pin when it arrives, so that the hypervisor can end it physically at once, and
//! unmasked when the guest ends it: until then the guest reads remote IRR as set. Edges need nothing.
//!
//! Pins that the domain doesn't own (the hypervisor's UART) read as masked and ignore writes.
//!
//! Intel 82093AA data sheet, section 3; Intel I/O controller hub data sheets for version 0x20's EOI register;
//! ACPI 6.5, section 5.2.12.3.
#![allow(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of registers, and are as wide as the type that takes them"
)]

use alloc::vec::Vec;

use super::interrupt::{Delivery, Destination, DeviceInterrupt, Directory, Refusal};

/// Bytes of the window that the guest sees.
pub const WINDOW_BYTES: u64 = 0x1000;

const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;
const END: u64 = 0x40;

const REGISTER_ID: u32 = 0;
const REGISTER_VERSION: u32 = 1;
const REGISTER_ARBITRATION: u32 = 2;
const REGISTER_FIRST_ENTRY: u32 = 0x10;
/// With an EOI register.
const VERSION: u32 = 0x20;

/// The physical IO-APIC's redirection table.
pub trait Pins {
    /// Writes a pin's whole entry. While the entry that is there isn't masked, mask it before the halves differ.
    fn write(&mut self, pin: u8, entry: Entry);
}

/// A redirection table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    const REMOTE_IRR: u64 = 1 << 14;
    const LEVEL: u64 = 1 << 15;
    const MASK: u64 = 1 << 16;
    const LOW_POLARITY: u64 = 1 << 13;
    const LOGICAL: u64 = 1 << 11;
    /// Masked, everything else zero.
    pub const MASKED: Self = Self(Self::MASK);
    /// What a guest can set: vector, modes, polarity, trigger, mask, destination.
    const WRITABLE: u64 = 0xff00_0000_0001_afff;

    /// The interrupt vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Whether the pin is masked.
    #[must_use]
    pub const fn is_masked(self) -> bool {
        self.0 & Self::MASK != 0
    }

    /// Whether the pin is level-triggered.
    #[must_use]
    pub const fn is_level(self) -> bool {
        self.0 & Self::LEVEL != 0
    }

    fn destination(self) -> Destination {
        Destination::narrow((self.0 >> 56) as u8, self.0 & Self::LOGICAL != 0)
    }

    /// The same, masked. The trigger stays: a line that falls while its pin is masked and called an edge isn't noticed by every
    /// chip.
    const fn masked(self) -> Self {
        Self(self.0 | Self::MASK)
    }

    /// The entry that hardware gets: fixed, to one physical APIC ID.
    fn physical(self, interrupt: DeviceInterrupt) -> Self {
        Self(
            u64::from(interrupt.vector)
                | self.0 & (Self::LOW_POLARITY | Self::LEVEL)
                | u64::from(interrupt.target.apic_id) << 56,
        )
    }
}

#[derive(Debug, Clone, Copy)]
struct Pin {
    owned: bool,
    /// What the guest wrote.
    entry: Entry,
    /// What hardware may be told of that, none while it is masked or refused.
    granted: Option<DeviceInterrupt>,
    /// The vector with which it arrived, masked until the guest ends that.
    in_service: Option<u8>,
}

/// One IO-APIC of a domain. The machine keeps it under a lock: any of the domain's CPUs accesses it.
#[derive(Debug)]
pub struct IoApic {
    id: u8,
    select: u32,
    pins: Vec<Pin>,
}

impl IoApic {
    /// An IO-APIC with the ID and pins (1 to 240) of the physical one, all masked; `owned` tells by its number whether a
    /// pin is the domain's. Nothing is written to the hardware.
    #[must_use]
    pub fn new(id: u8, pins: u8, owned: impl Fn(u8) -> bool) -> Self {
        let pin = |number| Pin {
            owned: owned(number),
            entry: Entry::MASKED,
            granted: None,
            in_service: None,
        };
        Self {
            id,
            select: 0,
            pins: (0..pins.clamp(1, 240)).map(pin).collect(),
        }
    }

    /// A read of 32 bits, `offset` bytes into the window. What no register is there reads as zero.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            SELECT => self.select,
            DATA => self.read_register(),
            _ => 0,
        }
    }

    /// A write of 32 bits.
    ///
    /// # Errors
    /// The guest unmasks a pin whose interrupt it can't have: the pin stays masked in hardware, while the guest reads
    /// what it wrote. For the log; the guest isn't told.
    pub fn write(
        &mut self,
        offset: u64,
        value: u32,
        directory: &impl Directory,
        hardware: &mut impl Pins,
    ) -> Result<(), Refusal> {
        match offset {
            SELECT => self.select = value & 0xff,
            DATA => return self.write_register(value, directory, hardware),
            END => self.level_ended(value as u8, hardware),
            _ => {}
        }
        Ok(())
    }

    /// A level interrupt arrived at the CPU of `vcpu`: masks the pins that it may have come from. The physical end of
    /// interrupt is to follow. Whether there is such a pin; if not, no pin of this IO-APIC raised it.
    pub fn level_arrived(&mut self, vcpu: usize, vector: u8, hardware: &mut impl Pins) -> bool {
        let mut found = false;
        for (number, pin) in (0..).zip(&mut self.pins) {
            let comes_from = pin
                .granted
                .is_some_and(|granted| granted.vector == vector && granted.target.vcpu == vcpu);
            if comes_from && pin.entry.is_level() {
                found = true;
                if pin.in_service.is_none() {
                    pin.in_service = Some(vector);
                    pin.program(number, hardware);
                }
            }
        }
        found
    }

    /// The guest ended a level interrupt at the local APIC: its pins can fire again.
    pub fn level_ended(&mut self, vector: u8, hardware: &mut impl Pins) {
        for (number, pin) in (0..).zip(&mut self.pins) {
            if pin.in_service == Some(vector) {
                pin.in_service = None;
                pin.program(number, hardware);
            }
        }
    }

    /// Masks all pins of the domain, as for a restart.
    pub fn reset(&mut self, hardware: &mut impl Pins) {
        self.select = 0;
        for (number, pin) in (0..).zip(&mut self.pins) {
            if pin.owned {
                pin.entry = Entry::MASKED;
                pin.granted = None;
                pin.in_service = None;
                hardware.write(number, Entry::MASKED);
            }
        }
    }

    fn read_register(&self) -> u32 {
        match self.select {
            REGISTER_ID | REGISTER_ARBITRATION => u32::from(self.id) << 24,
            REGISTER_VERSION => (self.pins.len() as u32 - 1) << 16 | VERSION,
            select => match self.place(select) {
                Some((number, high)) => {
                    let pin = &self.pins[number];
                    let service = pin.in_service.map_or(0, |_| Entry::REMOTE_IRR);
                    ((pin.entry.0 | service) >> if high { 32 } else { 0 }) as u32
                }
                None => 0,
            },
        }
    }

    fn write_register(
        &mut self,
        value: u32,
        directory: &impl Directory,
        hardware: &mut impl Pins,
    ) -> Result<(), Refusal> {
        if self.select == REGISTER_ID {
            // The guest's name for it: Linux writes another where two have the same, and insists on reading it.
            self.id = (value >> 24) as u8;
        }
        let Some((number, high)) = self.place(self.select) else {
            return Ok(());
        };
        let pin = &mut self.pins[number];
        if !pin.owned {
            return Ok(());
        }
        let (kept, shift) = if high {
            (u64::from(u32::MAX), 32)
        } else {
            (u64::from(u32::MAX) << 32, 0)
        };
        pin.entry = Entry((pin.entry.0 & kept | u64::from(value) << shift) & Entry::WRITABLE);
        let result = pin.check(directory);
        pin.granted = result.unwrap_or(None);
        // As hardware has it: an edge has no remote IRR. This is how older kernels end a level interrupt.
        pin.in_service = pin.in_service.filter(|_| pin.entry.is_level());
        pin.program(number as u8, hardware);
        result.map(|_| ())
    }

    /// Which pin the selected register belongs to, and whether it is the upper half.
    fn place(&self, select: u32) -> Option<(usize, bool)> {
        let index = select.checked_sub(REGISTER_FIRST_ENTRY)?;
        let number = index as usize / 2;
        (number < self.pins.len()).then_some((number, index % 2 == 1))
    }
}

impl Pin {
    /// What the guest may have of its entry: nothing while masked.
    fn check(&self, directory: &impl Directory) -> Result<Option<DeviceInterrupt>, Refusal> {
        if self.entry.is_masked() {
            return Ok(None);
        }
        let delivery = Delivery::of(self.entry.0 as u32);
        DeviceInterrupt::check(
            self.entry.vector(),
            delivery,
            self.entry.destination(),
            directory,
        )
        .map(Some)
    }

    fn program(&self, number: u8, hardware: &mut impl Pins) {
        let entry = match self.granted {
            Some(granted) if self.in_service.is_none() => self.entry.physical(granted),
            Some(granted) => self.entry.physical(granted).masked(),
            None => Entry(self.entry.0 & (Entry::LEVEL | Entry::LOW_POLARITY)).masked(),
        };
        hardware.write(number, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::interrupt::Target;
    use proptest::prelude::*;

    /// vCPU n has APIC ID 4 + n; logical destinations are a bit for each.
    struct Two;

    impl Directory for Two {
        fn first(&self, destination: Destination) -> Option<Target> {
            let vcpu = match destination {
                Destination::Everyone => 0,
                Destination::Physical(id) => id.checked_sub(4)?,
                Destination::Logical(mask) => mask.trailing_zeros(),
            };
            (vcpu < 2).then_some(Target {
                vcpu: vcpu as usize,
                apic_id: 4 + vcpu,
            })
        }
    }

    /// The hardware's entries; `None` where nothing was written.
    type Table = [Option<Entry>; 24];

    impl Pins for Table {
        fn write(&mut self, pin: u8, entry: Entry) {
            self[usize::from(pin)] = Some(entry);
        }
    }

    fn bed() -> (IoApic, Table) {
        (IoApic::new(2, 24, |pin| pin != 4), [None; 24])
    }

    fn entry(chip: &mut IoApic, table: &mut Table, pin: u32, value: u64) -> Result<(), Refusal> {
        chip.write(SELECT, 0x11 + 2 * pin, &Two, table)?;
        chip.write(DATA, (value >> 32) as u32, &Two, table)?;
        chip.write(SELECT, 0x10 + 2 * pin, &Two, table)?;
        chip.write(DATA, value as u32, &Two, table)
    }

    #[test]
    fn it_is_an_io_apic_with_the_hosts_pins() {
        let (mut chip, mut table) = bed();
        chip.write(SELECT, 1, &Two, &mut table).unwrap();
        assert_eq!(chip.read(DATA), 0x0017_0020);
        chip.write(SELECT, 0, &Two, &mut table).unwrap();
        assert_eq!(chip.read(DATA), 0x0200_0000);
        chip.write(DATA, 0x8100_0000, &Two, &mut table).unwrap();
        assert_eq!(chip.read(DATA), 0x8100_0000, "the guest's name for it");
        chip.write(SELECT, 0x10 + 48, &Two, &mut table).unwrap();
        assert_eq!(chip.read(DATA), 0, "past the last pin");
        assert_eq!(table, [None; 24]);
    }

    #[test]
    fn an_edge_goes_to_one_cpu_of_the_domain() {
        let (mut chip, mut table) = bed();
        entry(&mut chip, &mut table, 8, 3 << 56 | 0x0941).unwrap();
        assert_eq!(table[8], Some(Entry(4 << 56 | 0x41)), "the first of both");
        assert_eq!(chip.read(DATA), 0x0941, "the guest reads what it wrote");
        assert!(!chip.level_arrived(0, 0x41, &mut table));
    }

    #[test]
    fn a_level_is_masked_from_its_arrival_to_its_end() {
        let (mut chip, mut table) = bed();
        let wanted = 5 << 56 | 1 << 15 | 1 << 13 | 0x51;
        entry(&mut chip, &mut table, 16, wanted).unwrap();
        assert_eq!(table[16], Some(Entry(wanted)));
        assert!(!chip.level_arrived(0, 0x51, &mut table), "another vCPU");
        assert!(chip.level_arrived(1, 0x51, &mut table));
        let masked = Some(Entry(wanted | 1 << 16));
        assert_eq!(table[16], masked, "still a level");
        assert_ne!(chip.read(DATA) & 1 << 14, 0);
        chip.level_ended(0x50, &mut table);
        assert_eq!(table[16], masked);
        chip.level_ended(0x51, &mut table);
        assert_eq!(table[16], Some(Entry(wanted)));
        assert_eq!(chip.read(DATA) & 1 << 14, 0);
    }

    #[test]
    fn a_pin_that_the_guest_masks_while_in_service_stays_masked() {
        let (mut chip, mut table) = bed();
        let wanted = 4 << 56 | 1 << 15 | 0x51;
        entry(&mut chip, &mut table, 16, wanted).unwrap();
        chip.level_arrived(0, 0x51, &mut table);
        entry(&mut chip, &mut table, 16, wanted | 1 << 16).unwrap();
        chip.write(END, 0x51, &Two, &mut table).unwrap();
        assert_eq!(table[16], Some(Entry(1 << 15 | 1 << 16)), "still a level");
        entry(&mut chip, &mut table, 16, wanted).unwrap();
        assert_eq!(table[16], Some(Entry(wanted)));
        chip.level_arrived(0, 0x51, &mut table);
        entry(&mut chip, &mut table, 16, wanted & !(1 << 15)).unwrap();
        assert_eq!(table[16], Some(Entry(4 << 56 | 0x51)), "an edge isn't held");
    }

    #[test]
    fn what_a_domain_cant_have_stays_masked() {
        let bad = [
            (4 << 56 | 0x1f, Refusal::Vector(0x1f)),
            (4 << 56 | 0xf0, Refusal::Vector(0xf0)),
            (4 << 56 | 0x441, Refusal::Delivery(Delivery::Nmi)),
            (4 << 56 | 0x541, Refusal::Delivery(Delivery::Init)),
            (4 << 56 | 0x741, Refusal::Delivery(Delivery::ExtInt)),
            (
                6 << 56 | 0x41,
                Refusal::Destination(Destination::Physical(6)),
            ),
            (
                4 << 56 | 0x841,
                Refusal::Destination(Destination::Logical(4)),
            ),
        ];
        for (value, refusal) in bad {
            let (mut chip, mut table) = bed();
            assert_eq!(entry(&mut chip, &mut table, 8, value), Err(refusal));
            assert_eq!(table[8], Some(Entry::MASKED));
            assert_eq!(u64::from(chip.read(DATA)), value & 0xffff_ffff);
            let masked = value as u32 | 1 << 16;
            assert_eq!(chip.write(DATA, masked, &Two, &mut table), Ok(()));
        }
    }

    #[test]
    fn a_pin_of_somebody_else_is_not_touched() {
        let (mut chip, mut table) = bed();
        entry(&mut chip, &mut table, 4, 4 << 56 | 0x41).unwrap();
        assert_eq!(chip.read(DATA), 1 << 16);
        chip.reset(&mut table);
        assert_eq!(table[4], None);
        assert_eq!(table[5], Some(Entry::MASKED));
    }

    proptest! {
        /// Hardware is never told anything but a fixed interrupt with an allowed vector for an own CPU, on an own pin.
        #[test]
        fn hardware_gets_own_interrupts_only(
            steps in prop::collection::vec((0_u8..5, any::<u32>(), 0_u32..0x48), 0..200)
        ) {
            let (mut chip, mut table) = bed();
            for (what, value, select) in steps {
                match what {
                    0 => { let _ = chip.write(SELECT, select, &Two, &mut table); }
                    1 => { let _ = chip.write(DATA, value, &Two, &mut table); }
                    // Values that have a chance to be granted.
                    2 => { let _ = chip.write(DATA, value & 0x0500_a9ff, &Two, &mut table); }
                    3 => { chip.level_arrived(value as usize & 1, select as u8 | 0x40, &mut table); }
                    _ => { let _ = chip.write(END, value, &Two, &mut table); }
                }
                prop_assert_eq!(table[4], None);
                for entry in table.into_iter().flatten().filter(|entry| !entry.is_masked()) {
                    prop_assert_eq!(entry.0 & 0x00ff_ffff_fffe_5f00, 0);
                    prop_assert!((0x20..0xf0).contains(&entry.vector()));
                    prop_assert!(matches!(entry.0 >> 56, 4 | 5));
                }
                // A level that is in service is masked.
                for (pin, written) in chip.pins.iter().zip(table) {
                    prop_assert!(pin.in_service.is_none() || written.is_some_and(Entry::is_masked));
                }
            }
        }
    }
}
