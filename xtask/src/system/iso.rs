//! A PC that boots Terrane from a disc, by GRUB: on BIOS and on UEFI.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::facts::Facts;
use super::{Context, Scenario, linux, qemu};
use crate::arch::Arch;
use crate::fetch::guests::Kernel;
use crate::install::OVMF;
use crate::manifest::Manifest;
use crate::run;

/// The kernel that can lie anywhere, and the one that must lie at 16 MiB; with `full` each on each firmware.
pub fn scenarios(arch: Arch, full: bool) -> Vec<Scenario> {
    if arch != Arch::X86_64 {
        return Vec::new();
    }
    let discs = [
        ("iso-bios-6.12", Kernel::Trixie, false),
        ("iso-uefi-6.1", Kernel::Bookworm, true),
        ("iso-bios-6.1", Kernel::Bookworm, false),
        ("iso-uefi-6.12", Kernel::Trixie, true),
    ];
    let discs = discs.into_iter().take(if full { 4 } else { 2 });
    discs
        .map(|(name, kernel, uefi)| {
            Scenario::new(name, move |context, folder| {
                boots(context, folder, kernel, uefi)
            })
        })
        .collect()
}

fn boots(context: &Context, folder: &Path, kernel: Kernel, uefi: bool) -> Result<()> {
    const CPUS: u32 = 2;
    const MEBIBYTES: u64 = 2048;
    let mut manifest = Manifest::plain(context.arch, CPUS, &format!("{MEBIBYTES}MiB"));
    let task = linux::report("DISKS= NETWORK= CHECKS=");
    let domain = linux::domain(context, folder, kernel, &task)?;
    manifest.domain(domain.key("cpus", &CPUS.to_string()));
    let path = manifest.write(&folder.join("manifest.toml"))?;
    let image = folder.join("image");
    run::output(
        context
            .terrane("image")
            .arg(path)
            .arg("--iso")
            .arg("-o")
            .arg(&image),
    )?;

    let disc = image.join("terrane.iso");
    let mut words = Vec::new();
    if uefi {
        // It keeps its variables in the second one.
        let variables = folder.join("variables.fd");
        fs::copy(OVMF[1], &variables).context("cannot copy UEFI's variables")?;
        for (file, options) in [(Path::new(OVMF[0]), ",readonly=on"), (&variables, "")] {
            words.push("-drive".to_owned());
            words.push(format!(
                "if=pflash,format=raw,file={}{options}",
                file.display()
            ));
        }
    }
    words.extend(["-cdrom".to_owned(), disc.display().to_string()]);
    let said = qemu::boot(context, &manifest, folder, "console", &words)?;
    let facts = Facts::read(&said);
    // OVMF's code and data of the time after the boot, and its tables.
    let firmware = if uefi { 8 } else { 0 };
    linux::check(context.arch, &facts, CPUS, MEBIBYTES, firmware)?;
    for line in ["control: powered off", "all domains have stopped"] {
        let line = format!("(terrane) {line}");
        ensure!(
            said.lines().any(|said| said.trim_end().ends_with(&line)),
            "the hypervisor never said `{line}`"
        );
    }
    Ok(())
}
