//! QEMU as a host: finding it, the command line of a machine, and the machine's description.
//!
//! The description is asked from QEMU itself, or from the hypervisor in it, and kept in the user's
//! cache by the whole specification and QEMU's version.

mod arguments;
mod cache;
mod capture;
mod tree;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use manifest::toml::QemuSpec;

use crate::arch::Arch;
use crate::diagnostics::Diagnostic;

/// What went wrong with QEMU, before anything was booted.
#[derive(Debug)]
pub enum Failure {
    /// It isn't there or can't be started.
    Missing(Diagnostic),
    /// It doesn't take this machine, or the hypervisor doesn't run on it: the manifest is wrong.
    Refused(Diagnostic),
    /// The cache or a file for QEMU can't be written.
    Io(Diagnostic),
}

/// A QEMU program.
#[derive(Clone, Debug)]
struct Qemu {
    program: PathBuf,
    version: String,
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
            version: String::new(),
            help,
        };
        let output = qemu
            .command()
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| qemu.missing(&error.to_string()))?;
        if !output.status.success() {
            return Err(qemu.missing(&format!("--version ended with {}", output.status)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        qemu.version = text.lines().next().unwrap_or_default().to_owned();
        Ok(qemu)
    }

    fn command(&self) -> Command {
        Command::new(&self.program)
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
