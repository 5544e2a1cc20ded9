//! Standard output and standard error, as every command writes them.
//!
//! Whoever reads them may go away before the end, as `head` does: that is no error, and changes nothing of what a
//! command found.

use std::io::{self, ErrorKind, Write};

/// Where a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The result itself.
    Stdout,
    /// Everything else.
    Stderr,
}

impl Stream {
    /// Writes a text, with colours if it goes to a terminal that has them and a user who wants them.
    ///
    /// # Errors
    /// The stream can't be written.
    pub fn text(self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout => write(anstream::stdout().lock(), text.as_bytes()),
            Self::Stderr => write(anstream::stderr().lock(), text.as_bytes()),
        }
    }
}

/// Writes a command's result to standard output, byte for byte.
///
/// # Errors
/// It can't be written.
pub fn result(bytes: &[u8]) -> io::Result<()> {
    write(io::stdout().lock(), bytes)
}

fn write(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with one kind of error.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn only_a_reader_that_goes_away_is_no_error() {
        assert!(write(Failing(ErrorKind::BrokenPipe), b"x").is_ok());
        assert!(write(Failing(ErrorKind::StorageFull), b"x").is_err());
    }
}
