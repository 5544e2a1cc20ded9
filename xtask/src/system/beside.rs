//! The same Linux on the same machine, alone and as hardware domain: everything is where it was.
//!
//! Where the firmware places devices, and Linux must not move them, this shows that the domain's memory map and its
//! tables say the same as the host's.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};

use super::boot::Boot;
use super::devices::Devices;
use super::facts::Facts;
use super::{Context, Scenario, linux, qemu};
use crate::arch::Arch;
use crate::fetch::guests::{self, Kernel};
use crate::manifest::Manifest;

/// One machine, twice. On arm64 Linux places the devices itself, and `linux-*` looks at where it finds the rest.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    match arch {
        Arch::Aarch64 => Vec::new(),
        Arch::X86_64 => vec![Scenario::new("beside-native", beside_native)],
    }
}

fn beside_native(context: &Context, folder: &Path) -> Result<()> {
    let mut manifest = Manifest::plain(context.arch, 2, "6GiB");
    let devices = Devices::attach(context.arch, &mut manifest, folder, true)?;
    let task = linux::report(&format!("{} CHECKS=edu-dma", devices.variables()));
    let domain = linux::domain(context, folder, Kernel::Trixie, &task)?;
    manifest.domain(domain.key("cpus", "2"));

    let alone = native(context, folder, &manifest)?;
    alone.expect_success()?;
    let ran = Boot::new(&manifest).run(context, folder)?;
    let domain = Facts::read(&ran.console(linux::NAME));
    domain.expect_success()?;

    for kind in ["iomem", "ioport"] {
        let (alone, domain) = (places(&alone, kind), places(&domain, kind));
        let (lost, new): (Vec<_>, Vec<_>) = (
            alone.difference(&domain).collect(),
            domain.difference(&alone).collect(),
        );
        ensure!(
            lost.is_empty() && new.is_empty(),
            "/proc/{kind}s: only alone {lost:?}, only as a domain {new:?}"
        );
    }
    let ram = alone.iomem("System RAM");
    for range in domain.iomem("System RAM") {
        ensure!(
            ram.iter()
                .any(|host| host.contains(range.start()) && host.contains(range.end())),
            "RAM at {range:x?}, where Linux alone has none"
        );
    }
    Ok(())
}

/// What Linux shows of PCI: windows, configuration space in memory (the ports for it are nobody's then), and each
/// function's BARs.
fn places(facts: &Facts, kind: &str) -> BTreeSet<String> {
    let lines = facts.all(kind).iter().map(|line| line.trim());
    lines
        .filter(|line| {
            line.split_once(" : ").is_some_and(|(_, name)| {
                ["0000:", "PCI Bus", "PCI ECAM", "PCI MMCONFIG", "IOAPIC"]
                    .iter()
                    .any(|begin| name.starts_with(begin))
            })
        })
        .map(str::to_owned)
        .collect()
}

/// Boots the hardware domain's kernel and ramdisk without a hypervisor.
fn native(context: &Context, folder: &Path, manifest: &Manifest) -> Result<Facts> {
    let kernel = guests::kernel(context.arch, Kernel::Trixie)?.image;
    let words = [
        "-kernel".to_owned(),
        kernel.display().to_string(),
        "-initrd".to_owned(),
        folder.join("initrd.gz").display().to_string(),
        "-append".to_owned(),
        linux::QUIET.replace("hvc0", "ttyS0,115200"),
    ];
    let said = qemu::boot(context, manifest, folder, "native", &words)?;
    Ok(Facts::read(&said))
}
