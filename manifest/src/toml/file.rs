//! A file that a manifest names, as the container gets it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use layout::{Architecture, Code, KernelRequest, MachineAddress, MachineRange, Origin};

use super::files::{BuildError, Role};
use crate::container::{self, Shape};
use crate::image::{HEADER_BYTES, IMAGE_ALIGNMENT, Image};
use crate::kernel::{self, KernelError};
use crate::tree::blob::Tree;

/// A file as it goes into the container.
#[derive(Debug)]
pub(super) struct File {
    pub(super) content: Content,
    /// A kernel's first bytes, where it has so many.
    pub(super) header: Option<[u8; HEADER_BYTES]>,
    pub(super) shape: Shape,
    /// What a kernel asks of its place.
    pub(super) kernel: Option<KernelRequest>,
}

/// The bytes that the container gets.
#[derive(Debug)]
pub(super) enum Content {
    /// They are not the file's own, or were looked at.
    Read(Vec<u8>),
    /// The file's own, so many. Neither checking nor planning needs to see a ramdisk, which may be large, nor more of a
    /// kernel than its header.
    InFile(PathBuf, u64),
}

impl Content {
    pub(super) fn bytes(&self) -> Result<Cow<'_, [u8]>, BuildError> {
        let (path, length) = match self {
            Self::Read(bytes) => return Ok(Cow::Borrowed(bytes)),
            Self::InFile(path, length) => (path, *length),
        };
        let failed = |why: String| BuildError::File(path.clone(), why);
        let bytes = crate::files::read(path, container::MAX_BYTES);
        let bytes = bytes.map_err(|error| failed(error.to_string()))?;
        let now = bytes.len() as u64;
        if now != length {
            return Err(failed(format!("it had {length} bytes, and has {now} now")));
        }
        Ok(Cow::Owned(bytes))
    }
}

/// Reads what a file is needed for. Its problem has a code and a reason.
pub(super) fn read(
    role: Role,
    path: &Path,
    architecture: Architecture,
) -> Result<File, (Code, String)> {
    let unreadable = |error| {
        let why = format!("can't read {}: {error}", path.display());
        (Code::FileUnreadable, why)
    };
    // What is larger fits into no container.
    let whole = || crate::files::read(path, container::MAX_BYTES).map_err(unreadable);
    let no_kernel = |error: KernelError| {
        let why = format!("{} can't be started: {error}", path.display());
        (Code::KernelFile, why)
    };
    if role == Role::PartialTree {
        let bytes = whole()?;
        return match Tree::read(&bytes) {
            Ok(_) => Ok(data(bytes.len() as u64, Content::Read(bytes))),
            Err(error) => {
                let why = format!("{} can't be read as a device tree: {error}", path.display());
                Err((Code::TreeInvalid, why))
            }
        };
    }
    if role == Role::Kernel && architecture == Architecture::X86_64 {
        let kernel = kernel::unwrap_x86(whole()?).map_err(no_kernel)?;
        return Ok(x86_kernel(kernel));
    }
    let (head, length) = crate::files::head(path, container::MAX_BYTES).map_err(unreadable)?;
    let in_file = Content::InFile(path.to_owned(), length);
    if role == Role::Ramdisk {
        return Ok(data(length, in_file));
    }
    if kernel::is_wrapped(&head) {
        let kernel = kernel::unwrap_image(whole()?, architecture).map_err(no_kernel)?;
        let header = kernel.bytes.first_chunk().copied();
        let length = kernel.bytes.len() as u64;
        let content = Content::Read(kernel.bytes);
        return Ok(image_kernel(&kernel.image, length, header, content));
    }
    let image = Image::read(&head, length, architecture);
    let image = image.map_err(|error| no_kernel(KernelError::Image(error)))?;
    let header = head.first_chunk().copied();
    Ok(image_kernel(&image, length, header, in_file))
}

fn data(length: u64, content: Content) -> File {
    File {
        content,
        header: None,
        shape: Shape::data(length),
        kernel: None,
    }
}

fn image_kernel(
    image: &Image,
    length: u64,
    header: Option<[u8; HEADER_BYTES]>,
    content: Content,
) -> File {
    File {
        content,
        header,
        shape: Shape {
            file_size: length,
            memory_size: image.memory_size,
            alignment: IMAGE_ALIGNMENT,
            offset: image.text_offset,
            bounds: None,
        },
        kernel: Some(image.request(nowhere(), Origin::NONE)),
    }
}

fn nowhere() -> MachineRange {
    MachineRange::saturating(MachineAddress::new(0), 0)
}

fn x86_kernel(kernel: kernel::elf::Flat) -> File {
    let bounds = (kernel.bounds.start().raw(), kernel.bounds.end().raw());
    File {
        shape: Shape {
            file_size: kernel.bytes.len() as u64,
            memory_size: kernel.memory_size,
            alignment: kernel.alignment,
            offset: kernel.text_offset,
            bounds: Some(bounds),
        },
        kernel: Some(kernel.request(nowhere(), Origin::NONE)),
        header: kernel.bytes.first_chunk().copied(),
        content: Content::Read(kernel.bytes),
    }
}
