//! The bare-metal probe: the shortest whole system, so that a failure is near its cause.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::{Boot, Ran};
use super::{Context, Scenario, linux};
use crate::arch::Arch;
use crate::fetch::guests::Kernel;
use crate::manifest::{Domain, Manifest};

/// The probe as hardware domain on machines that differ: by the interrupt controller, by what the CPU can do.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    let machines: &[(&str, &str, &str)] = match arch {
        Arch::Aarch64 => &[
            ("gicv2", "virt,gic-version=2", "cortex-a57"),
            ("gicv3", "virt,gic-version=3,its=off", "cortex-a57"),
            ("its", "virt,gic-version=3", "cortex-a57"),
        ],
        Arch::X86_64 => &[
            ("qemu64", "q35", "qemu64,+svm,+npt"),
            ("epyc", "q35", "EPYC"),
            ("max", "q35", "max"),
        ],
    };
    machines
        .iter()
        .map(|&(name, machine, cpu)| {
            Scenario::new(format!("probe-{name}"), move |context, folder| {
                boots(context, folder, machine, cpu)
            })
        })
        .collect()
}

/// The probe as hardware domain, which ends as `cmdline` says (`end=...`).
pub fn hardware(context: &Context, cmdline: &str) -> Domain {
    Domain::hardware("control", &context.products.guest("probe")).cmdline(cmdline)
}

/// A hardware domain that says `probe: pass` and powers off, and can be restarted: its first copy stays where the boot
/// loader put it, so on x86-64 it can't be a bare guest, which is linked at that very place.
pub fn restartable(context: &Context, folder: &Path) -> Result<Domain> {
    match context.arch {
        Arch::Aarch64 => Ok(hardware(context, "end=off")),
        Arch::X86_64 => linux::domain(context, folder, Kernel::Trixie, "echo 'probe: pass'"),
    }
}

/// `direct-map` of a domain beside the hardware domain: on x86-64 the bare guests are linked at 16 MiB, and only one of
/// several can have the machine's frames there.
pub const fn beside(arch: Arch) -> &'static str {
    match arch {
        Arch::Aarch64 => "true",
        Arch::X86_64 => "false",
    }
}

/// Fails unless the probe in this domain found everything as it must be.
pub fn passed(ran: &Ran, domain: &str) -> Result<()> {
    let console = ran.console(domain);
    let failures: Vec<&str> = console
        .lines()
        .filter(|line| line.starts_with("probe: fail"))
        .collect();
    ensure!(failures.is_empty(), "{domain}: {}", failures.join(" | "));
    ensure!(
        console.lines().any(|line| line.trim_end() == "probe: pass"),
        "{domain}: the probe never finished"
    );
    Ok(())
}

fn boots(context: &Context, folder: &Path, machine: &str, cpu: &str) -> Result<()> {
    let mut manifest = Manifest::new(context.arch, machine, cpu, 2, "1GiB");
    manifest.domain(hardware(context, "end=off").key("cpus", "2"));
    let ran = Boot::new(&manifest).run(context, folder)?;
    passed(&ran, "control")?;
    ran.expect_line("control: powered off")?;
    ran.expect_status(0)
}
