//! What a kernel's first bytes say about where it may lie: the header of an `Image`, as arm64 and RISC-V have it.
//!
//! Used on both sides: the workstation leaves the space that it asks for, the hypervisor reads it again from the
//! module. Compressed kernels are unwrapped on the workstation (the `kernel` module of the `std` half).
//!
//! Sources: Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image"; Documentation/arch/riscv/
//! boot-image-header.rst and boot.rst, "Kernel location".

use layout::{Architecture, KernelRequest, MachineRange, Origin};

/// A kernel base is a multiple of this, in bytes; the entry lies `text_offset` above.
pub const IMAGE_ALIGNMENT: u64 = 2 << 20;

/// The length of the header, in bytes.
pub const HEADER_BYTES: usize = 64;

const MAGIC_OFFSET: usize = 56;
const MAGIC_BYTES: usize = 4;
/// `text_offset` of kernels before 3.17, whose `image_size` is 0 and whose field may be of either byte order.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
/// What an old kernel that doesn't tell its size is given beyond the file, in bytes, for its BSS.
const OLD_EXTRA: u64 = 16 << 20;

/// The fields of an `Image` header that decide where the kernel may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// The distance of the image's start from a 2 MiB-aligned base, in bytes, below 2 MiB. RISC-V's header counts it
    /// from the start of RAM and leaves the first 2 MiB to the firmware, which a domain doesn't have: whole multiples
    /// of 2 MiB are left out.
    pub text_offset: u64,
    /// The memory that it takes from its start, BSS included, in bytes; at least the file's length.
    pub memory_size: u64,
    /// arm64's flag bit 3 clear: it wants a base as near to the start of RAM as possible.
    pub near_ram_start: bool,
    /// Flag bit 0: a big-endian kernel.
    pub big_endian: bool,
}

/// Why a file is no kernel that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageError {
    /// Shorter than a header, or without the magic number of an architecture at byte 56.
    NotAnImage(Architecture),
    /// It has the header of another architecture than the host's.
    OtherArchitecture {
        /// The host's.
        host: Architecture,
        /// The kernel's.
        kernel: Architecture,
    },
    /// `text_offset` is 2 MiB or more on arm64, or `image_size` is smaller than the file or above 2^40.
    Malformed(Architecture),
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NotAnImage(host) => write!(f, "it has no {} Image header", name(host)),
            Self::OtherArchitecture { host, kernel } => {
                let (host, kernel) = (name(host), name(kernel));
                write!(f, "its Image header is of {kernel}, and the host is {host}")
            }
            Self::Malformed(host) => {
                write!(f, "its {} Image header has impossible sizes", name(host))
            }
        }
    }
}

/// Linux's name for an architecture.
const fn name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Aarch64 => "arm64",
        Architecture::Riscv64 => "riscv64",
        Architecture::X86_64 => "x86-64",
    }
}

/// What stands at byte 56 of an `Image`.
const fn magic(architecture: Architecture) -> Option<&'static [u8; MAGIC_BYTES]> {
    match architecture {
        Architecture::Aarch64 => Some(b"ARM\x64"),
        Architecture::Riscv64 => Some(b"RSC\x05"),
        Architecture::X86_64 => None,
    }
}

fn field(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(offset..offset + 8)?.try_into().ok()?,
    ))
}

impl Image {
    /// Reads the header at the start of `bytes`, the file of `file_size` bytes (`bytes` may be its beginning only), of
    /// a kernel for this host.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn read(bytes: &[u8], file_size: u64, host: Architecture) -> Result<Self, ImageError> {
        let found = bytes
            .get(MAGIC_OFFSET..)
            .and_then(|rest| rest.first_chunk::<MAGIC_BYTES>());
        let is_of = |architecture: &Architecture| {
            found.is_some_and(|found| magic(*architecture) == Some(found))
        };
        let known = [Architecture::Aarch64, Architecture::Riscv64];
        match known.into_iter().find(is_of) {
            Some(kernel) if kernel == host => {}
            Some(kernel) => return Err(ImageError::OtherArchitecture { host, kernel }),
            None => return Err(ImageError::NotAnImage(host)),
        }
        let field = |offset| field(bytes, offset).ok_or(ImageError::NotAnImage(host));
        let (text_offset, image_size, flags) = (field(8)?, field(16)?, field(24)?);
        let (text_offset, memory_size) = match (host, image_size) {
            (Architecture::Riscv64, size) => (text_offset % IMAGE_ALIGNMENT, size.max(file_size)),
            (_, 0) => (OLD_TEXT_OFFSET, file_size.saturating_add(OLD_EXTRA)),
            (_, size) => (text_offset, size.max(file_size)),
        };
        if text_offset >= IMAGE_ALIGNMENT || memory_size > 1 << 40 {
            return Err(ImageError::Malformed(host));
        }
        Ok(Self {
            text_offset,
            memory_size,
            near_ram_start: flags & 8 == 0,
            big_endian: flags & 1 != 0,
        })
    }

    /// What the kernel with this header asks for, whose file is `module` and was named at `origin`.
    #[must_use]
    pub const fn request(&self, module: MachineRange, origin: Origin) -> KernelRequest {
        KernelRequest {
            module,
            memory_size: self.memory_size,
            alignment: IMAGE_ALIGNMENT,
            text_offset: self.text_offset,
            bounds: None,
            entry: None,
            origin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: Architecture = Architecture::Aarch64;
    const RISCV64: Architecture = Architecture::Riscv64;

    fn header(text_offset: u64, image_size: u64, flags: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[8..16].copy_from_slice(&text_offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&flags.to_le_bytes());
        bytes[56..60].copy_from_slice(b"ARM\x64");
        bytes
    }

    #[test]
    fn reads_a_header() {
        let image = Image::read(&header(0, 0x1f0_0000, 0xa), 0x1e0_0000, ARM64).unwrap();
        assert_eq!(image.memory_size, 0x1f0_0000);
        assert_eq!(image.text_offset, 0);
        assert!(!image.near_ram_start && !image.big_endian);
    }

    #[test]
    fn old_kernels_tell_no_size() {
        let image = Image::read(&header(0, 0, 0), 0x100_0000, ARM64).unwrap();
        assert_eq!(
            (image.text_offset, image.memory_size),
            (0x8_0000, 0x200_0000)
        );
    }

    #[test]
    fn refuses_what_cannot_be() {
        assert_eq!(
            Image::read(&[0; 64], 64, ARM64),
            Err(ImageError::NotAnImage(ARM64))
        );
        assert_eq!(
            Image::read(&header(0, 1, 0)[..40], 64, ARM64),
            Err(ImageError::NotAnImage(ARM64))
        );
        assert_eq!(
            Image::read(&header(0x20_0000, 1, 0), 64, ARM64),
            Err(ImageError::Malformed(ARM64))
        );
        assert_eq!(
            Image::read(&header(0, u64::MAX, 0), 64, ARM64),
            Err(ImageError::Malformed(ARM64))
        );
    }

    #[test]
    fn riscv_counts_its_offset_from_the_start_of_ram() {
        let mut bytes = header(0x20_0000, 0x1e0_0000, 0);
        bytes[56..60].copy_from_slice(b"RSC\x05");
        let image = Image::read(&bytes, 0x1d0_0000, RISCV64).unwrap();
        assert_eq!((image.text_offset, image.memory_size), (0, 0x1e0_0000));
        let (host, kernel) = (ARM64, RISCV64);
        assert_eq!(
            Image::read(&bytes, 64, ARM64),
            Err(ImageError::OtherArchitecture { host, kernel })
        );
    }
}
