//! The local APIC's registers, by MSR and by memory; interrupts, INIT and NMI to CPUs that aren't the guest's; the
//! IO-APIC's lines aimed at them.

use core::sync::atomic::Ordering;

use rt::exception::{NMIS, read_msr, read32, vector, write_msr, write32};
use rt::random::Random;
use rt::{apic, cpu, say};

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

/// Where a PC has its first IO-APIC.
const LINES: u64 = 0xfec0_0000;

/// Reads and writes all; those that command other CPUs have their own attack.
pub fn every_register(random: &mut Random) {
    cpu::mask_interrupts();
    for register in 0..0x100 {
        watchdog::progress(3 << 40 | u64::from(register));
        let msr = apic::MSRS + register;
        let read = read_msr(msr);
        let written = [random.edge(), random.word(), u64::MAX, 0].map(|value| {
            if register == apic::register::COMMAND {
                Ok(())
            } else {
                write_msr(msr, value)
            }
        });
        let faults = written
            .into_iter()
            .filter_map(Result::err)
            .chain(read.err());
        for fault in faults {
            if fault.vector != vector::GENERAL_PROTECTION {
                violation(format_args!("APIC register {register:#x} gave {fault}"));
            }
        }
    }
    watchdog::rearm();
    by_memory(random);
    modes(random);
    watchdog::rearm();
    say!("attacker: apic-registers=256");
}

/// The same by memory, in the mode that has it, with accesses of every alignment.
fn by_memory(random: &mut Random) {
    cpu::mask_interrupts();
    let mode = read_msr(apic::BASE).unwrap_or(0);
    // From x2APIC to off, and on again without it: there is no shorter way.
    let _ = write_msr(apic::BASE, mode & !(3 << 10));
    let _ = write_msr(apic::BASE, mode & !(3 << 10) | 1 << 11);
    for offset in (0..0x1000).step_by(4) {
        watchdog::progress(4 << 40 | offset);
        let at = apic::MEMORY + offset;
        let _ = read32(at);
        let command = u64::from(apic::register::COMMAND) * 16;
        if !(command..command + 16).contains(&offset) {
            let [value, _] = rt::exception::halves(random.word());
            let _ = write32(at, value);
        }
        let _ = read32(at + 1);
        let _ = rt::exception::read64(at);
    }
}

/// Values of the mode's MSR.
fn modes(random: &mut Random) {
    let old = read_msr(apic::BASE).unwrap_or(0);
    for bit in 0..64 {
        let _ = write_msr(apic::BASE, old ^ 1 << bit);
        let _ = write_msr(apic::BASE, random.word());
        let _ = write_msr(apic::BASE, old);
    }
    // Off first: only then all modes can be reached.
    let _ = write_msr(apic::BASE, 0xfee0_0000);
    let _ = write_msr(apic::BASE, 0xfee0_0800);
}

/// Every delivery mode to every number that isn't a CPU of the guest, and to all but itself.
pub fn to_others(target: &Target, random: &mut Random) {
    const ALL_BUT_ITSELF: u32 = 3 << 18;
    const LOGICAL: u32 = 1 << 11;
    let before = NMIS.load(Ordering::SeqCst);
    let mut count = 0;
    for id in (0..0x200).chain([0xfffe, u32::MAX - 1]) {
        if target.facts.cpus.contains(&id) {
            continue;
        }
        for mode in 0..8 {
            watchdog::progress(5 << 40 | u64::from(id) << 8 | u64::from(mode));
            let vector = 0x20 + u32::try_from(random.below(0xe0)).unwrap_or(0);
            apic::send(id, apic::FIXED | mode << 8 | vector);
            count += 1;
        }
    }
    // NMI, INIT and STARTUP to all others: the guest's own other CPUs are off, or come to nothing.
    for command in [
        apic::NMI,
        apic::INIT,
        apic::STARTUP | 0xff,
        apic::FIXED | 0xf1,
    ] {
        apic::send(0, command | ALL_BUT_ITSELF);
        count += 1;
    }
    // Logical destinations that name nobody of the guest.
    for cluster in 1..16 {
        apic::send(cluster << 16 | 0xffff, apic::FIXED | LOGICAL | 0xf2);
        count += 1;
    }
    watchdog::rearm();
    if NMIS.load(Ordering::SeqCst) != before {
        violation(format_args!("an NMI to another CPU came here"));
    }
    say!("attacker: messages={count}");
}

/// Plain stores to where devices send their messages: interrupts and NMIs for all CPUs, the guest's own among them. None
/// may come: the guest isn't a device.
pub fn by_stores() {
    const MESSAGES: u64 = 0xfee0_1000;
    const END: u64 = 0xfef0_0000;
    const AIMED: u8 = 0x5a;
    const DELIVERY_NMI: u32 = 4 << 8;
    const DELIVERY_INIT: u32 = 5 << 8;
    let before = NMIS.load(Ordering::SeqCst);
    let mut count = 0;
    // The number of the CPU that is meant is in bits 19 to 12; 0xff is all of them. Bit 2 makes it a logical one.
    for page in (MESSAGES..END).step_by(4096) {
        watchdog::progress(20 << 40 | page);
        for address in [page, page | 1 << 2, page | 3 << 2] {
            for data in [AIMED.into(), DELIVERY_NMI, DELIVERY_INIT] {
                let _ = write32(address, data);
                count += 1;
            }
        }
    }
    cpu::wait_for(50, || false);
    if NMIS.load(Ordering::SeqCst) != before {
        violation(format_args!("a store raised an NMI"));
    }
    if watchdog::taken(AIMED) {
        violation(format_args!("a store raised an interrupt"));
    }
    watchdog::rearm();
    say!("attacker: message-stores={count}");
}

/// Every line of the IO-APIC, with delivery modes and destinations that aren't the guest's; masked again at the end.
pub fn lines(random: &mut Random) {
    const DATA: u64 = 0x10;
    const VERSION: u32 = 1;
    const FIRST: u32 = 0x10;
    const MASKED: u32 = 1 << 16;
    cpu::mask_interrupts();
    let _ = write32(LINES, VERSION);
    let Ok(version) = read32(LINES + DATA) else {
        say!("attacker: lines=0");
        return;
    };
    let count = (version >> 16 & 0xff) + 1;
    for line in 0..count.min(240) {
        watchdog::progress(6 << 40 | u64::from(line));
        for mode in 0..8 {
            let [destination, noise] = rt::exception::halves(random.word());
            let entry = [
                (FIRST + line * 2 + 1, destination),
                (FIRST + line * 2, noise & !(MASKED | 0x700) | mode << 8),
                (FIRST + line * 2, MASKED),
            ];
            for (register, value) in entry {
                let _ = write32(LINES, register);
                let _ = write32(LINES + DATA, value);
            }
        }
    }
    // The registers that there are, those that there aren't, and the page's other words.
    for register in 0..0x100 {
        let _ = write32(LINES, register);
        let _ = read32(LINES + DATA);
    }
    for offset in (0..0x1000).step_by(4) {
        let _ = read32(LINES + offset);
        if offset > DATA {
            let _ = write32(LINES + offset, u32::MAX);
        }
    }
    watchdog::rearm();
    say!("attacker: lines={count}");
}
