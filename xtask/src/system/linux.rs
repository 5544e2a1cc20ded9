//! Linux as a guest: kernel, ramdisk with a task, and what every Linux in the hardware domain must report.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::facts::Facts;
use crate::fetch::guests::{self, Kernel};
use crate::initramfs::{DRIVERS, Initramfs};
use crate::manifest::Domain;

/// The name of the hardware domain in the tests.
pub const NAME: &str = "control";

/// Only what the task prints: kernel messages would tear its lines apart.
pub const QUIET: &str = "console=hvc0 quiet loglevel=3 panic=-1";

/// The feature word that an arm64 hardware domain reads when it is direct-mapped (bits 0 2 11 13 14 17 18).
const FEATURES: &str = "00066805";

/// The hardware domain with Debian's `kernel` that does `task`; its ramdisk lies in `folder`.
pub fn domain(context: &Context, folder: &Path, kernel: Kernel, task: &str) -> Result<Domain> {
    let files = guests::kernel(kernel)?;
    let ramdisk = folder.join("initrd.gz");
    let programs = [("checker", context.products.program("checker"))];
    Initramfs {
        drivers: DRIVERS,
        task,
        programs: &programs,
    }
    .write(&files, &ramdisk)?;
    Ok(Domain::hardware(NAME, &files.image)
        .ramdisk(ramdisk)
        .cmdline(QUIET))
}

/// The task that reports a system, with the variables that it reads.
pub fn report(variables: &str) -> String {
    format!("{variables}\n{}", include_str!("linux.sh"))
}

/// Fails unless the guest finds itself the direct-mapped hardware domain of a `virt` machine with `cpus` CPUs and
/// `memory` MiB: everything at the host's addresses, and as good as all of the memory.
pub fn check(facts: &Facts, cpus: u32, memory: u64) -> Result<()> {
    facts.expect_success()?;
    facts.expect("hypervisor", "xen")?;
    facts.expect("features", FEATURES)?;
    facts.expect("cpus", &cpus.to_string())?;
    ensure!(
        facts.all("complaint").is_empty(),
        "the kernel complains: {:?}",
        facts.all("complaint")
    );

    let first = 0x4000_0000;
    let last = first + (memory << 20) - 1;
    let mut bytes = 0;
    for range in facts.iomem("System RAM") {
        ensure!(
            *range.start() >= first && *range.end() <= last,
            "RAM at {range:x?}, where the host has none: not direct-mapped"
        );
        bytes += range.end() - range.start() + 1;
    }
    let withheld = (memory << 20).saturating_sub(bytes);
    ensure!(
        withheld <= 12 << 20,
        "{} KiB of the host's memory are not the domain's",
        withheld >> 10
    );

    let distributor = facts.iomem("GICD");
    ensure!(
        distributor
            .iter()
            .all(|range| *range.start() == 0x0800_0000),
        "the GIC is at {distributor:x?}, not where the host has it"
    );
    ensure!(facts.iomem("PCI ECAM").len() == 1, "there is no PCIe");
    ensure!(
        !facts.all("iomem").iter().any(|line| line.contains("pl011")),
        "the hypervisor's UART is visible"
    );
    timers(facts, cpus)
}

/// Every CPU's timer ticks, and at the right pace.
fn timers(facts: &Facts, cpus: u32) -> Result<()> {
    let counts: Vec<u64> = facts
        .one("timers")?
        .split_whitespace()
        .filter_map(|count| count.parse().ok())
        .collect();
    ensure!(
        counts.len() == usize::try_from(cpus)? && counts.iter().all(|&count| count > 0),
        "timer interrupts on {cpus} CPUs: {counts:?}"
    );
    let slept = facts.one("slept")?;
    let (before, after) = slept.split_once(' ').context("`slept` has two times")?;
    let seconds = after.parse::<f64>()? - before.parse::<f64>()?;
    ensure!(
        (0.9..10.0).contains(&seconds),
        "a sleep of one second took {seconds:.2}"
    );
    Ok(())
}
