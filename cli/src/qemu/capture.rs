//! What the hypervisor finds in a QEMU machine: it is booted there with the word `capture`, prints
//! the machine's description between two marker lines, and ends.

use std::io::{self, BufRead, BufReader, Read};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use manifest::pc;

use super::process::{Cut, GRACE, Process, TICK};
use super::{CONSOLE, Failure, LIMIT, Machine, cache};
use crate::diagnostics::Diagnostic;
use crate::hypervisor::Hypervisor;
use crate::status;

/// A description is some KiB; a line beyond this is none.
const MAX_BYTES: u64 = 16 << 20;

/// What the hypervisor writes before its own lines.
const PREFIX: &str = "(terrane) ";
const BEGIN: &str = "host begin";
const END: &str = "host end";

impl Machine {
    /// The description of this machine as `hypervisor` prints it: one line of JSON. `progress`: a
    /// person is told that it takes a moment.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn capture(&self, hypervisor: &Hypervisor, progress: bool) -> Result<Vec<u8>, Failure> {
        let refused = match self.captured(hypervisor, progress) {
            Err(Failure::Refused(found)) if !self.more.is_empty() => found,
            other => return other,
        };
        let without = Self {
            more: Vec::new(),
            ..self.clone()
        };
        match without.captured(hypervisor, progress) {
            Ok(_) => Err(Failure::CommandLine(refused.with_help(
                "see what stands behind `--`: without it there is such a machine",
            ))),
            Err(Failure::Interrupted(signal)) => Err(Failure::Interrupted(signal)),
            Err(_) => Err(Failure::Refused(refused)),
        }
    }

    fn captured(&self, hypervisor: &Hypervisor, progress: bool) -> Result<Vec<u8>, Failure> {
        let arguments = self.arguments();
        let arguments = arguments.iter().map(|word| word.as_encoded_bytes());
        let more = self.more.iter().map(String::as_bytes);
        // Without a border an argument of the manifest's could pass for the user's: both reach
        // QEMU in this order, so that it would be the same machine.
        let parts = [self.qemu.identity.as_bytes(), &hypervisor.bytes];
        let name = cache::key(parts.into_iter().chain(arguments).chain(more)) + ".json";
        cache::cached(&name, is_description, || {
            if progress {
                status::step(
                    "Capturing",
                    "the machine's description, by the hypervisor in QEMU",
                );
            }
            self.boot_for_capture(hypervisor)
        })
    }

    fn boot_for_capture(&self, hypervisor: &Hypervisor) -> Result<Vec<u8>, Failure> {
        let mut command = self.command();
        command
            .args(self.arguments())
            .args(CONSOLE)
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(&hypervisor.path)
            .args(["-append", "capture"])
            .args(&self.more);
        let mut console =
            Console::start(&mut command).map_err(|error| self.qemu.missing(&error.to_string()))?;
        let heard = console.listen();
        let failed = console.end(heard == Err(Silence::Ended));
        heard.map_err(|reason| match (reason, failed) {
            (Silence::Ended, Some(stderr)) => super::refused(stderr.as_bytes()),
            (reason, _) => reason.into_failure(),
        })
    }
}

fn is_description(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|line| pc::read(line).is_ok())
}

/// Why there is no description.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// The hypervisor gave a reason.
    Said(String),
    /// The machine ended without one.
    Ended,
    /// The time was up; the last line, if there was one.
    TimeUp(Option<String>),
    /// This program is to end by a signal.
    Interrupted(i32),
}

impl Silence {
    fn into_failure(self) -> Failure {
        let help = "`terrane run` needs a CPU model with SVM and nested paging; see `[host] qemu`";
        let found = match self {
            Self::Interrupted(signal) => return Failure::Interrupted(signal),
            Self::Said(reason) => Diagnostic::error(
                "capture-failed",
                format!("the hypervisor can't describe this machine: {reason}"),
            )
            .with_help(help),
            Self::Ended => Diagnostic::error(
                "capture-failed",
                "the machine ended before the hypervisor had described it",
            )
            .with_help(help),
            Self::TimeUp(last) => {
                let seconds = LIMIT.as_secs();
                let last = match last {
                    Some(line) => format!("its last line was: {line}"),
                    None => "it wrote nothing".to_owned(),
                };
                Diagnostic::error(
                    "capture-failed",
                    format!("the hypervisor described no machine within {seconds} s; {last}"),
                )
                .with_help("name the hypervisor of this version by --hypervisor FILE")
            }
        };
        Failure::Refused(found)
    }
}

/// A machine whose console is read line by line.
struct Console {
    process: Process,
    lines: Receiver<String>,
}

impl Console {
    fn start(command: &mut Command) -> io::Result<Self> {
        let mut process = Process::start(command, LIMIT)?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = process.stdout() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stdout.take(MAX_BYTES));
                let mut line = Vec::new();
                while let Ok(1..) = reader.read_until(b'\n', &mut line) {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    line.clear();
                    if sender.send(text).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { process, lines })
    }

    fn listen(&mut self) -> Result<Vec<u8>, Silence> {
        let mut reading = Reading::default();
        loop {
            match self.process.cut() {
                Some(Cut::TimeUp) => return Err(Silence::TimeUp(reading.last)),
                Some(Cut::Signal(signal)) => return Err(Silence::Interrupted(signal)),
                None => {}
            }
            match self.lines.recv_timeout(TICK) {
                Ok(line) => {
                    if let Some(end) = reading.line(&line) {
                        return end;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Ended),
            }
        }
    }

    /// Ends the machine; if it is `ending` by itself and fails, what QEMU said on its standard
    /// error.
    fn end(self, ending: bool) -> Option<String> {
        let moment = if ending { GRACE } else { Duration::ZERO };
        let (status, stderr) = self.process.end(moment).ok()?;
        let failed = ending && !status.success();
        failed.then(|| String::from_utf8_lossy(&stderr).into_owned())
    }
}

/// What has been read of a console.
#[derive(Debug, Default)]
struct Reading {
    begun: bool,
    description: Option<String>,
    last: Option<String>,
}

impl Reading {
    /// Takes a line; the result, if it is the last that matters.
    fn line(&mut self, line: &str) -> Option<Result<Vec<u8>, Silence>> {
        let line = line.strip_prefix(PREFIX).unwrap_or(line);
        if line.starts_with("error[") {
            return Some(Err(Silence::Said(line.to_owned())));
        }
        if line == BEGIN {
            self.begun = true;
            return None;
        }
        if line == END && self.begun {
            let description = self.description.take().ok_or(Silence::Ended);
            return Some(description.map(String::into_bytes));
        }
        if self.begun && line.starts_with('{') {
            self.description = Some(line.to_owned());
        } else if !line.is_empty() {
            self.last = Some(line.to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<Result<String, Silence>> {
        let mut reading = Reading::default();
        lines
            .iter()
            .find_map(|line| reading.line(line))
            .map(|end| end.map(|bytes| String::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn the_description_is_the_line_between_the_markers() {
        let lines = [
            "(terrane) Terrane on x86-64",
            "(terrane) {\"not\": 1}",
            "(terrane) host begin",
            "(terrane) {\"version\":1}",
            "(terrane) host end",
        ];
        assert_eq!(read(&lines), Some(Ok("{\"version\":1}".to_owned())));
        assert_eq!(read(&lines[..4]), None);
    }

    #[test]
    fn an_error_of_the_hypervisor_is_the_reason() {
        let reason = "error[no-svm]: this CPU has no SVM";
        assert_eq!(
            read(&["(terrane) hello", &format!("(terrane) {reason}")]),
            Some(Err(Silence::Said(reason.to_owned())))
        );
    }

    #[test]
    fn markers_around_nothing_are_no_description() {
        let lines = ["(terrane) host begin", "(terrane) host end"];
        assert_eq!(read(&lines), Some(Err(Silence::Ended)));
    }
}
