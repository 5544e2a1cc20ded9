//! What was asked of QEMU once is kept in the user's cache, by all that it depends on.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Failure;

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

/// What is kept as `name`, if that `is_whole`, or a new one. It needn't be kept: without a cache that can be written
/// everything takes longer and is the same.
///
/// # Errors
/// `make`'s.
pub fn cached(
    name: &str,
    is_whole: impl Fn(&[u8]) -> bool,
    make: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Vec<u8>, Failure> {
    let folder = folder();
    let kept = fs::read(folder.join(name)).ok();
    if let Some(bytes) = kept.filter(|bytes| is_whole(bytes)) {
        return Ok(bytes);
    }
    let bytes = make()?;
    if is_whole(&bytes) {
        // See above.
        let _ = keep(&folder, name, &bytes);
    }
    Ok(bytes)
}

/// Written whole and then named: another terrane may be reading.
fn keep(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut unfinished = tempfile::NamedTempFile::new_in(folder)?;
    unfinished.write_all(bytes)?;
    unfinished.persist(folder.join(name))?;
    Ok(())
}

/// `${XDG_CACHE_HOME:-~/.cache}/terrane/hosts`.
fn folder() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir);
    base.join("terrane").join("hosts")
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
