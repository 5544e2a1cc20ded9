//! Debian's Xen on QEMU's arm64 machine, for what Terrane's word for it is compared with.
//!
//! A tree for Xen is the machine's own with more in `/chosen`; `dtc` compiles it, so that its syntax is judged by the
//! compiler that Xen's users have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::bench::machine::Running;
use crate::install::program;
use crate::run;

/// What boots on the machine.
pub struct Machine {
    /// MiB of RAM.
    pub memory: u32,
    /// CPUs.
    pub cpus: u32,
}

/// Options of Xen in every boot here: its console, no pause for clearing memory, and no reboot behind a panic.
pub const OPTIONS: &str = "console=dtuart dtuart=/pl011@9000000 bootscrub=0 noreboot";

/// Xen has started every domain.
pub const STARTED: &str = "Freed ";
/// Xen has stopped.
pub const PANIC: &str = "Panic on CPU";

impl Machine {
    fn qemu(&self, machine: &str) -> Command {
        let mut command = Command::new(program(Arch::Aarch64));
        command.arg("-machine").arg(format!(
            "virt,virtualization=on,gic-version=3,dtb-randomness=off{machine}"
        ));
        command.args([
            "-cpu",
            Arch::Aarch64.cpu(),
            "-nodefaults",
            "-display",
            "none",
        ]);
        command.args([
            "-m",
            &self.memory.to_string(),
            "-smp",
            &self.cpus.to_string(),
        ]);
        command
    }

    /// The machine's own tree, as a blob.
    pub fn tree(&self, folder: &Path) -> Result<PathBuf> {
        let blob = folder.join("host.dtb");
        run::output(&mut self.qemu(&format!(",dumpdtb={}", blob.display())))?;
        Ok(blob)
    }

    /// Starts a hypervisor with this tree and these files at their addresses.
    pub fn boot(&self, kernel: &Path, tree: &Path, files: &[(PathBuf, u64)]) -> Result<Running> {
        let mut command = self.qemu("");
        command.arg("-kernel").arg(kernel).arg("-dtb").arg(tree);
        Self::start(command, files)
    }

    /// Starts the program that is at this address among these files, with no tree but what is among them.
    pub fn boot_at(&self, program: u64, files: &[(PathBuf, u64)]) -> Result<Running> {
        let mut command = self.qemu("");
        let start = format!("loader,addr={program:#x},cpu-num=0");
        command.args(["-device", &start]);
        Self::start(command, files)
    }

    fn start(mut command: Command, files: &[(PathBuf, u64)]) -> Result<Running> {
        command.args(["-serial", "stdio", "-no-reboot"]);
        for (file, address) in files {
            let file = file.display();
            let loader = format!("loader,file={file},addr={address:#x},force-raw=on");
            command.arg("-device").arg(loader);
        }
        Running::start(command)
    }
}

/// Compiles a tree's source, or writes a blob's.
pub fn dtc(from: (&str, &Path), to: (&str, &Path)) -> Result<()> {
    let mut command = Command::new("dtc");
    command
        .args(["-q", "-@", "-I", from.0, "-O", to.0, "-o"])
        .arg(to.1)
        .arg(from.1);
    run::output(&mut command).map(drop)
}

/// Applies an overlay to a blob.
pub fn apply(blob: &Path, overlay: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("fdtoverlay");
    command.arg("-i").arg(blob).arg("-o").arg(to).arg(overlay);
    run::output(&mut command).map(drop)
}

/// The source of a tree that has, beside what `blob` has, `inside` in its `/chosen`.
pub fn with_chosen(blob: &Path, inside: &str, folder: &Path) -> Result<String> {
    let source = folder.join("host.dts");
    dtc(("dtb", blob), ("dts", &source))?;
    let host = fs::read_to_string(&source).context("dtc left no source")?;
    Ok(format!(
        "{host}\n/ {{ chosen {{ xen,xen-bootargs = \"{OPTIONS}\"; #address-cells = <2>; #size-cells = <2>; }}; }};\n\
         / {{ chosen {{\n{inside}\n}}; }};\n"
    ))
}
