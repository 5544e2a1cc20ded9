//! Every MSR of the ranges that CPUs have, and others by chance: each read and write is done, or #GP.

use rt::exception::{Fault, read_msr, vector, write_msr};
use rt::random::Random;
use rt::{apic, say};

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

const RANGES: [core::ops::Range<u32>; 3] = [
    0..0x2000,
    0xc000_0000..0xc000_2000,
    0xc001_0000..0xc001_2000,
];
/// How many more by chance.
const OTHERS: u32 = 10_000;

const TSC: u32 = 0x10;
const TSC_ADJUST: u32 = 0x3b;
const PAT: u32 = 0x277;
const EFER: u32 = 0xc000_0080;
const SVM_ENABLED: u64 = 1 << 12;
const HOST_SAVE_AREA: u32 = 0xc001_0117;
/// Where Xen's and others' hypervisors have theirs, the hypercall page's among them.
const HYPERVISORS: core::ops::Range<u32> = 0x4000_0000..0x4001_0000;

/// Tries all. Gives how many.
pub fn every_range(target: &Target, random: &mut Random) -> u64 {
    let mut count = 0;
    let mut there = 0;
    for msr in RANGES.into_iter().flatten() {
        there += u64::from(attempt(msr, random));
        count += 1;
    }
    for _ in 0..OTHERS {
        let [msr, _] = rt::exception::halves(random.word());
        there += u64::from(attempt(msr, random));
        count += 1;
    }
    svm();
    hypercall_page(target);
    watchdog::rearm();
    say!("attacker: msrs={count} there={there}");
    count
}

/// Reads, writes back, writes garbage and puts back. Says whether it can be read.
fn attempt(msr: u32, random: &mut Random) -> bool {
    watchdog::progress(1 << 40 | u64::from(msr));
    let old = checked(msr, read_msr(msr));
    let ours = match msr {
        // They would only change the guest's own time.
        TSC | TSC_ADJUST | 0x6e0 => true,
        // Its own memory's types, its own mode, its own interrupts: tried elsewhere.
        PAT | EFER | apic::BASE => true,
        _ => (apic::MSRS..apic::MSRS + 0x100).contains(&msr) || HYPERVISORS.contains(&msr),
    };
    if ours {
        return old.is_some();
    }
    if let Some(old) = old {
        checked(msr, write_msr(msr, old));
    }
    for value in [random.edge(), random.word(), u64::MAX] {
        checked(msr, write_msr(msr, value));
    }
    checked(msr, write_msr(msr, old.unwrap_or(0)));
    old.is_some()
}

fn checked<T>(msr: u32, result: Result<T, Fault>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(fault) if fault.vector == vector::GENERAL_PROTECTION => None,
        Err(fault) => {
            violation(format_args!("MSR {msr:#x} gave {fault}"));
            None
        }
    }
}

/// The hypercall page, aimed at pages that aren't the guest's RAM: the hypervisor must not write there.
fn hypercall_page(target: &Target) {
    let Some(xen) = &target.facts.xen else {
        return;
    };
    let top = target.reach.top;
    for address in [
        0x20_0000,
        top - 0x80_0000,
        top - 4096,
        top,
        apic::MEMORY,
        1 << 40,
        u64::MAX,
    ] {
        if !target.is_ram(address) {
            checked(xen.page_msr, write_msr(xen.page_msr, address));
        }
    }
}

/// SVM stays hidden, and can't be turned on.
fn svm() {
    let efer = read_msr(EFER).unwrap_or(0);
    if efer & SVM_ENABLED != 0 {
        violation(format_args!("EFER shows that SVM is on"));
    }
    let written = write_msr(EFER, efer | SVM_ENABLED);
    if written.is_ok() && read_msr(EFER).is_ok_and(|efer| efer & SVM_ENABLED != 0) {
        violation(format_args!("EFER took SVM"));
    }
    for bit in (13..64).chain([1, 2, 3, 4, 5, 6, 7, 9]) {
        if write_msr(EFER, efer | 1 << bit).is_ok() {
            let _ = write_msr(EFER, efer);
        }
    }
    if write_msr(HOST_SAVE_AREA, 0x10_0000).is_ok() {
        violation(format_args!("the host save area can be moved"));
    }
    for value in [0, 1 << 40, u64::MAX, 0x0707_0707_0707_0702] {
        if write_msr(PAT, value).is_ok() {
            let _ = write_msr(PAT, 0x0007_0406_0007_0406);
        }
    }
}
