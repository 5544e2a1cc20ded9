//! Files that are written: each whole or not at all, and none over what it is made from.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::diagnostics::{self, Diagnostic};

/// A file that is to be written.
#[derive(Clone, Debug)]
pub struct NewFile<'a> {
    /// Its place.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Cow<'a, [u8]>,
    /// It is a program.
    pub executable: bool,
}

impl<'a> NewFile<'a> {
    /// A file that isn't a program.
    pub fn data(path: impl Into<PathBuf>, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            path: path.into(),
            bytes: bytes.into(),
            executable: false,
        }
    }
}

/// Writes them, and gives them in their order to whoever has more to write. Until all are written, none takes its place,
/// so that what was there stays if one can't be.
///
/// # Errors
/// One of them can't be written.
pub fn write(files: &[NewFile<'_>]) -> Result<Vec<File>, Diagnostic> {
    let mut staged = Vec::new();
    for file in files {
        let stage = stage(file).map_err(|error| diagnostics::unwritable(&file.path, &error))?;
        staged.push(stage);
    }
    let placed = staged.into_iter().map(|stage| match stage {
        Stage::InPlace(file) => Ok(file),
        Stage::Beside(temporary, place) => temporary
            .persist(&place)
            .map_err(|error| diagnostics::unwritable(&place, &error.error)),
    });
    placed.collect()
}

/// A file that is written.
enum Stage {
    /// A device or a pipe, which can't be replaced.
    InPlace(File),
    /// Beside the place that it is to take.
    Beside(NamedTempFile<File>, PathBuf),
}

fn stage(file: &NewFile<'_>) -> io::Result<Stage> {
    let (place, mode) = match fs::metadata(&file.path) {
        Ok(there) if there.is_file() => {
            // What may not be written may not be replaced either.
            File::options().write(true).open(&file.path)?;
            // Where a link leads to, so that it stays one.
            (file.path.canonicalize()?, there.permissions().mode())
        }
        Ok(_) => {
            let mut there = File::create(&file.path)?;
            there.write_all(&file.bytes)?;
            return Ok(Stage::InPlace(there));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (file.path.clone(), 0o666),
        Err(error) => return Err(error),
    };
    let mode = if file.executable { mode | 0o111 } else { mode };
    let folder = match place.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let open = |path: &Path| {
        let mut options = File::options();
        options.write(true).create_new(true).mode(mode).open(path)
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".terrane-")
        .make_in(folder, open)?;
    temporary.write_all(&file.bytes)?;
    Ok(Stage::Beside(temporary, place))
}

/// Refuses to write over, or to remove, what is read: `targets` are the files that would go, `inputs` those that the
/// command reads.
///
/// # Errors
/// One is the other.
pub fn spare(targets: &[PathBuf], inputs: &[PathBuf]) -> Result<(), Diagnostic> {
    // A terminal may be both ends; what isn't there isn't lost.
    let real = |path: &PathBuf| path.canonicalize().ok().filter(|path| path.is_file());
    let inputs: Vec<PathBuf> = inputs.iter().filter_map(real).collect();
    let lost = targets
        .iter()
        .find(|target| real(target).is_some_and(|target| inputs.contains(&target)));
    match lost {
        None => Ok(()),
        Some(target) => {
            let message = format!(
                "can't write {}: it is one of the files that this is made from",
                target.display()
            );
            Err(Diagnostic::error("cannot-write", message).with_help("name another place"))
        }
    }
}
