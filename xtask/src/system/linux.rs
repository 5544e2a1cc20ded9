//! Linux as a guest: kernel, ramdisk with a task, and what every Linux in the hardware domain must report.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::facts::Facts;
use crate::arch::Arch;
use crate::fetch::guests::{self, Kernel};
use crate::initramfs::{Initramfs, drivers};
use crate::manifest::Domain;

/// The name of the hardware domain in the tests.
pub const NAME: &str = "control";

/// Only what the task prints: kernel messages would tear its lines apart.
pub const QUIET: &str = "console=hvc0 quiet loglevel=3 panic=-1";

/// What Linux shows of an architecture's machine when it is the direct-mapped hardware domain.
struct Expected {
    /// The features word (docs/xen-abi.md): with bit 17, without 16.
    features: &'static str,
    /// Names in `/proc/iomem`, and where the host has what they name.
    places: &'static [(&'static str, u64)],
    /// What isn't in `/proc/iomem` nor in `/proc/ioports`: the hypervisor's UART.
    hidden: &'static str,
}

const fn expected(arch: Arch) -> Expected {
    match arch {
        Arch::Aarch64 => Expected {
            features: "00066805",
            places: &[("GICD", 0x0800_0000)],
            hidden: "pl011",
        },
        Arch::X86_64 => Expected {
            features: "001e2b05",
            places: &[("IOAPIC 0", 0xfec0_0000)],
            hidden: "serial",
        },
    }
}

/// The RAM of a machine with `memory` MiB: `virt` has it in one piece, `q35` leaves room for devices below 4 GiB.
fn host_ram(arch: Arch, memory: u64) -> Vec<RangeInclusive<u64>> {
    const GIB: u64 = 1 << 30;
    let bytes = memory << 20;
    match arch {
        Arch::Aarch64 => vec![GIB..=GIB + bytes - 1],
        Arch::X86_64 if bytes <= 2 * GIB => vec![0..=bytes - 1],
        Arch::X86_64 => vec![0..=2 * GIB - 1, 4 * GIB..=2 * GIB + bytes - 1],
    }
}

/// The hardware domain with Debian's `kernel` that does `task`; its ramdisk lies in `folder`.
pub fn domain(context: &Context, folder: &Path, kernel: Kernel, task: &str) -> Result<Domain> {
    let files = guests::kernel(context.arch, kernel)?;
    let ramdisk = folder.join("initrd.gz");
    let programs = [("checker", context.products.program("checker"))];
    Initramfs {
        arch: context.arch,
        drivers: drivers(context.arch),
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

/// Fails unless the guest finds itself the direct-mapped hardware domain of a machine with `cpus` CPUs and `memory` MiB:
/// everything at the host's addresses, and as good as all of the memory but for what the firmware keeps, in MiB.
pub fn check(arch: Arch, facts: &Facts, cpus: u32, memory: u64, firmware: u64) -> Result<()> {
    let expected = expected(arch);
    facts.expect_success()?;
    facts.expect("hypervisor", "xen")?;
    facts.expect("features", expected.features)?;
    facts.expect("cpus", &cpus.to_string())?;
    let physical_cpus = match arch {
        Arch::Aarch64 => 0,
        Arch::X86_64 => cpus,
    };
    facts.expect("physical-cpus", &physical_cpus.to_string())?;
    ensure!(
        facts.all("complaint").is_empty(),
        "the kernel complains: {:?}",
        facts.all("complaint")
    );

    let ram = host_ram(arch, memory);
    let mut bytes = 0;
    for range in facts.iomem("System RAM") {
        ensure!(
            ram.iter()
                .any(|host| host.contains(range.start()) && host.contains(range.end())),
            "RAM at {range:x?}, where the host has none: not direct-mapped"
        );
        bytes += range.end() - range.start() + 1;
    }
    let withheld = (memory << 20).saturating_sub(bytes);
    ensure!(
        withheld <= (12 + firmware) << 20,
        "{} KiB of the host's memory are not the domain's",
        withheld >> 10
    );

    for (name, place) in expected.places {
        let seen = facts.iomem(name);
        ensure!(
            seen.iter().all(|range| range.start() == place),
            "{name} is at {seen:x?}, not at {place:x}, where the host has it"
        );
    }
    let lines = || facts.all("iomem").iter().chain(facts.all("ioport"));
    // Linux 6.1 calls it MMCONFIG on x86-64.
    ensure!(
        lines().any(|line| line.contains("PCI ECAM") || line.contains("PCI MMCONFIG")),
        "there is no PCIe"
    );
    ensure!(
        !lines().any(|line| line.contains(expected.hidden)),
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
