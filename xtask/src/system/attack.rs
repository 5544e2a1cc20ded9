//! A guest that tries what a domain must not be able to do, beside a healthy one.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::{Boot, Ran};
use super::{Context, Scenario, probe};
use crate::arch::Arch;
use crate::manifest::{Domain, Manifest};

/// The attacker on machines that differ most; on x86-64, where it takes minutes, without `full` on the one with most to attack.
pub fn scenarios(arch: Arch, full: bool) -> Vec<Scenario> {
    const MAX: (&str, &str, &str) = ("max", "q35", "max");
    let machines: &[(&str, &str, &str)] = match arch {
        Arch::Aarch64 => &[
            ("gicv2", "virt,gic-version=2", "cortex-a72"),
            ("its", "virt,gic-version=3", "max"),
        ],
        Arch::X86_64 if full => &[MAX, ("epyc", "q35", "EPYC")],
        Arch::X86_64 => &[MAX],
    };
    machines
        .iter()
        .map(|&(name, machine, cpu)| {
            Scenario::new(format!("attack-{name}"), move |context, folder| {
                attack(context, folder, machine, cpu)
            })
        })
        .collect()
}

/// arm64: every page below the top of the host's RAM, and a page of each range of devices.
const TARGETS: &str = "top=0x60000000 mmio=0x0+0x4000000,0x8000000+0x10000,0x8020000+0x1000,0x8080000+0x20000,\
    0x80a0000+0x20000,0x9000000+0x1000,0x9010000+0x1000,0x9020000+0x1000,0x9030000+0x1000,0xa000000+0x4000,\
    0x10000000+0x10000,0x3eff0000+0x10000,0x4010000000+0x100000,0x8000000000+0x100000";

/// The attacker uses no DMA, does its worst, and then once more after a restart, of the domain or of the machine: the
/// hypervisor lives, and the second boot finds nothing of the first. On arm64 a healthy domain beside it doesn't notice; on
/// x86-64 the attacker is the hardware domain itself, which reaches most.
fn attack(context: &Context, folder: &Path, machine: &str, cpu: &str) -> Result<()> {
    let mut manifest = Manifest::new(context.arch, machine, cpu, 2, "512MiB");
    let kernel = context.products.guest("attacker");
    let attacker = match context.arch {
        Arch::Aarch64 => Domain::new("attacker", &kernel)
            .key("memory", "\"64MiB\"")
            .key("direct-map", "true")
            .cmdline(&format!("seed=1 {TARGETS}")),
        Arch::X86_64 => Domain::hardware("attacker", &kernel)
            .key("memory", "\"128MiB\"")
            .key("cpus", "2")
            .cmdline("seed=1"),
    };
    if context.arch == Arch::Aarch64 {
        manifest.domain(probe::hardware(context, "end=off").key("memory", "\"128MiB\""));
    }
    // A bare guest of x86-64 lies at 16 MiB, where its first copy would have to stay for a restart.
    let again = match context.arch {
        Arch::Aarch64 => "\"restart\"",
        Arch::X86_64 => "\"reboot-machine\"",
    };
    manifest.domain(attacker.key("on-poweroff", again));
    let enough = |ran: &Ran| count(ran, "attacker: pass") >= 2 || count(ran, "attacker: fail") > 0;
    let ran = Boot {
        enough: Some(enough),
        ..Boot::new(&manifest)
    }
    .run(context, folder)?;
    let console = ran.console("attacker");
    let failures: Vec<&str> = console
        .lines()
        .filter(|line| line.starts_with("attacker: fail"))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join(" | "));
    ensure!(
        count(&ran, "attacker: pass") >= 2,
        "the attacker never finished for the second time"
    );
    if context.arch == Arch::Aarch64 {
        probe::passed(&ran, "control")?;
    }
    ran.expect_line("attacker: powered off")
}

/// How many of the attacker's lines begin so.
fn count(ran: &Ran, line: &str) -> usize {
    ran.console("attacker")
        .lines()
        .filter(|said| said.starts_with(line))
        .count()
}
