//! The files of a machine's /sys and /proc, here or copied, and what is said if one can't be read.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::diagnostics::Diagnostic;

/// The files below some directory, named from there.
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Those of the machine whose root directory, or a copy of it, is `root`.
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// A file's bytes.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, Diagnostic> {
        fs::read(self.root.join(path)).map_err(|error| self.unreadable(path, &error))
    }

    /// A file's bytes, `None` if it isn't there.
    pub fn bytes_if_there(&self, path: &str) -> Result<Option<Vec<u8>>, Diagnostic> {
        match fs::read(self.root.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unreadable(path, &error)),
        }
    }

    /// A file's text; bytes that aren't UTF-8 are replaced, since no number is among them.
    pub fn text(&self, path: &str) -> Result<String, Diagnostic> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A number in a file, in hexadecimal behind "0x".
    pub fn number(&self, path: &str) -> Result<u64, Diagnostic> {
        hexadecimal(self.text(path)?.trim()).ok_or_else(|| self.nonsense(path))
    }

    /// The names in a directory, sorted; `None` if it isn't there.
    pub fn names(&self, path: &str) -> Result<Option<Vec<String>>, Diagnostic> {
        let entries = match fs::read_dir(self.root.join(path)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unreadable(path, &error)),
        };
        let names: io::Result<Vec<String>> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect();
        let mut names = names.map_err(|error| self.unreadable(path, &error))?;
        names.sort_unstable();
        Ok(Some(names))
    }

    /// A file's whole path, for people: on which machine, or in which copy of one.
    pub fn shown(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }

    /// A file whose text isn't what the kernel writes there.
    pub fn nonsense(&self, path: &str) -> Diagnostic {
        let message = format!("{} doesn't hold what Linux writes there", self.shown(path));
        Diagnostic::error("host-unreadable", message)
    }

    /// Something that the description needs and that can't be read.
    fn unreadable(&self, path: &str, error: &io::Error) -> Diagnostic {
        let message = format!("can't read {}: {error}", self.shown(path));
        let found = Diagnostic::error("host-unreadable", message);
        match error.kind() {
            ErrorKind::PermissionDenied => as_root(found),
            _ => found,
        }
    }

    /// Whether it is there.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).symlink_metadata().is_ok()
    }
}

/// A number as "0x" and hexadecimal digits.
pub fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// What only root is shown.
pub fn as_root(found: Diagnostic) -> Diagnostic {
    found.with_help("run it as root, by sudo for example: the kernel shows that to root only")
}
