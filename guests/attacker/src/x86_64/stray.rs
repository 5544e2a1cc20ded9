//! Memory that isn't the guest's: what the machine has as RAM and the guest hasn't, and addresses by chance.

use abi::memory::MapEntry;
use rt::exception::{read32, read64, write64};
use rt::random::Random;
use rt::range::Range;
use rt::{arguments, memory, pvh, say};

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

const FIRST_MIB: u64 = 1 << 20;

/// Every page that the machine's map has as RAM and that isn't the guest's, and the ranges of the argument `mmio`. Gives
/// how many.
pub fn every_page(target: &Target) -> u64 {
    let mut count = 0;
    for range in machine(target).into_iter().flatten() {
        for page in (range.start..range.end()).step_by(usize::try_from(target.step).unwrap_or(4096))
        {
            // Of the first MiB the hardware domain has all, whatever the map calls it.
            if page < FIRST_MIB || target.is_ram(page) || target.is_skipped(page) {
                continue;
            }
            watchdog::progress(15 << 40 | page >> 12);
            attempt(page);
            attempt(page + 0xff8);
            count += 2;
        }
    }
    for (start, size) in arguments::ranges(&target.facts.arguments, "mmio") {
        attempt(start);
        attempt((start + size).saturating_sub(8));
        count += 2;
    }
    say!("attacker: strays={count}");
    count
}

/// The machine's RAM: by the hypervisor if it says, else up to the argument `top`.
fn machine(target: &Target) -> [Option<Range>; 64] {
    const RAM: u32 = 1;
    let mut entries = [MapEntry {
        address: 0,
        size: 0,
        kind: 0,
    }; 128];
    let count = target
        .facts
        .xen
        .and_then(|_| pvh::memory_map(true, &mut entries).ok());
    let mut ranges = [None; 64];
    let map = entries.get(..count.unwrap_or(0)).unwrap_or_default();
    let ram = map.iter().filter(|entry| entry.kind == RAM);
    for (place, entry) in ranges.iter_mut().zip(ram) {
        *place = Some(Range {
            start: entry.address,
            size: entry.size,
        });
    }
    ranges
}

/// An access must fault, or give ones and keep nothing.
fn attempt(address: u64) {
    if memory::is_own(Range {
        start: address,
        size: 8,
    }) {
        return;
    }
    if let Ok(value) = read64(address) {
        if value != u64::MAX {
            violation(format_args!("{address:#x} reads as {value:#x}"));
        }
        if write64(address, !value ^ address).is_ok()
            && read64(address).is_ok_and(|new| new != value)
        {
            violation(format_args!("{address:#x} keeps what is written to it"));
        }
    }
}

/// Addresses by chance: above all RAM, which is nobody's or a device of the guest; read only.
pub fn sample(target: &Target, random: &mut Random) -> u64 {
    const COUNT: u64 = 20_000;
    for index in 0..COUNT {
        watchdog::progress(16 << 40 | index);
        one(target, random);
    }
    // Beyond what the tables map, and not canonical: the guest's own faults.
    for address in [memory::end(), 1 << 47, 1 << 63, u64::MAX - 7] {
        if read64(address).is_ok() {
            violation(format_args!("{address:#x} can be read"));
        }
    }
    say!("attacker: samples={COUNT}");
    COUNT
}

/// One access by chance, above the machine's RAM and 4 GiB.
pub fn one(target: &Target, random: &mut Random) {
    let floor = target.reach.top.max(1 << 32);
    let room = memory::end().saturating_sub(floor).max(8);
    let address = (floor + random.below(room)).min(memory::end() - 8) & !7;
    let _ = read32(address);
}
