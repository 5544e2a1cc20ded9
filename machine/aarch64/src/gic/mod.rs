//! The physical interrupt controller, GICv2 or GICv3, as EL2 uses it.
//!
//! EL2 acknowledges every interrupt, drops its priority at once and leaves it active; whoever handles it deactivates
//! it: the hypervisor for its own, the guest (through a list register) for what is forwarded to it. What guests may
//! see and change is `vgic`'s business, not this module's.
#![allow(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of registers, and are as wide as the type that takes them"
)]

#[cfg(target_arch = "aarch64")]
mod hardware;
mod its;
mod list;
pub(crate) mod registers;
mod v2;
mod v3;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

#[cfg(target_arch = "aarch64")]
pub use hardware::Hardware;
pub use its::QUEUE_BYTES;
pub(crate) use its::{COMMAND, Queue};
pub(crate) use list::ListRegister;
pub use registers::CpuRegister;
use registers::{gicd, gicr};

/// The software interrupt that makes a CPU look at what is pending for its vCPU. Guests' software interrupts are never
/// sent as physical ones, so all sixteen belong to the hypervisor.
pub const KICK: u32 = 0;
/// The number of ordinary interrupt numbers: SGIs, PPIs and SPIs end below 1020, the rest up to here is special.
pub(crate) const ORDINARY: u32 = 1020;
/// The first LPI (IHI 0069, section 2.2).
pub(crate) const FIRST_LPI: u32 = 8192;

/// Physical priority of the hypervisor's own interrupts.
const PRIORITY_OWN: u8 = 0x40;
/// Physical priority of whatever belongs to a domain; the guest's own priorities exist in list registers only.
const PRIORITY_GUEST: u8 = 0xa0;
/// Priority mask that lets everything pass, and one that lets only the hypervisor's own pass.
const MASK_OPEN: u8 = 0xff;
const MASK_OWN: u8 = 0x80;
/// How often a register-write-pending bit is polled before the hardware is taken as it is.
const POLLS: u32 = 1_000_000;

/// Access to the registers of an interrupt controller. `Hardware` is the real one; tests have a register file.
pub trait Registers {
    /// Loads a byte from machine address `address`.
    fn read8(&self, address: u64) -> u8;
    /// Loads 32 bits from `address`, a multiple of 4.
    fn read32(&self, address: u64) -> u32;
    /// Loads 64 bits from `address`, a multiple of 8.
    fn read64(&self, address: u64) -> u64;
    /// Stores a byte at `address`.
    fn write8(&self, address: u64, value: u8);
    /// Stores 32 bits at `address`, a multiple of 4.
    fn write32(&self, address: u64, value: u32);
    /// Stores 64 bits at `address`, a multiple of 8.
    fn write64(&self, address: u64, value: u64);
    /// Reads a system register of this CPU's interface (GICv3).
    fn cpu_register(&self, register: CpuRegister) -> u64;
    /// Writes a system register of this CPU's interface (GICv3).
    fn set_cpu_register(&self, register: CpuRegister, value: u64);
    /// Waits until every earlier access has taken effect (DSB SY, ISB).
    fn synchronize(&self);
    /// Writes the cache line at `address` back to memory, for an ITS that doesn't look into caches.
    fn clean(&self, address: u64);
}

/// A range of addresses that a register frame or several take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First address, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl Window {
    /// The offset of `address` in the window, `None` if it lies outside.
    #[must_use]
    #[inline]
    pub const fn offset(&self, address: u64) -> Option<u64> {
        match address.checked_sub(self.start) {
            Some(offset) if offset < self.bytes => Some(offset),
            _ => None,
        }
    }
}

/// Which interrupt controller the host has, and where its frames lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    /// GICv2 with virtualization extensions.
    V2 {
        /// GICC.
        cpu_interface: Window,
        /// GICH.
        hypervisor_interface: Window,
        /// GICV.
        virtual_interface: Window,
    },
    /// GICv3 with system registers.
    V3 {
        /// The regions of redistributors, in the order of the host's tree.
        redistributors: Vec<Window>,
        /// The control frame (64 KiB) and translation frame (64 KiB) of the ITS.
        its: Option<Window>,
    },
}

/// What the host's description says about its interrupt controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The distributor's frame.
    pub distributor: Window,
    /// The rest, by version.
    pub model: Model,
    /// MPIDR_EL1 of each CPU; the position is the CPU number used in this crate.
    pub cpus: Vec<u64>,
    /// The maintenance interrupt, a PPI (16 to 31).
    pub maintenance: u32,
}

/// Why an interrupt controller can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No redistributor has this CPU's affinity.
    NoRedistributor {
        /// The CPU's number.
        cpu: usize,
    },
    /// The redistributor didn't wake.
    Asleep {
        /// The CPU's number.
        cpu: usize,
    },
    /// There is no CPU with this number in the host's description.
    NoSuchCpu {
        /// The number that was given.
        cpu: usize,
    },
    /// Fewer than two list registers: the underflow interrupt would never fall.
    TooFewListRegisters,
    /// GICv2 serves eight CPUs, and the host's description has more.
    TooManyCpus,
    /// The host has no interrupt translation service.
    NoIts,
    /// A redistributor goes on delivering LPIs: only a reset of the machine ends that.
    LpisStuck,
    /// The interrupt isn't implemented, or already has an owner.
    NotFree {
        /// The interrupt.
        intid: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRedistributor { cpu } => write!(f, "CPU {cpu} has no redistributor"),
            Self::Asleep { cpu } => write!(f, "the redistributor of CPU {cpu} doesn't wake"),
            Self::NoSuchCpu { cpu } => write!(f, "the host's description has no CPU {cpu}"),
            Self::TooFewListRegisters => f.write_str("fewer than two list registers"),
            Self::TooManyCpus => f.write_str("more than eight CPUs on a GICv2"),
            Self::NoIts => f.write_str("no interrupt translation service"),
            Self::LpisStuck => f.write_str("LPIs can't be switched off"),
            Self::NotFree { intid } => write!(f, "interrupt {intid} doesn't exist or has an owner"),
        }
    }
}

/// An interrupt that was acknowledged: on GICv2 with the number of the CPU that sent it, as EOIR and DIR want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged(u32);

impl Acknowledged {
    /// The interrupt's number.
    #[must_use]
    #[inline]
    pub const fn intid(self) -> u32 {
        self.0 & 0x00ff_ffff
    }

    /// As `intid`, for GICv2, where bits 12:10 name the sender of a software interrupt.
    const fn v2(raw: u32) -> Self {
        Self((raw & 0x3ff) | ((raw & 0x1c00) << 14))
    }

    /// An interrupt that was acknowledged earlier, not a software interrupt.
    pub(crate) const fn of(intid: u32) -> Self {
        Self(intid)
    }

    const fn v2_raw(self) -> u32 {
        (self.0 & 0x3ff) | ((self.0 >> 14) & 0x1c00)
    }
}

/// One CPU's place in the interrupt controller.
#[derive(Debug)]
pub(crate) struct Cpu {
    /// Aff3.Aff2.Aff1.Aff0, eight bits each.
    pub(crate) affinity: u32,
    /// GICv3: the control frame of its redistributor.
    pub(crate) redistributor: u64,
    /// GICv3: GICR_TYPER.
    pub(crate) typer: u64,
    /// GICv2: its bit in GICD_ITARGETSR, known once the CPU has come up.
    pub(crate) target: AtomicU8,
}

/// The machine's interrupt controller.
#[derive(Debug)]
pub struct Gic<R> {
    pub(crate) registers: R,
    pub(crate) facts: Facts,
    pub(crate) cpus: Vec<Cpu>,
    /// Interrupt numbers below this are implemented: a multiple of 32, at most 1024.
    pub(crate) lines: u32,
    /// GICD_TYPER.
    pub(crate) typer: u32,
    /// Whether the hypervisor deactivates what a guest has ended, see `needs_watching`.
    pub(crate) watches: bool,
    /// A bit for each SPI that the hypervisor or a domain has.
    taken: [AtomicU32; 32],
    /// Held while a register that has bits of several owners is read, changed and written (GICD_ICFGR).
    pub(crate) shared: spin::Mutex<()>,
}

/// Aff3.Aff2.Aff1.Aff0 of an MPIDR_EL1, packed into 32 bits as in GICR_TYPER.
pub(crate) const fn packed_affinity(mpidr: u64) -> u32 {
    (mpidr & 0x00ff_ffff) as u32 | ((((mpidr >> 32) & 0xff) as u32) << 24)
}

impl<R: Registers> Gic<R> {
    /// Finds out what the controller that `facts` describes can do. Changes no register.
    ///
    /// # Errors
    /// A CPU without redistributor, or more CPUs than the controller serves.
    pub fn new(registers: R, facts: Facts) -> Result<Self, Error> {
        let mut cpus = Vec::with_capacity(facts.cpus.len());
        for (cpu, &mpidr) in facts.cpus.iter().enumerate() {
            let affinity = packed_affinity(mpidr);
            let (redistributor, typer) = match &facts.model {
                Model::V2 { .. } if cpu >= 8 => return Err(Error::TooManyCpus),
                Model::V2 { .. } => (0, 0),
                Model::V3 { redistributors, .. } => {
                    v3::find_redistributor(&registers, redistributors, affinity)
                        .ok_or(Error::NoRedistributor { cpu })?
                }
            };
            cpus.push(Cpu {
                affinity,
                redistributor,
                typer,
                target: AtomicU8::new(0),
            });
        }
        let typer = registers.read32(facts.distributor.start + gicd::TYPER);
        let watches = Self::needs_watching(&registers, &facts);
        let lines = 32 * ((typer & 0x1f) + 1);
        let taken = core::array::from_fn(|_| AtomicU32::new(0));
        Ok(Self {
            registers,
            facts,
            cpus,
            lines,
            typer,
            watches,
            taken,
            shared: spin::Mutex::new(()),
        })
    }

    /// Whether this is a GICv2.
    #[inline]
    pub(crate) const fn is_v2(&self) -> bool {
        matches!(self.facts.model, Model::V2 { .. })
    }

    /// The description it was made from.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Puts the distributor into a known state: every SPI disabled, inactive, not pending, routed to CPU 0, with the
    /// trigger that the firmware chose; then turns it on. Once, on CPU 0, before any `init_cpu`.
    pub fn init_distributor(&self) {
        let base = self.facts.distributor.start;
        let registers = &self.registers;
        registers.write32(base + gicd::CTLR, 0);
        self.wait_distributor();
        for word in 1..u64::from(self.lines / 32) {
            self.quiet_word(base, word);
        }
        for intid in (32..u64::from(self.lines)).step_by(4) {
            registers.write32(
                base + gicd::IPRIORITYR + intid,
                u32::from_ne_bytes([PRIORITY_GUEST; 4]),
            );
        }
        if self.is_v2() {
            self.init_distributor_v2();
        } else {
            self.init_distributor_v3();
        }
    }

    /// Makes the interrupts of one 32-bit word group 1, disabled, neither pending nor active.
    pub(crate) fn quiet_word(&self, base: u64, word: u64) {
        let offset = 4 * word;
        if !self.is_v2() {
            self.registers
                .write32(base + gicd::IGROUPR + offset, u32::MAX);
        }
        self.registers
            .write32(base + gicd::ICENABLER + offset, u32::MAX);
        self.registers
            .write32(base + gicd::ICPENDR + offset, u32::MAX);
        self.registers
            .write32(base + gicd::ICACTIVER + offset, u32::MAX);
    }

    /// Brings up the part of the controller that belongs to `cpu`: its software and private interrupts, its
    /// interface with priority drop apart from deactivation, and its empty virtual interface. On that CPU itself.
    ///
    /// # Errors
    /// No such CPU, a redistributor that doesn't wake, too few list registers.
    pub fn init_cpu(&self, cpu: usize) -> Result<(), Error> {
        let state = self.cpus.get(cpu).ok_or(Error::NoSuchCpu { cpu })?;
        let private = self.private_base(state);
        if !self.is_v2() && !self.wake_redistributor(state) {
            return Err(Error::Asleep { cpu });
        }
        self.quiet_word(private, 0);
        for intid in 0..32_u32 {
            let own = intid < 16 || intid == self.facts.maintenance;
            self.set_priority(
                private,
                intid,
                if own { PRIORITY_OWN } else { PRIORITY_GUEST },
            );
        }
        self.registers.write32(
            private + gicd::ISENABLER,
            (1 << KICK) | (1 << self.facts.maintenance),
        );
        if self.is_v2() {
            self.init_interface_v2(state);
        } else {
            self.init_interface_v3(state);
        }
        if self.list_registers() < 2 {
            return Err(Error::TooFewListRegisters);
        }
        self.reset_virtual_interface();
        Ok(())
    }

    /// Where the registers of a CPU's interrupts 0 to 31 lie, at the distributor's offsets. On GICv2 they are banked:
    /// the running CPU sees its own.
    #[inline]
    pub(crate) fn private_base(&self, cpu: &Cpu) -> u64 {
        if self.is_v2() {
            self.facts.distributor.start
        } else {
            cpu.redistributor + gicr::SGI_FRAME
        }
    }

    fn set_priority(&self, base: u64, intid: u32, priority: u8) {
        self.registers
            .write8(base + gicd::IPRIORITYR + u64::from(intid), priority);
    }

    /// Takes an interrupt for the hypervisor itself: never a guest's, served before guests', delivered to `cpu`.
    /// A private interrupt (16 to 31) is taken on the CPU that calls, which must be `cpu`.
    ///
    /// # Errors
    /// The interrupt isn't implemented or belongs to somebody already; no such CPU.
    pub fn own(&self, intid: u32, cpu: usize) -> Result<(), Error> {
        let state = self.cpus.get(cpu).ok_or(Error::NoSuchCpu { cpu })?;
        let base = if intid < 32 {
            self.private_base(state)
        } else {
            self.claim(intid)?;
            self.route(intid, state);
            self.facts.distributor.start
        };
        self.set_priority(base, intid, PRIORITY_OWN);
        self.registers.write32(
            base + gicd::ISENABLER + u64::from(intid / 32 * 4),
            1 << (intid % 32),
        );
        Ok(())
    }

    /// Takes an SPI for one owner.
    ///
    /// # Errors
    /// It isn't implemented or has an owner.
    pub(crate) fn claim(&self, intid: u32) -> Result<(), Error> {
        let bit = 1 << (intid % 32);
        let exists = (32..self.lines.min(ORDINARY)).contains(&intid);
        match self.taken.get(intid as usize / 32) {
            Some(word) if exists && word.fetch_or(bit, Ordering::Relaxed) & bit == 0 => Ok(()),
            _ => Err(Error::NotFree { intid }),
        }
    }

    /// Gives an SPI back, after its owner has left it disabled and inactive.
    pub(crate) fn release(&self, intid: u32) {
        if let Some(word) = self.taken.get(intid as usize / 32) {
            word.fetch_and(!(1 << (intid % 32)), Ordering::Relaxed);
        }
    }

    /// Lets an SPI go to one CPU.
    pub(crate) fn route(&self, intid: u32, cpu: &Cpu) {
        let base = self.facts.distributor.start;
        if self.is_v2() {
            let target = cpu.target.load(Ordering::Relaxed);
            self.registers
                .write8(base + gicd::ITARGETSR + u64::from(intid), target);
        } else {
            let affinity = u64::from(cpu.affinity);
            let router = (affinity & 0x00ff_ffff) | ((affinity >> 24) << 32);
            self.registers
                .write64(base + gicd::IROUTER + 8 * u64::from(intid), router);
        }
    }

    /// Takes the most urgent pending interrupt of this CPU; it is then active. `None` if there is none.
    #[inline]
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        let acknowledged = if let Model::V2 { cpu_interface, .. } = &self.facts.model {
            Acknowledged::v2(
                self.registers
                    .read32(cpu_interface.start + registers::gicc::IAR),
            )
        } else {
            self.acknowledge_v3()
        };
        (!(ORDINARY..1024).contains(&acknowledged.intid())).then_some(acknowledged)
    }

    /// Ends the interrupt's hold on this CPU's priority; it stays active.
    #[inline]
    pub fn drop_priority(&self, acknowledged: Acknowledged) {
        if let Model::V2 { cpu_interface, .. } = &self.facts.model {
            self.registers.write32(
                cpu_interface.start + registers::gicc::EOIR,
                acknowledged.v2_raw(),
            );
        } else {
            self.registers
                .set_cpu_register(CpuRegister::Eoir1, u64::from(acknowledged.intid()));
        }
    }

    /// Makes an interrupt inactive, so that it can come again. LPIs have no active state: nothing to do for them.
    #[inline]
    pub fn deactivate(&self, acknowledged: Acknowledged) {
        if let Model::V2 { cpu_interface, .. } = &self.facts.model {
            self.registers.write32(
                cpu_interface.start + registers::gicc::DIR,
                acknowledged.v2_raw(),
            );
        } else if acknowledged.intid() < FIRST_LPI {
            self.registers
                .set_cpu_register(CpuRegister::Dir, u64::from(acknowledged.intid()));
        }
    }

    /// Sends the kick to another CPU. What it shall find must be stored before.
    #[inline]
    pub fn kick(&self, cpu: usize) {
        if let Some(state) = self.cpus.get(cpu) {
            self.registers.synchronize();
            if self.is_v2() {
                let target = u32::from(state.target.load(Ordering::Relaxed));
                self.registers.write32(
                    self.facts.distributor.start + gicd::SGIR,
                    (target << 16) | KICK,
                );
            } else {
                self.registers
                    .set_cpu_register(CpuRegister::Sgi1r, v3::sgi(KICK, state.affinity));
            }
        }
    }

    /// Lets this CPU take guests' interrupts too, or (while its vCPU is off) only the hypervisor's own.
    pub(crate) fn mask_guests(&self, mask: bool) {
        let value = if mask { MASK_OWN } else { MASK_OPEN };
        if let Model::V2 { cpu_interface, .. } = &self.facts.model {
            self.registers
                .write32(cpu_interface.start + registers::gicc::PMR, u32::from(value));
        } else {
            self.registers
                .set_cpu_register(CpuRegister::Pmr, u64::from(value));
        }
    }

    /// Waits until the distributor has taken over what was written.
    pub(crate) fn wait_distributor(&self) {
        if !self.is_v2() {
            for _ in 0..POLLS {
                if self
                    .registers
                    .read32(self.facts.distributor.start + gicd::CTLR)
                    & gicd::CTLR_RWP
                    == 0
                {
                    return;
                }
            }
        }
    }
}
