//! What only a GICv3 does: affinity routing, redistributors, system registers.

use super::registers::{CpuRegister, gicd, gicr};
use super::{Acknowledged, Cpu, Gic, MASK_OPEN, POLLS, Registers, Window};

/// The redistributor with this affinity and its GICR_TYPER.
pub(super) fn find_redistributor<R: Registers>(
    registers: &R,
    regions: &[Window],
    affinity: u32,
) -> Option<(u64, u64)> {
    for region in regions {
        let mut offset = 0;
        while offset + gicr::STRIDE <= region.bytes {
            let base = region.start + offset;
            let typer = registers.read64(base + gicr::TYPER);
            if typer >> 32 == u64::from(affinity) {
                return Some((base, typer));
            }
            if typer & gicr::TYPER_LAST != 0 {
                break;
            }
            offset += if typer & gicr::TYPER_VLPIS == 0 {
                gicr::STRIDE
            } else {
                gicr::STRIDE_V4
            };
        }
    }
    None
}

/// The value of ICC_SGI1R_EL1 that sends software interrupt `intid` to the CPU with this affinity.
pub(super) const fn sgi(intid: u32, affinity: u32) -> u64 {
    let affinity = affinity as u64;
    let aff0 = affinity & 0xff;
    let aff1 = (affinity >> 8) & 0xff;
    let aff2 = (affinity >> 16) & 0xff;
    let aff3 = affinity >> 24;
    (aff3 << 48)
        | ((aff0 >> 4) << 44)
        | (aff2 << 32)
        | ((intid as u64) << 24)
        | (aff1 << 16)
        | (1 << (aff0 & 15))
}

impl<R: Registers> Gic<R> {
    pub(super) fn init_distributor_v3(&self) {
        let base = self.facts.distributor.start;
        // Affinity routing comes first: IROUTER exists only with it.
        self.registers.write32(base + gicd::CTLR, gicd::CTLR_ARE);
        self.wait_distributor();
        if let Some(boot) = self.cpus.first() {
            for intid in 32..self.lines.min(super::ORDINARY) {
                self.route(intid, boot);
            }
        }
        self.registers
            .write32(base + gicd::CTLR, gicd::CTLR_ARE | gicd::CTLR_ENABLE_GROUP1);
        self.wait_distributor();
    }

    pub(super) fn wake_redistributor(&self, cpu: &Cpu) -> bool {
        let waker = cpu.redistributor + gicr::WAKER;
        let value = self.registers.read32(waker);
        self.registers
            .write32(waker, value & !gicr::WAKER_PROCESSOR_SLEEP);
        (0..POLLS).any(|_| self.registers.read32(waker) & gicr::WAKER_CHILDREN_ASLEEP == 0)
    }

    pub(crate) fn wait_redistributor(&self, cpu: &Cpu) {
        for _ in 0..POLLS {
            if self.registers.read32(cpu.redistributor + gicr::CTLR) & gicr::CTLR_RWP == 0 {
                return;
            }
        }
    }

    pub(super) fn init_interface_v3(&self, cpu: &Cpu) {
        self.wait_redistributor(cpu);
        let registers = &self.registers;
        // SRE, no bypass, EL1 may use its own view.
        registers.set_cpu_register(CpuRegister::SreEl2, 0xf);
        registers.synchronize();
        registers.set_cpu_register(CpuRegister::SreEl1, 0x7);
        registers.set_cpu_register(CpuRegister::Pmr, u64::from(MASK_OPEN));
        registers.set_cpu_register(CpuRegister::Bpr1, 0);
        // EOImode: EOIR1 drops the priority, DIR deactivates.
        registers.set_cpu_register(CpuRegister::Ctlr, 1 << 1);
        registers.set_cpu_register(CpuRegister::Igrpen1, 1);
        registers.synchronize();
    }

    #[inline]
    pub(super) fn acknowledge_v3(&self) -> Acknowledged {
        let intid = self.registers.cpu_register(CpuRegister::Iar1) as u32;
        Acknowledged(intid & 0x00ff_ffff)
    }
}
