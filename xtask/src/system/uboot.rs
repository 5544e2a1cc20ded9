//! `terrane image`'s directory on a disk that U-Boot boots from.

use std::path::Path;

use anyhow::{Result, ensure};

use super::facts::Facts;
use super::{Context, Scenario, linux, qemu};
use crate::arch::Arch;
use crate::fetch::guests::{self, Kernel};
use crate::manifest::Manifest;
use crate::run;

/// U-Boot is the boot loader of arm64's boards.
pub fn scenarios(arch: Arch) -> Vec<Scenario> {
    match arch {
        Arch::Aarch64 => vec![Scenario::new("uboot", boots)],
        Arch::X86_64 => Vec::new(),
    }
}

/// U-Boot finds `boot.scr` by itself, and the hypervisor everything where the plan has it.
fn boots(context: &Context, folder: &Path) -> Result<()> {
    const CPUS: u32 = 2;
    const MEBIBYTES: u64 = 2048;
    // With firmware and ACPI QEMU leaves out the GPIO block that its tree for a kernel has.
    let machine = format!("{},acpi=off,virtualization=on", context.arch.machine());
    let memory = format!("{MEBIBYTES}MiB");
    let mut manifest = Manifest::new(context.arch, &machine, context.arch.cpu(), CPUS, &memory);
    let task = linux::report("DISKS= NETWORK= CHECKS=");
    let domain = linux::domain(context, folder, Kernel::Trixie, &task)?;
    manifest.domain(domain.key("cpus", &CPUS.to_string()));
    let path = manifest.write(&folder.join("manifest.toml"))?;
    let image = folder.join("image");
    run::output(context.terrane("image").arg(path).arg("-o").arg(&image))?;

    let words = [
        "-bios".to_owned(),
        guests::uboot()?.display().to_string(),
        "-drive".to_owned(),
        format!(
            "file=fat:{},format=raw,if=none,id=boot,readonly=on",
            image.display()
        ),
        "-device".to_owned(),
        "virtio-blk-device,drive=boot".to_owned(),
    ];
    let said = qemu::boot(context, &manifest, folder, "console", &words)?;
    linux::check(context.arch, &Facts::read(&said), CPUS, MEBIBYTES, 0)?;
    let hypervisor = |line: &str| {
        said.lines()
            .any(|said| said.trim_end().ends_with(&format!("(terrane) {line}")))
    };
    for line in ["control: powered off", "all domains have stopped"] {
        ensure!(hypervisor(line), "the hypervisor never said `{line}`");
    }
    ensure!(
        !said.contains("plan-differs"),
        "the boot loader put something elsewhere than the plan has it"
    );
    Ok(())
}
