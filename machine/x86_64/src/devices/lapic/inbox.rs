//! What other CPUs may touch of a vCPU's local APIC, and the directory of a domain's APICs.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering, fence};

use super::{Mode, highest, place};
use crate::devices::interrupt::{Destination, Directory, Target};

/// The lowest vector that an APIC takes.
const FIRST_LEGAL: u8 = 16;
/// In the start-up cell: there is one.
const START_UP: u16 = 0x100;

/// What has arrived for a vCPU, and what senders must know of it.
#[derive(Debug)]
pub struct Inbox {
    apic_id: u32,
    mode: AtomicU8,
    /// The spurious vector register's enable bit.
    enabled: AtomicBool,
    logical: AtomicU32,
    /// The destination format register's model: flat, or clusters of four.
    flat: AtomicBool,
    /// Interrupt request register.
    pending: [AtomicU32; 8],
    /// Trigger mode register.
    level: [AtomicU32; 8],
    /// The vector of an upcall that came while the APIC took none; 0 if there is none.
    upcall: AtomicU8,
    nmi: AtomicBool,
    init: AtomicBool,
    start_up: AtomicU16,
}

/// What has arrived besides vectors. INIT comes before start-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// A non-maskable interrupt is to be injected.
    pub nmi: bool,
    /// The vCPU goes to the wait for start-up; [`super::LocalApic::init`] is to be called.
    pub init: bool,
    /// If it waits for start-up: the number of the 4 KiB page below 1 MiB where it begins in real mode.
    pub start_up: Option<u8>,
}

impl Inbox {
    fn new(apic_id: u32) -> Self {
        Self {
            apic_id,
            mode: AtomicU8::new(Mode::XApic as u8),
            enabled: AtomicBool::new(false),
            logical: AtomicU32::new(0),
            flat: AtomicBool::new(true),
            pending: [const { AtomicU32::new(0) }; 8],
            level: [const { AtomicU32::new(0) }; 8],
            upcall: AtomicU8::new(0),
            nmi: AtomicBool::new(false),
            init: AtomicBool::new(false),
            start_up: AtomicU16::new(0),
        }
    }

    /// The APIC ID.
    #[must_use]
    pub fn apic_id(&self) -> u32 {
        self.apic_id
    }

    /// A fixed interrupt arrives; whether the vector is a legal one. An APIC that isn't enabled drops it, as it may.
    pub fn post(&self, vector: u8, level: bool) -> bool {
        if vector < FIRST_LEGAL {
            return false;
        }
        if self.accepts() {
            self.request(vector, level);
        }
        true
    }

    fn request(&self, vector: u8, level: bool) {
        let (word, bit) = place(vector);
        // The trigger mode belongs to the request, so it has to be there first.
        if level {
            self.level[word].fetch_or(bit, Ordering::Relaxed);
        } else {
            self.level[word].fetch_and(!bit, Ordering::Relaxed);
        }
        self.pending[word].fetch_or(bit, Ordering::Release);
    }

    /// The event-channel upcall's vector, 16 or more, arrives. Unlike others it waits for an APIC that isn't enabled: the
    /// guest's "upcall pending" is set, and nobody would raise it again. Until then no register shows it: Linux looks at
    /// the request register before it enables its APIC, and waits long for it to become empty.
    pub fn post_upcall(&self, vector: u8) {
        if vector >= FIRST_LEGAL {
            self.upcall.store(vector, Ordering::Release);
            self.request_upcall();
        }
    }

    /// Requests the upcall that waits, if the APIC takes it now.
    fn request_upcall(&self) {
        // The sender stores the upcall and looks at the mode, its owner the other way round: one of them sees both.
        fence(Ordering::SeqCst);
        if self.accepts()
            && let vector @ FIRST_LEGAL.. = self.upcall.swap(0, Ordering::AcqRel)
        {
            self.request(vector, false);
        }
    }

    /// Drops the upcall that waits.
    pub(super) fn forget_upcall(&self) {
        self.upcall.store(0, Ordering::Release);
    }

    /// Whether a vector has arrived and isn't in service yet.
    #[must_use]
    pub fn is_requested(&self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        self.pending[word].load(Ordering::Acquire) & bit != 0
    }

    /// A non-maskable interrupt arrives.
    pub fn post_nmi(&self) {
        self.nmi.store(true, Ordering::Release);
    }

    /// INIT arrives; a start-up from before it is void.
    pub fn post_init(&self) {
        self.start_up.store(0, Ordering::Relaxed);
        self.init.store(true, Ordering::Release);
    }

    /// Start-up at page `page` arrives.
    pub fn post_start_up(&self, page: u8) {
        self.start_up
            .store(START_UP | u16::from(page), Ordering::Release);
    }

    /// Takes what has arrived besides vectors.
    pub fn take_events(&self) -> Events {
        let init = self.init.swap(false, Ordering::AcqRel);
        let start_up = self.start_up.swap(0, Ordering::AcqRel);
        Events {
            nmi: self.nmi.swap(false, Ordering::AcqRel),
            init,
            start_up: (start_up & START_UP != 0).then_some(start_up as u8),
        }
    }

    /// Whether anything waits besides vectors.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.nmi.load(Ordering::Acquire)
            || self.init.load(Ordering::Acquire)
            || self.start_up.load(Ordering::Acquire) != 0
    }

    fn accepts(&self) -> bool {
        self.enabled.load(Ordering::Acquire) && self.mode() != Mode::Disabled
    }

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::Disabled,
            1 => Mode::XApic,
            _ => Mode::X2Apic,
        }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
        self.request_upcall();
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
        self.request_upcall();
    }

    pub(super) fn is_flat(&self) -> bool {
        self.flat.load(Ordering::Acquire)
    }

    pub(super) fn set_flat(&self, flat: bool) {
        self.flat.store(flat, Ordering::Release);
    }

    /// The logical destination register: what was written in the xAPIC, made of the ID in the x2APIC.
    pub(super) fn logical(&self) -> u32 {
        match self.mode() {
            Mode::X2Apic => (self.apic_id >> 4) << 16 | 1 << (self.apic_id & 0xf),
            Mode::XApic | Mode::Disabled => self.logical.load(Ordering::Acquire),
        }
    }

    pub(super) fn set_logical(&self, value: u32) {
        self.logical.store(value & 0xff00_0000, Ordering::Release);
    }

    pub(super) fn pending(&self, word: usize) -> u32 {
        self.pending[word].load(Ordering::Acquire)
    }

    pub(super) fn levels(&self, word: usize) -> u32 {
        self.level[word].load(Ordering::Acquire)
    }

    pub(super) fn is_level(&self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        self.levels(word) & bit != 0
    }

    pub(super) fn highest(&self) -> Option<u8> {
        highest(&core::array::from_fn(|word| self.pending(word)))
    }

    /// The highest vector, if the APIC is enabled.
    pub(super) fn deliverable(&self) -> Option<u8> {
        self.highest().filter(|_| self.accepts())
    }

    /// Takes one vector; whether it was there.
    pub(super) fn take(&self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        self.pending[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// A vector that was taken is pending again; its trigger mode is still there.
    pub(super) fn put_back(&self, vector: u8) {
        let (word, bit) = place(vector);
        self.pending[word].fetch_or(bit, Ordering::Release);
    }

    /// As after INIT; mode and identity stay.
    pub(super) fn clear(&self) {
        self.set_enabled(false);
        self.set_logical(0);
        self.set_flat(true);
        for word in self.pending.iter().chain(&self.level) {
            word.store(0, Ordering::Release);
        }
        self.nmi.store(false, Ordering::Release);
    }

    /// Whether the destination names this APIC.
    fn is_named(&self, destination: Destination) -> bool {
        match destination {
            Destination::Everyone => true,
            Destination::Physical(id) => id == self.apic_id,
            Destination::Logical(mask) => self.is_member(mask),
        }
    }

    fn is_member(&self, mask: u32) -> bool {
        let own = self.logical();
        match self.mode() {
            Mode::Disabled => false,
            Mode::X2Apic => mask >> 16 == own >> 16 && mask & own & 0xffff != 0,
            Mode::XApic if mask > 0xff => false,
            Mode::XApic if self.is_flat() => mask & (own >> 24) != 0,
            Mode::XApic => mask >> 4 == own >> 28 && mask & (own >> 24) & 0xf != 0,
        }
    }
}

/// The APICs of a domain, in the order of its vCPUs. No interrupt of a guest leaves this list.
#[derive(Debug)]
pub struct Apics {
    pub(super) inboxes: Vec<Inbox>,
}

impl Apics {
    /// One APIC for each ID: those of the CPUs that the vCPUs are pinned to, no ID twice.
    #[must_use]
    pub fn new(apic_ids: &[u32]) -> Self {
        Self {
            inboxes: apic_ids.iter().copied().map(Inbox::new).collect(),
        }
    }

    /// A vCPU's inbox.
    #[must_use]
    pub fn inbox(&self, vcpu: usize) -> Option<&Inbox> {
        self.inboxes.get(vcpu)
    }

    /// The vCPUs that a destination names.
    pub(super) fn named(&self, destination: Destination) -> impl Iterator<Item = usize> + '_ {
        self.inboxes
            .iter()
            .enumerate()
            .filter(move |(_, inbox)| inbox.is_named(destination))
            .map(|(vcpu, _)| vcpu)
    }
}

impl Directory for Apics {
    fn first(&self, destination: Destination) -> Option<Target> {
        let vcpu = self.named(destination).next()?;
        Some(Target {
            vcpu,
            apic_id: self.inboxes[vcpu].apic_id,
        })
    }
}
