//! The interrupt controller's registers, at every offset, in all sizes, with random values.

use core::arch::asm;

use rt::exception::caught;
use rt::random::Random;
use rt::tree::{Controller, Facts, Range};
use rt::{cpu, say};

use crate::watchdog;

/// Reads, and writes random values, at every fourth offset and some odd ones of each frame.
pub fn every_register(facts: &Facts, random: &mut Random) {
    let mut count = 0;
    match &facts.controller {
        None => {}
        Some(Controller::V2 { distributor, cpu }) => {
            count += frame(*distributor, random);
            count += frame(*cpu, random);
        }
        Some(Controller::V3 {
            distributor,
            redistributors,
            its,
        }) => {
            count += frame(*distributor, random);
            for region in redistributors {
                // Four CPUs' frames, whether the guest has as many or not.
                count += frame(
                    Range {
                        start: region.start,
                        size: region.size.min(0x8_0000),
                    },
                    random,
                );
            }
            if let Some(its) = its {
                count += frame(*its, random);
            }
        }
    }
    watchdog::rearm();
    say!("attacker: controller={count}");
}

fn frame(range: Range, random: &mut Random) -> u64 {
    let mut count = 0;
    for round in 0..2 {
        let mut offset = 0;
        while offset < range.size {
            let address = range.start + offset + if round == 0 { 0 } else { random.below(4) };
            watchdog::progress(address << 1 | round);
            cpu::mask_interrupts();
            caught(|| access(address, random.edge(), random.below(8)));
            // The watchdog must keep its interrupt.
            if offset % 0x400 == 0 {
                watchdog::rearm();
            }
            count += 1;
            offset += 4;
        }
    }
    watchdog::rearm();
    count
}

/// A load or a store of 1, 2, 4 or 8 bytes.
fn access(address: u64, value: u64, kind: u64) {
    // SAFETY: the address is in a frame of the interrupt controller, where no Rust value lies; its tables, if the guest
    // manages to name some, are refused where it doesn't own them, and the guest ends soon after.
    unsafe {
        match kind {
            0 => asm!("ldrb {0:w}, [{1}]", out(reg) _, in(reg) address, options(nostack)),
            1 => asm!("ldrh {0:w}, [{1}]", out(reg) _, in(reg) address, options(nostack)),
            2 => asm!("ldr {0:w}, [{1}]", out(reg) _, in(reg) address, options(nostack)),
            3 => asm!("ldr {0}, [{1}]", out(reg) _, in(reg) address, options(nostack)),
            4 => asm!("strb {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)),
            5 => asm!("strh {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)),
            6 => asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)),
            _ => asm!("str {0}, [{1}]", in(reg) value, in(reg) address, options(nostack)),
        }
    }
}
