//! The rows, each a loop of one instruction, less the loop.
//!
//! A row of something that isn't there (a hypercall without hypervisor) is left out.

use core::arch::asm;

use rt::call::psci;
use rt::exception::caught;
use rt::tree::{Conduit, Controller, Facts};
use rt::{Boot, cpu, gic, say};

rt::entry!(run);

/// Turns of each loop. A tick of a 62.5 MHz counter is 16 instructions, so the error is below 1/300 of an instruction.
const TURNS: u64 = 10_000;

/// Defines a function that runs `$body` [`TURNS`] times and gives the ticks that passed. `x9` is its argument; it may
/// change x0 to x17.
macro_rules! turns {
    ($name:ident, $body:literal) => {
        fn $name(argument: u64) -> u64 {
            let before = cpu::virtual_counter();
            // SAFETY: each body below reads registers or asks the hypervisor for something that writes no memory; x0 to
            // x17 are given as changed, x18 and x19 are not used by it.
            unsafe {
                asm!("2:", "mov x9, {argument}", $body, "subs {turns}, {turns}, #1", "b.ne 2b",
                    argument = in(reg) argument,
                    turns = inout(reg) TURNS => _,
                    out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _,
                    out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
                    out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                    options(nostack));
            }
            cpu::virtual_counter() - before
        }
    };
}

turns!(nothing, "");
turns!(two_moves, "mov x0, xzr\nmov x1, xzr");
turns!(
    four_moves,
    "mov x0, xzr\nmov x1, xzr\nmov x2, xzr\nmov x3, xzr"
);
turns!(
    hypercall,
    "mov x0, xzr\nmov x1, xzr\nmov x16, #17\nhvc #0xEA1"
);
turns!(
    unknown_hypercall,
    "mov x0, xzr\nmov x1, xzr\nmov x16, #63\nhvc #0xEA1"
);
turns!(psci_by_hvc, "mov x0, x9\nmov x1, xzr\nhvc #0");
turns!(psci_by_smc, "mov x0, x9\nmov x1, xzr\nsmc #0");
turns!(id_register, "mrs x0, id_aa64pfr0_el1");
turns!(counter, "mrs x0, cntvct_el0");
turns!(read, "ldr w0, [x9]");
turns!(write, "str wzr, [x9]");
turns!(software_interrupt, "msr S3_0_C12_C11_5, x9");
turns!(
    software_interrupt_taken,
    "msr S3_0_C12_C11_5, x9\nisb\n3:\nmrs x0, S3_0_C12_C12_0\nand x1, x0, #0x3ff\ncmp x1, #1023\nb.eq 3b\nmsr S3_0_C12_C12_1, x0\nisb"
);
turns!(priority_mask, "mrs x0, S3_0_C4_C6_0");

/// Instructions that `ticks` of the counter are.
fn instructions(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000) / cpu::ticks_per_second()
}

/// Prints the cost of one turn of `loops`, less that of `overhead`, rounded.
fn row(name: &str, argument: u64, loops: fn(u64) -> u64, overhead: fn(u64) -> u64) {
    // What a first turn does once (a translation, an entry of a table) isn't the cost of one more.
    let (_, fault) = caught(|| {
        loops(argument);
        overhead(argument)
    });
    if let Some(fault) = fault {
        say!("bench: {name} isn't there (esr={:#x})", fault.syndrome);
        return;
    }
    let cost = instructions(loops(argument)).saturating_sub(instructions(overhead(argument)));
    say!("bench {name} {}", (cost + TURNS / 2) / TURNS);
}

fn run(boot: Boot) {
    let facts = boot.tree;
    say!("bench: begin");
    say!("bench: first-cntvct={}", boot.first_virtual);
    say!("bench: first-cntpct={}", boot.first_physical);
    say!("bench: cntfrq={}", cpu::ticks_per_second());
    row("loop", 0, nothing, |_| 0);
    if facts.xen.is_some() {
        row("hypercall", 0, hypercall, four_moves);
        row("hypercall-unknown", 0, unknown_hypercall, four_moves);
    }
    row("id-register", 0, id_register, nothing);
    row("cntvct", 0, counter, nothing);
    match facts.conduit {
        Some(Conduit::Hvc) => row(
            "psci-version",
            u64::from(psci::VERSION),
            psci_by_hvc,
            two_moves,
        ),
        Some(Conduit::Smc) => row(
            "psci-version",
            u64::from(psci::VERSION),
            psci_by_smc,
            two_moves,
        ),
        None => {}
    }
    interrupt_controller(facts);
    say!("bench: last-cntvct={}", cpu::virtual_counter());
    say!("bench: done");
}

/// Rows of the GIC. Interrupts stay masked in PSTATE: `sgi` is the write alone, of an SGI that is enabled and stays
/// pending; `sgi-empty` is the write with an empty list of targets, `sgi-taken` write, acknowledge and end.
fn interrupt_controller(facts: &Facts) {
    const ISENABLER1: u64 = 0x104;
    const ICENABLER1: u64 = 0x184;
    const NUMBER: u32 = 1;
    let distributor = match &facts.controller {
        Some(Controller::V2 { distributor, .. } | Controller::V3 { distributor, .. }) => {
            distributor.start
        }
        None => return,
    };
    row("gicd-read", distributor + 4, read, nothing);
    row("gicd-read-enable", distributor + ISENABLER1, read, nothing);
    row("gicd-write", distributor + ICENABLER1, write, nothing);
    if !gic::start(facts) {
        return;
    }
    gic::enable(NUMBER);
    match &facts.controller {
        Some(Controller::V3 { .. }) => {
            let value = gic::sgi_value(NUMBER, cpu::affinity());
            row("sgi-taken", value, software_interrupt_taken, two_moves);
            row("sgi", value, software_interrupt, nothing);
            row("sgi-empty", value & !0xffff, software_interrupt, nothing);
            row("icc-pmr", 0, priority_mask, nothing);
        }
        Some(Controller::V2 { .. }) => {
            // GICD_SGIR, to this CPU itself.
            row("sgi", distributor + 0xf00, sgi_by_distributor, two_moves);
        }
        None => {}
    }
}

turns!(
    sgi_by_distributor,
    "mov w0, #1\nmovk w0, #0x200, lsl #16\nstr w0, [x9]"
);
