//! A guest that tries what a domain must not be able to do, beside a healthy one.

use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::Boot;
use super::{Context, Scenario, probe};
use crate::manifest::{Domain, Manifest};

/// The attacker on each interrupt controller.
pub fn scenarios() -> Vec<Scenario> {
    [
        ("gicv2", "virt,gic-version=2", "cortex-a72"),
        ("its", "virt,gic-version=3", "max"),
    ]
    .into_iter()
    .map(|(name, machine, cpu)| {
        Scenario::new(format!("attack-{name}"), move |context, folder| {
            attack(context, folder, machine, cpu)
        })
    })
    .collect()
}

/// The attacker has no DMA device and does its worst; the hypervisor, the healthy domain beside it and a second boot of
/// the attacker's domain don't notice.
fn attack(context: &Context, folder: &Path, machine: &str, cpu: &str) -> Result<()> {
    let mut manifest = Manifest::new(machine, cpu, 2, "512MiB");
    let attacker = Domain::new("attacker", &context.products.guest("attacker"))
        .key("memory", "\"64MiB\"")
        .key("direct-map", "true")
        .cmdline("seed=1");
    manifest
        .domain(probe::hardware(context, "end=off").key("memory", "\"128MiB\""))
        .domain(attacker);
    let ran = Boot::new(&manifest).run(context, folder)?;
    let console = ran.console("attacker");
    let failures: Vec<&str> = console
        .lines()
        .filter(|line| line.starts_with("attacker: fail"))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join(" | "));
    ensure!(
        console
            .lines()
            .any(|line| line.trim_end() == "attacker: pass"),
        "the attacker never finished"
    );
    ran.expect_line("attacker: powered off")?;
    probe::passed(&ran, "control")?;
    ran.expect_status(0)
}
