//! HVC and SMC with every immediate, and the functions of PSCI and SMCCC.

use arrayvec::ArrayVec;
use rt::call::{self, psci};
use rt::exception::caught;
use rt::random::Random;
use rt::tree::Facts;
use rt::{cpu, say, smp};

use super::guest::Target;
use super::{code, watchdog};
use crate::common::violation;

/// Every 16-bit immediate of HVC and SMC, with a function that nobody has.
pub fn every_immediate() {
    const BATCH: u32 = 1024;
    const HVC: u32 = 0xd400_0002;
    const SMC: u32 = 0xd400_0003;
    /// A hypercall number that Xen's interface doesn't have.
    const NO_HYPERCALL: u64 = 0x3f;
    /// `mov x16, x8` and `mov x0, x7`, before each call.
    const SET: [u32; 2] = [0xaa08_03f0, 0xaa07_03e0];
    const NO_FUNCTION: u64 = 0xbf00_ff3f;
    let mut faults = 0;
    for instruction in [HVC, SMC] {
        for first in (0..0x1_0000).step_by(BATCH as usize / 2) {
            watchdog::progress(u64::from(instruction) << 32 | u64::from(first));
            let mut words = ArrayVec::<u32, { code::CAPACITY }>::new();
            for immediate in first..first + BATCH / 2 {
                words.extend(SET);
                words.push(instruction | immediate << 5);
            }
            faults += code::run(&words, [0, 0, 0, 0, 0, 0, 0, NO_FUNCTION, NO_HYPERCALL]);
        }
    }
    say!("attacker: immediates={} faults={faults}", 2 << 16);
}

/// Functions that end, suspend or stop this guest when they do as they are told.
fn ends_itself(function: u64) -> bool {
    const FAST_32_OR_64: u64 = !(1 << 30);
    // PSCI (DEN0022): CPU_SUSPEND, CPU_OFF, CPU_ON (see `cpus_to_nowhere`), SYSTEM_OFF, SYSTEM_RESET, CPU_FREEZE,
    // CPU_DEFAULT_SUSPEND, SYSTEM_SUSPEND, SYSTEM_RESET2, SYSTEM_OFF2.
    const ENDS: [u64; 10] = [1, 2, 3, 8, 9, 0xb, 0xc, 0xe, 0x12, 0x15];
    // Xen's numbers for PSCI 0.1: CPU_SUSPEND, CPU_OFF, CPU_ON, MIGRATE.
    let old = function & 0xffff_ffff < 4;
    let plain = function & 0xffff_ffff & FAST_32_OR_64;
    old || ENDS.iter().any(|end| plain == 0x8400_0000 + end)
}

/// SMCCC functions: each owner's first ones, fast and yielding, 32 and 64 bits, and random ones.
pub fn every_function(target: &Target, random: &mut Random) {
    let mut count = 0u64;
    let mut attempt = |function: u64, random: &mut Random| {
        if ends_itself(function) {
            return;
        }
        watchdog::progress(function);
        let arguments = [pointer(target, random), random.edge(), random.edge()];
        caught(|| call::hvc(function, arguments));
        caught(|| call::smc(function, arguments));
        count += 2;
    };
    for kind in 0..4u64 {
        for owner in 0..64u64 {
            for number in (0..0x30).chain([
                0x100, 0x3f00, 0x7fff, 0x8000, 0xc000, 0xfff0, 0xff00, 0xff01, 0xffff,
            ]) {
                attempt(kind << 30 | owner << 24 | number, random);
            }
        }
    }
    for _ in 0..4096 {
        let function = random.word();
        attempt(function, random);
    }
    // A standby suspend returns at the next interrupt.
    caught(|| call::smccc(0x8400_0001, [0, u64::MAX, 0]));
    say!("attacker: functions={count}");
}

fn pointer(target: &Target, random: &mut Random) -> u64 {
    let above = target.top.wrapping_add(random.below(1 << 32));
    let page = random.word() & 0xffff_ffff_f000;
    random.pick(&[0, 1, above, u64::MAX, page]).unwrap_or(0)
}

/// CPU_ON of CPUs that there aren't, of this one, and of the others at addresses where nothing is.
pub fn cpus_to_nowhere(facts: &Facts) {
    const NOWHERE: [u64; 4] = [0, 0x7f_ffff_f000, 0xffff_ffff_ffff_f000, 3];
    let on =
        |affinity: u64, entry: u64| psci::answer(call::smccc(psci::CPU_ON, [affinity, entry, 0]));
    if on(cpu::affinity(), NOWHERE[1]) == 0 {
        violation(format_args!("CPU_ON of the CPU that runs"));
    }
    for affinity in [0xff, 0xff00, 0xff_ffff, 0xff_00ff_ffff, u64::MAX] {
        watchdog::progress(affinity);
        if !facts.cpus.contains(&affinity) && on(affinity, NOWHERE[1]) == 0 {
            violation(format_args!(
                "CPU_ON of {affinity:#x}, which isn't in the tree"
            ));
        }
    }
    let mut started = 0;
    for (affinity, entry) in facts
        .cpus
        .iter()
        .zip(NOWHERE.iter().cycle())
        .take(smp::MOST)
    {
        watchdog::progress(*affinity);
        if *affinity != cpu::affinity() && on(*affinity, *entry) == 0 {
            started += 1;
        }
    }
    // They fault without vectors for the rest of the guest's life.
    cpu::wait_for(50, || false);
    say!("attacker: cpus-to-nowhere={started}");
}
