//! The order of the attacks, and what is said of them.

use rt::boot::Facts;
use rt::random::Random;
use rt::range::Range;
use rt::{Boot, apic as local_apic, arguments, say};

use super::{apic, crowd, instructions, msr, pci, ports, registers, stray, user, watchdog};
use crate::common::{Reach, verdict, violation, wants};
use crate::hypercalls;

rt::entry!(run);

/// What every attack is given.
#[derive(Clone, Copy)]
pub struct Target {
    /// The guest's own view.
    pub facts: &'static Facts,
    /// Its addresses.
    pub reach: Reach,
    /// Bytes from one tried page to the next.
    pub step: u64,
}

impl Target {
    /// Whether the address is RAM of the guest.
    pub fn is_ram(&self, address: u64) -> bool {
        self.facts.ram.iter().any(|bank| bank.contains(address))
    }

    /// Whether the arguments leave the address out.
    pub fn is_skipped(&self, address: u64) -> bool {
        arguments::ranges(&self.facts.arguments, "skip")
            .any(|(start, size)| Range { start, size }.contains(address))
    }
}

fn run(boot: Boot) {
    let facts = boot.facts;
    let words = facts.arguments.as_str();
    let seed = arguments::number(words, "seed").unwrap_or(0);
    let end = facts.ram.iter().map(|bank| bank.end()).max().unwrap_or(0);
    let target = Target {
        facts,
        reach: Reach {
            start: facts.ram.iter().map(|bank| bank.start).min().unwrap_or(0),
            end,
            top: arguments::number(words, "top").unwrap_or(end.next_multiple_of(1 << 30)),
        },
        step: arguments::number(words, "step").unwrap_or(4096).max(4096),
    };
    let mut random = Random::new(seed);
    say!("attacker: begin seed={seed} top={:#x}", target.reach.top);
    if !local_apic::start(false) {
        violation(format_args!("there is no local APIC"));
    }
    let watched = watchdog::start();
    if !watched {
        violation(format_args!("no timer interrupt"));
    }

    let wants = |part| wants(words, part);
    let (mut strays, mut calls, mut registers_tried) = (0, 0, 0);
    if wants("instructions") {
        instructions::of_hypervisors(&target, &mut random);
    }
    if wants("registers") {
        registers::every_bit(&mut random);
    }
    if wants("msr") {
        registers_tried = msr::every_range(&target, &mut random);
    }
    if wants("stray") {
        strays = stray::every_page(&target) + stray::sample(&target, &mut random);
    }
    if wants("ports") {
        ports::every_port(&target, &mut random);
    }
    if wants("apic") {
        apic::every_register(&mut random);
        apic::by_stores();
        apic::to_others(&target, &mut random);
        apic::lines(&mut random);
    }
    if wants("pci") {
        pci::every_function(&target, &mut random);
    }
    if facts.xen.is_some() {
        if wants("user") {
            user::hypercalls();
        }
        if wants("hypercalls") {
            calls = hypercalls::every_number(&target.reach, &mut random);
        }
    }
    if wants("crowd") {
        crowd::all_at_once(&target, seed);
    }
    watchdog::stop();
    say!("attacker: done stray={strays} hypercalls={calls} msrs={registers_tried}");
    verdict();
}
