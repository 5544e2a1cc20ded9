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
use crate::status;
use crate::system::System;
use lines::Splitter;
use outcome::Stopped;
use sinks::{Screen, Sinks};
use supervisor::Failure;
use terminal::RawTerminal;

/// The files that QEMU loads, and where the container goes.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The hypervisor's image.
    pub hypervisor: &'a Path,
    /// The host's tree, with the container's place in `/chosen`.
    pub tree: &'a Path,
    /// The container.
    pub container: &'a Path,
    /// The container's machine address.
    pub address: u64,
}

impl Files<'_> {
    /// The arguments that load them.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut loader = OsString::from("loader,file=");
        loader.push(escaped(self.container));
        loader.push(format!(",addr={:#x},force-raw=on", self.address));
        vec![
            "-kernel".into(),
            self.hypervisor.into(),
            "-dtb".into(),
            self.tree.into(),
            "-device".into(),
            loader,
        ]
    }
}

/// The files that QEMU loads, in a folder that goes away with this.
#[derive(Debug)]
pub struct BootFiles {
    folder: TempDir,
    hypervisor: PathBuf,
    address: u64,
}

impl BootFiles {
    /// Writes a system's files.
    ///
    /// # Errors
    /// The folder for temporary files can't be written, or there is no hypervisor.
    pub fn write(system: &System) -> Result<Self, Diagnostic> {
        let hypervisor = system.hypervisor.as_ref().ok_or_else(|| {
            Diagnostic::error("hypervisor-missing", "the hypervisor's image isn't there")
        })?;
        let folder = tempfile::Builder::new()
            .prefix("terrane-")
            .tempdir()
            .map_err(|error| diagnostics::unwritable(&std::env::temp_dir(), &error))?;
        for (name, bytes) in [(TREE, &system.host_tree), (CONTAINER, &system.container()?)] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).map_err(|error| diagnostics::unwritable(&path, &error))?;
        }
        Ok(Self {
            folder,
            hypervisor: hypervisor.path.clone(),
            address: system.places.container.start().raw(),
        })
    }

    /// The arguments that load them.
    pub fn arguments(&self) -> Vec<OsString> {
        let files = Files {
            hypervisor: &self.hypervisor,
            tree: &self.folder.path().join(TREE),
            container: &self.folder.path().join(CONTAINER),
            address: self.address,
        };
        files.arguments()
    }
}

const TREE: &str = "host.dtb";
const CONTAINER: &str = "container.bin";

/// A path inside one of QEMU's option lists: a comma is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Arguments that put the console on standard input and output, and nothing else there.
pub const CONSOLE: [&str; 8] = [
    "-display",
    "none",
    "-monitor",
    "none",
    "-chardev",
    "stdio,id=console,signal=off",
    "-serial",
    "chardev:console",
];

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
    pub log_dir: Option<PathBuf>,
    /// The focus domain has standard output for itself.
    pub plain: bool,
}

/// Starts QEMU and watches it to its end.
pub fn run(qemu: Command, watch: &Watch<'_>) -> Result<Exit, Diagnostic> {
    let mut splitter = Splitter::new(watch.domains.iter().map(String::as_str), watch.focus);
    let focus = splitter.focus();
    let screen: Screen<Box<dyn Write>> = Screen {
        out: Box::new(io::stdout()),
        aside: Box::new(io::stderr()),
        terminal: io::stdout().is_terminal(),
        plain: watch.plain.then_some(focus),
    };
    let mut sinks = Sinks::new(screen, splitter.labels(), watch.log_dir.as_deref())
        .map_err(|(path, error)| diagnostics::unwritable(&path, &error))?;

    let terminal = RawTerminal::enter().map_err(|error| {
        Diagnostic::error("terminal", format!("can't set up the terminal: {error}"))
    })?;
    if terminal.is_some() {
        status::step("Booting", "Ctrl-] ends it");
    }
    let stopped = supervisor::supervise(
        qemu,
        &mut splitter,
        &mut sinks,
        watch.timeout,
        terminal.is_some(),
    );
    let outcome = sinks.finish();
    drop(terminal);

    let stopped = match stopped {
        Ok(stopped) => stopped,
        Err(Failure::Output(error)) => return Err(output_failed(&error)),
        Err(Failure::Spawn(error) | Failure::Watch(error)) => {
            status::error(format_args!("can't run QEMU: {error}"));
            return Ok(Exit::QemuFailed);
        }
    };
    let outcome = outcome.map_err(|error| output_failed(&error))?;
    let (exit, sentence) = outcome.verdict(stopped, watch.domains);
    match sentence {
        Some(sentence) if stopped == Stopped::Interrupted => status::step("Ended", sentence),
        Some(sentence) => status::error(sentence),
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
