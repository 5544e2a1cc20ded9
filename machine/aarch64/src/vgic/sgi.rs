//! Software-generated interrupts: from ICC_SGI1R_EL1 on GICv3, GICD_SGIR on GICv2. They never reach the hardware.

use core::sync::atomic::Ordering;

use super::VirtualGic;
use crate::gic::Registers;

impl<R: Registers> VirtualGic<'_, R> {
    /// A write of ICC_SGI1R_EL1 by `vcpu`, on its own CPU (IHI 0069, 12.2.21).
    pub fn sgi1r(&self, vcpu: usize, value: u64) {
        let intid = (value >> 24) as u32 & 0xf;
        if value & (1 << 40) != 0 {
            self.send(vcpu, intid, |target, _| target != vcpu);
            return;
        }
        let list = value & 0xffff;
        let range = (value >> 44) as u32 & 0xf;
        let upper = ((value >> 16) as u32 & 0xff)
            | ((value >> 24) as u32 & 0xff00)
            | ((value >> 32) as u32 & 0xff_0000);
        self.send(vcpu, intid, |_, affinity| {
            affinity >> 8 == upper
                && (affinity >> 4) & 0xf == range
                && list & (1 << (affinity & 0xf)) != 0
        });
    }

    /// A write of GICD_SGIR by `vcpu`, on its own CPU (IHI 0048B, 4.3.15).
    pub(super) fn sgir(&self, vcpu: usize, value: u32) {
        let intid = value & 0xf;
        let list = (value >> 16) & 0xff;
        match (value >> 24) & 3 {
            0 => self.send(vcpu, intid, |target, _| {
                target < 8 && list & (1 << target) != 0
            }),
            1 => self.send(vcpu, intid, |target, _| target != vcpu),
            2 => self.send(vcpu, intid, |target, _| target == vcpu),
            // Reserved.
            _ => {}
        }
    }

    #[inline]
    fn send(&self, vcpu: usize, intid: u32, wanted: impl Fn(usize, u32) -> bool) {
        let sender = if self.gic.is_v2() { vcpu as u8 & 7 } else { 0 };
        for (index, target) in self.vcpus.iter().enumerate() {
            if !wanted(index, target.affinity) {
                continue;
            }
            if index == vcpu {
                self.offer(target, intid, sender);
            } else {
                self.post(index, intid, 1 << sender);
            }
        }
    }

    /// Makes a software interrupt pending for a vCPU on another CPU, from the senders of a mask.
    pub(super) fn post(&self, vcpu: usize, intid: u32, senders: u8) {
        let target = &self.vcpus[vcpu];
        if let Some(waiting) = target.senders.get(intid as usize) {
            // Before the pending bit: whoever sees that looks for the sender.
            waiting.fetch_or(senders, Ordering::Relaxed);
            target.pending.insert(intid);
            self.notify(target);
        }
    }
}
