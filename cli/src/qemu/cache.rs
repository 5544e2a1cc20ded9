//! What was asked of QEMU once is kept in the user's cache, by all that it depends on.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Failure;
use crate::diagnostics::Diagnostic;

/// The name under which something is kept: a digest of what it depends on, part by part.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // The length keeps two parts from passing for one.
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What is kept as `name`, or a new one.
///
/// # Errors
/// `make`'s, or the cache can't be written.
pub fn cached(
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Vec<u8>, Failure> {
    let path = directory()?.join(name);
    if let Ok(bytes) = fs::read(&path) {
        return Ok(bytes);
    }
    let bytes = make()?;
    // Written whole and then named: another terrane may be reading.
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&unfinished, &bytes)
        .and_then(|()| fs::rename(&unfinished, &path))
        .map_err(|error| unwritable(&path, &error))?;
    Ok(bytes)
}

/// `${XDG_CACHE_HOME:-~/.cache}/terrane/hosts`, made if it isn't there.
///
/// # Errors
/// It can't be made.
fn directory() -> Result<PathBuf, Failure> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir);
    let directory = base.join("terrane").join("hosts");
    fs::create_dir_all(&directory).map_err(|error| unwritable(&directory, &error))?;
    Ok(directory)
}

/// A file of the cache that can't be written.
fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Io(Diagnostic::error(
        "cannot-write",
        format!("can't write {}: {error}", path.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_borders_between_parts_count() {
        let of = |parts: &[&'static str]| key(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["a", "bc"]), of(&["a", "bc"]));
        assert_ne!(of(&["a", "bc"]), of(&["ab", "c"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
    }
}
