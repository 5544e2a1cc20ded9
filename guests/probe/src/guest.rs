//! The report, the order of the tests, and the end.

use rt::call::{self, psci};
use rt::exception::caught;
use rt::tree::{Conduit, Controller, Facts, Xen};
use rt::xen::{self, Shutdown};
use rt::{Boot, arguments, cpu, read_register, say};

use crate::checks;

rt::entry!(run);

/// An address at which no machine of the tests has anything, below the 512 GiB that the guest maps.
const NOBODYS: u64 = 0x70_0000_0000;

fn run(boot: Boot) {
    let facts = boot.tree;
    say!("probe: begin");
    report(&boot);
    if let Some(node) = &facts.xen {
        report_xen(node);
    }
    let failures = [
        ("memory", checks::memory(facts)),
        ("interrupts", checks::start_interrupts(facts)),
        ("timer", checks::timers(facts)),
        ("sgi", checks::software_interrupt(0, cpu::affinity())),
        ("all-sgis", checks::all_at_once(0, cpu::affinity())),
        ("event-channel", checks::event_channel(facts)),
        ("cpus", checks::other_cpus(facts)),
    ];
    let mut good = true;
    for (what, outcome) in failures {
        if let Err(why) = outcome {
            good = false;
            say!("probe: fail {what}: {why}");
        }
    }
    if good {
        say!("probe: pass");
    }
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
    let version = xen::version();
    say!("xen-version={}.{}", version >> 16, version & 0xffff);
    match xen::features(0) {
        Ok(word) => say!("features={word:#x}"),
        Err(error) => say!("features=error {}", error.0),
    }
    match xen::grant_frames() {
        Ok((now, most)) => say!("grant-frames={now} of {most}"),
        Err(error) => say!("grant-frames=error {}", error.0),
    }
}

/// Ends by the boot argument `end`, by PSCI SYSTEM_OFF without one.
fn end(words: &str) {
    match arguments::value(words, "end") {
        None | Some("off") => {}
        Some("reset") => call::reset(),
        Some("shutdown-off") => refused(xen::shutdown(Shutdown::PowerOff)),
        Some("shutdown-reboot") => refused(xen::shutdown(Shutdown::Reboot)),
        Some("crash" | "shutdown-crash") => refused(xen::shutdown(Shutdown::Crash)),
        Some("hang") => {
            say!("probe: hanging");
            cpu::stop();
        }
        Some("stray") => stray(arguments::number(words, "stray").unwrap_or(NOBODYS)),
        Some(other) => say!("probe: fail end: no such end {other}"),
    }
}

fn refused(error: xen::Error) {
    say!("probe: fail end: shutdown refused with {}", error.0);
}

/// Reads and writes an address that nobody gave the domain, and says what came of it.
fn stray(address: u64) {
    let (value, fault) = caught(|| cpu::read32(address));
    match fault {
        Some(fault) => say!(
            "stray-read=fault esr={:#x} far={:#x}",
            fault.syndrome,
            fault.address
        ),
        None => say!("stray-read={value:#x}"),
    }
    let ((), fault) = caught(|| cpu::write32(address, 0));
    match fault {
        Some(fault) => say!(
            "stray-write=fault esr={:#x} far={:#x}",
            fault.syndrome,
            fault.address
        ),
        None => say!("stray-write=ignored"),
    }
}
