//! The first root of a Linux guest: busybox, the drivers of QEMU's devices, and one task to do.
//!
//! `/init` prepares the system, runs `/task`, prints its exit status behind [`STATUS`] and powers off.

mod cpio;
mod modules;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use self::cpio::Archive;
use crate::arch::Arch;
use crate::fetch::guests::{self, KernelFiles};

/// What stands before the task's exit status on the guest's console, alone on a line.
pub const STATUS: &str = "terrane-guest: status ";

/// The drivers for the devices that a scenario may give a machine of `arch`.
pub const fn drivers(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Aarch64 => &[
            "virtio_mmio",
            "virtio_pci",
            "virtio_blk",
            "virtio_net",
            "nvme",
            "ahci",
            "sd_mod",
            "e1000e",
        ],
        Arch::X86_64 => &[
            "virtio_pci",
            "virtio_blk",
            "virtio_net",
            "nvme",
            "ahci",
            "sd_mod",
            "e1000e",
            "xhci_pci",
            "usb_storage",
        ],
    }
}

/// Writes a ramdisk that holds one program, as init, and no driver.
pub fn write_program(program: &Path, path: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp"] {
        archive.directory(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file(
        "init",
        &fs::read(program).with_context(|| format!("cannot read {}", program.display()))?,
    );
    compress(&archive.finish(), path)
}

const INIT: &str = include_str!("init.sh");

/// A ramdisk to be made.
pub struct Initramfs<'a> {
    /// The guest's architecture.
    pub arch: Arch,
    /// Modules to load, with all that they need, in this order.
    pub drivers: &'a [&'a str],
    /// A shell script: what the guest does.
    pub task: &'a str,
    /// Programs that go to `/bin`: name and file.
    pub programs: &'a [(&'a str, PathBuf)],
}

impl Initramfs<'_> {
    /// Makes the ramdisk for `kernel` and writes it, gzipped, to `path`.
    pub fn write(&self, kernel: &KernelFiles, path: &Path) -> Result<()> {
        compress(&self.archive(kernel)?, path)
    }

    fn archive(&self, kernel: &KernelFiles) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
            archive.directory(folder);
        }
        archive.device("dev/console", 5, 1);
        let busybox = guests::busybox(self.arch)?;
        archive.file(
            "bin/busybox",
            &fs::read(&busybox).context("cannot read busybox")?,
        );
        archive.link("bin/sh", "busybox");
        for (name, file) in self.programs {
            let data = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            archive.file(&format!("bin/{name}"), &data);
        }
        let modules = modules::collect(&kernel.modules, self.drivers)?;
        let order: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        archive.file("modules/order", order.join("\n").as_bytes());
        for module in &modules {
            archive.file(&format!("modules/{}.ko", module.name), &module.data);
        }
        archive.file("init", INIT.as_bytes());
        archive.file("task", self.task.as_bytes());
        Ok(archive.finish())
    }
}

fn compress(archive: &[u8], path: &Path) -> Result<()> {
    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut encoder = GzEncoder::new(file, Compression::fast());
    encoder.write_all(archive)?;
    encoder.finish()?;
    Ok(())
}
