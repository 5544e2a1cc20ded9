//! The interrupt translation service that a direct-mapped hardware domain sees, and its LPIs.
//!
//! Its tables are the guest's own memory and the hardware reads them there, so every address is checked against
//! ownership before the hardware is told. The command queue isn't: the guest's is read here, each command checked and
//! translated, and given to the hardware in a queue of the hypervisor's. Two-level tables aren't offered, since the
//! hardware would follow addresses that the guest writes later. The guest can still scribble over its own tables
//! and so mislead the ITS; a domain that has all bus masters can do as much with any of them.
//!
//! LPIs arrive at EL2 and have no active state: one that finds no list register waits in the vCPU's set.

mod commands;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Access, Outcome, Size, Vcpu, VirtualGic};
use crate::gic::registers::{gicr, gits};
use crate::gic::{COMMAND, Error, FIRST_LPI, Queue, Registers, Window};
pub use commands::BadCommand;

/// Width of interrupt numbers with LPIs, as Linux wants at most: LPIs end below 65536.
const ID_BITS: u32 = 16;
pub(super) const LPI_COUNT: u32 = (1 << ID_BITS) - FIRST_LPI;

/// Bits of GITS_TYPER that the guest sees: physical LPIs, entry sizes, widths, collections. Not PTA, nothing of GICv4.
const TYPER_SHOWN: u64 = 0x0000_001f_ff07_fff1;
/// Address bits of CBASER and PROPBASER (51:12), and of PENDBASER (51:16).
const PAGE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PENDING_ADDRESS: u64 = 0x000f_ffff_ffff_0000;
const OFFSET: u64 = 0xf_ffe0;

/// A table address or a command of the guest's that isn't given to the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The table that a register names isn't all the domain's own memory.
    Table {
        /// The register's name.
        register: &'static str,
        /// The table's machine address.
        start: u64,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A command.
    Command(BadCommand),
    /// The ITS stalled; it has an empty queue now.
    Stalled,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table {
                register,
                start,
                bytes,
            } => {
                write!(
                    f,
                    "{register}: {start:#x} and {bytes:#x} bytes on aren't the domain's own memory"
                )
            }
            Self::Command(BadCommand::Unknown { number }) => {
                write!(f, "ITS command {number:#x} doesn't exist")
            }
            Self::Command(BadCommand::Table { start, bytes }) => {
                write!(
                    f,
                    "MAPD: {start:#x} and {bytes:#x} bytes on aren't the domain's own memory"
                )
            }
            Self::Command(BadCommand::Target { vcpu }) => {
                write!(f, "ITS command for vCPU {vcpu}, which doesn't exist")
            }
            Self::Command(BadCommand::Interrupt { intid }) => {
                write!(f, "MAPTI: interrupt {intid} is no LPI")
            }
            Self::Stalled => f.write_str("the ITS stalled"),
        }
    }
}

/// What the ITS asks of the domain that owns it.
pub trait Owner: Send + Sync {
    /// Whether all bytes of the range are memory of the domain, and stay so while it lives.
    fn owns(&self, start: u64, bytes: u64) -> bool;
    /// Something was refused: the place to log it, with a bound.
    fn refused(&self, refusal: Refusal);
}

/// The ITS of a domain.
pub(super) struct Its {
    /// Where the guest sees it, and where it is.
    window: Window,
    frame: u64,
    owner: Box<dyn Owner>,
    state: spin::Mutex<State>,
    /// GICR_PROPBASER as the redistributors were given it: address and width, zero if none.
    properties: AtomicU64,
}

impl fmt::Debug for Its {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Its")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// The guest's command queue, and the hardware's.
#[derive(Debug)]
struct State {
    /// GITS_CBASER as the guest wrote it; without VALID if it was refused.
    base: u64,
    reader: u64,
    writer: u64,
    queue: Queue,
    /// Machine address of the hardware's queue.
    memory: u64,
}

/// A vCPU's redistributor as far as LPIs go: which of its tables the hardware has been given.
#[derive(Debug, Default)]
pub(super) struct Tables {
    properties: AtomicBool,
    pending: AtomicBool,
}

struct Rules<'a, R> {
    domain: &'a VirtualGic<'a, R>,
    its: &'a Its,
}

impl<R: Registers> commands::Rules for Rules<'_, R> {
    fn owns(&self, start: u64, bytes: u64) -> bool {
        self.its.owner.owns(start, bytes)
    }

    fn target(&self, vcpu: u64) -> Option<u64> {
        let vcpu = self.domain.vcpus.get(usize::try_from(vcpu).ok()?)?;
        let gic = self.domain.gic;
        Some(gic.redistributor_target(self.its.frame, &gic.cpus[vcpu.cpu]))
    }

    fn is_lpi(&self, intid: u64) -> bool {
        (u64::from(FIRST_LPI)..1 << ID_BITS).contains(&intid)
    }

    fn entry_bytes(&self) -> u64 {
        let typer = self
            .domain
            .gic
            .registers
            .read64(self.its.frame + gits::TYPER);
        ((typer >> 4) & 0xf) + 1
    }
}

impl<R: Registers> VirtualGic<'_, R> {
    /// Gives the domain, which must be direct-mapped, the host's ITS and LPIs. The guest sees its frames at `window`;
    /// `queue` is a page of the hypervisor's memory (`QUEUE_BYTES`), which the hardware reads.
    ///
    /// # Errors
    /// There is no ITS.
    pub fn attach_its(
        &mut self,
        window: Window,
        queue: u64,
        owner: Box<dyn Owner>,
    ) -> Result<(), Error> {
        let frame = self.gic.its_frame().ok_or(Error::NoIts)?;
        for vcpu in &mut self.vcpus {
            vcpu.lpis = super::PendingSet::new(FIRST_LPI, LPI_COUNT);
        }
        let state = State {
            base: 0,
            reader: 0,
            writer: 0,
            queue: self.gic.reset_its(frame, queue),
            memory: queue,
        };
        let properties = AtomicU64::new(0);
        self.its = Some(Its {
            window,
            frame,
            owner,
            state: spin::Mutex::new(state),
            properties,
        });
        Ok(())
    }

    /// Whether an address is in the ITS, and what comes of an access to it.
    pub(super) fn its_mmio(&self, address: u64, size: Size, write: Option<u64>) -> Option<Outcome> {
        let its = self.its.as_ref()?;
        let offset = its.window.offset(address)?;
        let access = Access {
            offset,
            size,
            write,
        };
        Some(
            if !address.is_multiple_of(size.bytes()) || matches!(size, Size::Byte | Size::Half) {
                Outcome::Fault
            } else if offset >= gits::FRAME {
                // The translation frame is for devices, which reach it without stage 2.
                access.read_only(0)
            } else {
                self.its_register(its, access)
            },
        )
    }

    fn its_register(&self, its: &Its, access: Access) -> Outcome {
        let registers = &self.gic.registers;
        match access.offset {
            gits::CTLR => self.its_control(its, access),
            gits::IIDR | gits::PIDR2 => {
                access.read_only(u64::from(registers.read32(its.frame + access.offset)))
            }
            gits::TYPER | 0xc => {
                access.read_only64(registers.read64(its.frame + gits::TYPER) & TYPER_SHOWN)
            }
            gits::CBASER..=0x87 => self.its_queue(its, access),
            gits::CWRITER..=0x8f => {
                let mut state = its.state.lock();
                let Some(value) = merged(access, state.writer) else {
                    return access.read_only64(state.writer);
                };
                state.writer = value & OFFSET;
                self.its_commands(its, &mut state);
                Outcome::Done
            }
            gits::CREADR..=0x97 => access.read_only64(its.state.lock().reader),
            gits::BASER..=gits::BASER_END => self.its_table(its, access),
            _ => access.read_only(0),
        }
    }

    fn its_enabled(&self, its: &Its) -> bool {
        self.gic.registers.read32(its.frame + gits::CTLR) & gits::CTLR_ENABLED != 0
    }

    fn its_control(&self, its: &Its, access: Access) -> Outcome {
        let registers = &self.gic.registers;
        let address = its.frame + gits::CTLR;
        if access.size != Size::Word {
            return Outcome::Fault;
        }
        let Some(value) = access.write32() else {
            return Outcome::Value(u64::from(
                registers.read32(address) & (gits::CTLR_ENABLED | gits::CTLR_QUIESCENT),
            ));
        };
        let mut state = its.state.lock();
        registers.write32(address, value & gits::CTLR_ENABLED);
        self.its_commands(its, &mut state);
        Outcome::Done
    }

    /// GITS_CBASER. The hardware never sees it.
    fn its_queue(&self, its: &Its, access: Access) -> Outcome {
        let mut state = its.state.lock();
        let Some(mut value) = merged(access, state.base) else {
            return access.read_only64(state.base);
        };
        // Changing it while the ITS is on is UNPREDICTABLE: ignored.
        if self.its_enabled(its) {
            return Outcome::Done;
        }
        let (start, bytes) = (value & PAGE_ADDRESS, queue_bytes(value));
        if value & gits::VALID != 0 && !its.owner.owns(start, bytes) {
            its.owner.refused(Refusal::Table {
                register: "GITS_CBASER",
                start,
                bytes,
            });
            value &= !gits::VALID;
        }
        state.base = value;
        state.reader = 0;
        state.writer = 0;
        Outcome::Done
    }

    /// GITS_BASER<n>: the device and collection tables.
    fn its_table(&self, its: &Its, access: Access) -> Outcome {
        let registers = &self.gic.registers;
        let address = its.frame + (access.offset & !7);
        let current = registers.read64(address);
        // Type 2 is the vPE table of GICv4, which the guest isn't told of.
        if (current >> 56) & 7 == 2 {
            return access.read_only64(0);
        }
        let Some(value) = merged(access, current) else {
            return access.read_only64(current);
        };
        if self.its_enabled(its) {
            return Outcome::Done;
        }
        let value = value & !gits::BASER_INDIRECT;
        // The page size may be fixed: the hardware's answer counts, not the guest's wish.
        registers.write64(address, value & !gits::VALID);
        if value & gits::VALID != 0 {
            let (start, bytes) = table(registers.read64(address));
            if its.owner.owns(start, bytes) {
                registers.write64(address, value);
            } else {
                its.owner.refused(Refusal::Table {
                    register: "GITS_BASER",
                    start,
                    bytes,
                });
            }
        }
        Outcome::Done
    }

    /// Carries out what the guest has queued.
    fn its_commands(&self, its: &Its, state: &mut State) {
        let bytes = queue_bytes(state.base);
        if state.base & gits::VALID == 0 || !self.its_enabled(its) || state.writer >= bytes {
            return;
        }
        let start = state.base & PAGE_ADDRESS;
        let rules = Rules { domain: self, its };
        let mut stalled = false;
        while state.reader != state.writer {
            let address = start + state.reader;
            let command = [0, 8, 16, 24]
                .map(|offset| u64::from_le(self.gic.registers.read64(address + offset)));
            state.reader = (state.reader + COMMAND) % bytes;
            match commands::translate(command, &rules) {
                Ok(command) => {
                    stalled |= self
                        .gic
                        .push_command(its.frame, &mut state.queue, command)
                        .is_err()
                }
                Err(bad) => its.owner.refused(Refusal::Command(bad)),
            }
        }
        stalled |= self.gic.submit(its.frame, &mut state.queue).is_err();
        if stalled {
            its.owner.refused(Refusal::Stalled);
        }
    }

    /// GICR_CTLR: LPIs go on only once both tables have been accepted.
    pub(super) fn lpi_control(&self, owner: usize, access: Access) -> Outcome {
        let vcpu = &self.vcpus[owner];
        let cpu = &self.gic.cpus[vcpu.cpu];
        if self.its.is_none() {
            return access.read_only(0);
        }
        match access.write32() {
            None => {
                let value = self.gic.registers.read32(cpu.redistributor + gicr::CTLR);
                Outcome::Value(u64::from(value & (gicr::CTLR_ENABLE_LPIS | gicr::CTLR_RWP)))
            }
            Some(value) => {
                let tables = &vcpu.tables;
                let ready = tables.properties.load(Ordering::Relaxed)
                    && tables.pending.load(Ordering::Relaxed);
                if value & gicr::CTLR_ENABLE_LPIS == 0 {
                    self.gic.enable_lpis(cpu, false);
                } else if ready {
                    self.gic.enable_lpis(cpu, true);
                }
                Outcome::Done
            }
        }
    }

    /// GICR_PROPBASER and GICR_PENDBASER.
    pub(super) fn lpi_table(&self, owner: usize, access: Access) -> Outcome {
        let vcpu = &self.vcpus[owner];
        let cpu = &self.gic.cpus[vcpu.cpu];
        let Some(its) = &self.its else {
            return access.read_only(0);
        };
        let registers = &self.gic.registers;
        let properties = access.offset & !7 == gicr::PROPBASER;
        let address = cpu.redistributor + (access.offset & !7);
        let current = registers.read64(address);
        let Some(mut value) = merged(access, current) else {
            return access.read_only64(current);
        };
        // As with the ITS: ignored while LPIs are on.
        if registers.read32(cpu.redistributor + gicr::CTLR) & gicr::CTLR_ENABLE_LPIS != 0 {
            return Outcome::Done;
        }
        let (register, start, bytes, accepted) = if properties {
            // No more interrupt numbers than GICD_TYPER promises, so that the pending table's size is known.
            let bits = (value & 0x1f).min(u64::from(ID_BITS) - 1);
            value = (value & !0x1f) | bits;
            let bytes = property_bytes(bits);
            (
                "GICR_PROPBASER",
                value & PAGE_ADDRESS,
                bytes,
                &vcpu.tables.properties,
            )
        } else {
            (
                "GICR_PENDBASER",
                value & PENDING_ADDRESS,
                1 << (ID_BITS - 3),
                &vcpu.tables.pending,
            )
        };
        let good = its.owner.owns(start, bytes.max(1));
        accepted.store(good, Ordering::Relaxed);
        if good {
            registers.write64(address, value);
            if properties {
                its.properties
                    .store(start | (value & 0x1f), Ordering::Relaxed);
            }
        } else {
            its.owner.refused(Refusal::Table {
                register,
                start,
                bytes,
            });
        }
        Outcome::Done
    }

    /// The priority that the guest's table gives to an LPI.
    pub(super) fn lpi_priority(&self, intid: u32) -> Option<u8> {
        let its = self.its.as_ref()?;
        let table = its.properties.load(Ordering::Relaxed);
        let index = u64::from(intid.checked_sub(FIRST_LPI)?);
        if index >= property_bytes(table & 0x1f) {
            return None;
        }
        let address = (table & PAGE_ADDRESS) + index;
        Some(self.gic.registers.read8(address) & super::PRIORITY_BITS)
    }

    /// Whether the domain has LPIs.
    pub(super) fn has_lpis(&self) -> bool {
        self.its.is_some()
    }

    /// Hands the LPIs that wait for a vCPU which stops to another one: the hardware has forgotten them.
    pub(super) fn hand_over_lpis(&self, vcpu: &Vcpu) {
        let heir = self
            .vcpus
            .iter()
            .find(|other| other.online.load(Ordering::Relaxed));
        let Some(heir) = heir.filter(|_| self.has_lpis()) else {
            return;
        };
        for (_, lr) in self
            .list_registers()
            .filter(|(_, lr)| lr.is_pending() && lr.intid() >= FIRST_LPI)
        {
            heir.lpis.insert(lr.intid());
        }
        while let Some((intid, _)) = vcpu.lpis.most_urgent(|_| Some(0)) {
            vcpu.lpis.remove(intid);
            heir.lpis.insert(intid);
        }
        if !heir.lpis.is_empty() {
            self.notify(heir);
        }
    }

    /// Stops the ITS and LPIs, once all vCPUs are off.
    pub(super) fn reset_its(&self) -> Result<(), Error> {
        let Some(its) = &self.its else { return Ok(()) };
        let mut state = its.state.lock();
        let memory = state.memory;
        *state = State {
            base: 0,
            reader: 0,
            writer: 0,
            queue: self.gic.reset_its(its.frame, memory),
            memory,
        };
        its.properties.store(0, Ordering::Relaxed);
        let mut stuck = false;
        for vcpu in &self.vcpus {
            vcpu.lpis.clear();
            vcpu.tables.properties.store(false, Ordering::Relaxed);
            vcpu.tables.pending.store(false, Ordering::Relaxed);
            stuck |= !self.gic.enable_lpis(&self.gic.cpus[vcpu.cpu], false);
        }
        if stuck { Err(Error::LpisStuck) } else { Ok(()) }
    }
}

/// What a write of all or half of a 64-bit register makes of its `current` value; `None` for a read.
fn merged(access: Access, current: u64) -> Option<u64> {
    let value = access.write?;
    Some(match (access.size, access.offset & 4) {
        (Size::Double, _) => value,
        (_, 0) => (current & !0xffff_ffff) | (value & 0xffff_ffff),
        _ => (current & 0xffff_ffff) | (value << 32),
    })
}

/// The length of a property table, a byte for each LPI of `bits` + 1 bits. Fewer than 14 bits have no LPIs.
const fn property_bytes(bits: u64) -> u64 {
    (2_u64 << bits).saturating_sub(FIRST_LPI as u64)
}

/// The length of a command queue: CBASER counts pages of 4 KiB less one.
const fn queue_bytes(base: u64) -> u64 {
    ((base & 0xff) + 1) * 0x1000
}

/// Address and length of the table that a GITS_BASER<n> names.
const fn table(value: u64) -> (u64, u64) {
    let page = match (value >> 8) & 3 {
        0 => 0x1000,
        1 => 0x4000,
        _ => 0x1_0000,
    };
    // The hardware ignores what lies below its page size; with 64 KiB pages, bits 15:12 hold bits 51:48.
    let low = value & 0x0000_ffff_ffff_f000 & !(page - 1);
    let start = if page == 0x1_0000 {
        low | ((value & 0xf000) << 36)
    } else {
        low
    };
    (start, ((value & 0xff) + 1) * page)
}
