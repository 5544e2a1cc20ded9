//! Forms of access that a hypervisor is told less about, or that are no loads and stores at all.

use core::arch::asm;

use rt::exception::{self, caught};
use rt::random::Random;
use rt::range::Range;
use rt::tree::Controller;
use rt::{cpu, memory, say};

use super::guest::Target;
use super::{code, watchdog};
use crate::common::violation;

/// Addresses of each kind: nobody's, a device's that traps, above everything, across a border of the guest's own RAM.
fn addresses(target: &Target) -> [u64; 6] {
    let distributor = match &target.facts.controller {
        Some(Controller::V2 { distributor, .. } | Controller::V3 { distributor, .. }) => {
            distributor.start
        }
        None => 0,
    };
    let end = target
        .facts
        .ram
        .iter()
        .map(|bank| bank.end())
        .max()
        .unwrap_or(0);
    [
        0,
        distributor,
        distributor + 0xffd,
        target.top,
        0x7f_ffff_f000,
        end - 3,
    ]
}

/// Pairs, write-back, exclusives, acquire and release, SIMD, prefetch, cache maintenance by address, atomics, and
/// unaligned ones of each, where nothing is or where a device traps.
pub fn without_syndrome(target: &Target, random: &mut Random) {
    const FORMS: [u32; 24] = [
        0xa940_2809, // ldp x9, x10, [x0]
        0xa900_2809, // stp x9, x10, [x0]
        0x2940_2809, // ldp w9, w10, [x0]
        0xf840_8409, // ldr x9, [x0], #8
        0xf800_8409, // str x9, [x0], #8
        0xf840_8c09, // ldr x9, [x0, #8]!
        0x3840_1409, // ldrb w9, [x0], #1
        0x6940_2809, // ldpsw x9, x10, [x0]
        0xb980_0009, // ldrsw x9, [x0]
        0xc85f_7c09, // ldxr x9, [x0]
        0xc80b_7c09, // stxr w11, x9, [x0]
        0xc87f_2809, // ldxp x9, x10, [x0]
        0xc8df_fc09, // ldar x9, [x0]
        0xc89f_fc09, // stlr x9, [x0]
        0xf821_0009, // ldadd x1, x9, [x0]
        0xc8a1_7c09, // cas x1, x9, [x0]
        0x3dc0_0000, // ldr q0, [x0]
        0x3d80_0000, // str q0, [x0]
        0xad40_0400, // ldp q0, q1, [x0]
        0x4c40_7000, // ld1 {v0.16b}, [x0]
        0xf980_0000, // prfm pldl1keep, [x0]
        0xd50b_7e20, // dc civac, x0
        0xd50b_7420, // dc zva, x0
        0xd50b_7520, // ic ivau, x0
    ];
    // Cache maintenance and prefetch of unowned memory need not fault.
    let mut faults = 0;
    let mut count = 0;
    for address in addresses(target) {
        for misalignment in [0, 1, 4, 7] {
            let at = address + misalignment;
            let touches_own = memory::is_own(Range {
                start: at & !0x1000,
                size: 0x2000,
            });
            for form in FORMS.iter().filter(|_| !touches_own) {
                watchdog::progress(at << 8 | count & 0xff);
                faults += code::run(&[*form], [at, random.word(), 0, 0, 0, 0, 0, 0, 0]);
                count += 1;
            }
        }
    }
    // A distributor may have been told anything.
    watchdog::rearm();
    say!("attacker: forms={count} faults={faults}");
}

/// Jumps to where nothing is, or a device.
pub fn fetches(target: &Target) {
    for address in addresses(target) {
        watchdog::progress(address);
        let address = address & !3;
        if target.is_given(address) && address != addresses(target)[1] {
            continue;
        }
        caught(|| code::call(address, [0; 9]));
        if exception::faults() == 0 {
            violation(format_args!("an instruction was fetched from {address:#x}"));
        }
    }
    say!("attacker: fetches={}", addresses(target).len());
}

/// Cache maintenance by set and way, of all levels and none; address translation of strange addresses.
pub fn maintenance(random: &mut Random) {
    for _ in 0..512 {
        let way = random.word() & 0xffff_fffe;
        watchdog::progress(way);
        // Clean and invalidate only: to invalidate alone would drop this guest's own data, on a machine with caches.
        // SAFETY: cleaning changes no contents.
        caught(|| unsafe { asm!("dc cisw, {0}", "dc csw, {0}", in(reg) way, options(nostack)) });
        let address = random.edge();
        // SAFETY: a translation writes PAR_EL1 alone.
        caught(|| unsafe {
            asm!("at s1e1r, {0}", "at s1e1w, {0}", "at s1e0r, {0}", "at s1e0w, {0}", in(reg) address, options(nostack));
        });
    }
    say!("attacker: maintenance=512");
}

/// WFI and WFE, which must come back by the timer.
pub fn waits() {
    let before = watchdog::ticks();
    for round in 0..5 {
        watchdog::progress(round);
        cpu::wait_for_interrupt();
        // SAFETY: an event wait changes nothing that Rust sees.
        unsafe { asm!("sevl", "wfe", options(nostack)) }
    }
    if !cpu::wait_for(2000, || watchdog::ticks() > before) {
        violation(format_args!("no timer interrupt in WFI"));
    }
    say!("attacker: waits=5");
}
