//! A system in QEMU, watched: `terrane run`.

mod lines;
mod outcome;
mod sinks;
mod supervisor;
mod terminal;

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::diagnostics::{self, Diagnostic};
use crate::exit::Exit;
use crate::output::Output;
use crate::qemu;
use crate::stream::Unheard;
use crate::system::System;
use lines::Splitter;
use outcome::Stopped;
use sinks::{Screen, Sinks, locked};
use supervisor::Failure;
use terminal::RawTerminal;

/// The files that QEMU loads, and how it hands them over.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The hypervisor's image.
    pub hypervisor: &'a Path,
    /// The container.
    pub container: &'a Path,
    /// A tree that names the container's place; without one the container is a multiboot module.
    pub tree: Option<Tree<'a>>,
}

/// A device tree that is handed over.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// Its file.
    pub file: &'a Path,
    /// The machine address that it names for the container.
    pub container: u64,
}

impl Files<'_> {
    /// The arguments that load them.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["-kernel".into(), self.hypervisor.into()];
        match self.tree {
            Some(tree) => {
                let mut loader = OsString::from("loader,file=");
                loader.push(qemu::escaped(self.container));
                loader.push(format!(",addr={:#x},force-raw=on", tree.container));
                arguments.extend(["-dtb".into(), tree.file.into(), "-device".into(), loader]);
            }
            // A list of modules: in a name a comma is written twice, too.
            None => {
                let module = qemu::escaped(self.container);
                arguments.extend(["-initrd".into(), module.into()]);
            }
        }
        arguments
    }
}

/// The files that QEMU loads, in a folder that goes away with this.
#[derive(Debug)]
pub struct BootFiles {
    folder: TempDir,
    hypervisor: PathBuf,
    /// The container's address, if a tree beside it says so.
    told: Option<u64>,
}

impl BootFiles {
    /// Writes a system's files.
    ///
    /// # Errors
    /// The folder for temporary files can't be written, or there is no hypervisor.
    pub fn write(system: &System) -> Result<Self, Diagnostic> {
        let hypervisor = system.hypervisor()?;
        let folder = tempfile::Builder::new()
            .prefix("terrane-")
            .tempdir()
            .map_err(|error| diagnostics::unwritable(&std::env::temp_dir(), &error))?;
        if system.host_tree.is_none() && folder.path().to_string_lossy().contains(' ') {
            // What follows a space in a module's name are its arguments.
            let message = format!("QEMU loads no module from {}", folder.path().display());
            return Err(Diagnostic::error("cannot-write", message)
                .with_help("set TMPDIR to a folder without a space in its path"));
        }
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).map_err(|error| diagnostics::unwritable(&path, &error))
        };
        put(CONTAINER, &system.container()?)?;
        if let Some(tree) = &system.host_tree {
            put(TREE, tree)?;
        }
        let place = system.places.container.start().raw();
        Ok(Self {
            folder,
            hypervisor: hypervisor.path.clone(),
            told: system.host_tree.is_some().then_some(place),
        })
    }

    /// The arguments that load them.
    pub fn arguments(&self) -> Vec<OsString> {
        let tree = self.folder.path().join(TREE);
        let files = Files {
            hypervisor: &self.hypervisor,
            container: &self.folder.path().join(CONTAINER),
            tree: self.told.map(|container| Tree {
                file: &tree,
                container,
            }),
        };
        files.arguments()
    }
}

const TREE: &str = "host.dtb";
const CONTAINER: &str = "container.bin";

/// How a run is watched.
#[derive(Debug)]
pub struct Watch<'a> {
    /// The domains' names.
    pub domains: &'a [String],
    /// The one of them that has the console.
    pub focus: usize,
    /// End after this time.
    pub timeout: Option<Duration>,
    /// Where logs go.
    pub log_dir: Option<&'a Path>,
    /// The files that the command reads.
    pub inputs: &'a [PathBuf],
    /// The focus domain has standard output for itself.
    pub plain: bool,
    /// How steps are told.
    pub output: Output,
}

/// Starts QEMU and watches it to its end.
///
/// # Errors
/// It can't be started or watched, or ended otherwise than by every domain stopping by itself: with the exit status that
/// says so.
pub fn run(qemu: Command, watch: &Watch<'_>) -> Result<Exit, (Diagnostic, Exit)> {
    let unreadable = |found| (found, Exit::Unreadable);
    let splitter = Splitter::new(watch.domains.iter().map(String::as_str), watch.focus);
    let focus = splitter.focus();
    let screen: Screen<Box<dyn Write + Send>> = Screen {
        out: Box::new(Unheard::new(io::stdout())),
        aside: Box::new(Unheard::new(io::stderr())),
        terminal: io::stdout().is_terminal(),
        plain: watch.plain.then_some(focus),
    };
    let logs = match watch.log_dir {
        Some(folder) => sinks::logs(folder, splitter.labels(), watch.inputs).map_err(unreadable)?,
        None => Vec::new(),
    };
    let sinks = Sinks::new(screen, splitter.labels(), logs);

    let terminal = RawTerminal::enter().map_err(|error| {
        let message = format!("can't set up the terminal: {error}");
        unreadable(Diagnostic::error("terminal", message))
    })?;
    if terminal.is_some() {
        watch.output.step("Booting", "Ctrl-] ends it");
    }
    let outcome = sinks.outcome();
    let stopped = supervisor::supervise(qemu, splitter, sinks, watch.timeout, terminal.is_some());
    drop(terminal);

    let stopped = match stopped {
        Ok(stopped) => stopped,
        Err(Failure::Output(error)) => return Err(unreadable(output_failed(&error))),
        Err(Failure::Spawn(error) | Failure::Watch(error)) => {
            let message = format!("can't run QEMU: {error}");
            return Err((Diagnostic::error("qemu-missing", message), Exit::QemuFailed));
        }
    };
    let (exit, sentence) = locked(&outcome).verdict(stopped, watch.domains);
    match sentence {
        Some(sentence) if stopped == Stopped::Interrupted => watch.output.step("Ended", sentence),
        Some(sentence) => return Err((Diagnostic::error("run-ended", sentence), exit)),
        None => {}
    }
    Ok(exit)
}

fn output_failed(error: &io::Error) -> Diagnostic {
    Diagnostic::error(
        "cannot-write",
        format!("can't write the console's output: {error}"),
    )
}
