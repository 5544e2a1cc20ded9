//! Reads and writes where the guest owns nothing.

use rt::exception::caught;
use rt::random::Random;
use rt::range::Range;
use rt::{arguments, cpu, read_register, say};

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

/// What came of the accesses so far.
#[derive(Default)]
struct Tally {
    tried: u64,
    aborted: u64,
    ignored: u64,
}

impl Tally {
    /// Reads and writes one word. Allowed are an abort, and ones with the write dropped; what is at an unowned address
    /// isn't known, so that another value is a violation.
    fn attempt(&mut self, address: u64) {
        watchdog::progress(address);
        self.tried += 1;
        let (value, fault) = caught(|| cpu::read32(address));
        match fault {
            Some(fault) if fault.is_data_abort() => self.aborted += 1,
            Some(fault) => violation(format_args!(
                "read of {address:#x} gave esr={:#x}",
                fault.syndrome
            )),
            None if value == u32::MAX => self.ignored += 1,
            None => violation(format_args!("read of {address:#x} gave {value:#x}")),
        }
        let ((), fault) = caught(|| cpu::write32(address, 0x7e77_a9e5));
        if fault.is_some_and(|fault| !fault.is_data_abort()) {
            violation(format_args!("write of {address:#x} gave no data abort"));
        }
    }

    fn report(self, what: &str) -> u64 {
        say!(
            "attacker: {what} tried={} aborted={} ignored={}",
            self.tried,
            self.aborted,
            self.ignored
        );
        self.tried
    }
}

/// A page below the top that isn't the guest's; 0 if a few draws find none.
pub fn unowned(target: &Target, random: &mut Random) -> u64 {
    let mut draws = (0..64).map(|_| random.below(target.top) & !0xfff);
    draws.find(|page| !target.is_given(*page)).unwrap_or(0)
}

/// One read and write of a page that isn't the guest's.
pub fn one(target: &Target, random: &mut Random) {
    let address = unowned(target, random);
    if !target.is_given(address) {
        Tally::default().attempt(address);
    }
}

/// Every page below the top of RAM that isn't the guest's. Gives how many.
pub fn every_page(target: &Target) -> u64 {
    let mut tally = Tally::default();
    let mut address = 0;
    while address < target.top {
        if !target.is_given(address) {
            tally.attempt(address);
        }
        address += target.step;
    }
    tally.report("pages")
}

/// A page of each range of `mmio=START+SIZE,...`: devices that others have. Gives how many.
pub fn devices(target: &Target) -> u64 {
    let mut tally = Tally::default();
    for (start, size) in arguments::ranges(target.arguments, "mmio") {
        let range = Range { start, size };
        let first = range.start & !0xfff;
        for address in [first, first + 0xffc, (range.end() - 1) & !0xfff] {
            if !target.is_given(address) {
                tally.attempt(address);
            }
        }
    }
    tally.report("devices")
}

/// Addresses above the top, all over the physical space and past its end. Gives how many.
pub fn sample(target: &Target, random: &mut Random) -> u64 {
    const SAMPLES: u32 = 4096;
    let bits = match read_register!("id_aa64mmfr0_el1") & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    };
    let mut tally = Tally::default();
    for _ in 0..SAMPLES {
        let width = 30 + random.below(bits - 29);
        let address = random.below(1 << width) & !0xfff;
        if address >= target.top && !target.is_given(address) {
            tally.attempt(address);
        }
    }
    for bit in 30..52 {
        let address = 1 << bit;
        if address >= target.top && !target.is_given(address) {
            tally.attempt(address);
        }
    }
    tally.report("above")
}
