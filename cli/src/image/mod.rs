//! All that a boot loader needs, in one directory: `terrane image`.

mod grub;
mod scripts;
mod uboot;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostics::{self, Diagnostic};
use crate::host::Loader;
use crate::hypervisor::Hypervisor;
use crate::qemu::Machine;
use crate::run::{Files, Tree};
use crate::system::System;

/// The container: system tree, kernels, ramdisks.
const CONTAINER: &str = "container.bin";
/// Console and QEMU's monitor on the terminal.
const CONSOLE: [&str; 4] = ["-display", "none", "-serial", "mon:stdio"];
/// The host's device tree.
const TREE: &str = "host.dtb";

/// Writes the directory; what was there under the same names is replaced. `iso`: with an ISO for
/// GRUB.
///
/// # Errors
/// A file that can't be written, or an ISO that can't be made.
pub fn write(system: &System, directory: &Path, iso: bool) -> Result<(), Diagnostic> {
    let hypervisor = system.hypervisor.as_ref().ok_or_else(|| {
        Diagnostic::error("hypervisor-missing", "the hypervisor's image isn't there")
    })?;
    if iso && system.host_tree.is_some() {
        let message = format!("no ISO is built for {} yet", system.arch.name);
        return Err(Diagnostic::error("not-built-yet", message)
            .with_help("leave --iso out: boot.scr boots the directory by U-Boot"));
    }
    fs::create_dir_all(directory).map_err(|error| diagnostics::unwritable(directory, &error))?;
    let directory = Directory(directory);
    directory.put(system.arch.hypervisor, &hypervisor.bytes)?;
    directory.put(CONTAINER, &container(system)?)?;
    match &system.host_tree {
        Some(tree) => directory.for_uboot(system, tree)?,
        None => directory.for_grub(system, hypervisor, iso)?,
    }
    match &system.loader {
        Loader::Qemu(machine) => directory.for_qemu(system, machine),
        Loader::Board => Ok(()),
    }
}

/// GRUB puts the container where it likes, so that its plan isn't known here: the container then
/// carries no digest.
fn container(system: &System) -> Result<Vec<u8>, Diagnostic> {
    match system.host_tree {
        Some(_) => system.container(),
        None => system.container_without_digest(),
    }
}

/// The directory that is written.
struct Directory<'a>(&'a Path);

impl Directory<'_> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Diagnostic> {
        let path = self.0.join(name);
        fs::write(&path, bytes).map_err(|error| diagnostics::unwritable(&path, &error))?;
        Ok(path)
    }

    fn for_uboot(&self, system: &System, tree: &[u8]) -> Result<(), Diagnostic> {
        self.put(TREE, tree)?;
        let names = [system.arch.hypervisor, TREE, CONTAINER];
        let Some(script) = scripts::uboot(&system.places, names) else {
            return Ok(());
        };
        self.put("boot.cmd", script.as_bytes())?;
        if let Some(image) = uboot::script("terrane", &script) {
            self.put("boot.scr", &image)?;
        }
        Ok(())
    }

    fn for_grub(
        &self,
        system: &System,
        hypervisor: &Hypervisor,
        iso: bool,
    ) -> Result<(), Diagnostic> {
        let name = system.arch.hypervisor;
        let config = grub::config(name, CONTAINER, hypervisor.has_multiboot2());
        self.put(grub::CONFIG, config.as_bytes())?;
        if iso {
            grub::iso(self.0, &[name, CONTAINER])?;
        }
        Ok(())
    }

    fn for_qemu(&self, system: &System, machine: &Machine) -> Result<(), Diagnostic> {
        let tree = system.host_tree.as_ref().map(|_| Tree {
            file: Path::new(TREE),
            container: system.places.container.start().raw(),
        });
        let files = Files {
            hypervisor: Path::new(system.arch.hypervisor),
            container: Path::new(CONTAINER),
            tree,
        };
        let arguments: Vec<OsString> = machine
            .arguments()
            .into_iter()
            .chain(CONSOLE.map(OsString::from))
            .chain(files.arguments())
            .collect();
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        let program = machine.program().display().to_string();
        let script = scripts::qemu(&program, &arguments);
        let path = self.put("qemu.sh", script.as_bytes())?;
        executable(&path).map_err(|error| diagnostics::unwritable(&path, &error))
    }
}

fn executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
