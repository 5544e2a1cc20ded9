//! QEMU as a host: finding it, the command line of a machine, and the machine's description.
//!
//! The description is asked from QEMU itself, or from the hypervisor in it, and kept in the user's
//! cache by the whole specification and QEMU's program.

mod arguments;
mod cache;
mod capture;
pub mod process;
mod tree;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use manifest::toml::QemuSpec;

use crate::arch::Arch;
use crate::diagnostics::Diagnostic;
use process::{Cut, Process, Said};

/// How long QEMU has to say what it is asked. Firmware and hypervisor take some two seconds under emulation.
const LIMIT: Duration = Duration::from_secs(60);

/// What went wrong with QEMU, before anything was booted.
#[derive(Debug)]
pub enum Failure {
    /// It isn't there or can't be started.
    Missing(Diagnostic),
    /// It doesn't take this machine, or the hypervisor doesn't run on it: the manifest is wrong.
    Refused(Diagnostic),
    /// As [`Failure::Refused`], for what the user's command line adds to the machine.
    CommandLine(Diagnostic),
    /// A file for QEMU can't be written.
    Io(Diagnostic),
    /// This signal is to end the program.
    Interrupted(i32),
}

/// A QEMU program.
#[derive(Clone, Debug)]
struct Qemu {
    program: PathBuf,
    /// What tells it from another one, or from what it was before.
    identity: String,
    /// How a user gets it or names it.
    help: String,
}

impl Qemu {
    /// Finds the program for an architecture: `$TERRANE_QEMU_ARCH`, else `qemu-system-ARCH` in
    /// `PATH`.
    fn find(arch: &Arch) -> Result<Self, Failure> {
        let variable = format!("TERRANE_QEMU_{}", arch.name.to_uppercase());
        let name = format!("qemu-system-{}", arch.name);
        let program = env::var_os(&variable).map_or_else(|| PathBuf::from(&name), PathBuf::from);
        let help = format!("install QEMU ({name} must be in PATH), or name it by {variable}");
        let mut qemu = Self {
            program,
            identity: String::new(),
            help,
        };
        let said = qemu.ask(qemu.command().arg("--version"), || {
            qemu.missing(&format!("--version took more than {} s", LIMIT.as_secs()))
        })?;
        if !said.status.success() {
            return Err(qemu.missing(&format!("--version ended with {}", said.status)));
        }
        let text = String::from_utf8_lossy(&said.stdout);
        let version = text.lines().next().unwrap_or_default();
        qemu.identity = format!("{version}\n{}", qemu.file());
        Ok(qemu)
    }

    /// The program's file, its size and when it was written: two builds may have one version.
    fn file(&self) -> String {
        let path = env::var_os("PATH").unwrap_or_default();
        let files: Vec<PathBuf> = if self.program.components().count() > 1 {
            vec![self.program.clone()]
        } else {
            let folders = env::split_paths(&path);
            folders.map(|folder| folder.join(&self.program)).collect()
        };
        let mut files = files.iter();
        let file = files.find_map(|file| Some((file.canonicalize().ok()?, file.metadata().ok()?)));
        let Some((file, metadata)) = file else {
            return String::new();
        };
        let (written, size) = (metadata.modified().ok(), metadata.len());
        format!("{}\n{size}\n{written:?}", file.display())
    }

    fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// Runs it to its end; `late` is what is wrong if that takes longer than [`LIMIT`].
    fn ask(&self, command: &mut Command, late: impl Fn() -> Failure) -> Result<Said, Failure> {
        let said = Process::start(command, LIMIT).and_then(Process::finish);
        let said = said.map_err(|error| self.missing(&error.to_string()))?;
        said.map_err(|cut| match cut {
            Cut::TimeUp => late(),
            Cut::Signal(signal) => Failure::Interrupted(signal),
        })
    }

    fn missing(&self, why: &str) -> Failure {
        let message = format!("can't run {}: {why}", self.program.display());
        Failure::Missing(Diagnostic::error("qemu-missing", message).with_help(&self.help))
    }
}

/// A machine of QEMU's, as a manifest and the command line say it.
#[derive(Clone, Debug)]
pub struct Machine {
    qemu: Qemu,
    arch: &'static Arch,
    spec: QemuSpec,
    /// The user's arguments for this one run.
    more: Vec<String>,
}

impl Machine {
    /// The machine of a specification, and of what the user's command line adds to it.
    ///
    /// # Errors
    /// [`Failure::Missing`] if QEMU isn't there or doesn't start.
    pub fn find(arch: &'static Arch, spec: &QemuSpec, more: &[String]) -> Result<Self, Failure> {
        Ok(Self {
            qemu: Qemu::find(arch)?,
            arch,
            spec: spec.clone(),
            more: more.to_vec(),
        })
    }

    /// A command that has QEMU's program and nothing else.
    pub fn command(&self) -> Command {
        self.qemu.command()
    }

    /// The program, for scripts.
    pub fn program(&self) -> &Path {
        &self.qemu.program
    }

    /// The arguments that make the machine, without anything to boot and without the user's.
    pub fn arguments(&self) -> Vec<OsString> {
        self.arguments_with("")
    }

    /// The user's arguments, which come last.
    pub fn more(&self) -> &[String] {
        &self.more
    }

    /// The files that the manifest and the user's arguments may name for QEMU; some of them are none.
    pub fn files(&self) -> Vec<PathBuf> {
        let said = self.spec.args.iter().chain(&self.more);
        let said = said.chain([&self.spec.machine]);
        said.flat_map(|argument| arguments::files(argument))
            .collect()
    }

    fn arguments_with(&self, option: &str) -> Vec<OsString> {
        arguments::machine(self.arch, &self.spec, &self.more, option)
    }
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

/// A path inside one of QEMU's option lists: a comma is written twice.
pub fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// What QEMU says when it doesn't take a machine.
fn refused(stderr: &[u8]) -> Failure {
    let said = String::from_utf8_lossy(stderr);
    let first = said.lines().next().unwrap_or("it said nothing").trim();
    let message = format!("QEMU doesn't take this machine: {first}");
    Failure::Refused(
        Diagnostic::error("qemu-refuses", message)
            .with_help("see `[host] qemu` and QEMU's own -machine help and -cpu help"),
    )
}

/// QEMU waits for something before it makes the machine.
fn late() -> Failure {
    let limit = LIMIT.as_secs();
    let message = format!("QEMU hasn't described this machine within {limit} s, and was ended");
    Failure::Refused(Diagnostic::error("qemu-refuses", message).with_help(
        "see `args` of `[host] qemu`: a socket with `server=on` waits for somebody unless `wait=off` is said",
    ))
}
