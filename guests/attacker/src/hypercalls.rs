//! Every hypercall number with garbage: wild pointers, lengths, and structures of random words.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::number;
use rt::random::Random;
use rt::range::Range;
use rt::{cpu, memory, say, xen};

use crate::arch::{hypercall, progress, rearm};
use crate::common::{Reach, violation};

/// Where pointers that work point to; the hypervisor may write there.
#[repr(C, align(4096))]
struct Area([AtomicU64; WORDS]);
const WORDS: usize = 2048;
/// One a CPU; those above the eighth share.
static AREAS: [Area; 8] = [const { Area([const { AtomicU64::new(0) }; WORDS]) }; 8];

/// Tries of each number with each low command.
const ROUNDS: u32 = 6;

/// Numbers 0 to 63, with commands 0 to 47 and garbage, and numbers above. Gives how many calls were made.
pub fn every_number(target: &Reach, random: &mut Random) -> u64 {
    let version = xen::version();
    let mut count = 0;
    for number in 0..64 {
        for command in 0..48 {
            for _ in 0..ROUNDS {
                progress(number << 32 | command << 16 | count & 0xffff);
                attempt(target, number, command, random);
                count += 1;
            }
        }
        rearm();
        if xen::version() != version {
            violation(format_args!(
                "after hypercall {number} the version is another"
            ));
        }
    }
    for _ in 0..2048 {
        let number = random.edge();
        if number >= 64 {
            progress(number);
            attempt(target, number, random.edge(), random);
            count += 1;
        }
    }
    say!("attacker: hypercalls={count}");
    count
}

/// One call of a random number with garbage.
pub fn one(target: &Reach, random: &mut Random) {
    let number = random.below(64);
    let command = random.below(32);
    attempt(target, number, command, random);
}

fn attempt(target: &Reach, number: u64, command: u64, random: &mut Random) {
    // Now and then a command that no interface has.
    let command = if random.below(8) == 0 {
        random.edge()
    } else {
        command
    };
    let deadly = ends_itself(number, command);
    let works = random.below(2) == 0 && !deadly;
    let first = if deadly || number == number::CONSOLE_IO && !works {
        // Beyond every physical address.
        1 << 60 | random.below(1 << 40)
    } else if works {
        good_pointer(random)
    } else {
        wild_pointer(target, random)
    };
    let mut arguments = [command, first, random.edge(), random.edge(), random.edge()];
    if number == number::CONSOLE_IO {
        // The console is read by people: little text, of one letter; any length only where reading fails.
        let length = if works {
            random.below(64)
        } else {
            random.edge()
        };
        arguments = [command, length, first, 0, 0];
        fill_text();
    } else if number == number::MULTICALL {
        arguments = [first, random.below(64), 0, 0, 0];
        fill_calls(random);
    } else if number == number::GRANT_TABLE_OP || random.below(4) == 0 {
        arguments[2] = random.below(4);
        fill(target, random);
    } else {
        fill(target, random);
    }
    // SAFETY: pointers that work are to an `Area`, which is atomics; the others are to nothing that this guest owns, by
    // `wild_pointer`. Structures name frames that aren't the image's, by `word`.
    unsafe { hypercall(number, arguments) };
}

/// Calls that do what they are told and end the guest: they get no structure that can be read.
fn ends_itself(number: u64, command: u64) -> bool {
    use abi::sched;

    // Commands are 32 bits wide.
    let command = command & 0xffff_ffff;
    let shuts_down = [
        sched::SHUTDOWN,
        sched::REMOTE_SHUTDOWN,
        sched::WATCHDOG,
        sched::POLL,
        sched::SHUTDOWN_CODE,
    ];
    number == number::SCHED_OP && shuts_down.contains(&command)
        // VCPUOP_initialise, _up, _down.
        || number == number::VCPU_OP && command < 3
}

/// This CPU's area.
fn area() -> &'static Area {
    let [first, ..] = &AREAS;
    AREAS.get(cpu::number() % AREAS.len()).unwrap_or(first)
}

fn area_start() -> u64 {
    (&raw const *area()) as u64
}

/// Into the area: aligned or not, at its start or near its end.
fn good_pointer(random: &mut Random) -> u64 {
    let offsets = [0, 8, 1, 4, 4092, 4096 - 8, random.below(8192)];
    area_start() + random.pick(&offsets).unwrap_or(0)
}

/// To nothing that the guest owns and stands on.
fn wild_pointer(target: &Reach, random: &mut Random) -> u64 {
    loop {
        let choices = [
            0,
            target.end.wrapping_sub(random.below(16)),
            target.start.wrapping_sub(random.below(16)),
            target.top,
            random.below(target.top.max(1)),
            u64::MAX - random.below(32),
            1 << 63 | random.word(),
            random.edge(),
        ];
        let pointer = random.pick(&choices).unwrap_or(0);
        let reach = Range {
            start: pointer,
            size: 1 << 20,
        };
        if !memory::is_own(reach) {
            return pointer;
        }
    }
}

/// A word of a structure: a frame, a pointer, a domain, a small or a strange number; never a frame of the image.
fn word(target: &Reach, random: &mut Random) -> u64 {
    let choices = [
        random.below(16),
        0x7ff0,
        0x7ff0 | random.below(32) << 32,
        target.top >> 12,
        random.below((target.top >> 12).max(1)),
        area_start(),
        wild_pointer(target, random),
        random.edge(),
        random.word(),
    ];
    let word = random.pick(&choices).unwrap_or(0);
    let frame = Range {
        start: (word & 0xf_ffff_ffff) << 12,
        size: 4096,
    };
    if memory::is_own(frame) { 0x7ff0 } else { word }
}

fn fill(target: &Reach, random: &mut Random) {
    // Structures are small; the rest is lists.
    for place in area().0.iter().take(64) {
        place.store(word(target, random), Ordering::Relaxed);
    }
}

fn fill_text() {
    for place in area().0.iter().take(1100) {
        place.store(u64::from_ne_bytes([b'x'; 8]), Ordering::Relaxed);
    }
}

/// Entries of struct multicall_entry: number, result, six arguments. None is one that ends the guest.
fn fill_calls(random: &mut Random) {
    for entry in area().0.chunks_exact(8).take(128) {
        let number = match random.below(70) {
            number::SCHED_OP | number::VCPU_OP | number::CONSOLE_IO | number::MEMORY_OP => {
                number::XEN_VERSION
            }
            number => number,
        };
        for (index, place) in entry.iter().enumerate() {
            let value = if index == 0 { number } else { random.edge() };
            let aims = Range {
                start: value,
                size: 1 << 20,
            };
            let value = if memory::is_own(aims) { 0 } else { value };
            place.store(value, Ordering::Relaxed);
        }
    }
}
