//! The bits that a guest sees: pending, masked, and the upcall.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use abi::shared_info::{UPCALL_MASK, UPCALL_PENDING, VCPU_PENDING_SELECTOR, VCPU_UPCALL_WORD};

use super::{Events, InfoPlace};
use crate::domain::Domain;
use crate::machine::Machine;
use crate::ownership::Claim;
use crate::system::System;

/// A port's place in the bit arrays: the byte offset of its word and its bit.
const fn place(port: u32) -> (u64, u64) {
    (port as u64 / 64 * 8, 1 << (port % 64))
}

impl<M: Machine> System<M> {
    /// Makes a port pending and notifies its vCPU, unless the guest masks the port or has it
    /// pending already.
    pub(crate) fn set_pending(&self, domain: &Domain<M>, events: &Events, port: u32) {
        let Ok(channel) = events.get(port) else {
            return;
        };
        let (offset, bit) = place(port);
        let Some(pending) = self.shared_word(domain, events.layout.pending + offset) else {
            return;
        };
        if pending.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.tell_unless_masked(domain, events, port, channel.vcpu);
        }
        self.wake_pollers(domain);
    }

    /// Notifies whoever has bound a virtual interrupt; says whether anybody has.
    pub(crate) fn send_virq(&self, domain: &Domain<M>, virq: u32, vcpu: u32) -> bool {
        let events = domain.events.lock();
        let port = events.virq_port(virq, vcpu);
        if let Some(port) = port {
            self.set_pending(domain, &events, port);
        }
        port.is_some()
    }

    /// Clears a port's mask bit for the guest, and notifies its vCPU if the port is pending.
    pub(crate) fn unmask(
        &self,
        domain: &Domain<M>,
        events: &Events,
        port: u32,
    ) -> Result<(), Errno> {
        let channel = events.peek(port).ok_or(Errno::Einval)?;
        let (offset, bit) = place(port);
        let mask = self
            .shared_word(domain, events.layout.mask + offset)
            .ok_or(Errno::Einval)?;
        let was_masked = mask.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        if was_masked && self.is_pending(domain, events, port) {
            self.tell(domain, events, port, channel.vcpu);
        }
        Ok(())
    }

    /// Whether a port is pending.
    pub(crate) fn is_pending(&self, domain: &Domain<M>, events: &Events, port: u32) -> bool {
        let (offset, bit) = place(port);
        self.shared_word(domain, events.layout.pending + offset)
            .is_some_and(|word| word.load(Ordering::SeqCst) & bit != 0)
    }

    /// Clears a port's pending bit: the port becomes free.
    pub(super) fn clear_pending(&self, domain: &Domain<M>, events: &Events, port: u32) {
        let (offset, bit) = place(port);
        if let Some(word) = self.shared_word(domain, events.layout.pending + offset) {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Puts a vCPU's `vcpu_info` into the guest's RAM. Once for each vCPU.
    pub(crate) fn register_info(
        &self,
        domain: &Domain<M>,
        vcpu: u32,
        claim: Claim,
        offset: u64,
    ) -> Result<(), Errno> {
        let mut events = domain.events.lock();
        let info = events.infos.get_mut(vcpu as usize).ok_or(Errno::Enoent)?;
        if matches!(info, InfoPlace::Registered(..)) {
            return Err(Errno::Ebusy);
        }
        // The guest must look at everything once: what became pending before isn't in the new
        // place. What lies there may look like an upcall on its way, and there is none.
        if let Some(selector) = self.machine.word(&claim, offset + VCPU_PENDING_SELECTOR) {
            selector.store(u64::MAX, Ordering::SeqCst);
        }
        if let Some(word) = self.machine.word(&claim, offset + VCPU_UPCALL_WORD) {
            word.fetch_and(!UPCALL_PENDING, Ordering::SeqCst);
        }
        *info = InfoPlace::Registered(claim, offset);
        self.show_clock(domain, &events, vcpu);
        self.raise(domain, &events, vcpu);
        Ok(())
    }

    /// Writes the guest's clock into a vCPU's `vcpu_info`, where the architecture has one.
    pub(crate) fn show_clock(&self, domain: &Domain<M>, events: &Events, vcpu: u32) {
        let Some(clock) = self.machine.guest_clock() else {
            return;
        };
        let place = events.layout.vcpu_time;
        let word = |index: u64| self.info_word(domain, events, vcpu, place + index * 8);
        let Some(first) = word(0) else {
            return;
        };
        // The guest goes by the version, which is odd meanwhile.
        let version = (first.load(Ordering::Relaxed) & 0xffff_ffff) | 1;
        first.store(version, Ordering::SeqCst);
        let words: [u64; 4] = zerocopy::transmute!(clock);
        for (index, value) in (0..).zip(words).skip(1) {
            if let Some(word) = word(index) {
                word.store(value, Ordering::SeqCst);
            }
        }
        first.store((version + 1) & 0xffff_ffff, Ordering::SeqCst);
    }

    /// `sched_op`'s block: lets upcalls through; says whether one is pending.
    pub(crate) fn enable_upcalls(&self, domain: &Domain<M>, vcpu: u32) -> bool {
        let events = domain.events.lock();
        self.info_word(domain, &events, vcpu, VCPU_UPCALL_WORD)
            .is_some_and(|word| {
                word.fetch_and(!UPCALL_MASK, Ordering::SeqCst) & UPCALL_PENDING != 0
            })
    }

    fn tell_unless_masked(&self, domain: &Domain<M>, events: &Events, port: u32, vcpu: u32) {
        let (offset, bit) = place(port);
        let Some(mask) = self.shared_word(domain, events.layout.mask + offset) else {
            return;
        };
        if mask.load(Ordering::SeqCst) & bit == 0 {
            self.tell(domain, events, port, vcpu);
        }
    }

    fn tell(&self, domain: &Domain<M>, events: &Events, port: u32, vcpu: u32) {
        let Some(selector) = self.info_word(domain, events, vcpu, VCPU_PENDING_SELECTOR) else {
            return;
        };
        let bit = 1 << (port / 64);
        if selector.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.raise(domain, events, vcpu);
        }
    }

    /// Marks an upcall as pending and delivers it, unless one is on its way.
    fn raise(&self, domain: &Domain<M>, events: &Events, vcpu: u32) {
        let Some(word) = self.info_word(domain, events, vcpu, VCPU_UPCALL_WORD) else {
            return;
        };
        if word.fetch_or(UPCALL_PENDING, Ordering::SeqCst) & UPCALL_PENDING == 0
            && let Some(vcpu) = domain.vcpus.get(vcpu as usize)
        {
            self.machine.raise_upcall(&vcpu.machine);
        }
    }

    /// Delivers an upcall that is pending already: the guest has just said how it wants them.
    pub(crate) fn repeat_upcall(&self, domain: &Domain<M>, vcpu: u32) {
        let events = domain.events.lock();
        let pending = self
            .info_word(domain, &events, vcpu, VCPU_UPCALL_WORD)
            .is_some_and(|word| word.load(Ordering::SeqCst) & UPCALL_PENDING != 0);
        if let Some(vcpu) = domain.vcpus.get(vcpu as usize).filter(|_| pending) {
            self.machine.raise_upcall(&vcpu.machine);
        }
    }

    /// Wakes the vCPUs that poll: they look at ports that may be masked, for which there is no
    /// upcall.
    fn wake_pollers(&self, domain: &Domain<M>) {
        for vcpu in &domain.vcpus {
            if vcpu.polls.load(Ordering::SeqCst) && vcpu.polls.swap(false, Ordering::SeqCst) {
                self.machine.kick(&vcpu.machine);
            }
        }
    }

    fn shared_word<'a>(&'a self, domain: &'a Domain<M>, offset: u64) -> Option<&'a AtomicU64> {
        self.machine.word(&domain.shared_info, offset)
    }

    fn info_word<'a>(
        &'a self,
        domain: &'a Domain<M>,
        events: &'a Events,
        vcpu: u32,
        offset: u64,
    ) -> Option<&'a AtomicU64> {
        match events.infos.get(vcpu as usize)? {
            InfoPlace::Nowhere => None,
            InfoPlace::Shared(place) => self.machine.word(&domain.shared_info, place + offset),
            InfoPlace::Registered(claim, place) => self.machine.word(claim, place + offset),
        }
    }
}
