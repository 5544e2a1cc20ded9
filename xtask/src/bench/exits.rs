//! Why the guest was left, and how often, until userspace is reached: read from QEMU's own log, so that nothing in the
//! hypervisor has to count.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};

use anyhow::{Context as _, Result};

use super::machine::{Bench, Column, Guest, Running};
use crate::arch::Arch;

/// What QEMU is told to log: exceptions taken on arm64. On x86-64 what it logs of translated code, to which SVM's exits
/// belong; the code itself is kept out by a filter that lets a single byte through.
const fn log(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Aarch64 => &["-d", "int"],
        Arch::X86_64 => &["-d", "in_asm", "-dfilter", "0x1+0x1"],
    }
}

/// Ways out of the guest into the hypervisor, by reason.
pub fn count(bench: &Bench, column: Column, linux: &Guest) -> Result<BTreeMap<String, u64>> {
    let path = bench.folder.join("exits.log");
    let mut command = bench.machine(column, linux, true)?;
    command.args(log(bench.arch)).arg("-D").arg(&path);
    let mut machine = Running::start(command)?;
    machine.until("check init-mark: ")?;
    drop(machine);
    let mut exits = BTreeMap::new();
    let mut exception = Exception::default();
    for line in BufReader::new(File::open(&path).context("QEMU left no log")?).split(b'\n') {
        let line = line.context("cannot read QEMU's log")?;
        let line = String::from_utf8_lossy(&line);
        let reason = match bench.arch {
            Arch::Aarch64 => exception.line(&line),
            Arch::X86_64 => vmexit(&line),
        };
        if let Some(reason) = reason {
            *exits.entry(reason.to_owned()).or_insert(0) += 1;
        }
    }
    fs::remove_file(&path).context("cannot remove QEMU's log")?;
    Ok(exits)
}

/// An exception of arm64, which QEMU logs in a few lines.
#[derive(Default)]
struct Exception {
    kind: String,
    to_hypervisor: bool,
}

impl Exception {
    /// Takes a line; gives the reason once the exception is known to be taken from the guest to EL2.
    fn line(&mut self, line: &str) -> Option<&'static str> {
        let interrupt = matches!(self.kind.as_str(), "IRQ" | "FIQ");
        if let Some((_, rest)) = line.split_once("Taking exception ") {
            self.kind = rest.split(['[', ']']).nth(1)?.to_owned();
            None
        } else if let Some(levels) = line.strip_prefix("...from ") {
            self.to_hypervisor =
                levels.starts_with("EL0 to EL2") || levels.starts_with("EL1 to EL2");
            // Interrupts have no syndrome: they are counted here, the others below.
            (self.to_hypervisor && interrupt).then_some("interrupt")
        } else {
            let syndrome = line.strip_prefix("...with ESR 0x")?;
            let class = u8::from_str_radix(syndrome.split('/').next()?, 16).ok()?;
            (self.to_hypervisor && !interrupt).then(|| class_name(class))
        }
    }
}

/// The exception class in words (Arm ARM, ESR_EL2.EC).
fn class_name(class: u8) -> &'static str {
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

/// SVM's exit code in words (AMD APM volume 2, appendix C), from a line `vmexit(CODE, INFO1, INFO2, RIP)!`.
fn vmexit(line: &str) -> Option<&'static str> {
    let code = line.strip_prefix("vmexit(")?.split(',').next()?;
    Some(match u32::from_str_radix(code, 16).ok()? {
        0x00..=0x1f | 0x65 => "control-register",
        0x20..=0x3f => "debug-register",
        0x40..=0x5f => "exception",
        0x60 => "interrupt",
        0x61 => "nmi",
        0x64 => "interrupt-window",
        0x6e | 0x87 => "rdtsc",
        0x72 => "cpuid",
        0x76 | 0x89 => "cache",
        0x78 => "hlt",
        0x7b => "port-io",
        0x7c => "msr",
        0x81 => "vmmcall",
        0x8d => "xsetbv",
        0x400 => "nested-page-fault",
        _ => "other",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_of_svm_are_named() {
        assert_eq!(
            vmexit("vmexit(0000007b, 000000000cfc0021, ffffffff81c774aa, ffffffff81c774a8)!"),
            Some("port-io")
        );
        assert_eq!(vmexit("vmrun! 000000007fcf2000"), None);
    }

    #[test]
    fn exceptions_to_el2_are_named() {
        let mut exception = Exception::default();
        let lines = [
            "Taking exception 11 [Hypervisor Call] on CPU 0",
            "...from EL1 to EL2",
            "...with ESR 0x16/0x5a000ea1",
            "Taking exception 5 [IRQ] on CPU 0",
            "...from EL0 to EL2",
            "Taking exception 2 [SVC] on CPU 0",
            "...from EL0 to EL1",
            "...with ESR 0x15/0x56000000",
        ];
        let reasons: Vec<_> = lines
            .iter()
            .filter_map(|line| exception.line(line))
            .collect();
        assert_eq!(reasons, ["hvc", "interrupt"]);
    }
}
