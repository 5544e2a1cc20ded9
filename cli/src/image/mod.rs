//! All that a boot loader needs, in one directory: `terrane image`.

mod grub;
mod scripts;
mod uboot;

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::diagnostics::{self, Diagnostic};
use crate::host::Loader;
use crate::hypervisor::Hypervisor;
use crate::qemu::Machine;
use crate::run::{Files, Tree};
use crate::system::System;
use crate::writing::{self, NewFile};

/// The container: system tree, kernels, ramdisks.
const CONTAINER: &str = "container.bin";
/// Console and QEMU's monitor on the terminal.
const CONSOLE: [&str; 4] = ["-display", "none", "-serial", "mon:stdio"];
/// The host's device tree.
const TREE: &str = "host.dtb";
/// U-Boot's script, and its source.
const SCRIPT: [&str; 2] = ["boot.scr", "boot.cmd"];
/// Starts QEMU.
const QEMU: &str = "qemu.sh";

/// Writes the files of an image into `directory`, where nothing stays of another image: if there is one, which its container
/// tells, what has a name of theirs and isn't among `files` is removed, and returned. In any other folder a `grub.cfg` is
/// its owner's. `inputs` are the files that they were made from.
///
/// # Errors
/// A file can't be written, or would be written over an input.
pub fn write(
    mut files: Vec<NewFile<'_>>,
    directory: &Path,
    inputs: &[PathBuf],
) -> Result<Vec<PathBuf>, Diagnostic> {
    let is_image = directory.join(CONTAINER).is_file();
    let stale: Vec<PathBuf> = names()
        .filter(|_| is_image)
        .filter(|name| files.iter().all(|file| file.path != Path::new(name)))
        .map(|name| directory.join(name))
        .collect();
    for file in &mut files {
        file.path = directory.join(&file.path);
    }
    let written = files.iter().map(|file| file.path.clone());
    let targets: Vec<PathBuf> = written.chain(stale.iter().cloned()).collect();
    writing::spare(&targets, inputs)?;
    fs::create_dir_all(directory).map_err(|error| diagnostics::unwritable(directory, &error))?;
    writing::write(&files)?;
    let mut removed = Vec::new();
    for path in stale {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(diagnostics::unwritable(&path, &error)),
        }
    }
    Ok(removed)
}

/// The names that a file of an image can have.
fn names() -> impl Iterator<Item = &'static str> {
    let hypervisors = Arch::all().iter().map(|arch| arch.hypervisor);
    let others = [CONTAINER, TREE, grub::CONFIG, grub::ISO, QEMU];
    hypervisors.chain(others).chain(SCRIPT)
}

/// The files of a system's image, by their names in its directory. `iso`: with an ISO for GRUB.
///
/// # Errors
/// One can't be made.
pub fn files(system: &System, iso: bool) -> Result<Vec<NewFile<'_>>, Diagnostic> {
    let hypervisor = system.hypervisor()?;
    if iso && system.host_tree.is_some() {
        let message = format!("no ISO is built for {} yet", system.arch.name);
        return Err(Diagnostic::error("not-built-yet", message)
            .with_help("leave --iso out: boot.scr boots the directory by U-Boot"));
    }
    let container = container(system)?;
    let mut files = match &system.host_tree {
        Some(tree) => for_uboot(system, tree),
        None => for_grub(system, hypervisor, iso.then_some(container.as_slice()))?,
    };
    if let Loader::Qemu(machine) = &system.loader {
        files.push(for_qemu(system, machine));
    }
    let image = hypervisor.bytes.as_slice();
    files.push(NewFile::data(system.arch.hypervisor, image));
    files.push(NewFile::data(CONTAINER, container));
    Ok(files)
}

/// GRUB puts the container where it likes, so that its plan isn't known here: the container then
/// carries no digest.
fn container(system: &System) -> Result<Vec<u8>, Diagnostic> {
    match system.host_tree {
        Some(_) => system.container(),
        None => system.container_without_digest(),
    }
}

fn for_uboot<'a>(system: &System, tree: &'a [u8]) -> Vec<NewFile<'a>> {
    let mut files = vec![NewFile::data(TREE, tree)];
    let names = [system.arch.hypervisor, TREE, CONTAINER];
    if let Some(source) = scripts::uboot(&system.places, names) {
        let [script, text] = SCRIPT;
        let image = uboot::script("terrane", &source);
        files.extend(image.map(|image| NewFile::data(script, image)));
        files.push(NewFile::data(text, source.into_bytes()));
    }
    files
}

/// `iso` is the container that an ISO is to have, if there is to be one.
fn for_grub<'a>(
    system: &System,
    hypervisor: &Hypervisor,
    iso: Option<&[u8]>,
) -> Result<Vec<NewFile<'a>>, Diagnostic> {
    let name = system.arch.hypervisor;
    let menu = grub::config(name, CONTAINER, hypervisor.has_multiboot2());
    let mut files = Vec::new();
    if let Some(container) = iso {
        let content = [(name, hypervisor.bytes.as_slice()), (CONTAINER, container)];
        files.push(NewFile::data(grub::ISO, grub::iso(&menu, &content)?));
    }
    files.push(NewFile::data(grub::CONFIG, menu.into_bytes()));
    Ok(files)
}

fn for_qemu<'a>(system: &System, machine: &Machine) -> NewFile<'a> {
    let here = Path::new(scripts::HERE);
    let [hypervisor, container, tree] =
        [system.arch.hypervisor, CONTAINER, TREE].map(|name| here.join(name));
    let files = Files {
        hypervisor: &hypervisor,
        container: &container,
        tree: system.host_tree.as_ref().map(|_| Tree {
            file: &tree,
            container: system.places.container.start().raw(),
        }),
    };
    let mut arguments = machine.arguments();
    arguments.extend(CONSOLE.map(OsString::from));
    let script = scripts::qemu(&program(machine), &arguments, &files.arguments());
    NewFile {
        executable: true,
        ..NewFile::data(QEMU, script.into_bytes())
    }
}

/// QEMU's program as it is found from any folder: a name by PATH, a path from the root.
fn program(machine: &Machine) -> String {
    let program = machine.program();
    let is_path = program.components().count() > 1;
    let absolute = is_path.then(|| std::path::absolute(program));
    let absolute = absolute.and_then(Result::ok);
    let found = absolute.as_deref().unwrap_or(program);
    found.display().to_string()
}
