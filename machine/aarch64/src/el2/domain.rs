//! The machine's half of a domain: its second stage and its interrupt controller.

use core::arch::asm;

use aarch64_cpu::registers::{Readable, VTTBR_EL2, Writeable};
use layout::MfnRange;
use machine_common::{DomainTables, Pool, Translations, pool};
use machine_paging::{PAGE_SIZE, PagingError, Regime};
use spin::Mutex;

use super::cache;
use super::machine::Interrupts;
use crate::descriptor::Vmsa;
use crate::stage2::{Kind, Shape};
use crate::vpl011::Pl011;

/// A domain, as the machine knows it.
pub struct Domain {
    stage2: Mutex<Stage2>,
    vttbr: u64,
    /// Its interrupt controller.
    pub interrupts: &'static Interrupts,
    /// The GICv2's virtual CPU interface: guest address, machine address, bytes. It stays mapped as
    /// long as the domain exists.
    interface: Option<(u64, u64, u64)>,
    /// Its virtual UART.
    pub uart: Option<VirtualUart>,
}

/// A virtual PL011 and where the guest finds it.
pub struct VirtualUart {
    /// Guest physical address of its registers, 4 KiB.
    pub base: u64,
    /// Its interrupt, an SPI that exists in software.
    pub interrupt: u32,
    /// Its registers.
    pub state: Mutex<Pl011>,
}

/// The tables of a domain and the pool that they come from.
pub struct Stage2 {
    regime: Regime<Vmsa>,
    tables: DomainTables<Stage2Translations>,
}

/// The translations of a domain, by its VTTBR_EL2.
struct Stage2Translations {
    vttbr: u64,
}

impl Translations for Stage2Translations {
    const REPLACED_IN_USE: bool = false;

    fn publish(&self) {
        // SAFETY: a barrier changes no memory.
        unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
    }

    fn drop_all(&self) {
        let current = VTTBR_EL2.get();
        if current != self.vttbr {
            VTTBR_EL2.set(self.vttbr);
        }
        // SAFETY: dropping cached translations makes the CPU walk again, nothing else.
        unsafe {
            asm!(
                "isb",
                "tlbi vmalls12e1is",
                "dsb ish",
                "isb",
                options(nostack)
            )
        };
        if current != self.vttbr {
            VTTBR_EL2.set(current);
            cache::complete();
        }
    }
}

/// Why a domain can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainError {
    /// The plan's frames for tables are too few even for the root.
    NoRoot,
    /// The GICv2 interface can't be mapped.
    Interface(PagingError),
}

impl Domain {
    /// A domain in which nothing is mapped but the GICv2's CPU interface.
    ///
    /// # Safety
    /// `frames` are RAM of the hypervisor, mapped at EL2, that nothing else ever uses.
    ///
    /// # Errors
    /// [`DomainError`].
    pub unsafe fn new(
        shape: Shape,
        vmid: u8,
        frames: MfnRange,
        interrupts: &'static Interrupts,
        interface: Option<(u64, u64, u64)>,
        uart: Option<VirtualUart>,
    ) -> Result<Self, DomainError> {
        let (start, end) = (frames.bytes().start().raw(), frames.bytes().end().raw());
        let root_bytes = shape.root_pages() * PAGE_SIZE;
        let root = start.next_multiple_of(root_bytes);
        if root + root_bytes > end {
            return Err(DomainError::NoRoot);
        }
        for index in 0..usize::try_from(root_bytes / 8).unwrap_or(0) {
            // SAFETY: the root lies in the frames that the caller gives away.
            unsafe { pool::write(root, index, 0) };
        }
        let vttbr = Shape::vttbr(root, vmid);
        // SAFETY: the caller gives the frames away.
        let pool = unsafe { Pool::new(root + root_bytes, end) };
        // SAFETY: the root lies in the frames that the caller gives away, and is as wide as the shape says.
        let tables = unsafe { DomainTables::new(pool, Stage2Translations { vttbr }) };
        let domain = Self {
            stage2: Mutex::new(Stage2 {
                regime: shape.regime(root),
                tables,
            }),
            vttbr,
            interrupts,
            interface,
            uart,
        };
        domain.map_interface().map_err(DomainError::Interface)?;
        Ok(domain)
    }

    /// Sets the virtual UART's interrupt to what its registers say. `here` is the vCPU of this domain
    /// that runs on the calling CPU, if any.
    pub fn signal_uart(&self, uart: &VirtualUart, high: bool, here: Option<usize>) {
        if high {
            self.interrupts.raise(0, uart.interrupt, here);
        } else {
            self.interrupts.lower(0, uart.interrupt, here);
        }
    }

    /// VTTBR_EL2 while a vCPU of it runs.
    pub const fn vttbr(&self) -> u64 {
        self.vttbr
    }

    /// Whether its interrupt controller is a GICv2.
    pub const fn is_gicv2(&self) -> bool {
        self.interface.is_some()
    }

    fn map_interface(&self) -> Result<(), PagingError> {
        match self.interface {
            Some((guest, machine, bytes)) => self.map(guest, machine, bytes, Kind::Device),
            None => Ok(()),
        }
    }

    /// Maps machine memory into the domain.
    ///
    /// # Errors
    /// [`PagingError`]; nothing has changed then.
    pub fn map(&self, guest: u64, machine: u64, bytes: u64, kind: Kind) -> Result<(), PagingError> {
        let mut stage2 = self.stage2.lock();
        let regime = stage2.regime;
        // What was removed there may still be cached.
        stage2.tables.settle();
        let result = regime.map(&mut stage2.tables, guest, machine, bytes, kind.attributes());
        stage2.tables.settle();
        result
    }

    /// Takes a range out of the domain. CPUs may use cached translations of it until [`Domain::settle`].
    ///
    /// # Errors
    /// [`PagingError`]; nothing has changed then.
    pub fn unmap(&self, guest: u64, bytes: u64) -> Result<(), PagingError> {
        let mut stage2 = self.stage2.lock();
        let regime = stage2.regime;
        regime.unmap(&mut stage2.tables, guest, bytes)
    }

    /// Waits until no CPU uses a translation that has been taken out.
    pub fn settle(&self) {
        self.stage2.lock().tables.settle();
    }

    /// Takes everything out of the domain but the GICv2's CPU interface.
    pub fn unmap_all(&self) {
        {
            let mut stage2 = self.stage2.lock();
            let regime = stage2.regime;
            regime.clear(&mut stage2.tables);
            stage2.tables.settle();
        }
        // It fitted when the domain was made, and all tables are free again.
        let _ = self.map_interface();
    }

    /// Does `work` while no CPU changes the tables, so that an entry between break and make isn't taken for a hole.
    pub fn settled<R>(&self, work: impl FnOnce() -> R) -> R {
        let _tables = self.stage2.lock();
        work()
    }

    /// What is mapped at a guest physical address: machine address and kind.
    pub fn lookup(&self, guest: u64) -> Option<(u64, Kind)> {
        let stage2 = self.stage2.lock();
        let found = stage2.regime.translate(&stage2.tables, guest)?;
        Some((found.output, Kind::of(found.attributes)?))
    }
}
