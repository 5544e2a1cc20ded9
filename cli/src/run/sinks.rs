//! Where console pieces go: the screen, with a name before each line, and one log file per name.
//!
//! In plain form one domain has standard output for itself, byte for byte but for the carriage returns that a serial
//! line's ends have, and everybody else's lines go to standard error: a shell in a pipe.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::lines::{HYPERVISOR, Piece};
use super::outcome::Outcome;
use crate::diagnostics::{self, Diagnostic};
use crate::writing::{self, NewFile};

/// Where the user looks.
pub struct Screen<W: Write> {
    /// Standard output.
    pub out: W,
    /// Standard error; used in plain form only.
    pub aside: W,
    /// Standard output is a terminal: a guest's line editor moves the cursor to the line's start,
    /// and the name is written again then.
    pub terminal: bool,
    /// Plain form, and the label that has `out` for itself.
    pub plain: Option<usize>,
}

/// Writes pieces to the screen and to the logs, and hands the hypervisor's lines to the
/// [`Outcome`].
pub struct Sinks<W: Write> {
    screen: Screen<W>,
    labels: Vec<String>,
    /// The owner of the line that the screen's cursor is in.
    open: Option<usize>,
    logs: Vec<BufWriter<File>>,
    hypervisor_line: Vec<u8>,
    outcome: Arc<Mutex<Outcome>>,
    failure: Option<io::Error>,
}

impl<W: Write> Sinks<W> {
    /// Sinks for the names of a splitter, with a log for each name or none at all.
    pub fn new(screen: Screen<W>, labels: &[String], logs: Vec<File>) -> Self {
        Self {
            screen,
            labels: labels.to_vec(),
            open: None,
            logs: logs.into_iter().map(BufWriter::new).collect(),
            hypervisor_line: Vec::new(),
            outcome: Arc::default(),
            failure: None,
        }
    }

    /// What the hypervisor has said so far.
    pub fn outcome(&self) -> Arc<Mutex<Outcome>> {
        self.outcome.clone()
    }

    /// Takes one piece. A write that fails is kept for [`Sinks::flush`].
    pub fn piece(&mut self, piece: Piece<'_>) {
        if let Err(error) = self.try_piece(piece) {
            self.failure.get_or_insert(error);
        }
    }

    fn try_piece(&mut self, piece: Piece<'_>) -> io::Result<()> {
        match piece {
            Piece::Text {
                owner,
                first,
                bytes,
            } => {
                if first {
                    self.name(owner)?;
                }
                self.text(owner, bytes)
            }
            Piece::End { owner, empty } => {
                if empty {
                    self.name(owner)?;
                }
                self.screen.of(owner).write_all(b"\n")?;
                self.open = None;
                if let Some(log) = self.logs.get_mut(owner) {
                    log.write_all(b"\n")?;
                }
                if self
                    .labels
                    .get(owner)
                    .is_some_and(|label| label == HYPERVISOR)
                {
                    locked(&self.outcome)
                        .hypervisor_line(&String::from_utf8_lossy(&self.hypervisor_line));
                    self.hypervisor_line.clear();
                }
                Ok(())
            }
        }
    }

    fn text(&mut self, owner: usize, bytes: &[u8]) -> io::Result<()> {
        if let Some(log) = self.logs.get_mut(owner) {
            log.write_all(bytes)?;
        }
        if self
            .labels
            .get(owner)
            .is_some_and(|label| label == HYPERVISOR)
        {
            self.hypervisor_line.extend_from_slice(bytes);
        }
        if !self.screen.terminal || self.screen.is_plain(owner) {
            return self.screen.of(owner).write_all(bytes);
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\r') {
            self.screen.of(owner).write_all(part)?;
            if part.ends_with(b"\r") {
                self.name(owner)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, owner: usize) -> io::Result<()> {
        self.open = Some(owner);
        if self.screen.is_plain(owner) {
            return Ok(());
        }
        let label = self.labels.get(owner).map_or("", String::as_str);
        write!(self.screen.of(owner), "({label}) ")
    }

    /// Shows what has been written so far.
    ///
    /// # Errors
    /// The first write to the screen or to a log that failed since the last call.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.screen.out.flush()?;
        self.screen.aside.flush()?;
        self.logs.iter_mut().try_for_each(BufWriter::flush)
    }

    /// Ends a line that was left open.
    ///
    /// # Errors
    /// As [`Sinks::flush`].
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(owner) = self.open
            && !self.screen.is_plain(owner)
        {
            self.screen.of(owner).write_all(b"\n")?;
        }
        self.flush()
    }
}

/// A new log for each name, in a folder that is made if it isn't there. Those of an earlier run stay unless all can be
/// made; `inputs` are what the command reads.
///
/// # Errors
/// The folder or a file in it can't be written, or is an input.
pub fn logs(folder: &Path, labels: &[String], inputs: &[PathBuf]) -> Result<Vec<File>, Diagnostic> {
    let path = |label: &String| folder.join(format!("{}.log", file_name(label)));
    let paths: Vec<PathBuf> = labels.iter().map(path).collect();
    writing::spare(&paths, inputs)?;
    std::fs::create_dir_all(folder).map_err(|error| diagnostics::unwritable(folder, &error))?;
    let files = paths.into_iter().map(|path| NewFile::data(path, b""));
    writing::write(&files.collect::<Vec<_>>())
}

/// The outcome, whatever became of the thread that writes.
pub fn locked(outcome: &Mutex<Outcome>) -> std::sync::MutexGuard<'_, Outcome> {
    outcome.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Write> Screen<W> {
    fn is_plain(&self, owner: usize) -> bool {
        self.plain == Some(owner)
    }

    /// The stream for a label's bytes.
    fn of(&mut self, owner: usize) -> &mut W {
        match self.plain {
            Some(plain) if plain != owner => &mut self.aside,
            _ => &mut self.out,
        }
    }
}

/// A domain's name as a file name: a separator in it must not lead out of the log directory.
fn file_name(label: &str) -> String {
    label
        .chars()
        .map(|c| if c == '/' || c == '\0' { '_' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::lines::Splitter;

    /// What standard output and standard error show.
    fn show(
        stream: &[u8],
        terminal: bool,
        plain: Option<usize>,
        log_dir: Option<&Path>,
    ) -> (String, String) {
        let (mut out, mut aside) = (Vec::new(), Vec::new());
        let mut splitter = Splitter::new(["control", "net"], 0);
        let labels = splitter.labels().to_vec();
        let screen = Screen {
            out: &mut out,
            aside: &mut aside,
            terminal,
            plain,
        };
        let logs = log_dir.map(|folder| logs(folder, &labels, &[]).unwrap());
        let mut sinks = Sinks::new(screen, &labels, logs.unwrap_or_default());
        splitter.feed(stream, &mut |piece| sinks.piece(piece));
        splitter.flush(&mut |piece| sinks.piece(piece));
        sinks.finish().unwrap();
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(aside).unwrap(),
        )
    }

    #[test]
    fn every_line_has_its_owners_name() {
        let (text, aside) = show(b"(terrane) hi\r\n\r\nlogin: ", false, None, None);
        assert_eq!(text, "(terrane) hi\n(control) \n(control) login: \n");
        assert_eq!(aside, "");
    }

    #[test]
    fn a_guests_line_editor_keeps_the_name() {
        let (text, _) = show(b"/ # lss\r/ # ls", true, None, None);
        assert_eq!(text, "(control) / # lss\r(control) / # ls\n");
    }

    #[test]
    fn plain_gives_one_domain_the_output_and_the_rest_the_side() {
        let (text, aside) = show(
            b"(terrane) hi\r\na\rb\r\n\n(net) up\n# ",
            true,
            Some(1),
            None,
        );
        assert_eq!(text, "a\rb\n\n# ");
        assert_eq!(aside, "(terrane) hi\n(net) up\n");
    }

    #[test]
    fn each_name_has_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs");
        show(
            b"(terrane) a\r\nb\r\n(net) c\r\nd",
            false,
            None,
            Some(&path),
        );
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
        assert_eq!(read("terrane.log"), "a\n");
        assert_eq!(read("control.log"), "b\nd");
        assert_eq!(read("net.log"), "c\n");
    }

    #[test]
    fn logs_replace_those_of_an_earlier_run_together_and_no_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let labels = ["terrane", "net"].map(str::to_owned);
        std::fs::write(path("terrane.log"), "before").unwrap();
        std::fs::hard_link(path("terrane.log"), path("kept")).unwrap();
        // Another's log can't be made.
        std::fs::create_dir(path("net.log")).unwrap();
        assert!(logs(folder.path(), &labels, &[]).is_err());
        let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
        assert_eq!(read("terrane.log"), "before");
        std::fs::remove_dir(path("net.log")).unwrap();
        assert!(logs(folder.path(), &labels, &[path("terrane.log")]).is_err());
        assert_eq!(read("terrane.log"), "before");
        assert_eq!(logs(folder.path(), &labels, &[]).unwrap().len(), 2);
        assert_eq!(
            (read("terrane.log").as_str(), read("kept").as_str()),
            ("", "before")
        );
    }

    #[test]
    fn a_name_cannot_leave_the_log_directory() {
        assert_eq!(file_name("../x"), ".._x");
    }
}
