//! The order of the attacks, and what is said of them.

use rt::random::Random;
use rt::range::Range;
use rt::tree::Facts;
use rt::{Boot, arguments, memory, say};

use super::{calls, controller, crowd, instructions, stray, sysregs, tables, watchdog};
use crate::common::{Reach, verdict, violation, wants};
use crate::hypercalls;

rt::entry!(run);

/// What every attack is given.
#[derive(Clone, Copy)]
pub struct Target {
    /// The guest's own view.
    pub facts: &'static Facts,
    /// The end of the addresses of which every page is tried, exclusive.
    pub top: u64,
    /// Ranges of devices that others have, of which one page each is tried, and that no default excludes.
    pub arguments: &'static str,
    /// Bytes from one tried page to the next.
    pub step: u64,
}

impl Target {
    /// Its addresses, for attacks that every architecture has.
    pub fn reach(&self) -> Reach {
        let ram = &self.facts.ram;
        Reach {
            start: ram.iter().map(|bank| bank.start).min().unwrap_or(0),
            end: ram.iter().map(|bank| bank.end()).max().unwrap_or(0),
            top: self.top,
        }
    }

    /// Whether the tree gave this address to the guest: RAM, a device, the interrupt controller.
    pub fn is_given(&self, address: u64) -> bool {
        let given = |range: &Range| range.contains(address);
        let facts = self.facts;
        facts.ram.iter().any(given)
            || facts.devices.iter().any(given)
            || arguments::ranges(self.arguments, "skip")
                .any(|(start, size)| Range { start, size }.contains(address))
    }
}

fn run(boot: Boot) {
    let facts = boot.tree;
    let words = facts.arguments.as_str();
    let seed = arguments::number(words, "seed").unwrap_or(0);
    let end_of_ram = facts.ram.iter().map(|bank| bank.end()).max().unwrap_or(0);
    let target = Target {
        facts,
        top: arguments::number(words, "top").unwrap_or(end_of_ram.next_multiple_of(1 << 30)),
        arguments: words,
        step: arguments::number(words, "step").unwrap_or(4096).max(4096),
    };
    let mut random = Random::new(seed);
    say!("attacker: begin seed={seed} top={:#x}", target.top);
    // With the MMU on, the guest's own tables would decide which addresses it can name.
    memory::turn_off_here();
    let watched = watchdog::start(facts);
    if !watched {
        violation(format_args!(
            "no timer interrupt: nothing that waits is tried"
        ));
    }

    let wants = |name| wants(words, name);
    let mut strays = 0;
    let mut calls_made = 0;
    let mut registers = 0;
    if wants("stray") {
        strays = stray::every_page(&target)
            + stray::devices(&target)
            + stray::sample(&target, &mut random);
    }
    if wants("instructions") {
        instructions::without_syndrome(&target, &mut random);
        instructions::fetches(&target);
        instructions::maintenance(&mut random);
        if watched {
            instructions::waits();
        }
    }
    if wants("sysregs") {
        registers = sysregs::every_encoding(&mut random);
    }
    if watched && wants("calls") {
        calls::every_immediate();
        calls::every_function(&target, &mut random);
    }
    if watched && wants("hypercalls") && facts.xen.is_some() {
        calls_made = hypercalls::every_number(&target.reach(), &mut random);
    }
    if watched && wants("crowd") {
        crowd::all_at_once(&target, seed);
    }
    if wants("controller") {
        controller::every_register(facts, &mut random);
        tables::of_others(&target, &mut random);
    }
    if wants("cpus") {
        calls::cpus_to_nowhere(facts);
    }
    watchdog::stop();
    say!("attacker: done stray={strays} hypercalls={calls_made} sysregs={registers}");
    verdict();
}
