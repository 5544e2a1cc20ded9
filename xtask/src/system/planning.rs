//! One planner, two callers: what the workstation plans is what the machine does.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::boot::{Boot, ask};
use super::facts::Facts;
use super::{Context, Scenario, linux, probe};
use crate::arch::Arch;
use crate::fetch::guests::Kernel;
use crate::manifest::{Domain, Manifest};

/// The plan of both callers, and how much of a machine one domain can have.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    let (machine, cpu) = match arch {
        Arch::Aarch64 => ("virt,gic-version=2", "cortex-a72"),
        Arch::X86_64 => ("q35,hpet=off,pit=off,smm=off", "max"),
    };
    let mut scenarios = vec![
        Scenario::new("plan-equal-one-domain", |context, folder| {
            let mut manifest = Manifest::plain(context.arch, 2, "2GiB");
            manifest.domain(probe::hardware(context, "end=off"));
            plans_are_equal(context, folder, manifest)
        }),
        Scenario::new("plan-equal-two-domains", move |context, folder| {
            let mut manifest = Manifest::new(arch, machine, cpu, 4, "1GiB");
            let other = Domain::new("other", &context.products.guest("probe"))
                .key("memory", "\"64MiB\"")
                .key("direct-map", probe::beside(arch))
                .cmdline("end=off");
            manifest
                .domain(probe::hardware(context, "end=off").key("cpus", "2"))
                .domain(other);
            plans_are_equal(context, folder, manifest)
        }),
        Scenario::new("largest-direct", largest_direct),
    ];
    if arch == Arch::X86_64 {
        scenarios.push(Scenario::new("plan-dma-mask", dma_mask));
    }
    scenarios
}

/// A PCI function with a mask of 28 bits, QEMU's `edu` as it is: the command says what it can't reach.
fn dma_mask(context: &Context, folder: &Path) -> Result<()> {
    let mut manifest = Manifest::plain(context.arch, 1, "1GiB");
    let (address, path) = ("edu,addr=05.0", "pci:0000:00:05.0");
    manifest.argument("-device").argument(address);
    let devices = format!("[{{ path = \"{path}\", dma-mask = 0xfff_ffff }}]");
    manifest.domain(probe::hardware(context, "end=off").key("devices", &devices));
    let path = manifest.write(&folder.join("manifest.toml"))?;
    let (status, said) = ask(context.terrane("check").arg(path).arg("--json"))?;
    ensure!(
        status == 0 && said.contains("\"dma-mask\"") && said.contains("0xfffffff"),
        "`terrane check` ended with {status}: {said}"
    );
    Ok(())
}

fn plans_are_equal(context: &Context, folder: &Path, mut manifest: Manifest) -> Result<()> {
    manifest.hypervisor("print-plan = true");
    let ran = Boot::new(&manifest).run(context, folder)?;
    ran.expect_status(0)?;
    let said = ran.hypervisor();
    let (_, rest) = said
        .split_once("plan begin\n")
        .context("the hypervisor printed no plan")?;
    let (live, _) = rest
        .split_once("plan end")
        .context("the hypervisor's plan has no end")?;
    let live: Value = serde_json::from_str(live).context("the hypervisor's plan isn't JSON")?;

    let mut command = context.terrane("plan");
    let (status, planned) = ask(command
        .arg(folder.join("manifest.toml"))
        .args(["--format", "json"]))?;
    ensure!(status == 0, "`terrane plan` ended with {status}");
    let planned: Value =
        serde_json::from_str(&planned).context("`terrane plan` printed no JSON")?;
    ensure!(
        live == planned,
        "the plans differ:\n  live    {live}\n  planned {planned}"
    );
    Ok(())
}

/// On 2 GiB, a direct-mapped hardware domain of 2,036 MiB is started and has that much.
fn largest_direct(context: &Context, folder: &Path) -> Result<()> {
    let least = 2036_u64;
    let mut manifest = Manifest::plain(context.arch, 1, "2GiB");
    let domain = linux::domain(
        context,
        folder,
        Kernel::Trixie,
        &linux::report("DISKS= NETWORK= CHECKS="),
    )?;
    manifest.domain(domain.key("memory", &format!("\"{least}MiB\"")));
    let ran = Boot::new(&manifest).run(context, folder)?;
    ran.expect_status(0)?;
    let facts = Facts::read(&ran.console(linux::NAME));
    facts.expect_success()?;
    let bytes: u64 = facts
        .iomem("System RAM")
        .iter()
        .map(|range| range.end() - range.start() + 1)
        .sum();
    ensure!(bytes >= least << 20, "the domain has {} MiB", bytes >> 20);
    Ok(())
}
