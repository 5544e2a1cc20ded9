//! PCI on the machine: a function's registers by ECAM or by ports, and the tables of the functions that a domain has.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;

use layout::MachineAddress;
use machine_paging::PagingError;
use spin::Mutex;

use super::io::{self, Width};
use crate::bare::console::say;
use crate::bare::mmu;
use crate::devices::acpi::Ecam;
use crate::devices::lapic::Apics;
use crate::devices::pci::msix::{Memory, Place, Table};
use crate::devices::pci::{
    Address, AddressPort, COMMAND, FIRST_BAR, Function, LAST_BAR, Registers, Size,
};

const PAGE: u64 = 0x1000;
/// How many refused interrupts are told of.
const MOST_LINES: u32 = 16;

/// Pages that a domain's nested tables must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    /// The first byte, on a page.
    pub start: u64,
    /// Bytes, whole pages.
    pub bytes: u64,
}

impl Trap {
    /// The pages of a range; of one that passes the last address, those up to there.
    pub fn around(start: u64, bytes: u64) -> Self {
        let first = start & !(PAGE - 1);
        let bytes = start.saturating_add(bytes) - first;
        Self {
            start: first,
            bytes: bytes.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1)),
        }
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    /// Whether the address lies in it.
    pub const fn contains(&self, address: u64) -> bool {
        address >= self.start && address - self.start < self.bytes
    }
}

impl From<Width> for Size {
    fn from(width: Width) -> Self {
        match width {
            Width::Byte => Self::Byte,
            Width::Half => Self::Half,
            // Configuration space has nothing wider.
            Width::Word | Width::Long => Self::Word,
        }
    }
}

/// The registers of one function. By ECAM where it is, else by the ports, whose address register needs the lock.
pub struct Hardware {
    address: Address,
    ecam: Option<u64>,
}

/// Held from the write of the address port to the access of the data port.
static PORTS: Mutex<()> = Mutex::new(());

impl Hardware {
    fn select(&self, offset: u16) -> u16 {
        let number = u32::from(self.address.bus) << 16
            | u32::from(self.address.device) << 11
            | u32::from(self.address.function) << 8;
        io::write(
            0xcf8,
            Width::Word,
            1 << 31 | number | u32::from(offset & 0xfc),
        );
        0xcfc + (offset & 3)
    }
}

const fn width(size: Size) -> Width {
    match size {
        Size::Byte => Width::Byte,
        Size::Half => Width::Half,
        Size::Word => Width::Word,
    }
}

impl Registers for Hardware {
    fn read(&self, offset: u16, size: Size) -> u32 {
        match self.ecam {
            Some(base) => {
                // SAFETY: `Bus::new` has mapped the window; the callers keep offsets aligned and below 4096.
                let value = unsafe { io::load(base + u64::from(offset), width(size)) };
                (value & 0xffff_ffff) as u32
            }
            None if offset >= 0x100 => size.ones(),
            None => {
                let _ports = PORTS.lock();
                io::read(self.select(offset), width(size))
            }
        }
    }

    fn write(&mut self, offset: u16, size: Size, value: u32) {
        match self.ecam {
            Some(base) => {
                // SAFETY: as in `read`; the model has checked the value.
                unsafe { io::store(base + u64::from(offset), width(size), u64::from(value)) };
            }
            None if offset >= 0x100 => {}
            None => {
                let _ports = PORTS.lock();
                io::write(self.select(offset), width(size), value);
            }
        }
    }
}

/// An MSI-X table: where it is now, and what the domain sees of it.
struct MsiX {
    place: Place,
    table: Table,
    /// Where the function's registers have it, while it decodes memory.
    claimed: Option<u64>,
    /// That, if the hypervisor reaches it there.
    base: Option<u64>,
    /// The pages where it is or last was. One place for each function, so that a domain that moves it about takes no more.
    trap: Option<Trap>,
    /// Whether the hypervisor has those pages mapped.
    mapped: bool,
}

/// The table's memory.
struct TableMemory(u64);

impl Memory for TableMemory {
    fn write(&mut self, offset: u32, value: u32) {
        // SAFETY: `Bus` has mapped the table's pages, and the model keeps the offset inside the table. What it writes
        // has been checked.
        unsafe { io::store(self.0 + u64::from(offset), Width::Word, u64::from(value)) };
    }
}

struct Slot {
    function: Function,
    msix: Option<MsiX>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<(u16, Address), Slot>,
    port: AddressPort,
    lines: u32,
}

/// The PCI functions of the hardware domain. Functions are looked at when they are first accessed, so one that is plugged
/// in later is found as well.
pub struct Bus {
    ecams: Vec<Ecam>,
    /// Registers that are no device's of the domain: no table of one is looked for there.
    closed: Vec<Trap>,
    state: Mutex<State>,
}

impl Bus {
    /// Maps configuration space, and looks at every function that is there now. `closed` are registers that are the
    /// hypervisor's, configuration space among them.
    ///
    /// # Errors
    /// It can't be mapped.
    pub fn new(ecams: &[Ecam], closed: &[Trap], apics: &Apics) -> Result<Self, PagingError> {
        for ecam in ecams {
            mmu::map_device(ecam.range.start().raw(), ecam.range.size())?;
        }
        let bus = Self {
            ecams: ecams.to_vec(),
            closed: closed.to_vec(),
            state: Mutex::new(State::default()),
        };
        bus.scan(apics);
        bus.restore(apics);
        Ok(bus)
    }

    /// Looks at all functions of all buses that the firmware has numbered.
    fn scan(&self, apics: &Apics) {
        let mut state = self.state.lock();
        for (segment, bus) in self.buses() {
            for device in 0..32 {
                for function in 0..8 {
                    let address = Address {
                        bus,
                        device,
                        function,
                    };
                    let found = self.slot(&mut state, segment, address).is_some();
                    // A device without a function 0 isn't there.
                    if function == 0 && !found {
                        break;
                    }
                    self.follow_table(&mut state, segment, address, apics);
                }
            }
        }
    }

    /// As before a restart of the domain: its devices are quiet, and no message is set up.
    pub fn reset(&self, apics: &Apics) {
        let mut state = self.state.lock();
        state.port = AddressPort::default();
        for ((segment, address), slot) in &mut state.slots {
            let Some(mut hardware) = self.hardware(*segment, *address) else {
                continue;
            };
            slot.function.quiet(&mut hardware);
            if let Some(msix) = &mut slot.msix {
                msix.table = Table::new(msix.place.entries);
            }
        }
        drop(state);
        self.restore(apics);
    }

    /// Writes what the domain wants of its MSI-X tables to the hardware. To be called when no vCPU reaches a table that
    /// has moved any more: until then it could have been written past all checks.
    pub fn restore(&self, apics: &Apics) {
        let mut state = self.state.lock();
        for msix in state.tables() {
            if let Some(base) = msix.base {
                msix.table.restore(apics, &mut TableMemory(base));
            }
        }
    }

    fn buses(&self) -> Vec<(u16, u8)> {
        if self.ecams.is_empty() {
            return (0..=255).map(|bus| (0, bus)).collect();
        }
        self.ecams
            .iter()
            .flat_map(|ecam| (ecam.first_bus..=ecam.last_bus).map(|bus| (ecam.segment, bus)))
            .collect()
    }

    /// The windows of configuration space, as pages that no domain has mapped.
    pub fn windows(&self) -> impl Iterator<Item = Trap> + '_ {
        windows(&self.ecams)
    }

    /// The pages with MSI-X tables.
    pub fn tables(&self) -> Vec<Trap> {
        let mut state = self.state.lock();
        state.tables().filter_map(|msix| msix.trap).collect()
    }

    /// Whether the address lies in a page with an MSI-X table.
    pub fn has_table(&self, address: u64) -> bool {
        self.state.lock().is_beside_table(address).is_some()
    }

    /// The domain's read of the address port.
    pub fn read_address(&self) -> u32 {
        self.state.lock().port.read()
    }

    /// The domain's write of the address port.
    pub fn write_address(&self, value: u32) {
        self.state.lock().port.write(value);
    }

    /// The domain's read of a data port.
    pub fn read_data(&self, port: u16, size: Size) -> u32 {
        let mut state = self.state.lock();
        match state.port.target(port, size) {
            Some((address, offset)) => self.read(&mut state, 0, address, offset, size),
            None => size.ones(),
        }
    }

    /// The domain's write of a data port; whether an MSI-X table is in other pages by it.
    pub fn write_data(&self, port: u16, size: Size, value: u32, apics: &Apics) -> bool {
        let mut state = self.state.lock();
        let Some((address, offset)) = state.port.target(port, size) else {
            return false;
        };
        self.write(&mut state, 0, address, offset, (size, value), apics)
    }

    /// Where an address in configuration space's memory leads.
    fn by_memory(&self, at: u64) -> Option<(u16, Address, u16)> {
        let at = MachineAddress::new(at);
        let ecam = self.ecams.iter().find(|ecam| ecam.range.contains(at))?;
        let within = at.raw() - ecam.range.start().raw();
        let (address, offset) =
            crate::devices::pci::ecam(within + (u64::from(ecam.first_bus) << 20));
        Some((ecam.segment, address, offset))
    }

    /// The domain's read in memory, if it is configuration space or an MSI-X table's page.
    pub fn load(&self, at: u64, width: Width) -> Option<u64> {
        let mut state = self.state.lock();
        if let Some((segment, address, offset)) = self.by_memory(at) {
            if width == Width::Long {
                return Some(u64::MAX);
            }
            let value = self.read(&mut state, segment, address, offset, width.into());
            return Some(u64::from(value));
        }
        let mapped = state.is_beside_table(at)?;
        if !at.is_multiple_of(u64::from(width.bytes())) {
            return Some(width.ones());
        }
        let Some((slot, offset)) = state.table_at(at) else {
            return Some(if mapped {
                // SAFETY: the page is mapped, and belongs to one of the domain's devices.
                unsafe { io::load(at, width) }
            } else {
                width.ones()
            });
        };
        let word = |offset| u64::from(slot.table.read(offset));
        Some(match width {
            Width::Long => word(offset) | word(offset + 4) << 32,
            Width::Word => word(offset),
            // The specification has 32 and 64 bits only.
            Width::Half | Width::Byte => width.ones(),
        })
    }

    /// The domain's write in memory, likewise; whether an MSI-X table is in other pages by it.
    pub fn store(&self, at: u64, width: Width, value: u64, apics: &Apics) -> Option<bool> {
        let mut state = self.state.lock();
        if let Some((segment, address, offset)) = self.by_memory(at) {
            if width == Width::Long {
                return Some(false);
            }
            let value = (value & 0xffff_ffff) as u32;
            let write = (width.into(), value);
            return Some(self.write(&mut state, segment, address, offset, write, apics));
        }
        let mapped = state.is_beside_table(at)?;
        if !at.is_multiple_of(u64::from(width.bytes())) {
            return Some(false);
        }
        let words: &[u64] = match width {
            Width::Long => &[0, 32],
            Width::Word => &[0],
            Width::Half | Width::Byte => &[],
        };
        let mut refusal = None;
        match state.table_at(at) {
            Some((slot, offset)) => {
                let Some(base) = slot.base else {
                    return Some(false);
                };
                for (part, shift) in (0..).zip(words) {
                    let half = (value >> shift & 0xffff_ffff) as u32;
                    let written =
                        slot.table
                            .write(offset + 4 * part, half, apics, &mut TableMemory(base));
                    refusal = refusal.or(written.err());
                }
            }
            // SAFETY: the page is mapped, and belongs to one of the domain's devices.
            None if mapped => unsafe { io::store(at, width, value) },
            None => {}
        }
        if let Some(refusal) = refusal {
            state.complain(format_args!("MSI-X entry at {at:#x}: {refusal}"));
        }
        Some(false)
    }

    fn hardware(&self, segment: u16, address: Address) -> Option<Hardware> {
        let ecam = self.ecams.iter().find(|ecam| {
            ecam.segment == segment && (ecam.first_bus..=ecam.last_bus).contains(&address.bus)
        });
        if ecam.is_none() && segment != 0 {
            return None;
        }
        let ecam = ecam.map(|ecam| {
            let bus = u64::from(address.bus - ecam.first_bus);
            ecam.range.start().raw()
                + (bus << 20)
                + (u64::from(address.device) << 15)
                + (u64::from(address.function) << 12)
        });
        Some(Hardware { address, ecam })
    }

    /// What is known of a function; looks if nobody has.
    fn slot<'a>(
        &self,
        state: &'a mut State,
        segment: u16,
        address: Address,
    ) -> Option<(&'a mut Slot, Hardware)> {
        let hardware = self.hardware(segment, address)?;
        let slot = match state.slots.entry((segment, address)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let function = Function::find(&hardware)?;
                let msix = function.msix().map(|place| MsiX {
                    place,
                    table: Table::new(place.entries),
                    claimed: None,
                    base: None,
                    trap: None,
                    mapped: false,
                });
                place.insert(Slot { function, msix })
            }
        };
        Some((slot, hardware))
    }

    fn read(
        &self,
        state: &mut State,
        segment: u16,
        address: Address,
        offset: u16,
        size: Size,
    ) -> u32 {
        match self.slot(state, segment, address) {
            Some((slot, hardware)) => slot.function.read(offset, size, &hardware),
            None => size.ones(),
        }
    }

    fn write(
        &self,
        state: &mut State,
        segment: u16,
        address: Address,
        offset: u16,
        (size, value): (Size, u32),
        apics: &Apics,
    ) -> bool {
        let Some((slot, mut hardware)) = self.slot(state, segment, address) else {
            return false;
        };
        let written = slot
            .function
            .write(offset, size, value, apics, &mut hardware);
        if let Err(refused) = written {
            state.complain(format_args!(
                "PCI {address} register {offset:#x}: {refused}"
            ));
        }
        // Where BARs or memory decoding change, the table may be elsewhere.
        let moves = offset < COMMAND + 2 && offset + size.bytes() > COMMAND
            || (FIRST_BAR..LAST_BAR + 4).contains(&offset);
        moves && self.follow_table(state, segment, address, apics)
    }

    /// Looks where a function's MSI-X table is now. Whether it lies in other pages than before: then they are to be taken
    /// out of the domain, and [`Self::restore`] called.
    fn follow_table(
        &self,
        state: &mut State,
        segment: u16,
        address: Address,
        apics: &Apics,
    ) -> bool {
        let Some((slot, hardware)) = self.slot(state, segment, address) else {
            return false;
        };
        let Some(msix) = slot.msix.as_mut() else {
            return false;
        };
        let claimed = msix.place.address(&hardware);
        if claimed == msix.claimed {
            return false;
        }
        msix.claimed = claimed;
        msix.base = None;
        let Some(base) = claimed else {
            return false;
        };
        let trap = Trap::around(base, msix.place.bytes());
        let closed = self.closed.iter().any(|closed| closed.overlaps(&trap));
        msix.mapped = match mmu::map_device(trap.start, trap.bytes) {
            // RAM, or no address of this CPU: the domain has no device there either.
            Err(PagingError::OutOfRange) => return false,
            mapped => mapped.is_ok() && !closed,
        };
        let moved = msix.trap.replace(trap) != Some(trap);
        if !msix.mapped {
            state.complain(format_args!("PCI {address}: no MSI-X at {base:#x}"));
            return moved;
        }
        msix.base = Some(base);
        if !moved {
            // A reset may have cleared it.
            msix.table.restore(apics, &mut TableMemory(base));
        }
        moved
    }
}

/// The windows of configuration space, as pages.
pub fn windows(ecams: &[Ecam]) -> impl Iterator<Item = Trap> + '_ {
    ecams
        .iter()
        .map(|ecam| Trap::around(ecam.range.start().raw(), ecam.range.size()))
}

impl State {
    fn tables(&mut self) -> impl Iterator<Item = &mut MsiX> {
        self.slots
            .values_mut()
            .filter_map(|slot| slot.msix.as_mut())
    }

    /// Whether the hypervisor has the page with an address mapped; `None` if no table is in that page.
    fn is_beside_table(&mut self, at: u64) -> Option<bool> {
        let here = |msix: &&mut MsiX| msix.trap.is_some_and(|trap| trap.contains(at));
        let mapped = self.tables().filter(here).map(|msix| msix.mapped);
        mapped.reduce(|one, other| one || other)
    }

    /// The function whose table has the address, and how far in.
    fn table_at(&mut self, at: u64) -> Option<(&mut MsiX, u32)> {
        self.tables().find_map(|msix| {
            let offset = at.checked_sub(msix.base?)?;
            if offset >= msix.place.bytes() {
                return None;
            }
            Some((msix, u32::try_from(offset).ok()?))
        })
    }

    fn complain(&mut self, what: core::fmt::Arguments<'_>) {
        if self.lines < MOST_LINES {
            self.lines += 1;
            say(what);
        }
    }
}
