//! As much of a GIC driver as the tests need: private interrupts of GICv2 and GICv3, in one group and at one priority.
//!
//! Register offsets: Arm IHI 0048B (GICv2), IHI 0069 (GICv3).

use spin::Once;

use crate::cpu::{self, read32, read64, write32};
use crate::range::Range;
use crate::tree::{Controller, Facts};
use crate::{read_register, write_register};

const GICD_CTLR: u64 = 0x0;
const GICD_SGIR: u64 = 0xf00;
const IGROUPR: u64 = 0x80;
const ISENABLER: u64 = 0x100;
const IPRIORITYR: u64 = 0x400;
const GICC_CTLR: u64 = 0x0;
const GICC_PMR: u64 = 0x4;
const GICC_IAR: u64 = 0xc;
const GICC_EOIR: u64 = 0x10;
const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
/// From a redistributor's frame of control registers to that of SGIs and PPIs.
const GICR_SGI: u64 = 0x1_0000;

static CONTROLLER: Once<Controller> = Once::new();

/// Turns the distributor on, once, from the boot CPU. Says whether the tree has a controller.
pub fn start(facts: &Facts) -> bool {
    let Some(controller) = &facts.controller else {
        return false;
    };
    CONTROLLER.call_once(|| controller.clone());
    match controller {
        Controller::V2 { distributor, .. } => write32(distributor.start + GICD_CTLR, 1),
        Controller::V3 { distributor, .. } => {
            // EnableGrp1, EnableGrp1A or EnableGrp1NS by security state, and affinity routing.
            write32(distributor.start + GICD_CTLR, 1 << 4 | 1 << 1 | 1);
            cpu::wait_for(100, || read32(distributor.start + GICD_CTLR) & 1 << 31 == 0);
        }
    }
    start_cpu()
}

/// Turns this CPU's interface and redistributor on. Says whether it has one.
pub fn start_cpu() -> bool {
    match CONTROLLER.get() {
        None => false,
        Some(Controller::V2 { cpu, .. }) => {
            write32(cpu.start + GICC_PMR, 0xff);
            write32(cpu.start + GICC_CTLR, 1);
            true
        }
        Some(Controller::V3 { redistributors, .. }) => {
            let Some(frame) = redistributor(redistributors) else {
                return false;
            };
            write32(frame + GICR_WAKER, 0);
            cpu::wait_for(100, || read32(frame + GICR_WAKER) & 1 << 2 == 0);
            write32(frame + GICR_SGI + IGROUPR, u32::MAX);
            write_register!("S3_0_C12_C12_5", read_register!("S3_0_C12_C12_5") | 1); // ICC_SRE_EL1
            write_register!("S3_0_C4_C6_0", 0xff); // ICC_PMR_EL1
            write_register!("S3_0_C12_C12_7", 1); // ICC_IGRPEN1_EL1
            true
        }
    }
}

/// The frame of this CPU among the redistributors, by affinity.
fn redistributor(regions: &[Range]) -> Option<u64> {
    let affinity = cpu::affinity();
    let packed = (affinity >> 32 & 0xff) << 24 | affinity & 0xff_ffff;
    for region in regions {
        let mut frame = region.start;
        while frame + 0x2_0000 <= region.end() {
            let kind = read64(frame + GICR_TYPER);
            if kind >> 32 == packed {
                return Some(frame);
            }
            if kind & 1 << 4 != 0 {
                break;
            }
            // VLPIS: two more frames of 64 KiB.
            frame += if kind & 1 << 1 != 0 {
                0x4_0000
            } else {
                0x2_0000
            };
        }
    }
    None
}

/// Enables a private interrupt (INTID below 32) of this CPU.
pub fn enable(interrupt: u32) {
    let base = match CONTROLLER.get() {
        Some(Controller::V2 { distributor, .. }) => Some(distributor.start),
        Some(Controller::V3 { redistributors, .. }) => {
            redistributor(redistributors).map(|frame| frame + GICR_SGI)
        }
        None => None,
    };
    let Some(base) = base.filter(|_| interrupt < 32) else {
        return;
    };
    let register = base + IPRIORITYR + u64::from(interrupt & !3);
    let shift = interrupt % 4 * 8;
    write32(
        register,
        read32(register) & !(0xff << shift) | 0x80 << shift,
    );
    write32(base + ISENABLER, 1 << interrupt);
    cpu::barrier();
}

/// Clears what may be left of a private interrupt of this CPU after its registers were tampered with: pending, active,
/// and the priority that an unfinished one holds.
pub fn forget(interrupt: u32) {
    const ICPENDR: u64 = 0x280;
    const ICACTIVER: u64 = 0x380;
    let base = match CONTROLLER.get() {
        Some(Controller::V2 { distributor, .. }) => Some(distributor.start),
        Some(Controller::V3 { redistributors, .. }) => {
            write_register!("S3_0_C12_C9_0", 0); // ICC_AP1R0_EL1
            write_register!("S3_0_C12_C12_4", 0); // ICC_CTLR_EL1: one write ends an interrupt
            redistributor(redistributors).map(|frame| frame + GICR_SGI)
        }
        None => None,
    };
    if let Some(base) = base.filter(|_| interrupt < 32) {
        write32(base + ICPENDR, 1 << interrupt);
        write32(base + ICACTIVER, 1 << interrupt);
    }
}

/// Acknowledges the most urgent interrupt; 1023 if there is none.
pub fn acknowledge() -> u32 {
    match CONTROLLER.get() {
        Some(Controller::V2 { cpu, .. }) => read32(cpu.start + GICC_IAR),
        // ICC_IAR1_EL1, 24 bits.
        Some(Controller::V3 { .. }) => (read_register!("S3_0_C12_C12_0") & 0xff_ffff) as u32,
        None => 1023,
    }
}

/// Ends an interrupt: the value that [`acknowledge`] gave.
pub fn end(interrupt: u32) {
    match CONTROLLER.get() {
        Some(Controller::V2 { cpu, .. }) => write32(cpu.start + GICC_EOIR, interrupt),
        Some(Controller::V3 { .. }) => write_register!("S3_0_C12_C12_1", u64::from(interrupt)), // ICC_EOIR1_EL1
        None => {}
    }
}

/// Sends a software-generated interrupt (0 to 15) to the CPU of that affinity and of that place in the tree's list.
pub fn send(interrupt: u32, affinity: u64, place: usize) {
    cpu::barrier();
    match CONTROLLER.get() {
        Some(Controller::V2 { distributor, .. }) => {
            write32(
                distributor.start + GICD_SGIR,
                1 << (16 + place % 8) | interrupt & 0xf,
            );
        }
        Some(Controller::V3 { .. }) => {
            write_register!("S3_0_C12_C11_5", sgi_value(interrupt, affinity))
        }
        None => {}
    }
}

/// The value of ICC_SGI1R_EL1 that sends `interrupt` to the one CPU of that affinity.
pub fn sgi_value(interrupt: u32, affinity: u64) -> u64 {
    let [aff0, aff1, aff2, aff3] = [0, 8, 16, 32].map(|shift| affinity >> shift & 0xff);
    aff3 << 48
        | aff2 << 32
        | u64::from(interrupt & 0xf) << 24
        | aff1 << 16
        | (aff0 >> 4) << 44
        | 1 << (aff0 & 0xf)
}
