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

fn write(to: impl Write, bytes: &[u8]) -> io::Result<()> {
    let mut to = Unheard::new(to);
    to.write_all(bytes)?;
    to.flush()
}

/// A stream whose reader may go away: the rest is then for nobody, and no failure.
pub struct Unheard<W>(Option<W>);

impl<W: Write> Unheard<W> {
    /// A stream that is still read.
    pub fn new(stream: W) -> Self {
        Self(Some(stream))
    }

    fn with<T>(&mut self, unheard: T, act: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        let Some(stream) = &mut self.0 else {
            return Ok(unheard);
        };
        match act(stream) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.0 = None;
                Ok(unheard)
            }
            other => other,
        }
    }
}

impl<W: Write> Write for Unheard<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(bytes.len(), |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with((), Write::flush)
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
