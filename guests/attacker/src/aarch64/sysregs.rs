//! Every system register encoding, by MRS and MSR, and every SYS encoding.
//!
//! Each register is read, written with zeros, ones and a random word, and given back what was read. Left out are those
//! that would only break this guest itself: see [`OWN`].

use arrayvec::ArrayVec;
use rt::random::Random;
use rt::{cpu, say};

use super::{code, watchdog};
use crate::common::violation;

/// An encoding op0, op1, CRn, CRm, op2.
type Encoding = (u32, u32, u32, u32, u32);

/// Registers that are not written (and the one that is not read): what this guest stands on.
const OWN: [Encoding; 13] = [
    (3, 0, 1, 0, 0),   // SCTLR_EL1: MMU and alignment checks
    (3, 0, 12, 0, 0),  // VBAR_EL1: the vectors
    (3, 0, 13, 0, 4),  // TPIDR_EL1: this CPU's number
    (3, 0, 4, 2, 0),   // SPSel: the stack
    (3, 3, 4, 2, 1),   // DAIF: masks
    (3, 0, 12, 12, 0), // ICC_IAR1_EL1: a read takes the watchdog's interrupt away
    (3, 0, 12, 8, 0),  // ICC_IAR0_EL1: likewise
    (3, 3, 14, 3, 0),  // CNTV_TVAL_EL0: the watchdog
    (3, 3, 14, 3, 1),  // CNTV_CTL_EL0
    (3, 3, 14, 3, 2),  // CNTV_CVAL_EL0
    (3, 0, 12, 0, 2),  // RMR_EL1: without a hypervisor, a reset
    (2, 0, 1, 4, 4),   // DBGPRCR_EL1: likewise, on a debugger's machine
    (3, 3, 4, 2, 2),   // SVCR: streaming mode changes which instructions there are
];

/// The scratch registers of the made code.
const OLD: u32 = 9;
const NEW: u32 = 10;

fn bits((op0, op1, crn, crm, op2): Encoding) -> u32 {
    op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

fn mrs(encoding: Encoding, register: u32) -> u32 {
    0xd520_0000 | bits(encoding) | register
}

fn msr(encoding: Encoding, register: u32) -> u32 {
    0xd500_0000 | bits(encoding) | register
}

/// `mov xDESTINATION, xSOURCE`; 31 as source is zero.
fn mov(destination: u32, source: u32) -> u32 {
    0xaa00_03e0 | source << 16 | destination
}

/// The 128 encodings that share op0, op1 and CRn.
fn block(op0: u32, op1: u32, crn: u32) -> impl Iterator<Item = Encoding> {
    (0..128).map(move |low| (op0, op1, crn, low >> 3, low & 7))
}

/// All of them. Gives how many registers were touched.
pub fn every_encoding(random: &mut Random) -> u64 {
    let mut touched = 0;
    let mut faults = 0;
    for op0 in [2, 3] {
        for op1 in 0..8 {
            for crn in 0..16 {
                watchdog::progress(u64::from(op0 << 16 | op1 << 8 | crn));
                let (count, faulted) = registers(op0, op1, crn, random);
                touched += count;
                faults += faulted;
            }
        }
    }
    let instructions = system_instructions();
    say!("attacker: sysregs={touched} faults={faults} sys={instructions}");
    touched
}

fn registers(op0: u32, op1: u32, crn: u32, random: &mut Random) -> (u64, u64) {
    let own = |encoding: &Encoding| OWN.contains(encoding);
    let mut words = ArrayVec::<u32, { code::CAPACITY }>::new();
    let mut touched = 0;
    for encoding in block(op0, op1, crn).filter(|encoding| !own(encoding)) {
        touched += 1;
        words.extend([
            mov(OLD, 31),
            mrs(encoding, OLD),
            msr(encoding, 31),
            msr(encoding, 0),
            msr(encoding, 1),
            msr(encoding, OLD),
        ]);
    }
    let expected = touched * 5;
    cpu::mask_interrupts();
    let faults = code::run(&words, [u64::MAX, random.word(), 0, 0, 0, 0, 0, 0, 0]);
    watchdog::rearm();
    // op1 4, 5 and 6 are for EL2 and EL3, save what implementations define (CRn 11 and 15). op1 7 is EL3's too.
    if op1 >= 4 && crn != 11 && crn != 15 && faults != expected {
        violation(format_args!(
            "a register of a higher level is open: op0={op0} op1={op1} CRn={crn}, {} of {expected} accesses",
            expected - faults.min(expected)
        ));
    }
    (touched, faults)
}

/// A block of memory that maintenance by address may do anything to.
#[repr(C, align(4096))]
struct Victim([core::sync::atomic::AtomicU64; 512]);
static VICTIM: Victim = Victim([const { core::sync::atomic::AtomicU64::new(0) }; 512]);

/// Every SYS and SYSL encoding of op0 = 1 with the victim's address as argument: cache and TLB maintenance, address
/// translation, prediction restriction. Gives how many.
fn system_instructions() -> u64 {
    let mut count = 0;
    let victim = (&raw const VICTIM) as u64;
    for op1 in 0..8 {
        for crn in 0..16 {
            watchdog::progress(u64::from(1 << 16 | op1 << 8 | crn));
            let mut words = ArrayVec::<u32, { code::CAPACITY }>::new();
            for encoding in block(1, op1, crn) {
                words.extend([msr(encoding, 0), mov(NEW, 31), mrs(encoding, NEW)]);
                count += 2;
            }
            cpu::mask_interrupts();
            code::run(&words, [victim; 9]);
            watchdog::rearm();
        }
    }
    count
}
