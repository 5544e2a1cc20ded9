//! The bare-metal probe: the shortest whole system, so that a failure is near its cause.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::{Boot, Ran};
use super::{Context, Scenario};
use crate::manifest::{Domain, Manifest};

/// The probe as hardware domain on each interrupt controller.
pub fn scenarios() -> Vec<Scenario> {
    [
        ("gicv2", "virt,gic-version=2"),
        ("gicv3", "virt,gic-version=3,its=off"),
        ("its", "virt,gic-version=3"),
    ]
    .into_iter()
    .map(|(name, machine)| {
        Scenario::new(format!("probe-{name}"), move |context, folder| {
            boots(context, folder, machine)
        })
    })
    .collect()
}

/// The probe as hardware domain, which ends as `cmdline` says (`end=...`).
pub fn hardware(context: &Context, cmdline: &str) -> Domain {
    Domain::hardware("control", &context.products.guest("probe")).cmdline(cmdline)
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

fn boots(context: &Context, folder: &Path, machine: &str) -> Result<()> {
    let mut manifest = Manifest::new(machine, "cortex-a57", 2, "1GiB");
    manifest.domain(hardware(context, "end=off").key("cpus", "2"));
    let ran = Boot::new(&manifest).run(context, folder)?;
    passed(&ran, "control")?;
    ran.expect_line("control: powered off")?;
    ran.expect_status(0)
}
