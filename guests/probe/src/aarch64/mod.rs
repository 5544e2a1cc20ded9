//! arm64: the report, and the order of the tests.

mod checks;

use rt::call::{self, psci};
use rt::tree::{Conduit, Controller, Facts, Xen};
use rt::{Boot, cpu, read_register, say};

use crate::common::{end, memory, report_interface, verdict};

rt::entry!(run);

fn run(boot: Boot) {
    let facts = boot.tree;
    say!("probe: begin");
    report(&boot);
    if let Some(node) = &facts.xen {
        report_xen(node);
    }
    verdict(&[
        ("memory", memory(&facts.ram, &facts.reserved)),
        ("interrupts", checks::start_interrupts(facts)),
        ("timer", checks::timers(facts)),
        ("sgi", checks::software_interrupt(0, cpu::affinity())),
        ("all-sgis", checks::all_at_once(0, cpu::affinity())),
        ("event-channel", checks::event_channel(facts)),
        ("cpus", checks::other_cpus(facts)),
    ]);
    end(&facts.arguments);
}

fn report(boot: &Boot) {
    let facts = boot.tree;
    say!("arguments={}", facts.arguments);
    say!("entered-at=el{}", boot.entered_at);
    say!("el={}", read_register!("currentel") >> 2 & 3);
    say!("mpidr={:#x}", read_register!("mpidr_el1"));
    say!("midr={:#x}", read_register!("midr_el1"));
    say!("cntfrq={}", cpu::ticks_per_second());
    say!("first-cntvct={}", boot.first_virtual);
    say!("first-cntpct={}", boot.first_physical);
    let image = rt::memory::image();
    say!("image={:#x}+{:#x}", image.start, image.size);
    say!("tree={:#x}+{:#x}", facts.blob.start, facts.blob.size);
    for bank in &facts.ram {
        say!("ram={:#x}+{:#x}", bank.start, bank.size);
    }
    for range in &facts.reserved {
        say!("reserved={:#x}+{:#x}", range.start, range.size);
    }
    say!("cpus={}", facts.cpus.len());
    let conduit = match facts.conduit {
        Some(Conduit::Hvc) => "hvc",
        Some(Conduit::Smc) => "smc",
        None => "none",
    };
    say!(
        "psci={conduit} version={:#x}",
        call::smccc(psci::VERSION, [0; 3])
    );
    report_controller(facts);
    if let Some(uart) = facts.pl011 {
        say!("pl011={:#x}", uart.start);
    }
    say!("devices={}", facts.devices.len());
}

fn report_controller(facts: &Facts) {
    match &facts.controller {
        None => say!("gic=none"),
        Some(Controller::V2 { distributor, cpu }) => {
            say!("gic=v2 gicd={:#x} gicc={:#x}", distributor.start, cpu.start);
        }
        Some(Controller::V3 {
            distributor,
            redistributors,
            its,
        }) => {
            say!("gic=v3 gicd={:#x}", distributor.start);
            for region in redistributors {
                say!("gicr={:#x}+{:#x}", region.start, region.size);
            }
            if let Some(its) = its {
                say!("its={:#x}", its.start);
            }
        }
    }
}

fn report_xen(node: &Xen) {
    for range in &node.ranges {
        say!("free={:#x}+{:#x}", range.start, range.size);
    }
    report_interface();
}
