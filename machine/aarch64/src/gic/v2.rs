//! What only a GICv2 does at start: banked private interrupts, targets as bit masks, interfaces in memory.

use core::sync::atomic::Ordering;

use super::registers::{gicc, gicd};
use super::{Cpu, Gic, MASK_OPEN, Model, Registers, Window};

/// The CPU interface's registers: one page, and a second one with GICC_DIR.
const INTERFACE_BYTES: u64 = 0x2000;

impl<R: Registers> Gic<R> {
    /// On a GICv2, the machine addresses of the virtual CPU interface. Stage 2 puts them, as device memory, where the
    /// guest is told to find its CPU interface.
    #[must_use]
    pub fn guest_interface(&self) -> Option<Window> {
        match &self.facts.model {
            Model::V2 {
                virtual_interface, ..
            } => Some(Window {
                start: virtual_interface.start,
                bytes: INTERFACE_BYTES.min(virtual_interface.bytes),
            }),
            Model::V3 { .. } => None,
        }
    }

    pub(super) fn init_distributor_v2(&self) {
        let base = self.facts.distributor.start;
        // Each CPU reads its own bit in the targets of its private interrupts.
        let boot = self.registers.read8(base + gicd::ITARGETSR);
        for intid in (32..u64::from(self.lines)).step_by(4) {
            self.registers.write32(
                base + gicd::ITARGETSR + intid,
                u32::from_ne_bytes([boot; 4]),
            );
        }
        self.registers
            .write32(base + gicd::CTLR, gicd::CTLR_V2_ENABLE);
    }

    pub(super) fn init_interface_v2(&self, cpu: &Cpu) {
        let target = self
            .registers
            .read8(self.facts.distributor.start + gicd::ITARGETSR);
        // A machine with one CPU may leave the targets zero; the SGI to itself still needs bit 0.
        cpu.target.store(target.max(1), Ordering::Relaxed);
        if let Model::V2 { cpu_interface, .. } = &self.facts.model {
            let base = cpu_interface.start;
            self.registers
                .write32(base + gicc::PMR, u32::from(MASK_OPEN));
            self.registers.write32(base + gicc::BPR, 0);
            self.registers
                .write32(base + gicc::CTLR, gicc::CTLR_ENABLE | gicc::CTLR_EOI_MODE);
        }
    }
}
