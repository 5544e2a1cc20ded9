//! The interrupt controller as a DMA master: its tables named in memory that others own.
//!
//! Redistributors and the ITS read and write tables at addresses that the guest programs. The guest can't see where they
//! write: whoever owns that memory can, so the harness judges by their health.

use core::sync::atomic::{AtomicU64, Ordering};

use rt::exception::caught;
use rt::random::Random;
use rt::tree::Controller;
use rt::{cpu, memory, say};

use super::guest::Target;
use super::{stray, watchdog};

const GICR_CTLR: u64 = 0x0;
const GICR_PROPBASER: u64 = 0x70;
const GICR_PENDBASER: u64 = 0x78;
const GITS_CTLR: u64 = 0x0;
const GITS_CBASER: u64 = 0x80;
const GITS_CWRITER: u64 = 0x88;
const GITS_CREADR: u64 = 0x90;
const GITS_BASER: u64 = 0x100;
const GITS_TRANSLATER: u64 = 0x1_0040;
const VALID: u64 = 1 << 63;
const COMMAND: u64 = 32;
const COMMANDS: u64 = 128;

/// The command queue, in the guest's own memory: 4 KiB.
#[repr(C, align(65536))]
struct Queue([AtomicU64; 512]);
static QUEUE: Queue = Queue([const { AtomicU64::new(0) }; 512]);

/// Names unowned memory in every table register, and in commands of a queue that is its own.
pub fn of_others(target: &Target, random: &mut Random) {
    let Some(Controller::V3 {
        redistributors,
        its,
        ..
    }) = &target.facts.controller
    else {
        return;
    };
    let mut count = 0;
    for round in 0..16 {
        watchdog::progress(round);
        if let Some(region) = redistributors.first() {
            redistributor(region.start, target, random);
        }
        if let Some(its) = its {
            tables(its.start, target, random);
            count += commands(its.start, target, random);
        }
    }
    watchdog::rearm();
    say!("attacker: its-commands={count}");
}

fn write(address: u64, value: u64) {
    caught(|| cpu::write64(address, value));
}

/// An address that isn't the guest's: somebody's page, the host's top, or the last page of its own RAM, beyond which a
/// table runs.
fn address(target: &Target, random: &mut Random) -> u64 {
    let end = target.facts.ram.iter().map(|bank| bank.end()).max();
    match random.below(4) {
        0 => target.top,
        1 => end.unwrap_or(0).saturating_sub(4096),
        _ => stray::unowned(target, random),
    }
}

/// LPI configuration and pending tables.
fn redistributor(frame: u64, target: &Target, random: &mut Random) {
    const FIFTEEN_BITS: u64 = 14;
    write(
        frame + GICR_PROPBASER,
        address(target, random) | FIFTEEN_BITS,
    );
    write(frame + GICR_PENDBASER, address(target, random));
    caught(|| cpu::write32(frame + GICR_CTLR, 1));
}

/// Device, collection and command tables.
fn tables(its: u64, target: &Target, random: &mut Random) {
    write(its + GITS_CTLR, 0);
    for index in 0..8 {
        let pages = random.below(256);
        write(
            its + GITS_BASER + index * 8,
            VALID | address(target, random) | pages,
        );
    }
    write(
        its + GITS_CBASER,
        VALID | address(target, random) | random.below(256),
    );
    caught(|| cpu::write32(its + GITS_CTLR, 1));
    write(its + GITS_CWRITER, COMMAND * 4);
    write(its + GITS_CTLR, 0);
}

/// Commands of every kind with unowned device tables, collections of CPUs that there aren't, and random fields. Gives
/// how many were offered.
fn commands(its: u64, target: &Target, random: &mut Random) -> u64 {
    // MOVI, INT, CLEAR, SYNC, MAPD, MAPC, MAPTI, MAPI, INV, INVALL, MOVALL, DISCARD, and three that there aren't.
    const KINDS: [u64; 15] = [
        1, 3, 4, 5, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0, 0x2a, 0xff,
    ];
    for command in QUEUE.0.chunks_exact(4) {
        let kind = random.pick(&KINDS).unwrap_or(0);
        let device = random.below(16) << 32;
        // For MAPC a CPU, for MAPD a table.
        let place = [address(target, random), random.below(8) << 16];
        let place = random.pick(&place).unwrap_or(0);
        let words = [
            kind | device,
            random.below(64) | random.below(1 << 14) << 32,
            VALID | place,
            0,
        ];
        for (place, word) in command.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }
    let queue = (&raw const QUEUE) as u64;
    memory::clean(queue, 4096);
    write(its + GITS_CBASER, VALID | queue);
    caught(|| cpu::write32(its + GITS_CTLR, 1));
    for command in 1..COMMANDS {
        write(its + GITS_CWRITER, command * COMMAND);
        // A message of the CPU's own, to the frame that devices write to.
        caught(|| cpu::write32(its + GITS_TRANSLATER, u32::try_from(command).unwrap_or(0)));
        const STALLED: u64 = 1;
        let (at, _) = caught(|| cpu::read64(its + GITS_CREADR));
        if at & STALLED != 0 {
            // Retry at the next command.
            write(its + GITS_CWRITER, (command * COMMAND) | 1);
        }
    }
    write(its + GITS_CTLR, 0);
    COMMANDS
}
