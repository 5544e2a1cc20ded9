//! The machine's half of a domain: its nested tables, what it reaches of the devices, and the devices
//! that the hypervisor plays for it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::memory::MapEntry;
use layout::MfnRange;
use machine_common::{DomainTables, Pool, Translations, pool};
use machine_paging::{PAGE_SIZE, PagingError, Regime};
use spin::Mutex;

use super::platform;
use crate::boot_info::Physical;
use crate::devices::msr;
use crate::npt::Kind;
use crate::paging::LongMode;
use crate::svm::permission::{Iopm, Msrpm};
use crate::windows::{Span, Windows};

/// Devices below this address are mapped when a domain starts, those above when it meets them.
const MAPPED_AT_START: u64 = 1 << 32;

/// A domain, as the machine knows it.
pub struct Domain {
    nested: Mutex<Nested>,
    root: u64,
    presence: &'static Presence,
    /// The devices that the hypervisor plays for it.
    pub devices: platform::Devices,
    /// The ports that it reaches.
    pub ports: Iopm,
    /// The model-specific registers that it reaches.
    pub msrs: Msrpm,
    /// Its memory map, as its start structure has it.
    pub memory_map: Box<[MapEntry]>,
}

/// The tables of a domain and what they are made of.
struct Nested {
    regime: Regime<LongMode>,
    tables: DomainTables<&'static Presence>,
    windows: Windows,
    /// Trapped pages that the domain may read by itself.
    readable: Vec<Span>,
    gigabyte_pages: bool,
}

impl Translations for &'static Presence {
    // A CPU that still has the old translation is waited for before the change counts as made.
    const REPLACED_IN_USE: bool = true;

    fn publish(&self) {
        // x86 makes stores visible in order, and walkers look at the caches.
    }

    fn drop_all(&self) {
        self.drop_translations();
    }
}

/// Which of a domain's vCPUs are in the guest, and whether their CPUs may hold stale translations.
///
/// A change of the tables makes a new generation. A vCPU enters the guest with the newest, dropping what
/// its CPU holds if that is older; and whoever changes the tables waits until the vCPUs that are in the
/// guest with an older one have left it. Nobody waits inside the hypervisor, so two who change the tables
/// of two domains can't wait for each other.
struct Presence {
    generation: AtomicU64,
    vcpus: Box<[VcpuPresence]>,
}

struct VcpuPresence {
    apic_id: u32,
    /// The generation with which it is in the guest, or [`OUTSIDE`].
    inside: AtomicU64,
    /// The last generation that it entered with. Only its own CPU looks at it.
    entered: AtomicU64,
}

/// In the hypervisor, or not running.
const OUTSIDE: u64 = u64::MAX;
/// Has never entered the guest.
const NEVER: u64 = u64::MAX;

impl Presence {
    fn drop_translations(&self) {
        let newest = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let is_behind = |vcpu: &VcpuPresence| vcpu.inside.load(Ordering::SeqCst) < newest;
        for vcpu in self.vcpus.iter().filter(|vcpu| is_behind(vcpu)) {
            platform::send_kick(vcpu.apic_id);
        }
        for vcpu in &self.vcpus {
            while is_behind(vcpu) {
                spin_loop();
            }
        }
    }
}

/// Why a domain can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainError {
    /// The plan's frames for tables are too few even for the root.
    NoRoot,
    /// Its devices can't be mapped.
    Windows(PagingError),
}

/// What is needed to make a domain.
pub struct Parts {
    /// The plan's frames for its tables.
    pub tables: MfnRange,
    /// The form of its tables.
    pub format: LongMode,
    /// The devices that it reaches at the host's addresses.
    pub windows: Windows,
    /// The APIC IDs of its vCPUs, those of their CPUs.
    pub apic_ids: Box<[u32]>,
    /// The devices that the hypervisor plays for it.
    pub devices: platform::Devices,
    /// Its memory map, as its start structure has it.
    pub memory_map: Box<[MapEntry]>,
}

impl Domain {
    /// A domain without memory, with its devices mapped.
    ///
    /// # Safety
    /// `parts.tables` are RAM of the hypervisor, mapped, that nothing else ever uses.
    ///
    /// # Errors
    /// [`DomainError`].
    pub unsafe fn new(parts: Parts) -> Result<Self, DomainError> {
        let frames = parts.tables.bytes();
        let (root, end) = (frames.start().raw(), frames.end().raw());
        if frames.size() < PAGE_SIZE {
            return Err(DomainError::NoRoot);
        }
        for index in 0..512 {
            // SAFETY: the root lies in the frames that the caller gives away.
            unsafe { pool::write(root, index, 0) };
        }
        let vcpus = parts.apic_ids.iter().map(|&apic_id| VcpuPresence {
            apic_id,
            inside: AtomicU64::new(OUTSIDE),
            entered: AtomicU64::new(NEVER),
        });
        let presence: &'static Presence = Box::leak(Box::new(Presence {
            generation: AtomicU64::new(0),
            vcpus: vcpus.collect(),
        }));
        // SAFETY: the caller gives the frames away.
        let pool = unsafe { Pool::new(root + PAGE_SIZE, end) };
        // SAFETY: the root lies in the frames that the caller gives away.
        let tables = unsafe { DomainTables::new(pool, presence) };
        let mut windows = parts.windows;
        windows.trap(trapped(&parts.devices));
        let domain = Self {
            nested: Mutex::new(Nested {
                regime: parts.format.regime(root),
                tables,
                windows,
                readable: spans(parts.devices.readable()).collect(),
                gigabyte_pages: parts.format.gigabyte_pages,
            }),
            root,
            presence,
            ports: parts.devices.port_map(),
            msrs: Msrpm::new(msr::passed()),
            devices: parts.devices,
            memory_map: parts.memory_map,
        };
        let mapped = domain.change(Nested::map_windows);
        mapped.map_err(DomainError::Windows)?;
        Ok(domain)
    }

    /// The machine address of its top table: nCR3 while a vCPU of it runs.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// A vCPU is about to enter the guest on this CPU, with interrupts off. Says whether what the CPU
    /// holds of its translations must be dropped with the entry.
    #[must_use]
    pub fn enter(&self, vcpu: usize) -> bool {
        let Some(vcpu) = self.presence.vcpus.get(vcpu) else {
            return true;
        };
        let newest = loop {
            let newest = self.presence.generation.load(Ordering::SeqCst);
            vcpu.inside.store(newest, Ordering::SeqCst);
            // Whoever makes a newer one from here on finds this vCPU inside, and kicks it.
            if self.presence.generation.load(Ordering::SeqCst) == newest {
                break newest;
            }
        };
        vcpu.entered.swap(newest, Ordering::Relaxed) != newest
    }

    /// A vCPU has left the guest.
    pub fn left(&self, vcpu: usize) {
        if let Some(vcpu) = self.presence.vcpus.get(vcpu) {
            vcpu.inside.store(OUTSIDE, Ordering::SeqCst);
        }
    }

    /// Maps machine memory into the domain. Of devices, pages that the hypervisor answers are left out.
    ///
    /// # Errors
    /// [`PagingError`]. Nothing has changed then, or of devices a part is mapped.
    pub fn map(&self, guest: u64, machine: u64, bytes: u64, kind: Kind) -> Result<(), PagingError> {
        if kind.is_ram() {
            return self.change(|nested| nested.map(guest, machine, bytes, kind));
        }
        let end = guest.checked_add(bytes).ok_or(PagingError::OutOfRange)?;
        self.change(|nested| nested.map_device(Span { start: guest, end }, machine, kind))
    }

    /// Takes a range out of the domain. CPUs may use cached translations of it until [`Domain::settle`].
    ///
    /// # Errors
    /// [`PagingError`]; nothing has changed then.
    pub fn unmap(&self, guest: u64, bytes: u64) -> Result<(), PagingError> {
        let mut nested = self.nested.lock();
        let regime = nested.regime;
        regime.unmap(&mut nested.tables, guest, bytes)
    }

    /// Waits until no CPU uses a translation that has been taken out.
    pub fn settle(&self) {
        self.nested.lock().tables.settle();
    }

    /// Takes everything out of the domain but the devices that it begins with.
    pub fn unmap_all(&self) {
        self.change(|nested| {
            let regime = nested.regime;
            regime.clear(&mut nested.tables);
            // It fitted when the domain was made, and all tables are free again.
            let _ = nested.map_windows();
        });
    }

    /// Changes the tables; no CPU uses an old translation any more when it returns.
    fn change<R>(&self, work: impl FnOnce(&mut Nested) -> R) -> R {
        let mut nested = self.nested.lock();
        let result = work(&mut nested);
        nested.tables.settle();
        result
    }

    /// What is mapped at a guest physical address: machine address and kind.
    pub fn lookup(&self, guest: u64) -> Option<(u64, Kind)> {
        let nested = self.nested.lock();
        let found = nested.regime.translate(&nested.tables, guest)?;
        Some((found.output, Kind::of(found.attributes)?))
    }

    /// The guest met an address that isn't mapped. Whether something is mapped there now: it was a device
    /// that it hadn't touched yet, or another CPU was just changing the tables.
    pub fn map_met(&self, guest: u64) -> bool {
        self.change(|nested| nested.map_met(guest))
    }

    /// The registers that the hypervisor answers have moved, as an MSI-X table does with its BAR: takes
    /// them out of the domain.
    ///
    /// # Errors
    /// [`PagingError`]: the pool has no table left to cut such a page out. Then it is still mapped.
    pub fn trap_devices(&self) -> Result<(), PagingError> {
        self.change(|nested| {
            nested.windows.trap(trapped(&self.devices));
            nested.unmap_trapped()?;
            // Their entries are written once no vCPU reaches them.
            nested.tables.settle();
            self.devices.restore_tables();
            nested.map_readable()
        })
    }

    /// Writes to the domain's memory by guest physical address; nothing if part of the range isn't its
    /// memory, or isn't writable.
    pub fn write_physical(&self, address: u64, bytes: &[u8]) -> Option<()> {
        // The lock keeps the pages where they are.
        let nested = self.nested.lock();
        for at in pieces(address, bytes.len())? {
            let (machine, kind) = nested.memory(at.address)?;
            if kind == Kind::RamReadOnly {
                return None;
            }
            let piece = bytes.get(at.first..at.first + at.length)?;
            // SAFETY: memory of the domain, by its tables, which map nothing else as memory; it is mapped,
            // and the piece stays in one page.
            unsafe { machine_common::memory::write(machine, piece) };
        }
        Some(())
    }
}

/// The registers that the hypervisor answers.
fn trapped(devices: &platform::Devices) -> impl Iterator<Item = Span> {
    spans(devices.trapped())
}

fn spans(ranges: Vec<(u64, u64)>) -> impl Iterator<Item = Span> {
    ranges.into_iter().map(|(start, bytes)| Span {
        start,
        end: start.saturating_add(bytes),
    })
}

impl Nested {
    fn map(&mut self, guest: u64, machine: u64, bytes: u64, kind: Kind) -> Result<(), PagingError> {
        let regime = self.regime;
        regime.map(&mut self.tables, guest, machine, bytes, kind.attributes())
    }

    /// Maps a device's registers, less the pages that the hypervisor answers.
    fn map_device(&mut self, span: Span, machine: u64, kind: Kind) -> Result<(), PagingError> {
        let Self {
            regime,
            tables,
            windows,
            ..
        } = self;
        windows.without_trapped(span).try_for_each(|piece| {
            let output = machine + (piece.start - span.start);
            let bytes = piece.end - piece.start;
            let attributes = kind.attributes();
            let known = regime.translate(tables, piece.start);
            // A window that is mapped already would be cut into smaller pages for nothing.
            let same = known.is_some_and(|known| {
                known.output == output && known.attributes == attributes && known.remaining >= bytes
            });
            if same {
                return Ok(());
            }
            regime.map(tables, piece.start, output, bytes, attributes)
        })
    }

    fn map_met(&mut self, guest: u64) -> bool {
        let (regime, tables) = (self.regime, &self.tables);
        if regime.translate(tables, guest).is_some() {
            return true;
        }
        let unmapped = |span: Span| regime.is_unmapped(tables, span.start, span.end - span.start);
        let piece = self.windows.piece(guest, self.gigabyte_pages, unmapped);
        let Some(piece) = piece else {
            return false;
        };
        let bytes = piece.end - piece.start;
        self.map(piece.start, piece.start, bytes, Kind::Device)
            .is_ok()
    }

    fn unmap_trapped(&mut self) -> Result<(), PagingError> {
        let Self {
            regime,
            tables,
            windows,
            ..
        } = self;
        windows
            .trapped()
            .iter()
            .try_for_each(|hole| regime.unmap(tables, hole.start, hole.end - hole.start))
    }

    fn map_windows(&mut self) -> Result<(), PagingError> {
        let Self {
            regime,
            tables,
            windows,
            ..
        } = self;
        windows.below(MAPPED_AT_START).try_for_each(|span| {
            let bytes = span.end - span.start;
            let attributes = Kind::Device.attributes();
            regime.map(tables, span.start, span.start, bytes, attributes)
        })?;
        self.map_readable()
    }

    fn map_readable(&mut self) -> Result<(), PagingError> {
        let Self {
            regime,
            tables,
            readable,
            ..
        } = self;
        let attributes = Kind::DeviceReadOnly.attributes();
        readable.iter().try_for_each(|span| {
            let bytes = span.end - span.start;
            regime.map(tables, span.start, span.start, bytes, attributes)
        })
    }

    /// The memory behind a guest physical address.
    fn memory(&self, guest: u64) -> Option<(u64, Kind)> {
        let found = self.regime.translate(&self.tables, guest)?;
        let kind = Kind::of(found.attributes)?;
        kind.is_ram().then_some((found.output, kind))
    }
}

/// The domain's memory, by guest physical address. What a guest's own tables name may be anything: a
/// device is never read.
impl Physical for Domain {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        // The lock keeps the pages where they are.
        let nested = self.nested.lock();
        for at in pieces(address, bytes.len())? {
            let (machine, _) = nested.memory(at.address)?;
            let piece = bytes.get_mut(at.first..at.first + at.length)?;
            // SAFETY: memory of the domain, by its tables, which map nothing else as memory; it is mapped,
            // and the piece stays in one page.
            unsafe { machine_common::memory::read(machine, piece) };
        }
        Some(())
    }
}

/// Some bytes of a buffer within one page.
struct Piece {
    address: u64,
    first: usize,
    length: usize,
}

/// Cuts a range where pages end. `None` if it wraps.
fn pieces(address: u64, length: usize) -> Option<impl Iterator<Item = Piece>> {
    let end = address.checked_add(length as u64)?;
    let mut at = address;
    Some(core::iter::from_fn(move || {
        let stop = ((at & !(PAGE_SIZE - 1)) + PAGE_SIZE).min(end);
        let piece = Piece {
            address: at,
            first: usize::try_from(at - address).ok()?,
            length: usize::try_from(stop.checked_sub(at)?).ok()?,
        };
        at = stop;
        (piece.length > 0).then_some(piece)
    }))
}
