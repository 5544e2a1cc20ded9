//! The machine under the hypervisor's core.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{CNTPCT_EL0, Readable};
use hypervisor::console::Console;
use hypervisor::{
    Access, CacheFlush, Claim, Direction, Facts, GuestFault, Machine, MapError, Mapping, Start,
};
use layout::{Gfn, GfnRange, MachineAddress};
use machine_paging::PagingError;

use super::domain::Domain;
use super::uart::Uart;
use super::vcpu::Vcpu;
use super::{boot, cache, cpu, firmware, memory, run};
use crate::gic::{Gic, Hardware};
use crate::smccc;
use crate::stage2::Kind;
use crate::vgic::VirtualGic;
use crate::vpl011::Pl011;

/// A domain's interrupt controller on the real one.
pub type Interrupts = VirtualGic<'static, Hardware>;

/// The PPI of the event-channel upcall: free on every machine that follows the recommended
/// assignment (Arm BSA, 31 is the last).
pub const UPCALL: u32 = 31;

/// This machine.
pub struct Arm {
    /// The physical interrupt controller.
    pub gic: &'static Gic<Hardware>,
    /// The hypervisor's UART.
    pub uart: Option<Uart>,
    /// The UART's interrupt, and the CPU that takes it.
    pub uart_interrupt: Option<u32>,
    /// See `uart_interrupt`: an index in the host map.
    pub uart_cpu: usize,
    /// The interrupt of EL2's physical timer.
    pub timer: u32,
    /// Counts of CNTPCT_EL0 in a second, not zero.
    pub frequency: u64,
}

const NANOSECONDS: u64 = 1_000_000_000;

impl Arm {
    /// The count of CNTPCT_EL0 at a time of [`Machine::now`], rounded up; all ones if it never comes.
    pub fn count_at(&self, time: u64) -> u64 {
        let count = u128::from(time) * u128::from(self.frequency);
        u64::try_from(count.div_ceil(u128::from(NANOSECONDS))).unwrap_or(u64::MAX)
    }
}

const fn kind(access: Access) -> Kind {
    match access {
        Access::Ram => Kind::Ram,
        Access::RamData => Kind::RamData,
        Access::RamReadOnly => Kind::RamReadOnly,
        Access::Device => Kind::Device,
    }
}

const fn access(kind: Kind) -> Access {
    match kind {
        Kind::Ram => Access::Ram,
        Kind::RamData => Access::RamData,
        Kind::RamReadOnly => Access::RamReadOnly,
        Kind::Device => Access::Device,
    }
}

const fn map_error(error: PagingError) -> MapError {
    match error {
        PagingError::OutOfTables => MapError::OutOfTables,
        PagingError::OutOfRange | PagingError::Misaligned => MapError::BeyondReach,
    }
}

impl Machine for Arm {
    type Domain = Domain;
    type Vcpu = Vcpu;

    const FACTS: Facts = Facts {
        // XENFEAT_writable_page_tables (0), auto_translated_physmap (2), memory_op_vnode_supported (13),
        // ARM_SMCCC_supported (14), runstate_phys_area (18): what Xen reports to every Arm domain
        // (public/features.h).
        features: 0x46005,
        capabilities: "xen-3.0-aarch64 ",
        virtual_start: 0,
        shared_info: abi::shared_info::Layout::ARM,
    };

    fn console(&self) -> &Console {
        boot::console()
    }

    fn console_write(&self, bytes: &[u8]) {
        if let Some(uart) = &self.uart {
            for &byte in bytes {
                uart.send(byte);
            }
        }
    }

    fn now(&self) -> u64 {
        let count = CNTPCT_EL0.get();
        let (seconds, rest) = (count / self.frequency, count % self.frequency);
        seconds * NANOSECONDS + rest * NANOSECONDS / self.frequency
    }

    fn read(&self, claim: &Claim, offset: u64, bytes: &mut [u8]) {
        memory::read(claim, offset, bytes);
    }

    fn write(&self, claim: &Claim, offset: u64, bytes: &[u8]) {
        memory::write(claim, offset, bytes);
    }

    fn clear(&self, claim: &Claim) {
        memory::clear(claim);
    }

    fn copy(&self, from: &Claim, from_offset: u64, to: &Claim, to_offset: u64, bytes: u64) {
        memory::copy(from, from_offset, to, to_offset, bytes);
    }

    fn word<'a>(&'a self, claim: &'a Claim, offset: u64) -> Option<&'a AtomicU64> {
        let address = claim.address(offset, 8)?.raw();
        if !address.is_multiple_of(8) {
            return None;
        }
        // SAFETY: the claim proves that the eight bytes are memory with an owner, which is mapped at
        // EL2 for good; they are aligned, and shared with the guest by atomic accesses alone.
        Some(unsafe { AtomicU64::from_ptr(address as *mut u64) })
    }

    fn flush_cache(&self, claim: &Claim, offset: u64, bytes: u64, operation: CacheFlush) {
        let Some(start) = claim.address(offset, bytes) else {
            return;
        };
        if operation.invalidate {
            // Never without cleaning: a line may hold more than the range.
            cache::clean_invalidate(start.raw(), bytes);
        } else if operation.clean {
            cache::clean(start.raw(), bytes);
        }
    }

    fn map(&self, domain: &Domain, at: Gfn, claim: &Claim, access: Access) -> Result<(), MapError> {
        let range = claim.frames().bytes();
        domain
            .map(
                at.address().raw(),
                range.start().raw(),
                range.size(),
                kind(access),
            )
            .map_err(map_error)
    }

    fn unmap(&self, domain: &Domain, pages: GfnRange) -> Result<(), MapError> {
        let range = pages.bytes();
        domain
            .unmap(range.start().raw(), range.size())
            .map_err(map_error)
    }

    fn settle(&self, domain: &Domain) {
        domain.settle();
    }

    fn unmap_all(&self, domain: &Domain) {
        domain.unmap_all();
    }

    fn lookup(&self, domain: &Domain, page: Gfn) -> Option<Mapping> {
        let (address, kind) = domain.lookup(page.address().raw())?;
        Some(Mapping {
            mfn: MachineAddress::new(address).frame(),
            access: access(kind),
        })
    }

    fn guest_buffer(
        &self,
        _vcpu: &Vcpu,
        address: u64,
        direction: Direction,
    ) -> Result<MachineAddress, GuestFault> {
        let write = matches!(direction, Direction::ToGuest);
        let domain = cpu::this().caller.domain.machine();
        memory::translate(address, write)
            .or_else(|| domain.settled(|| memory::translate(address, write)))
            .map(MachineAddress::new)
            .ok_or(GuestFault)
    }

    fn start_vcpu(&self, vcpu: &Vcpu, start: Start) {
        vcpu.request_start(start);
        self.gic.kick(vcpu.cpu);
    }

    fn stop_vcpu(&self, vcpu: &Vcpu) {
        vcpu.interrupts.power_off(vcpu.index);
    }

    fn kick(&self, vcpu: &Vcpu) {
        vcpu.request_kick();
        self.gic.kick(vcpu.cpu);
    }

    fn raise_upcall(&self, vcpu: &Vcpu) {
        vcpu.interrupts.raise(vcpu.index, UPCALL, here(vcpu));
    }

    fn set_timer(&self, vcpu: &Vcpu, deadline: Option<u64>) {
        let count = deadline.map_or(u64::MAX, |time| self.count_at(time));
        vcpu.deadline.store(count, Ordering::Relaxed);
        if count != u64::MAX && here(vcpu) == Some(vcpu.index) {
            run::set_alarm(count);
        }
    }

    fn reset_domain(&self, domain: &Domain) {
        if let Some(uart) = &domain.uart {
            *uart.state.lock() = Pl011::default();
        }
        if domain.interrupts.reset().is_err() {
            boot::say(format_args!(
                "the interrupt controller keeps LPIs that it can't be made to drop"
            ));
        }
    }

    fn uart_input(&self, domain: &Domain, bytes: &[u8]) -> usize {
        let Some(uart) = &domain.uart else {
            return 0;
        };
        let (taken, high) = {
            let mut state = uart.state.lock();
            (state.receive(bytes), state.interrupts())
        };
        let here = cpu::try_this().map(|cpu| cpu.caller.vcpu.machine());
        let here = here.filter(|own| core::ptr::eq(own.interrupts, domain.interrupts));
        domain.signal_uart(uart, high, here.map(|own| own.index));
        taken
    }

    fn power_off(&self) {
        firmware::call(smccc::SYSTEM_OFF, [0; 3]);
    }

    fn reset(&self) {
        firmware::call(smccc::SYSTEM_RESET, [0; 3]);
    }
}

/// The index of the vCPU that runs on this CPU, if it is of the same domain.
fn here(vcpu: &Vcpu) -> Option<usize> {
    let cpu = cpu::try_this()?;
    let own = cpu.caller.vcpu.machine();
    core::ptr::eq(own.interrupts, vcpu.interrupts).then_some(own.index)
}
