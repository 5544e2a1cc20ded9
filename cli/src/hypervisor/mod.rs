//! Finding the hypervisor's image and reading from it how much memory it takes, and where.

mod elf;

use std::env;
use std::path::{Path, PathBuf};

use layout::{Architecture, MachineAddress, MachineRange};
use manifest::files;
use manifest::image::{HEADER_BYTES, Image};

use crate::arch::{Arch, ImageForm};
use crate::diagnostics::{self, Diagnostic};

/// What is assumed of a hypervisor whose image isn't there: bytes in memory.
const ASSUMED_BYTES: u64 = 512 << 10;

/// The largest file that is taken for one: many times what it has with all that a debugger wants.
const MAX_BYTES: u64 = 512 << 20;

/// Where an ELF image whose file isn't there is assumed to be linked.
const ASSUMED_START: u64 = 2 << 20;

/// What an image takes in memory, its zeroed data included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footprint {
    /// It runs wherever a loader puts it.
    Movable {
        /// Bytes from its first byte on.
        bytes: u64,
        /// Its distance from a multiple of 2 MiB.
        text_offset: u64,
    },
    /// It has one place.
    Linked(MachineRange),
}

impl Footprint {
    /// The footprint of an image that isn't there.
    pub fn assumed(form: ImageForm) -> Self {
        match form {
            ImageForm::Image => Self::Movable {
                bytes: ASSUMED_BYTES,
                text_offset: 0,
            },
            ImageForm::Elf => Self::Linked(MachineRange::saturating(
                MachineAddress::new(ASSUMED_START),
                ASSUMED_BYTES,
            )),
        }
    }
}

/// The hypervisor's image.
#[derive(Debug)]
pub struct Hypervisor {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// What it takes.
    pub footprint: Footprint,
}

impl Hypervisor {
    /// Finds the image for an architecture: `given`, else `$TERRANE_HYPERVISOR`, else
    /// `target/terrane/ARCH/` in the current directory or above, else beside the folder of this
    /// program.
    ///
    /// # Errors
    /// There is none, it can't be read, or it isn't an image of this architecture.
    pub fn find(given: Option<&Path>, arch: &Arch) -> Result<Self, Diagnostic> {
        let path = given
            .map(Path::to_owned)
            .or_else(|| env::var_os("TERRANE_HYPERVISOR").map(PathBuf::from))
            .or_else(|| built(arch))
            .ok_or_else(|| missing(arch))?;
        let bytes = files::read(&path, MAX_BYTES)
            .map_err(|error| diagnostics::unreadable(&path, &error))?;
        let footprint = match arch.image {
            ImageForm::Image => movable(&bytes, arch.architecture),
            ImageForm::Elf => elf::range(&bytes).map(Footprint::Linked),
        }
        .map_err(|reason| {
            let message = format!(
                "{} isn't a hypervisor image for {}: {reason}",
                path.display(),
                arch.name
            );
            Diagnostic::error("hypervisor-invalid", message)
        })?;
        Ok(Self {
            path,
            bytes,
            footprint,
        })
    }

    /// Whether a multiboot2 loader takes the image.
    pub fn has_multiboot2(&self) -> bool {
        has_multiboot2(&self.bytes)
    }
}

/// There is no image for an architecture.
pub fn missing(arch: &Arch) -> Diagnostic {
    let help = format!(
        "build it by `cargo xtask build --arch {}`, or name it by --hypervisor FILE",
        arch.name
    );
    Diagnostic::error("hypervisor-missing", "the hypervisor's image isn't there").with_help(help)
}

/// Whether there is a multiboot2 header: in the first 32 KiB at a multiple of 8, magic number,
/// architecture, length and checksum adding up to 0 (Multiboot2 Specification, 3.1.1 and 3.1.2).
fn has_multiboot2(image: &[u8]) -> bool {
    const SEARCHED: usize = 32 << 10;
    const MAGIC: u32 = 0xe852_50d6;
    const I386: u32 = 0;
    let word = |at: usize| {
        let bytes = image.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    (0..SEARCHED).step_by(8).any(|at| {
        let header = (|| Some([word(at)?, word(at + 4)?, word(at + 8)?, word(at + 12)?]))();
        header.is_some_and(|[magic, architecture, length, checksum]| {
            let sum = magic.wrapping_add(architecture).wrapping_add(length);
            (magic, architecture, sum.wrapping_add(checksum)) == (MAGIC, I386, 0)
        })
    })
}

fn movable(bytes: &[u8], architecture: Architecture) -> Result<Footprint, String> {
    let header = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let image = Image::read(header, size, architecture).map_err(|error| error.to_string())?;
    Ok(Footprint::Movable {
        bytes: image.memory_size,
        text_offset: image.text_offset,
    })
}

/// The image that was built last, in the nearest folder of build products.
fn built(arch: &Arch) -> Option<PathBuf> {
    let here = env::current_dir().ok();
    let program = env::current_exe().ok();
    let below = |folder: &Path, target: &str| {
        folder
            .join(target)
            .join("terrane")
            .join(arch.name)
            .join(arch.hypervisor)
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiboot2_header_is_found_where_loaders_look() {
        let header = [0xe852_50d6u32, 0, 24, 0x17ad_af12].map(u32::to_le_bytes);
        let at = |offset: usize| [vec![0; offset], header.concat()].concat();
        assert!(has_multiboot2(&at(4096)));
        assert!(!has_multiboot2(&at(4100)));
        assert!(!has_multiboot2(&at(32 << 10)));
        let mut wrong = at(0);
        wrong[8] = 25;
        assert!(!has_multiboot2(&wrong));
    }
}
