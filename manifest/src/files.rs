//! Reading the files that a user names, however large they are and whether or not they are files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The most bytes of a manifest, of a plan or of a machine's description: many times what the largest needs.
pub const MAX_TEXT: u64 = 16 << 20;

/// Opens a file. A device or a pipe may have no end, or never begin, so that only files are opened.
///
/// # Errors
/// It isn't a file, or can't be opened.
pub fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it isn't a file"));
    }
    File::open(path)
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// It is larger, isn't a file, or can't be read.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if file.metadata()?.len() > most {
        return Err(too_large(most));
    }
    read_all(file, most)
}

/// The first 4 KiB of a file of at most `most` bytes, or all if there are less, and how many bytes it has.
///
/// # Errors
/// It is larger, isn't a file, or can't be read.
pub fn head(path: &Path, most: u64) -> io::Result<(Vec<u8>, u64)> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    if length > most {
        return Err(too_large(most));
    }
    let mut head = Vec::new();
    file.take(4096).read_to_end(&mut head)?;
    Ok((head, length))
}

/// Reads a file of at most `most` bytes, or a pipe that gives no more, as a shell puts it in a file's place.
///
/// # Errors
/// There is more, or it can't be read.
pub fn read_piped(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_all(File::open(path)?, most)
}

/// [`read_piped`] of a text of at most [`MAX_TEXT`] bytes.
///
/// # Errors
/// As there, or it isn't UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read_piped(path, MAX_TEXT)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

fn read_all(from: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large(most));
    }
    Ok(bytes)
}

fn too_large(most: u64) -> io::Error {
    io::Error::other(format!("it has more than {} MiB", most >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This package's sources are a folder of files.
    fn here(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let path = here("src/files.rs");
        let length = fs::metadata(&path).unwrap().len();
        for read in [read, read_piped] {
            assert_eq!(read(&path, length).unwrap().len() as u64, length);
            assert!(read(&path, length - 1).is_err());
        }
        assert_eq!(read_text(&path).unwrap().len() as u64, length);
    }

    #[test]
    fn what_is_no_file_is_not_opened_and_what_has_no_end_has_a_limit() {
        assert!(open(&here("src")).is_err());
        let endless = Path::new("/dev/zero");
        assert!(read(endless, 4096).is_err());
        assert!(read_piped(endless, 4096).is_err());
        assert!(read_text(&here("src")).is_err());
    }
}
