//! What a kernel's first bytes say about where it may lie: the arm64 `Image` header.
//!
//! Used on both sides: the workstation leaves the space that it asks for, the hypervisor reads it again from the
//! module. Compressed kernels are unwrapped on the workstation (the `kernel` module of the `std` half).
//!
//! Source: Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image".

/// A kernel base is a multiple of this, in bytes; the entry lies `text_offset` above.
pub const IMAGE_ALIGNMENT: u64 = 2 << 20;

/// The length of the header, in bytes.
pub const HEADER_BYTES: usize = 64;

const MAGIC: &[u8] = b"ARM\x64";
const MAGIC_OFFSET: usize = 56;
/// `text_offset` of kernels before 3.17, whose `image_size` is 0 and whose field may be of either byte order.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
/// What an old kernel that doesn't tell its size is given beyond the file, in bytes, for its BSS.
const OLD_EXTRA: u64 = 16 << 20;

/// The fields of an arm64 `Image` header that decide where the kernel may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// The distance of the image's start from a 2 MiB-aligned base, in bytes, below 2 MiB.
    pub text_offset: u64,
    /// The memory that it takes from its start, BSS included, in bytes; at least the file's length.
    pub memory_size: u64,
    /// Flag bit 3 clear: it wants a base as near to the start of RAM as possible.
    pub near_ram_start: bool,
    /// Flag bit 0: a big-endian kernel.
    pub big_endian: bool,
}

/// Why a file is no kernel that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageError {
    /// Shorter than a header, or without the magic number at byte 56.
    NotAnImage,
    /// `text_offset` is 2 MiB or more, or `image_size` is smaller than the file or above 2^40.
    Malformed,
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotAnImage => "it has no arm64 Image header",
            Self::Malformed => "its arm64 Image header has impossible sizes",
        })
    }
}

fn field(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(offset..offset + 8)?.try_into().ok()?,
    ))
}

impl Image {
    /// Reads the header at the start of `bytes`, the file of `file_size` bytes (`bytes` may be its beginning only).
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn read(bytes: &[u8], file_size: u64) -> Result<Self, ImageError> {
        if bytes.get(MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len()) != Some(MAGIC) {
            return Err(ImageError::NotAnImage);
        }
        let field = |offset| field(bytes, offset).ok_or(ImageError::NotAnImage);
        let (text_offset, image_size, flags) = (field(8)?, field(16)?, field(24)?);
        let (text_offset, memory_size) = match image_size {
            0 => (OLD_TEXT_OFFSET, file_size.saturating_add(OLD_EXTRA)),
            size => (text_offset, size.max(file_size)),
        };
        if text_offset >= IMAGE_ALIGNMENT || memory_size > 1 << 40 {
            return Err(ImageError::Malformed);
        }
        Ok(Self {
            text_offset,
            memory_size,
            near_ram_start: flags & 8 == 0,
            big_endian: flags & 1 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let image = Image::read(&header(0, 0x1f0_0000, 0xa), 0x1e0_0000).unwrap();
        assert_eq!(image.memory_size, 0x1f0_0000);
        assert_eq!(image.text_offset, 0);
        assert!(!image.near_ram_start && !image.big_endian);
    }

    #[test]
    fn old_kernels_tell_no_size() {
        let image = Image::read(&header(0, 0, 0), 0x100_0000).unwrap();
        assert_eq!(
            (image.text_offset, image.memory_size),
            (0x8_0000, 0x200_0000)
        );
    }

    #[test]
    fn refuses_what_cannot_be() {
        assert_eq!(Image::read(&[0; 64], 64), Err(ImageError::NotAnImage));
        assert_eq!(
            Image::read(&header(0, 1, 0)[..40], 64),
            Err(ImageError::NotAnImage)
        );
        assert_eq!(
            Image::read(&header(0x20_0000, 1, 0), 64),
            Err(ImageError::Malformed)
        );
        assert_eq!(
            Image::read(&header(0, u64::MAX, 0), 64),
            Err(ImageError::Malformed)
        );
    }
}
