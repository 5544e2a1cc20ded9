//! The machine under the hypervisor's core.

use alloc::boxed::Box;
use core::sync::atomic::AtomicU64;

use abi::hvm_vcpu::Context;
use abi::memory::MapEntry;
use abi::shared_info::TimeInfo;
use hypervisor::console::Console;
use hypervisor::{
    Access, BadContext, CacheFlush, Claim, Direction, Facts, GuestFault, Machine, MapError,
    Mapping, NotSupported, PhysicalCpu, Start,
};
use layout::{Gfn, GfnRange, MachineAddress};
use machine_paging::PagingError;

use super::cpu;
use super::domain::Domain;
use super::vcpu::Vcpu;
use super::{console, memory, platform};
use crate::guest_walk;
use crate::npt::Kind;
use crate::svm::context;

/// This machine.
pub struct Pc {
    /// Its own devices.
    pub host: &'static platform::Host,
    /// Its memory map as firmware gave it, made orderly.
    pub memory: Box<[MapEntry]>,
    /// Its CPUs.
    pub cpus: Box<[PhysicalCpu]>,
    /// How many global system interrupts it has.
    pub lines: u32,
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
        Kind::Device | Kind::DeviceReadOnly => Access::Device,
    }
}

const fn map_error(error: PagingError) -> MapError {
    match error {
        PagingError::OutOfTables => MapError::OutOfTables,
        PagingError::OutOfRange | PagingError::Misaligned => MapError::BeyondReach,
    }
}

impl Machine for Pc {
    type Domain = Domain;
    type Vcpu = Vcpu;

    const FACTS: Facts = Facts {
        // What Xen 4.20 reports to a PVH dom0 (public/features.h) without bits 11 and 16, which the core
        // decides: writable_page_tables (0), auto_translated_physmap (2), hvm_callback_vector (8),
        // hvm_safe_pvclock (9), memory_op_vnode_supported (13), runstate_phys_area (18),
        // vcpu_time_phys_area (19), 20.
        features: 0x1c_2305,
        capabilities: "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ",
        virtual_start: 0,
        shared_info: abi::shared_info::Layout::X86_64,
    };

    fn vcpus_by_hypercall(&self) -> bool {
        true
    }

    fn console(&self) -> &Console {
        console::console()
    }

    fn console_write(&self, bytes: &[u8]) {
        console::send(bytes);
    }

    fn now(&self) -> u64 {
        self.host.now()
    }

    fn wall_clock(&self) -> Option<u64> {
        self.host.wall_clock()
    }

    fn guest_clock(&self) -> Option<TimeInfo> {
        let clock = &self.host.clock;
        Some(TimeInfo {
            tsc_timestamp: clock.base,
            tsc_to_system_mul: clock.multiplier,
            tsc_shift: clock.shift,
            flags: abi::shared_info::TSC_STABLE,
            ..TimeInfo::default()
        })
    }

    fn memory_map<'a>(&'a self, domain: &'a Domain) -> &'a [MapEntry] {
        &domain.memory_map
    }

    fn machine_memory_map(&self) -> &[MapEntry] {
        &self.memory
    }

    fn physical_cpus(&self) -> &[PhysicalCpu] {
        &self.cpus
    }

    fn set_up_line(
        &self,
        _domain: &Domain,
        line: u32,
        _by_level: bool,
        _active_low: bool,
    ) -> Result<(), NotSupported> {
        // The guest's entry of the IO-APIC says the same again, and counts.
        if line < self.lines {
            Ok(())
        } else {
            Err(NotSupported)
        }
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
        // SAFETY: the claim proves that the eight bytes are memory with an owner, which is mapped for
        // good; they are aligned, and shared with the guest by atomic accesses alone.
        Some(unsafe { AtomicU64::from_ptr(address as *mut u64) })
    }

    fn flush_cache(&self, _claim: &Claim, _offset: u64, _bytes: u64, _operation: CacheFlush) {
        // Every observer looks into the caches.
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
        vcpu: &Vcpu,
        address: u64,
        direction: Direction,
    ) -> Result<MachineAddress, GuestFault> {
        let access = match direction {
            Direction::FromGuest => guest_walk::Access::READ,
            Direction::ToGuest => guest_walk::Access::WRITE,
        };
        let domain = cpu::this().caller.domain.machine();
        let physical = guest_walk::translate(&vcpu.paging(), address, access, domain);
        let (machine, kind) = physical
            .and_then(|physical| domain.lookup(physical))
            .ok_or(GuestFault)?;
        if access.write && kind == Kind::RamReadOnly {
            return Err(GuestFault);
        }
        Ok(MachineAddress::new(machine))
    }

    fn start_vcpu(&self, vcpu: &Vcpu, start: Start) {
        vcpu.request_start(start);
        platform::kick(&vcpu.apic);
    }

    fn initialise_vcpu(&self, vcpu: &Vcpu, context: &Context) -> Result<(), BadContext> {
        let wanted = context::check(context).ok_or(BadContext)?;
        vcpu.initialise(wanted);
        Ok(())
    }

    fn start_initialised(&self, vcpu: &Vcpu) {
        vcpu.request_initialised();
        platform::kick(&vcpu.apic);
    }

    fn stop_vcpu(&self, _vcpu: &Vcpu) {
        // What is on its way waits in its local APIC, which a start resets.
    }

    fn kick(&self, vcpu: &Vcpu) {
        vcpu.request_kick();
        platform::kick(&vcpu.apic);
    }

    fn raise_upcall(&self, vcpu: &Vcpu) {
        platform::raise_upcall(&vcpu.apic);
        vcpu.change();
    }

    fn set_timer(&self, vcpu: &Vcpu, deadline: Option<u64>) {
        platform::set_core_timer(self.host, &vcpu.apic, deadline);
        vcpu.change();
    }

    fn reset_domain(&self, domain: &Domain) {
        domain.devices.reset();
    }

    fn set_callback(&self, domain: &Domain, via: u64) -> Result<(), NotSupported> {
        if domain.devices.set_callback(via) {
            Ok(())
        } else {
            Err(NotSupported)
        }
    }

    fn set_upcall_vector(&self, vcpu: &Vcpu, vector: u32) -> Result<(), NotSupported> {
        if vcpu.apic.set_upcall_vector(vector) {
            Ok(())
        } else {
            Err(NotSupported)
        }
    }

    fn power_off(&self) {
        self.host.power_off();
    }

    fn reset(&self) {
        self.host.reset();
    }
}
