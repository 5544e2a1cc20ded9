//! `terrane host capture`: the machine that this Linux runs on, as a host description.
//!
//! What the kernel shows of firmware's description in /sys and /proc is read, and all that can't be read is said. On a
//! PC the result is the same line that the hypervisor prints; on a machine with a device tree it holds that tree.
//! Nothing here touches hardware.

mod files;
mod iomem;
mod pc;
mod pci;
mod tree;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use layout::Architecture;

use crate::diagnostics::Diagnostic;
use crate::exit::Exit;
use crate::findings::Findings;
use crate::output;
use crate::stream::Stream;
use files::Files;

/// `terrane host`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Describe the Linux machine that this runs on, as JSON for a manifest's [host] description
    Capture(CaptureArgs),
}

/// `terrane host capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Write it to a file instead of standard output
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Read another machine's files: a directory with copies of its /sys and /proc
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// Runs it.
pub fn host(command: &HostCommand) -> io::Result<Exit> {
    let HostCommand::Capture(args) = command;
    match capture(&Files::below(&args.root)) {
        Ok(line) => output::put((line + "\n").as_bytes(), args.output.as_deref()),
        Err(complaints) => {
            let mut findings = Findings::default();
            complaints.into_iter().for_each(|found| findings.add(found));
            findings
                .emit(false, Stream::Stderr)
                .map(|()| Exit::Unreadable)
        }
    }
}

/// The description as one line of JSON.
///
/// # Errors
/// Everything that couldn't be read.
fn capture(files: &Files) -> Result<String, Vec<Diagnostic>> {
    match architecture(files).map_err(|found| vec![found])? {
        Architecture::X86_64 => pc::describe(files).map(|found| manifest::pc::write(&found)),
        other => tree::describe(files, other),
    }
}

/// What the kernel calls the CPUs' features tells the architectures apart.
fn architecture(files: &Files) -> Result<Architecture, Diagnostic> {
    const KEYS: [(&str, Architecture); 3] = [
        ("vendor_id", Architecture::X86_64),
        ("CPU implementer", Architecture::Aarch64),
        ("isa", Architecture::Riscv64),
    ];
    const INFO: &str = "proc/cpuinfo";
    let info = files.text(INFO)?;
    let keys = || info.lines().filter_map(|line| line.split(':').next());
    let found = KEYS
        .into_iter()
        .find(|(name, _)| keys().any(|key| key.trim() == *name));
    found.map(|(_, architecture)| architecture).ok_or_else(|| {
        let file = files.shown(INFO);
        let message = format!("this is no x86-64, arm64 or riscv64 machine by its {file}");
        Diagnostic::error("host-unknown", message)
    })
}
