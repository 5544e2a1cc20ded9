//! Finding the hypervisor's image and reading from its header how much memory it takes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::image::{HEADER_BYTES, Image};

use crate::diagnostics::{self, Diagnostic};

/// The image's name in the folder of build products.
const FILE: &str = "hypervisor.bin";

/// The hypervisor's image.
#[derive(Debug)]
pub struct Hypervisor {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its header.
    pub image: Image,
}

impl Hypervisor {
    /// Finds the image for an architecture: `given`, else `$TERRANE_HYPERVISOR`, else
    /// `target/terrane/ARCH/hypervisor.bin` in the current directory or above, else beside the
    /// folder of this program.
    ///
    /// # Errors
    /// There is none, it can't be read, or it isn't an arm64 Image.
    pub fn find(given: Option<&Path>, arch: &str) -> Result<Self, Diagnostic> {
        let path = given
            .map(Path::to_owned)
            .or_else(|| env::var_os("TERRANE_HYPERVISOR").map(PathBuf::from))
            .or_else(|| built(arch))
            .ok_or_else(|| {
                Diagnostic::error("hypervisor-missing", "the hypervisor's image isn't there")
                    .with_help("build it by `cargo xtask build`, or name it by --hypervisor FILE")
            })?;
        let bytes = fs::read(&path).map_err(|error| diagnostics::unreadable(&path, &error))?;
        let header = bytes.get(..HEADER_BYTES).unwrap_or(&bytes);
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let image = Image::read(header, size).map_err(|error| {
            let message = format!("{} isn't a hypervisor image: {error}", path.display());
            Diagnostic::error("hypervisor-invalid", message)
        })?;
        Ok(Self { path, bytes, image })
    }
}

/// The image that was built last, in the nearest folder of build products.
fn built(arch: &str) -> Option<PathBuf> {
    let here = env::current_dir().ok();
    let program = env::current_exe().ok();
    let below =
        |folder: &Path, target: &str| folder.join(target).join("terrane").join(arch).join(FILE);
    let from_here = here
        .iter()
        .flat_map(|path| path.ancestors())
        .map(|folder| below(folder, "target"));
    let from_program = program
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .map(|folder| below(folder, ""));
    from_here.chain(from_program).find(|path| path.is_file())
}
