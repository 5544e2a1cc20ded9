//! Why the guest was left, and how often, until userspace is reached: read from QEMU's own log of exceptions, so that
//! nothing in the hypervisor has to count.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};

use anyhow::{Context as _, Result};

use super::machine::{Bench, Column, Guest, Running};

/// Exceptions taken from the guest to EL2, by reason.
pub fn count(bench: &Bench, column: Column, linux: &Guest) -> Result<BTreeMap<String, u64>> {
    let log = bench.folder.join("exceptions.log");
    let mut command = bench.machine(column, linux, true)?;
    command.args(["-d", "int", "-D"]).arg(&log);
    let mut machine = Running::start(command)?;
    machine.until("check init-mark: ")?;
    drop(machine);
    let mut exits = BTreeMap::new();
    let (mut kind, mut to_hypervisor) = (String::new(), false);
    for line in BufReader::new(File::open(&log).context("QEMU left no log")?).split(b'\n') {
        let line = line.context("cannot read QEMU's log")?;
        let line = String::from_utf8_lossy(&line);
        if let Some((_, rest)) = line.split_once("Taking exception ") {
            kind = rest
                .split(['[', ']'])
                .nth(1)
                .unwrap_or("unknown")
                .to_owned();
        } else if let Some(levels) = line.strip_prefix("...from ") {
            to_hypervisor = levels.starts_with("EL0 to EL2") || levels.starts_with("EL1 to EL2");
            // Interrupts have no syndrome: they are counted here, the others below.
            if to_hypervisor && matches!(kind.as_str(), "IRQ" | "FIQ") {
                *exits.entry("interrupt".to_owned()).or_insert(0) += 1;
            }
        } else if let Some(syndrome) = line.strip_prefix("...with ESR 0x")
            && to_hypervisor
            && !matches!(kind.as_str(), "IRQ" | "FIQ")
        {
            let class = syndrome
                .split('/')
                .next()
                .and_then(|class| u8::from_str_radix(class, 16).ok());
            *exits
                .entry(class.map_or("unknown", reason).to_owned())
                .or_insert(0) += 1;
        }
    }
    fs::remove_file(&log).context("cannot remove QEMU's log")?;
    Ok(exits)
}

/// The exception class in words (Arm ARM, ESR_EL2.EC).
fn reason(class: u8) -> &'static str {
    match class {
        0x01 => "wfi",
        0x07 => "fp",
        0x16 => "hvc",
        0x17 => "smc",
        0x18 => "system-register",
        0x19 => "sve",
        0x20 => "instruction-abort",
        0x24 => "data-abort",
        _ => "other",
    }
}
