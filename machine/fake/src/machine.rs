//! The machine: what the core does to it is done in memory, or written down.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::hvm_vcpu::Context;
use abi::memory::MapEntry;
use abi::shared_info::TimeInfo;
use hypervisor::console::Console;
use hypervisor::{
    Access, BadContext, CacheFlush, Claim, Direction, Facts, GuestFault, Machine, MapError,
    Mapping, NotSupported, PhysicalCpu, Start,
};
use layout::{Gfn, GfnRange, GuestAddress, MachineAddress, MfnRange};

use crate::memory::Memory;

/// Guest addresses end here: 40 bits, so that there is something beyond.
const GUEST_BITS: u32 = 40;

/// What the firmware was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// Nothing.
    #[default]
    On,
    /// To switch off.
    Off,
    /// To reset.
    Reset,
}

/// The machine.
#[derive(Default)]
pub struct Fake {
    memory: Option<Memory>,
    console: Console,
    heard: Mutex<Vec<u8>>,
    now: AtomicU64,
    power: Mutex<Power>,
    /// Frames that were cleared, in order.
    cleared: Mutex<Vec<MfnRange>>,
    /// What only some architectures have, x86 before all.
    extras: Option<Extras>,
}

/// What the machine has beyond the least.
#[derive(Debug)]
struct Extras {
    machine_map: Vec<MapEntry>,
    cpus: Vec<PhysicalCpu>,
    /// Lines that were set up, in order: line, by level, active low.
    lines: Mutex<Vec<(u32, bool, bool)>>,
}

/// The clock of a machine with extras: a tick is a nanosecond.
pub const CLOCK: TimeInfo = TimeInfo {
    version: 0,
    reserved: 0,
    tsc_timestamp: 0,
    system_time: 0,
    tsc_to_system_mul: 1 << 31,
    tsc_shift: 1,
    flags: abi::shared_info::TSC_STABLE,
    reserved2: [0; 2],
};

/// The lines that domains may set up end here.
const LINES: u32 = 24;

/// The machine's half of a domain.
#[derive(Debug)]
pub struct FakeDomain {
    stage2: Mutex<BTreeMap<Gfn, Mapping>>,
    /// What was taken out, and CPUs may still use.
    stale: Mutex<Vec<(Gfn, Mapping)>>,
    /// Pages that stage 2 can hold: the fake's idea of tables.
    limit: usize,
    /// How many more times pages can be taken out.
    splits: AtomicU64,
    map: Vec<MapEntry>,
}

/// What a vCPU does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VcpuState {
    /// Nothing: it hasn't been started, or has stopped.
    #[default]
    Parked,
    /// It runs, from here.
    Running(Start),
    /// It runs, from the registers that it was given.
    RunningFrom(Context),
}

/// The machine's half of a vCPU.
#[derive(Debug, Default)]
pub struct FakeVcpu {
    /// The index of its domain's setup, for translation.
    domain: std::sync::OnceLock<std::sync::Arc<FakeDomain>>,
    /// What it does.
    pub state: Mutex<VcpuState>,
    /// How often it was started.
    pub starts: AtomicU64,
    /// How often the upcall was raised.
    pub upcalls: AtomicU64,
    /// How often it was kicked.
    pub kicks: AtomicU64,
    /// Its timer.
    pub timer: Mutex<Option<u64>>,
    /// The registers that it was given by hypercall.
    pub context: Mutex<Option<Context>>,
    /// The vector that it chose for its upcall.
    pub vector: AtomicU64,
}

impl FakeDomain {
    /// A domain with nothing mapped, room for so many pages, and tables for taking pages out so
    /// many times.
    pub fn new(limit: usize, splits: u64) -> Self {
        Self {
            stage2: Mutex::new(BTreeMap::new()),
            stale: Mutex::new(Vec::new()),
            limit,
            splits: AtomicU64::new(splits),
            map: Vec::new(),
        }
    }

    /// The same, with a memory map.
    #[must_use]
    pub fn with_map(self, map: Vec<MapEntry>) -> Self {
        Self { map, ..self }
    }

    /// Everything that is mapped.
    pub fn mappings(&self) -> Vec<(Gfn, Mapping)> {
        lock(&self.stage2)
            .iter()
            .map(|(page, mapping)| (*page, *mapping))
            .collect()
    }

    /// What was taken out, and CPUs may still use.
    pub fn stale(&self) -> Vec<(Gfn, Mapping)> {
        lock(&self.stale).clone()
    }

    /// The machine address behind a guest address.
    pub fn translate(&self, address: GuestAddress, write: bool) -> Option<MachineAddress> {
        let mapping = *lock(&self.stage2).get(&address.frame())?;
        if write && !mapping.access.writable() {
            return None;
        }
        mapping.mfn.address().checked_add(address.offset_in_frame())
    }
}

impl FakeVcpu {
    /// A vCPU of this domain.
    pub fn of(domain: &std::sync::Arc<FakeDomain>) -> Self {
        let vcpu = Self::default();
        let _ = vcpu.domain.set(domain.clone());
        vcpu
    }

    /// How often the upcall was raised since the last question.
    pub fn take_upcalls(&self) -> u64 {
        self.upcalls.swap(0, Ordering::SeqCst)
    }

    /// How often it was kicked since the last question.
    pub fn take_kicks(&self) -> u64 {
        self.kicks.swap(0, Ordering::SeqCst)
    }

    /// What it does.
    pub fn state(&self) -> VcpuState {
        *lock(&self.state)
    }
}

impl Fake {
    /// A machine with this RAM.
    pub fn new(ram: MfnRange) -> Self {
        Self {
            memory: Some(Memory::new(ram)),
            ..Self::default()
        }
    }

    /// The same with a memory map and these CPUs, and all else that an architecture may have and
    /// others lack.
    #[must_use]
    pub fn with_extras(self, machine_map: Vec<MapEntry>, cpus: Vec<PhysicalCpu>) -> Self {
        let extras = Extras {
            machine_map,
            cpus,
            lines: Mutex::default(),
        };
        Self {
            extras: Some(extras),
            ..self
        }
    }

    /// Interrupt lines that were set up since the last question: line, by level, active low.
    pub fn take_lines(&self) -> Vec<(u32, bool, bool)> {
        let lines = self.extras.as_ref().map(|extras| &extras.lines);
        lines.map_or_else(Vec::new, |lines| std::mem::take(&mut *lock(lines)))
    }

    /// Its RAM.
    ///
    /// # Panics
    /// If the machine was made by `default()`, which has none.
    pub fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("a machine with RAM")
    }

    /// What the console has said since the last question.
    pub fn take_console(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *lock(&self.heard))).into_owned()
    }

    /// What the firmware was asked for.
    pub fn power(&self) -> Power {
        *lock(&self.power)
    }

    /// Lets time pass.
    pub fn advance(&self, nanoseconds: u64) {
        self.now.fetch_add(nanoseconds, Ordering::SeqCst);
    }

    /// Frames that were cleared since the last question.
    pub fn take_cleared(&self) -> Vec<MfnRange> {
        std::mem::take(&mut *lock(&self.cleared))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Machine for Fake {
    type Domain = std::sync::Arc<FakeDomain>;
    type Vcpu = FakeVcpu;

    const FACTS: Facts = Facts {
        features: 0x46005,
        capabilities: "xen-3.0-fake ",
        virtual_start: 0,
        shared_info: abi::shared_info::Layout::ARM,
    };

    fn console(&self) -> &Console {
        &self.console
    }

    fn console_write(&self, bytes: &[u8]) {
        lock(&self.heard).extend_from_slice(bytes);
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn vcpus_by_hypercall(&self) -> bool {
        self.extras.is_some()
    }

    fn guest_clock(&self) -> Option<TimeInfo> {
        self.extras.as_ref().map(|_| CLOCK)
    }

    fn memory_map<'a>(&'a self, domain: &'a Self::Domain) -> &'a [MapEntry] {
        &domain.map
    }

    fn machine_memory_map(&self) -> &[MapEntry] {
        self.extras
            .as_ref()
            .map_or(&[], |extras| &extras.machine_map)
    }

    fn physical_cpus(&self) -> &[PhysicalCpu] {
        self.extras.as_ref().map_or(&[], |extras| &extras.cpus)
    }

    fn read(&self, claim: &Claim, offset: u64, bytes: &mut [u8]) {
        if let Some(start) = claim.address(offset, bytes.len() as u64) {
            self.memory().read(start, bytes);
        }
    }

    fn write(&self, claim: &Claim, offset: u64, bytes: &[u8]) {
        if let Some(start) = claim.address(offset, bytes.len() as u64) {
            self.memory().write(start, bytes);
        }
    }

    fn clear(&self, claim: &Claim) {
        lock(&self.cleared).push(claim.frames());
        self.memory().clear(claim.frames());
    }

    fn copy(&self, from: &Claim, from_offset: u64, to: &Claim, to_offset: u64, bytes: u64) {
        let ends = from
            .address(from_offset, bytes)
            .zip(to.address(to_offset, bytes));
        if let Some((from, to)) = ends {
            let mut copied = vec![0; usize::try_from(bytes).unwrap_or(0)];
            self.memory().read(from, &mut copied);
            self.memory().write(to, &copied);
        }
    }

    fn word<'a>(&'a self, claim: &'a Claim, offset: u64) -> Option<&'a AtomicU64> {
        let address = claim.address(offset, 8)?;
        address
            .raw()
            .is_multiple_of(8)
            .then(|| self.memory().word(address))?
    }

    fn flush_cache(&self, claim: &Claim, offset: u64, bytes: u64, _operation: CacheFlush) {
        assert!(
            claim.address(offset, bytes).is_some(),
            "a flush outside its claim"
        );
    }

    fn map(
        &self,
        domain: &Self::Domain,
        at: Gfn,
        claim: &Claim,
        access: Access,
    ) -> Result<(), MapError> {
        let frames = claim.frames();
        let pages = GfnRange::new(at, frames.frames()).ok_or(MapError::BeyondReach)?;
        if pages.end().raw() > 1 << (GUEST_BITS - layout::FRAME_SHIFT) {
            return Err(MapError::BeyondReach);
        }
        let mut stage2 = lock(&domain.stage2);
        let present = stage2.range(pages.start()..pages.end()).count() as u64;
        let new = usize::try_from(pages.frames() - present).unwrap_or(usize::MAX);
        if stage2.len() + new > domain.limit {
            return Err(MapError::OutOfTables);
        }
        for index in 0..frames.frames() {
            stage2.insert(
                at.offset(index),
                Mapping {
                    mfn: frames.start().offset(index),
                    access,
                },
            );
        }
        Ok(())
    }

    fn unmap(&self, domain: &Self::Domain, pages: GfnRange) -> Result<(), MapError> {
        let take = |left: u64| left.checked_sub(1);
        domain
            .splits
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .map_err(|_| MapError::OutOfTables)?;
        let mut stage2 = lock(&domain.stage2);
        let pages = (0..pages.frames()).map(|index| pages.start().offset(index));
        let removed = pages.filter_map(|page| Some((page, stage2.remove(&page)?)));
        lock(&domain.stale).extend(removed);
        Ok(())
    }

    fn settle(&self, domain: &Self::Domain) {
        lock(&domain.stale).clear();
    }

    fn unmap_all(&self, domain: &Self::Domain) {
        lock(&domain.stage2).clear();
        lock(&domain.stale).clear();
    }

    fn lookup(&self, domain: &Self::Domain, page: Gfn) -> Option<Mapping> {
        lock(&domain.stage2).get(&page).copied()
    }

    fn guest_buffer(
        &self,
        vcpu: &Self::Vcpu,
        address: u64,
        direction: Direction,
    ) -> Result<MachineAddress, GuestFault> {
        let domain = vcpu.domain.get().ok_or(GuestFault)?;
        domain
            .translate(GuestAddress::new(address), direction == Direction::ToGuest)
            .ok_or(GuestFault)
    }

    fn start_vcpu(&self, vcpu: &Self::Vcpu, start: Start) {
        vcpu.starts.fetch_add(1, Ordering::SeqCst);
        *lock(&vcpu.state) = VcpuState::Running(start);
    }

    fn initialise_vcpu(&self, vcpu: &Self::Vcpu, context: &Context) -> Result<(), BadContext> {
        if context.registers_64().is_none() {
            return Err(BadContext);
        }
        *lock(&vcpu.context) = Some(*context);
        Ok(())
    }

    fn start_initialised(&self, vcpu: &Self::Vcpu) {
        vcpu.starts.fetch_add(1, Ordering::SeqCst);
        let context = lock(&vcpu.context).take().expect("registers");
        *lock(&vcpu.state) = VcpuState::RunningFrom(context);
    }

    fn stop_vcpu(&self, vcpu: &Self::Vcpu) {
        *lock(&vcpu.state) = VcpuState::Parked;
    }

    fn kick(&self, vcpu: &Self::Vcpu) {
        vcpu.kicks.fetch_add(1, Ordering::SeqCst);
    }

    fn raise_upcall(&self, vcpu: &Self::Vcpu) {
        vcpu.upcalls.fetch_add(1, Ordering::SeqCst);
    }

    fn set_timer(&self, vcpu: &Self::Vcpu, deadline: Option<u64>) {
        *lock(&vcpu.timer) = deadline;
    }

    fn reset_domain(&self, _domain: &Self::Domain) {}

    fn set_callback(&self, _domain: &Self::Domain, _via: u64) -> Result<(), NotSupported> {
        self.extras.as_ref().map(|_| ()).ok_or(NotSupported)
    }

    fn set_upcall_vector(&self, vcpu: &Self::Vcpu, vector: u32) -> Result<(), NotSupported> {
        self.extras.as_ref().ok_or(NotSupported)?;
        vcpu.vector.store(vector.into(), Ordering::SeqCst);
        Ok(())
    }

    fn set_up_line(
        &self,
        _domain: &Self::Domain,
        line: u32,
        by_level: bool,
        active_low: bool,
    ) -> Result<(), NotSupported> {
        let extras = self.extras.as_ref().filter(|_| line < LINES);
        let lines = &extras.ok_or(NotSupported)?.lines;
        lock(lines).push((line, by_level, active_low));
        Ok(())
    }

    fn power_off(&self) {
        *lock(&self.power) = Power::Off;
    }

    fn reset(&self) {
        *lock(&self.power) = Power::Reset;
    }
}
