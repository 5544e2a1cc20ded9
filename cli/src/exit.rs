//! What the command's exit status says. Scripts rely on these numbers: docs/command.md lists them.

use std::process::ExitCode;

/// The exit status of one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// No conflict; for `run`, every domain stopped by its own wish.
    Good = 0,
    /// The manifest has conflicts.
    Conflicts = 1,
    /// A file can't be read, or is neither TOML nor a device tree. A wrong command line ends so too, as clap has it.
    Unreadable = 2,
    /// `run --timeout` expired.
    TimedOut = 3,
    /// A domain crashed, or the machine stopped under a domain that still ran.
    DomainCrashed = 4,
    /// QEMU isn't there, didn't start, or ended with an error.
    QemuFailed = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
