//! What a command ends with: its result, to standard output or the file that `-o` names, or the one finding that
//! stopped it.

use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostics::Diagnostic;
use crate::exit::Exit;
use crate::findings::Findings;
use crate::status;
use crate::stream::{self, Stream};
use crate::writing::{self, NewFile};

/// How a command says it; by default to people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    /// With `--json`: what goes to standard error are findings, one object a line, and nothing else.
    pub json: bool,
}

impl Output {
    /// Writes a result; with a file's name, there, and says so. `inputs` are the files that it is made from.
    ///
    /// # Errors
    /// Standard output or standard error can't be written.
    pub fn put(self, bytes: &[u8], file: Option<&Path>, inputs: &[PathBuf]) -> io::Result<Exit> {
        let Some(path) = file else {
            return stream::result(bytes).map(|()| Exit::Good);
        };
        let written = writing::spare(&[path.to_owned()], inputs)
            .and_then(|()| writing::write(&[NewFile::data(path, bytes)]));
        match written {
            Ok(_) => {
                self.step("Wrote", path.display());
                Ok(Exit::Good)
            }
            Err(found) => self.fail(found, Exit::Unreadable),
        }
    }

    /// Tells people of a step.
    pub fn step(self, verb: &str, object: impl std::fmt::Display) {
        if !self.json {
            status::step(verb, object);
        }
    }

    /// Shows the one finding that a command ends with.
    ///
    /// # Errors
    /// Standard error can't be written.
    pub fn fail(self, found: Diagnostic, exit: Exit) -> io::Result<Exit> {
        self.fail_by(vec![found], exit)
    }

    /// Shows the findings that a command ends with.
    ///
    /// # Errors
    /// Standard error can't be written.
    pub fn fail_by(self, wrong: Vec<Diagnostic>, exit: Exit) -> io::Result<Exit> {
        let mut findings = Findings::default();
        let exit = findings.give_up_by(wrong, exit);
        findings.emit(self.json, Stream::Stderr).map(|()| exit)
    }
}

/// [`Output::put`] for people, of what is made from no file.
///
/// # Errors
/// As there.
pub fn put(bytes: &[u8], file: Option<&Path>) -> io::Result<Exit> {
    Output::default().put(bytes, file, &[])
}

/// [`Output::fail`] for people.
///
/// # Errors
/// As there.
pub fn fail(found: Diagnostic, exit: Exit) -> io::Result<Exit> {
    Output::default().fail(found, exit)
}
