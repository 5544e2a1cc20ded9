//! A redistributor's frames: control, and the software and private interrupts of one vCPU.

use super::distributor::IIDR;
use super::{Access, Outcome, Size, VirtualGic};
use crate::gic::Registers;
use crate::gic::registers::{gicd, gicr};

impl<R: Registers> VirtualGic<'_, R> {
    /// An access by `vcpu` to the redistributor of `owner`.
    pub(super) fn redistributor(
        &self,
        vcpu: usize,
        owner: usize,
        last_in_region: bool,
        access: Access,
    ) -> Outcome {
        if access.offset >= gicr::SGI_FRAME {
            return self.sgi_frame(
                vcpu,
                owner,
                Access {
                    offset: access.offset - gicr::SGI_FRAME,
                    ..access
                },
            );
        }
        match access.offset {
            // A double-word register, or half of it.
            gicr::TYPER | 0xc => {
                access.read_only64(self.redistributor_typer(owner, last_in_region))
            }
            gicr::CTLR | gicr::IIDR | gicr::WAKER | gicr::PIDR2 if access.size != Size::Word => {
                Outcome::Fault
            }
            gicr::IIDR => access.read_only(IIDR),
            gicr::CTLR => self.lpi_control(owner, access),
            // Always awake.
            gicr::WAKER => access.read_only(0),
            gicr::PROPBASER..=0x7f if !matches!(access.size, Size::Word | Size::Double) => {
                Outcome::Fault
            }
            gicr::PROPBASER..=0x7f => self.lpi_table(owner, access),
            gicr::PIDR2 => access.read_only(0x3b),
            _ => access.read_only(0),
        }
    }

    fn redistributor_typer(&self, owner: usize, last_in_region: bool) -> u64 {
        let last = last_in_region || owner + 1 == self.vcpus.len();
        let affinity = u64::from(self.vcpus[owner].affinity);
        let lpis = if self.has_lpis() {
            gicr::TYPER_PLPIS
        } else {
            0
        };
        (affinity << 32) | ((owner as u64) << 8) | if last { gicr::TYPER_LAST } else { 0 } | lpis
    }

    /// The SGI frame has the distributor's registers for interrupts 0 to 31.
    fn sgi_frame(&self, vcpu: usize, owner: usize, access: Access) -> Outcome {
        match access.offset {
            gicd::IPRIORITYR..=0x41f => self.interrupts(vcpu, owner, access),
            gicd::IGROUPR | gicd::IGRPMODR | gicd::NSACR if access.size != Size::Word => {
                Outcome::Fault
            }
            gicd::ICFGR | 0xc04 => self.interrupts(vcpu, owner, access),
            0x100..=0x3ff if access.offset & 0x7f < 4 => self.interrupts(vcpu, owner, access),
            _ => access.read_only(0),
        }
    }
}
