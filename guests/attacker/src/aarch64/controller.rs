//! The interrupt controller's registers, at every offset, in all sizes, with random values.

use core::arch::asm;

use rt::exception::caught;
use rt::random::Random;
use rt::range::Range;
use rt::tree::{Controller, Facts};
use rt::{cpu, say};

use super::watchdog;

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

/// Makes one instruction with x0 as address and x1 as value or result. An abort goes to the vectors.
macro_rules! access {
    ($instruction:literal, $address:expr, $value:expr) => {
        // SAFETY: the address is in a frame of the interrupt controller, where no Rust value lies; its tables, if the
        // guest manages to name some, are refused where it doesn't own them, and the guest ends soon after.
        unsafe { asm!($instruction, in("x0") $address, inout("x1") $value => _, options(nostack)) }
    };
}

/// A load or a store of 1, 2, 4 or 8 bytes.
fn access(address: u64, value: u64, kind: u64) {
    match kind {
        0 => access!("ldrb w1, [x0]", address, value),
        1 => access!("ldrh w1, [x0]", address, value),
        2 => access!("ldr w1, [x0]", address, value),
        3 => access!("ldr x1, [x0]", address, value),
        4 => access!("strb w1, [x0]", address, value),
        5 => access!("strh w1, [x0]", address, value),
        6 => access!("str w1, [x0]", address, value),
        _ => access!("str x1, [x0]", address, value),
    }
}
