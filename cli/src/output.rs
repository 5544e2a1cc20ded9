//! Where a command's result goes that isn't a plan: standard output, or the file that `-o` names.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::diagnostics::{self, Diagnostic, Stream};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::status;

/// Writes a result; with a file's name, there, and says so.
///
/// # Errors
/// Standard output or standard error can't be written.
pub fn put(bytes: &[u8], file: Option<&Path>) -> io::Result<Exit> {
    let Some(path) = file else {
        return io::stdout().write_all(bytes).map(|()| Exit::Good);
    };
    match fs::write(path, bytes) {
        Ok(()) => {
            status::step("Wrote", path.display());
            Ok(Exit::Good)
        }
        Err(error) => fail(diagnostics::unwritable(path, &error), Exit::Unreadable),
    }
}

/// Shows the one finding that a command ends with.
///
/// # Errors
/// Standard error can't be written.
pub fn fail(found: Diagnostic, exit: Exit) -> io::Result<Exit> {
    let mut findings = Findings::default();
    findings.add(found);
    findings.emit(false, Stream::Stderr).map(|()| exit)
}
