//! How a test system ends, by reboot(2) and without an init to ask.

use std::process::ExitCode;
use std::{fs, thread, time::Duration};

use anyhow::Error;
use rustix::system::{RebootCommand, reboot};

/// An end of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Power off.
    PowerOff,
    /// Restart.
    Reboot,
    /// Stop the CPUs, power on.
    Halt,
    /// A kernel panic.
    Crash,
    /// None: it runs on, with nothing to do.
    Never,
}

impl End {
    /// The end of that name: `poweroff`, `reboot`, `halt`, `crash`, `never`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "poweroff" => Some(Self::PowerOff),
            "reboot" => Some(Self::Reboot),
            "halt" => Some(Self::Halt),
            "crash" => Some(Self::Crash),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// Ends the system after a sync. Gives back why it couldn't.
pub fn end(how: End) -> Error {
    rustix::fs::sync();
    // What was printed is on its way through the console's ring: hvc0 empties it by a thread.
    thread::sleep(Duration::from_millis(100));
    let command = match how {
        End::PowerOff => RebootCommand::PowerOff,
        End::Reboot => RebootCommand::Restart,
        End::Halt => RebootCommand::Halt,
        End::Crash => return crash(),
        End::Never => loop {
            thread::sleep(Duration::from_secs(3600));
        },
    };
    match reboot(command) {
        Ok(()) => Error::msg("reboot(2) came back"),
        Err(error) => Error::new(error).context("reboot(2)"),
    }
}

/// Panics the kernel through /proc/sysrq-trigger; where that is missing, an init that ends does it.
fn crash() -> Error {
    match fs::write("/proc/sysrq-trigger", "c") {
        Ok(()) => Error::msg("the kernel outlived its crash"),
        Err(error) => Error::new(error).context("/proc/sysrq-trigger"),
    }
}

/// The end of an init that failed; if the power stays on, the kernel panics as this process exits.
pub fn off_or_panic() -> ExitCode {
    eprintln!("checker: {:#}", end(End::PowerOff));
    ExitCode::FAILURE
}
