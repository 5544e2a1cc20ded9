//! From "pending" into a list register, and back.
//!
//! Every function here that touches list registers runs on the CPU that the vCPU is pinned to.

use core::sync::atomic::{Ordering, fence};

use super::PendingSet;
use super::{Vcpu, VirtualGic};
use crate::gic::registers::gicd;
use crate::gic::{Acknowledged, FIRST_LPI, ListRegister, Registers};

impl<R: Registers> VirtualGic<'_, R> {
    /// Makes an interrupt pending for the vCPU of this CPU. `sender` matters for GICv2 software interrupts only.
    #[inline]
    pub(super) fn offer(&self, vcpu: &Vcpu, intid: u32, sender: u8) {
        for (index, lr) in self.list_registers() {
            if lr.intid() == intid && lr.source() == sender {
                self.gic.set_list_register(index, self.again(lr));
                return;
            }
        }
        // As long as nothing deliverable has to wait, there is no order to keep.
        if !vcpu.underflow.load(Ordering::Relaxed)
            && let Some(priority) = self.deliverable(vcpu, intid)
            && let Some(free) = self.gic.free_list_register()
        {
            self.gic
                .set_list_register(free, self.list_entry(intid, priority, sender));
            return;
        }
        if let Some(senders) = vcpu.senders.get(intid as usize) {
            senders.fetch_or(1 << sender, Ordering::Relaxed);
        }
        vcpu.waiting(intid).insert(intid);
        self.fill(vcpu);
    }

    /// Fills this CPU's list registers from what waits: after a kick and at the maintenance interrupt. A vCPU that is
    /// off gets nothing: it would be lost when it starts.
    pub fn flush(&self, vcpu: usize) {
        let state = self.vcpus.get(vcpu);
        if let Some(state) = state.filter(|state| state.online.load(Ordering::Relaxed)) {
            self.finish();
            self.fill(state);
        }
    }

    pub(super) fn fill(&self, vcpu: &Vcpu) {
        if !vcpu.is_idle() {
            self.merge(vcpu);
        }
        loop {
            let Some((intid, priority)) = self.next(vcpu) else {
                self.set_underflow(vcpu, false);
                return;
            };
            let Some(index) = self
                .gic
                .free_list_register()
                .or_else(|| self.evict(vcpu, priority))
            else {
                self.set_underflow(vcpu, true);
                return;
            };
            if vcpu.waiting(intid).remove(intid)
                && let Some(sender) = self.take_sender(vcpu, intid)
            {
                self.gic
                    .set_list_register(index, self.list_entry(intid, priority, sender));
            }
        }
    }

    /// Tells a vCPU on another CPU that something has become pending.
    #[inline]
    pub(super) fn notify(&self, vcpu: &Vcpu) {
        // Pairs with `power_on`: either this CPU sees `online`, or that one sees what has become pending.
        fence(Ordering::SeqCst);
        if vcpu.online.load(Ordering::Relaxed) {
            self.gic.kick(vcpu.cpu);
        }
    }

    /// Deactivates the interrupts that the guest of this CPU has ended, if its virtual interface doesn't.
    pub(super) fn finish(&self) {
        let mut ended = self.gic.ended_list_registers();
        while ended != 0 {
            let index = ended.trailing_zeros() as u8;
            ended &= ended - 1;
            let intid = self.gic.list_register(index).intid();
            self.gic.set_list_register(index, ListRegister::EMPTY);
            self.gic.deactivate(Acknowledged::of(intid));
        }
    }

    /// The list registers that hold an interrupt.
    #[inline]
    pub(super) fn list_registers(&self) -> impl Iterator<Item = (u8, ListRegister)> + '_ {
        let mut used = self.gic.used_list_registers();
        let registers = core::iter::from_fn(move || {
            if used == 0 {
                return None;
            }
            let index = used.trailing_zeros() as u8;
            used &= used - 1;
            Some((index, self.gic.list_register(index)))
        });
        registers.filter(|(_, lr)| lr.is_valid())
    }

    /// Rewrites the list registers that `edit` changes.
    pub(super) fn edit_list_registers(&self, edit: impl Fn(ListRegister) -> ListRegister) {
        for (index, lr) in self.list_registers() {
            let edited = edit(lr);
            if edited != lr {
                self.gic.set_list_register(
                    index,
                    if edited.is_valid() {
                        edited
                    } else {
                        ListRegister::EMPTY
                    },
                );
            }
        }
    }

    /// The most urgent interrupt that waits and may be delivered.
    pub(super) fn next(&self, vcpu: &Vcpu) -> Option<(u32, u8)> {
        let next = vcpu
            .pending
            .most_urgent(|intid| self.deliverable(vcpu, intid));
        let lpi = vcpu.lpis.most_urgent(|intid| self.deliverable(vcpu, intid));
        match (next, lpi) {
            (Some(next), Some(lpi)) => Some(if lpi.1 < next.1 { lpi } else { next }),
            (next, lpi) => next.or(lpi),
        }
    }

    /// The interrupt's priority if the guest lets it through. What is the hardware's has passed the physical enable.
    #[inline]
    fn deliverable(&self, vcpu: &Vcpu, intid: u32) -> Option<u8> {
        if !self.enabled.load(Ordering::Relaxed) {
            return None;
        }
        if intid >= FIRST_LPI {
            return self.lpi_priority(intid);
        }
        let word = intid as usize / 32;
        let bit = 1 << (intid % 32);
        let enabled = if word == 0 {
            &vcpu.enabled
        } else {
            self.spi_enabled.get(word)?
        };
        let pass = self.physical.get(word)? | enabled.load(Ordering::Relaxed);
        (pass & bit != 0).then(|| self.priority_of(vcpu, intid))
    }

    #[inline]
    pub(super) fn priority_of(&self, vcpu: &Vcpu, intid: u32) -> u8 {
        let priority = match intid.checked_sub(32) {
            None => vcpu.priority.get(intid as usize),
            Some(spi) => self.priority.get(spi as usize),
        };
        priority.map_or(super::PRIORITY_RESET, |priority| {
            priority.load(Ordering::Relaxed)
        })
    }

    #[inline]
    fn list_entry(&self, intid: u32, priority: u8, sender: u8) -> ListRegister {
        match (self.is_physical(intid), self.gic.watches) {
            (false, _) => ListRegister::software(intid, priority, sender),
            (true, false) => ListRegister::hardware(intid, priority),
            (true, true) => ListRegister::watched(intid, priority),
        }
    }

    /// Whether an interrupt is the domain's and its state the hardware's.
    #[inline]
    pub(super) fn is_physical(&self, intid: u32) -> bool {
        let word = self.physical.get(intid as usize / 32);
        word.is_some_and(|word| word & (1 << (intid % 32)) != 0)
    }

    /// A list register whose interrupt came once more. One of the hardware can only come again after it was
    /// deactivated, so its active state is over.
    #[inline]
    fn again(&self, lr: ListRegister) -> ListRegister {
        if self.is_physical(lr.intid()) {
            lr.with_pending().without_active()
        } else {
            lr.with_pending()
        }
    }

    /// Moves into the list registers what waits there already: a second occurrence while the first is active.
    fn merge(&self, vcpu: &Vcpu) {
        for (index, lr) in self.list_registers() {
            let intid = lr.intid();
            if !vcpu.waiting(intid).contains(intid) {
                continue;
            }
            if let Some(senders) = vcpu
                .senders
                .get(intid as usize)
                .filter(|_| self.gic.is_v2())
            {
                let bit = 1 << lr.source();
                let before = senders.fetch_and(!bit, Ordering::Relaxed);
                if before & bit == 0 {
                    continue;
                }
                if before & !bit == 0 {
                    vcpu.pending.remove(intid);
                }
            } else {
                vcpu.waiting(intid).remove(intid);
            }
            self.gic.set_list_register(index, self.again(lr));
        }
    }

    /// Takes one sender of a GICv2 software interrupt; while there are more, it goes on waiting. `None` if a sender
    /// came again just as its first was taken: then there is nothing left to deliver.
    fn take_sender(&self, vcpu: &Vcpu, intid: u32) -> Option<u8> {
        let senders = vcpu.senders.get(intid as usize);
        let Some(senders) = senders.filter(|_| self.gic.is_v2()) else {
            return Some(0);
        };
        let waiting = senders.load(Ordering::Relaxed);
        let sender = 1_u8.checked_shl(waiting.trailing_zeros())?;
        if senders.fetch_and(!sender, Ordering::Relaxed) & !sender != 0 {
            vcpu.pending.insert(intid);
        }
        Some(sender.trailing_zeros() as u8)
    }

    /// Makes room for an interrupt of `priority` where a less urgent one hasn't been taken yet.
    fn evict(&self, vcpu: &Vcpu, priority: u8) -> Option<u8> {
        let (index, lr) = self
            .list_registers()
            .filter(|(_, lr)| lr.is_pending() && !lr.is_active() && lr.priority() > priority)
            .max_by_key(|(_, lr)| lr.priority())?;
        let intid = lr.intid();
        if let Some(senders) = vcpu.senders.get(intid as usize) {
            senders.fetch_or(1 << lr.source(), Ordering::Relaxed);
        }
        vcpu.waiting(intid).insert(intid);
        Some(index)
    }

    fn set_underflow(&self, vcpu: &Vcpu, wanted: bool) {
        if vcpu.underflow.load(Ordering::Relaxed) != wanted {
            vcpu.underflow.store(wanted, Ordering::Relaxed);
            self.gic.want_underflow(wanted);
        }
    }

    /// Gives interrupts of the hardware that were acknowledged for `vcpu`, but not yet by it, back to the hardware:
    /// they become pending there again, and inactive. List registers are reached only if `vcpu` runs `here`.
    pub(super) fn withdraw(&self, here: usize, vcpu: usize, word: usize, mask: u32) {
        let mask = mask & self.physical[word];
        let mut taken = self.vcpus[vcpu].pending.remove_bits(word, mask);
        if here == vcpu {
            for (index, lr) in self.list_registers() {
                let bit = 1 << (lr.intid() % 32);
                if lr.intid() as usize / 32 == word && mask & bit != 0 && lr.is_pending() {
                    taken |= bit;
                    self.gic.set_list_register(index, ListRegister::EMPTY);
                }
            }
        }
        if taken != 0 {
            let base = self.bank_base(vcpu, word);
            let edges = self.edges(base, word) & taken;
            // A level asserts itself again; an edge must be remembered.
            self.gic
                .registers
                .write32(base + gicd::ISPENDR + 4 * word as u64, edges);
            self.gic
                .registers
                .write32(base + gicd::ICACTIVER + 4 * word as u64, taken);
        }
    }

    /// Which of a word's interrupts are edge-triggered.
    fn edges(&self, base: u64, word: usize) -> u32 {
        let address = base + gicd::ICFGR + 8 * word as u64;
        let low = self.gic.registers.read32(address);
        let high = self.gic.registers.read32(address + 4);
        (0..16).fold(0, |edges, bit| {
            let shift = 2 * bit + 1;
            edges | ((low >> shift & 1) << bit) | ((high >> shift & 1) << (bit + 16))
        })
    }
}

impl Vcpu {
    /// Whether nothing waits for a list register.
    #[inline]
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.lpis.is_empty()
    }

    /// The set that an interrupt waits in.
    #[inline]
    fn waiting(&self, intid: u32) -> &PendingSet {
        if intid < FIRST_LPI {
            &self.pending
        } else {
            &self.lpis
        }
    }
}
