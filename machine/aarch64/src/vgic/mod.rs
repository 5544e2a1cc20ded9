//! The interrupt controller that a domain sees.
//!
//! Forwarding, not emulation: the enable, pending, active and trigger state of an SPI that a domain owns, and of its
//! timers' private interrupts, stays in the physical controller. A guest's access to the distributor or a
//! redistributor traps, is cut down to the bits of its own interrupts, and goes on to the hardware; the bits of any
//! other interrupt read as zero and ignore writes. Targets are translated from vCPUs to the CPUs they are pinned to.
//! Software exists for what the hardware can't hold for a guest: priorities (they count in list registers only),
//! software interrupts, the event-channel interrupt, virtual SPIs, and what waits for a free list register.
//!
//! No lock is held on a path that a guest takes often, and none of it allocates.
#![allow(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of registers, and are as wide as the type that takes them"
)]

mod deliver;
mod distributor;
mod its;
mod pending;
mod redistributor;
mod sgi;
mod v2;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};

use crate::gic::registers::{gicd, gicr};
use crate::gic::{
    Acknowledged, Error, FIRST_LPI, Gic, ORDINARY, Registers, Window, packed_affinity,
};
pub use its::{BadCommand, Owner, Refusal};
use its::{Its, Tables};
use pending::PendingSet;

/// Words of 32 interrupts up to the end of the ordinary numbers.
const WORDS: usize = 32;
/// A vCPU's priorities before it sets any, and an interrupt's whose priority nobody can set.
const PRIORITY_RESET: u8 = 0;
/// The bits of a priority that list registers hold on every implementation.
const PRIORITY_BITS: u8 = 0xf8;

/// Where the guest finds its interrupt controller, in guest physical addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// A GICv2: its distributor traps, its CPU interface is the hardware's virtual one.
    V2 {
        /// GICD.
        distributor: Window,
    },
    /// A GICv3: its distributor and redistributors trap, its CPU interface is system registers.
    V3 {
        /// GICD.
        distributor: Window,
        /// The regions with redistributors, 128 KiB for each vCPU in order.
        redistributors: Vec<Window>,
    },
}

/// One vCPU, as the interrupt controller needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuConfig {
    /// The CPU it is pinned to, by its number in `gic::Facts::cpus`.
    pub cpu: usize,
    /// Its MPIDR_EL1.
    pub affinity: u64,
}

/// What a domain gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it sees the controller.
    pub layout: Layout,
    /// Its vCPUs, in order; on a GICv2 at most eight.
    pub vcpus: Vec<VcpuConfig>,
    /// The physical SPIs (32 to 1019) that it owns.
    pub spis: Vec<u32>,
    /// SPIs that exist for this domain in software only, such as a virtual UART's.
    pub virtual_spis: Vec<u32>,
    /// The private interrupts whose state is the hardware's, a bit each: those of the timers that the guest has.
    pub forwarded_ppis: u32,
    /// The private interrupts that the hypervisor raises, a bit each: the event-channel interrupt.
    pub virtual_ppis: u32,
}

/// How wide an access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Size {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}

/// What came of a guest's access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A read: what the guest's register gets.
    Value(u64),
    /// A write that was done or, as the architecture allows, ignored.
    Done,
    /// No register of the interrupt controller lies there.
    NotMine,
    /// A width or alignment that the register doesn't take: an external abort for the guest.
    Fault,
}

/// An access within a frame.
#[derive(Debug, Clone, Copy)]
struct Access {
    offset: u64,
    size: Size,
    write: Option<u64>,
}

impl Access {
    /// The value as 32 bits, if it is a write.
    fn write32(&self) -> Option<u32> {
        self.write.map(|value| value as u32)
    }

    /// A register that is `value` and ignores writes.
    fn read_only(&self, value: u64) -> Outcome {
        if self.write.is_some() {
            Outcome::Done
        } else {
            Outcome::Value(value)
        }
    }

    /// A 32-bit part (or all) of a 64-bit register that is `value` and ignores writes.
    fn read_only64(&self, value: u64) -> Outcome {
        match self.size {
            Size::Double => self.read_only(value),
            Size::Word => self.read_only((value >> (8 * (self.offset & 4))) & 0xffff_ffff),
            Size::Byte | Size::Half => Outcome::Fault,
        }
    }
}

/// A vCPU's part of the interrupt controller.
#[derive(Debug)]
struct Vcpu {
    /// The CPU it is pinned to.
    cpu: usize,
    /// Aff3.Aff2.Aff1.Aff0.
    affinity: u32,
    /// Whether its CPU takes a kick: from `power_on` to `power_off`.
    online: AtomicBool,
    /// Enable bits of the interrupts below 32 that are software's.
    enabled: AtomicU32,
    /// Priorities of interrupts 0 to 31.
    priority: [AtomicU8; 32],
    /// GICv2: who sent each pending software interrupt, a bit for each vCPU.
    senders: [AtomicU8; 16],
    /// What waits for a list register: software's interrupts, and hardware's that EL2 acknowledged.
    pending: PendingSet,
    /// LPIs that wait; a set of none if the domain has none.
    lpis: PendingSet,
    /// Which LPI tables its redistributor has.
    tables: Tables,
    /// Whether the underflow interrupt has been asked for; written by its own CPU only.
    underflow: AtomicBool,
}

/// The interrupt controller of one domain.
#[derive(Debug)]
pub struct VirtualGic<'g, R> {
    gic: &'g Gic<R>,
    layout: Layout,
    vcpus: Vec<Vcpu>,
    /// GICD_CTLR's group enable.
    enabled: AtomicBool,
    /// A bit for each of its interrupts whose state is the hardware's.
    physical: [u32; WORDS],
    /// A bit for each of its interrupts that is software's.
    software: [u32; WORDS],
    /// Enable bits of virtual SPIs.
    spi_enabled: [AtomicU32; WORDS],
    /// Priorities, by SPI number less 32.
    priority: Vec<AtomicU8>,
    /// Targets likewise: a vCPU's index (GICv3) or a mask of vCPUs (GICv2).
    target: Vec<AtomicU8>,
    its: Option<Its>,
}

impl<'g, R: Registers> VirtualGic<'g, R> {
    /// Makes the controller of a domain whose vCPUs are all off, and takes its SPIs.
    ///
    /// # Errors
    /// An SPI that doesn't exist or belongs to somebody; a CPU that doesn't exist. Then nothing has been taken.
    pub fn new(gic: &'g Gic<R>, config: Config) -> Result<Self, Error> {
        if gic.is_v2() && config.vcpus.len() > 8 {
            return Err(Error::TooManyCpus);
        }
        let mut vcpus = Vec::with_capacity(config.vcpus.len());
        for vcpu in &config.vcpus {
            if vcpu.cpu >= gic.cpus.len() {
                return Err(Error::NoSuchCpu { cpu: vcpu.cpu });
            }
            vcpus.push(Vcpu::new(vcpu, gic.lines));
        }
        let mut physical = [0; WORDS];
        let mut software = [0; WORDS];
        // Software interrupts are 0 to 15, private ones 16 to 31.
        physical[0] = config.forwarded_ppis & 0xffff_0000;
        software[0] = (config.virtual_ppis & 0xffff_0000 & !physical[0]) | 0xffff;
        for &intid in &config.virtual_spis {
            if !(32..gic.lines.min(ORDINARY)).contains(&intid) {
                return Err(Error::NotFree { intid });
            }
            software[intid as usize / 32] |= 1 << (intid % 32);
        }
        for (position, &intid) in config.spis.iter().enumerate() {
            let taken = gic.claim(intid);
            let clash = software
                .get(intid as usize / 32)
                .is_none_or(|word| word & (1 << (intid % 32)) != 0);
            if taken.is_err() || clash {
                let undo = position + usize::from(taken.is_ok());
                config.spis[..undo]
                    .iter()
                    .for_each(|&intid| gic.release(intid));
                return Err(Error::NotFree { intid });
            }
            physical[intid as usize / 32] |= 1 << (intid % 32);
        }
        let spis = gic.lines.saturating_sub(32);
        let default_target = u8::from(gic.is_v2());
        Ok(Self {
            gic,
            layout: config.layout,
            vcpus,
            enabled: AtomicBool::new(false),
            physical,
            software,
            spi_enabled: core::array::from_fn(|_| AtomicU32::new(0)),
            priority: (0..spis).map(|_| AtomicU8::new(PRIORITY_RESET)).collect(),
            target: (0..spis).map(|_| AtomicU8::new(default_target)).collect(),
            its: None,
        })
    }

    /// Answers a guest's access to an address without stage 2 mapping. `vcpu` is the one that made it, on its own CPU.
    pub fn mmio(&self, vcpu: usize, address: u64, size: Size, write: Option<u64>) -> Outcome {
        let (distributor, regions): (_, &[Window]) = match &self.layout {
            Layout::V2 { distributor } => (distributor, &[]),
            Layout::V3 {
                distributor,
                redistributors,
            } => (distributor, redistributors),
        };
        if vcpu >= self.vcpus.len() {
            return Outcome::NotMine;
        }
        if let Some(offset) = distributor.offset(address) {
            if !address.is_multiple_of(size.bytes()) {
                return Outcome::Fault;
            }
            return self.distributor(
                vcpu,
                Access {
                    offset,
                    size,
                    write,
                },
            );
        }
        let mut first = 0;
        for region in regions {
            if let Some(offset) = region.offset(address) {
                if !address.is_multiple_of(size.bytes()) {
                    return Outcome::Fault;
                }
                let index = offset / gicr::STRIDE;
                let last_in_region = (index + 2) * gicr::STRIDE > region.bytes;
                let owner = (first + index) as usize;
                if owner >= self.vcpus.len() {
                    // Room for redistributors of CPUs that the domain hasn't got.
                    return Access {
                        offset,
                        size,
                        write,
                    }
                    .read_only(0);
                }
                let access = Access {
                    offset: offset % gicr::STRIDE,
                    size,
                    write,
                };
                return self.redistributor(vcpu, owner, last_in_region, access);
            }
            first += region.bytes / gicr::STRIDE;
        }
        self.its_mmio(address, size, write)
            .unwrap_or(Outcome::NotMine)
    }

    /// A physical interrupt that was acknowledged on `vcpu`'s CPU, its priority dropped, and that isn't the
    /// hypervisor's own: forwards it.
    #[inline]
    pub fn physical(&self, vcpu: usize, acknowledged: Acknowledged) {
        let intid = acknowledged.intid();
        let mine = self.is_physical(intid) || (intid >= FIRST_LPI && self.has_lpis());
        match self.vcpus.get(vcpu) {
            Some(target) if mine => self.offer(target, intid, 0),
            // Nobody's, or it raced with a change of its route: it must not stay active.
            _ => self.gic.deactivate(acknowledged),
        }
    }

    /// Raises a private or shared interrupt that is software's. `target` takes a private one; a shared one goes where
    /// the guest routed it. `here` is the vCPU of this domain that runs on the calling CPU, if any does.
    pub fn raise(&self, target: usize, intid: u32, here: Option<usize>) {
        let known = self
            .software
            .get(intid as usize / 32)
            .is_some_and(|word| word & (1 << (intid % 32)) != 0);
        let target = if intid < 32 {
            target
        } else {
            self.spi_target(intid)
        };
        if let Some(state) = self.vcpus.get(target).filter(|_| known) {
            if here == Some(target) {
                self.offer(state, intid, 0);
            } else {
                state.pending.insert(intid);
                self.notify(state);
            }
        }
    }

    /// Takes back an interrupt that `raise` made pending and that no vCPU has acknowledged yet, as far as that can be
    /// seen from this CPU: a level that fell.
    pub fn lower(&self, target: usize, intid: u32, here: Option<usize>) {
        let target = if intid < 32 {
            target
        } else {
            self.spi_target(intid)
        };
        if let Some(state) = self.vcpus.get(target) {
            state.pending.remove(intid);
            if here == Some(target) {
                self.edit_list_registers(|lr| {
                    if lr.intid() == intid {
                        lr.without_pending()
                    } else {
                        lr
                    }
                });
            }
        }
    }

    /// Whether an interrupt waits for this vCPU: what ends a WFI or SCHEDOP_block. On its own CPU.
    #[must_use]
    pub fn has_pending(&self, vcpu: usize) -> bool {
        let waiting = self
            .vcpus
            .get(vcpu)
            .is_some_and(|state| self.next(state).is_some());
        waiting || self.list_registers().any(|(_, lr)| lr.is_pending())
    }

    /// The vCPU starts, on its own CPU: its virtual interface is empty, its CPU takes guests' interrupts, and the SPIs
    /// that the guest routed to it arrive there.
    pub fn power_on(&self, vcpu: usize) {
        let Some(state) = self.vcpus.get(vcpu) else {
            return;
        };
        self.gic.reset_virtual_interface();
        state.underflow.store(false, Ordering::Relaxed);
        for intid in self.physical_spis() {
            if self.spi_goes_to(intid, vcpu) {
                self.route(intid);
            }
        }
        self.gic.mask_guests(false);
        state.online.store(true, Ordering::Relaxed);
        // Pairs with `notify`.
        fence(Ordering::SeqCst);
        self.flush(vcpu);
    }

    /// The vCPU stops, on its own CPU: what it was offered goes back to the hardware, its timers' interrupts are
    /// disabled, and its CPU takes only the hypervisor's interrupts.
    pub fn power_off(&self, vcpu: usize) {
        let Some(state) = self.vcpus.get(vcpu) else {
            return;
        };
        state.online.store(false, Ordering::Relaxed);
        self.gic.mask_guests(true);
        self.finish();
        self.withdraw(vcpu, vcpu, 0, self.physical[0]);
        for word in 1..WORDS {
            if self.physical[word] != 0 {
                self.withdraw(vcpu, vcpu, word, self.physical[word]);
            }
        }
        let private = self.gic.private_base(&self.gic.cpus[state.cpu]);
        self.silence(private, 0, self.physical[0]);
        self.hand_over_lpis(state);
        // What the guest was about to end.
        for (_, lr) in self.list_registers() {
            if self.is_physical(lr.intid()) {
                self.gic.deactivate(Acknowledged::of(lr.intid()));
            }
        }
        state.pending.clear();
        state
            .senders
            .iter()
            .for_each(|senders| senders.store(0, Ordering::Relaxed));
        state.enabled.store(0, Ordering::Relaxed);
        self.gic.reset_virtual_interface();
    }

    /// Puts everything but the vCPUs' own part into its state at reset, once all vCPUs are off: SPIs disabled and
    /// inactive, the distributor off, the ITS without tables. The domain can start anew, or never again: nothing of it
    /// reaches the hardware.
    ///
    /// # Errors
    /// LPIs that can't be switched off; everything else has been done.
    pub fn reset(&self) -> Result<(), Error> {
        self.enabled.store(false, Ordering::Relaxed);
        for word in 1..WORDS {
            if self.physical[word] != 0 {
                self.silence(self.gic.facts.distributor.start, word, self.physical[word]);
            }
            self.spi_enabled[word].store(0, Ordering::Relaxed);
        }
        let target = u8::from(self.gic.is_v2());
        self.target
            .iter()
            .for_each(|old| old.store(target, Ordering::Relaxed));
        self.priority
            .iter()
            .for_each(|old| old.store(PRIORITY_RESET, Ordering::Relaxed));
        self.reset_its()
    }

    /// Leaves interrupts of one word disabled, neither pending nor active.
    fn silence(&self, base: u64, word: usize, mask: u32) {
        let offset = 4 * word as u64;
        let registers = &self.gic.registers;
        registers.write32(base + gicd::ICENABLER + offset, mask);
        registers.write32(base + gicd::ICPENDR + offset, mask);
        registers.write32(base + gicd::ICACTIVER + offset, mask);
    }

    /// Every physical SPI of the domain.
    fn physical_spis(&self) -> impl Iterator<Item = u32> + '_ {
        (32..self.gic.lines).filter(|&intid| self.is_physical(intid))
    }

    /// Whether a vCPU is among an SPI's targets.
    fn spi_goes_to(&self, intid: u32, vcpu: usize) -> bool {
        let target = self.target.get(intid.wrapping_sub(32) as usize);
        target.is_some_and(|target| {
            let target = target.load(Ordering::Relaxed);
            if self.gic.is_v2() {
                target & (1 << (vcpu % 8)) != 0
            } else {
                usize::from(target) == vcpu
            }
        })
    }

    /// The vCPU that an SPI goes to: on GICv2 the first of its targets, or vCPU 0 if it has none.
    fn spi_target(&self, intid: u32) -> usize {
        let target = self
            .target
            .get(intid.wrapping_sub(32) as usize)
            .map_or(0, |target| target.load(Ordering::Relaxed));
        if self.gic.is_v2() {
            (target.trailing_zeros() % 8) as usize
        } else {
            usize::from(target)
        }
    }
}

impl Vcpu {
    fn new(config: &VcpuConfig, lines: u32) -> Self {
        Self {
            cpu: config.cpu,
            affinity: packed_affinity(config.affinity),
            online: AtomicBool::new(false),
            enabled: AtomicU32::new(0),
            priority: core::array::from_fn(|_| AtomicU8::new(PRIORITY_RESET)),
            senders: core::array::from_fn(|_| AtomicU8::new(0)),
            pending: PendingSet::new(0, lines),
            lpis: PendingSet::new(FIRST_LPI, 0),
            tables: Tables::default(),
            underflow: AtomicBool::new(false),
        }
    }
}
