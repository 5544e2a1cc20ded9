//! What a distributor has on GICv2 only: targets as masks, and software interrupts with their senders.

use core::sync::atomic::Ordering;

use super::distributor::each_byte;
use super::{Access, Outcome, Size, VirtualGic};
use crate::gic::Registers;
use crate::gic::registers::gicd;

impl<R: Registers> VirtualGic<'_, R> {
    /// GICD_ITARGETSR: bytes or words. Those of interrupts 0 to 31 read as the reader's own bit.
    pub(super) fn targets(&self, vcpu: usize, access: Access) -> Outcome {
        if !matches!(access.size, Size::Byte | Size::Word) {
            return Outcome::Fault;
        }
        let first = (access.offset - gicd::ITARGETSR) as u32;
        each_byte(access, |index, write| {
            let intid = first + index;
            if intid < 32 {
                return Some(1 << vcpu);
            }
            if !self.is_own_spi(intid) {
                return None;
            }
            match write {
                Some(mask) => self.retarget(intid, mask & self.all_targets()),
                None => {
                    return self
                        .target
                        .get(intid as usize - 32)
                        .map(|mask| mask.load(Ordering::Relaxed));
                }
            }
            None
        })
    }

    /// GICD_CPENDSGIR and GICD_SPENDSGIR: a byte for each software interrupt, a bit in it for each sender.
    pub(super) fn pending_senders(&self, vcpu: usize, access: Access) -> Outcome {
        if !matches!(access.size, Size::Byte | Size::Word) {
            return Outcome::Fault;
        }
        let set = access.offset >= gicd::SPENDSGIR;
        let state = &self.vcpus[vcpu];
        let outcome = each_byte(access, |index, write| {
            let sgi = (access.offset & 0xf) as u32 + index;
            let senders = state.senders.get(sgi as usize)?;
            match write.map(|mask| mask & self.all_targets()) {
                None => return Some(senders.load(Ordering::Relaxed)),
                Some(0) => {}
                Some(mask) if set => {
                    senders.fetch_or(mask, Ordering::Relaxed);
                    state.pending.insert(sgi);
                }
                Some(mask) => {
                    if senders.fetch_and(!mask, Ordering::Relaxed) & !mask == 0 {
                        state.pending.remove(sgi);
                    }
                }
            }
            None
        });
        self.fill(state);
        outcome
    }

    /// A bit for each vCPU.
    fn all_targets(&self) -> u8 {
        self.vcpus
            .iter()
            .enumerate()
            .fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// The CPUs that a mask of vCPUs stands for, as the hardware numbers them.
    pub(super) fn physical_targets(&self, mask: u8) -> u8 {
        self.vcpus
            .iter()
            .enumerate()
            .filter(|(index, _)| mask & (1 << index) != 0)
            .fold(0, |targets, (_, vcpu)| {
                targets | self.gic.cpus[vcpu.cpu].target.load(Ordering::Relaxed)
            })
    }
}
