//! What a domain has of the platform, and what each of its vCPUs has.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use machine_paging::PagingError;
use spin::Mutex;

use super::host::Host;
use super::ioapic::Shared;
use super::pci::{self, Bus, Trap};
use crate::bare::apic;
use crate::devices::cpuid::Policy;
use crate::devices::lapic::{Apics, BASE_ADDRESS, LocalApic, Platform};
use crate::devices::ports::{Access, Ports};
use crate::svm::permission::Iopm;

/// Counts of the TSC for one of a guest's APIC timer: its clock is the TSC.
const TSC_PER_TICK: u32 = 1;
/// What Xen's leaf 0x40000001 says, as `xen_version` does.
const XEN_VERSION: u32 = 4 << 16 | 20;
/// Bytes from the local APIC's registers on in which a write may be taken for a message that interrupts any CPU: from a
/// device always, and in QEMU from a CPU too.
const MESSAGES: u64 = layout::fixed::MESSAGE_BYTES;

/// The devices of a domain.
pub struct Devices {
    /// The machine.
    pub host: &'static Host,
    /// The local APICs of its vCPUs.
    pub(super) apics: &'static Apics,
    /// The IO-APICs; the hardware domain's only.
    pub(super) chips: Vec<Shared>,
    /// PCI; the hardware domain's only.
    pub(super) bus: Option<Bus>,
    ports: Option<Ports>,
    /// The pages that are never in the nested tables, but for MSI-X tables, which move.
    fixed: Vec<Trap>,
    /// `HVM_PARAM_CALLBACK_IRQ` as a vector that no local APIC knows of; 0 if there is none.
    pub(super) callback: AtomicU8,
    domain: u16,
    lines: AtomicU32,
}

/// How many refused interrupts of IO-APICs are told of.
const MOST_LINES: u32 = 16;

impl Devices {
    /// The devices of a domain with vCPUs on the CPUs with these APIC IDs. The hardware domain has the machine's, which
    /// it takes over; any other has local APICs only.
    ///
    /// # Errors
    /// Configuration space can't be mapped.
    pub fn new(
        host: &'static Host,
        domain: u16,
        apic_ids: &[u32],
        hardware: bool,
    ) -> Result<Self, PagingError> {
        let apics: &'static Apics = Box::leak(Box::new(Apics::new(apic_ids)));
        let kept = host.console_pin();
        // All that the ports reach.
        let by_memory = host
            .ecams
            .iter()
            .any(|ecam| (ecam.segment, ecam.first_bus, ecam.last_bus) == (0, 0, 255));
        let chips = if hardware {
            let pin = |index| {
                kept.filter(|(chip, ..)| *chip == index)
                    .map(|(_, pin, ..)| pin)
            };
            let chips = host.chips.iter().enumerate();
            chips
                .map(|(index, chip)| Shared::new(*chip, pin(index)))
                .collect()
        } else {
            Vec::new()
        };
        let fixed = fixed_traps(host, &chips);
        Ok(Self {
            host,
            apics,
            chips,
            bus: if hardware {
                Some(Bus::new(&host.ecams, &fixed, apics)?)
            } else {
                None
            },
            ports: hardware
                .then(|| Ports::new(host.fadt.as_ref(), host.console, host.emulator, by_memory)),
            fixed,
            callback: AtomicU8::new(0),
            domain,
            lines: AtomicU32::new(0),
        })
    }

    /// The ports that are the hardware's, without an exit.
    pub fn port_map(&self) -> Iopm {
        match &self.ports {
            Some(ports) => Iopm::passing_all_but(ports.kept()),
            None => Iopm::passing_none(),
        }
    }

    /// Whether one more line about what the domain does is worth the console's time.
    pub(super) fn may_complain(&self) -> bool {
        let next = |lines: u32| lines.checked_add(1).filter(|next| *next <= MOST_LINES);
        let update = self
            .lines
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        update.is_ok()
    }

    pub(super) fn rule(&self, port: u16) -> Access {
        match &self.ports {
            Some(ports) => ports.rule(port),
            None => Access::Nobody,
        }
    }

    /// Whether an address is never in the nested tables.
    pub fn is_trapped(&self, address: u64) -> bool {
        self.fixed.iter().any(|trap| trap.contains(address))
            || self.bus.as_ref().is_some_and(|bus| bus.has_table(address))
    }

    /// The pages that are never in the nested tables: start and bytes.
    pub fn trapped(&self) -> Vec<(u64, u64)> {
        let tables = self.bus.as_ref().map(Bus::tables).unwrap_or_default();
        let traps = self.fixed.iter().copied().chain(tables);
        traps.map(|trap| (trap.start, trap.bytes)).collect()
    }

    /// Of the trapped pages, those that may be mapped for reading: configuration space in memory. Reading it there shows
    /// messages as the hardware has them.
    pub fn readable(&self) -> Vec<(u64, u64)> {
        let windows = self.bus.iter().flat_map(Bus::windows);
        windows.map(|window| (window.start, window.bytes)).collect()
    }

    /// The pages that [`Self::trapped`] names are out of the nested tables: MSI-X tables that have moved into them get what
    /// the domain wants.
    pub fn restore_tables(&self) {
        if let Some(bus) = &self.bus {
            bus.restore(self.apics);
        }
    }

    /// As after a reset: no interrupt is set up, no device is a bus master, no callback is set. No vCPU runs.
    pub fn reset(&self) {
        if let Some(bus) = &self.bus {
            bus.reset(self.apics);
        }
        for shared in &self.chips {
            shared.with(|model, chip| model.reset(chip));
        }
        self.callback.store(0, Ordering::Release);
    }

    /// Chooses how upcalls reach all vCPUs (`HVM_PARAM_CALLBACK_IRQ`, public/hvm/params.h): by a vector of which their
    /// local APICs know nothing, or not at all. Whether that way is there.
    #[must_use]
    pub fn set_callback(&self, via: u64) -> bool {
        const LINE: u64 = 0;
        const VECTOR: u64 = 2;
        let vector = match (via >> 56, via & 0x00ff_ffff_ffff_ffff) {
            // Linux names a line after it has chosen a vector for each vCPU, as a sign that it knows upcalls; no
            // interrupt ever comes by it.
            (LINE, _) => 0,
            (VECTOR, value) => match u8::try_from(value) {
                Ok(vector @ 0x20..) => vector,
                _ => return false,
            },
            _ => return false,
        };
        self.callback.store(vector, Ordering::Release);
        true
    }
}

/// All but MSI-X tables: local APICs, IO-APICs, what is hidden, configuration space.
fn fixed_traps(host: &Host, chips: &[Shared]) -> Vec<Trap> {
    let mut traps = alloc::vec![Trap::around(BASE_ADDRESS, MESSAGES)];
    traps.extend(chips.iter().map(|chip| Trap::around(chip.address, 1)));
    let hidden = host.hidden.iter();
    traps.extend(hidden.map(|(start, bytes)| Trap::around(*start, *bytes)));
    traps.extend(pci::windows(&host.ecams));
    traps
}

/// The local APIC of one vCPU, and the timers that its CPU keeps for it.
pub struct VirtualApic {
    pub(super) vcpu: usize,
    pub(super) id: u32,
    pub(super) apics: &'static Apics,
    /// Its own CPU's only; the lock is never waited for.
    pub(super) local: Mutex<LocalApic<'static>>,
    pub(super) policy: Policy,
    /// The vector of its upcall by `HVMOP_set_evtchn_upcall_vector`; 0 if there is none.
    pub(super) upcall: AtomicU8,
    /// An upcall by the domain's callback vector waits.
    pub(super) called: AtomicBool,
    /// What the guest was offered is an upcall by that vector. Its own CPU's only.
    pub(super) offered_callback: AtomicBool,
    /// The core's timer, as a value of the TSC; all ones if it is stopped.
    pub(super) core_timer: AtomicU64,
    /// What the CPU's timer is set to; all ones if it is stopped.
    pub(super) armed: AtomicU64,
}

impl VirtualApic {
    /// The APIC of a vCPU of the domain, as after a reset; `None` if the domain has no such vCPU.
    pub fn new(devices: &Devices, vcpu: usize) -> Option<Self> {
        let id = devices.apics.inbox(vcpu)?.apic_id();
        let clock = &devices.host.clock;
        Some(Self {
            vcpu,
            id,
            apics: devices.apics,
            local: Mutex::new(LocalApic::new(devices.apics, vcpu, TSC_PER_TICK)?),
            policy: Policy {
                vcpu: u32::try_from(vcpu).ok()?,
                domain: devices.domain,
                apic_id: id,
                xen_version: XEN_VERSION,
                tsc_khz: clock.khz(),
                tsc_multiplier: clock.multiplier,
                tsc_shift: clock.shift,
            },
            upcall: AtomicU8::new(0),
            called: AtomicBool::new(false),
            offered_callback: AtomicBool::new(false),
            core_timer: AtomicU64::new(u64::MAX),
            armed: AtomicU64::new(u64::MAX),
        })
    }

    /// Chooses the vector of this vCPU's upcall, which its local APIC takes (`HVMOP_set_evtchn_upcall_vector`); whether it is
    /// one.
    #[must_use]
    pub fn set_upcall_vector(&self, vector: u32) -> bool {
        match u8::try_from(vector) {
            Ok(vector @ 16..) => {
                self.upcall.store(vector, Ordering::Release);
                true
            }
            _ => false,
        }
    }

    /// The APIC ID, the guest's and that of its CPU.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

/// The surroundings of a vCPU's APIC.
pub(super) struct Surroundings<'a>(pub(super) &'a Devices);

impl Platform for Surroundings<'_> {
    fn tsc(&self) -> u64 {
        crate::bare::tsc::now()
    }

    fn kick(&self, vcpu: usize) {
        if let Some(inbox) = self.0.apics.inbox(vcpu) {
            apic::send_kick(inbox.apic_id());
        }
    }

    fn level_ended(&self, _vcpu: usize, vector: u8) {
        for shared in &self.0.chips {
            shared.with(|model, chip| model.level_ended(vector, chip));
        }
    }
}
