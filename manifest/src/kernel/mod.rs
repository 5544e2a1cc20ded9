//! Kernel files on the workstation: whatever they are wrapped in is taken off.
//!
//! gzip, xz, zstd, lz4 (frames, and the legacy format that Linux's build uses), and two wrappers of any of them:
//! EFI-zboot and x86's bzImage. What comes out is bounded, so that a small file can't fill the memory. An
//! `Image` is then what it was before it was wrapped; an x86 one is an ELF file, which [`elf`] makes flat.
//!
//! A compressed file may be several streams in a row; parallel compressors write such. What comes out of them is one
//! kernel. Other bytes behind a stream, such as padding or an appended device tree, are left alone.
//!
//! Sources: Linux, drivers/firmware/efi/libstub/zboot-header.S (the wrapper's fields); lz4, doc/lz4_Frame_format.md
//! ("Legacy frame", "Concatenation"); RFC 1952, 2.2 (members); The .xz File Format, 2.2 (stream padding); RFC 8878, 3
//! (frames, and skippable ones); the magic numbers of each format's specification.

mod bzimage;
pub mod elf;

use std::fmt;
use std::io::Read;

use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use layout::Architecture;

use crate::image::{Image, ImageError};

/// The largest kernel that comes out, in bytes.
pub const MAX_BYTES: u64 = 512 << 20;

/// What xz's decoder may allocate, in bytes: Linux's kernels ask for a dictionary of 128 MiB at most
/// (scripts/xz_wrap.sh), a file could ask for 4 GiB.
const XZ_MEMORY: u64 = 256 << 20;

/// How many wrappers may lie around each other.
const MAX_LAYERS: usize = 4;

/// A wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper {
    /// RFC 1952.
    Gzip,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
    /// lz4 frames.
    Lz4,
    /// lz4's older format, as `lz4 -l` writes it.
    Lz4Legacy,
    /// A PE file with a compressed kernel inside.
    EfiZboot,
    /// Linux's file for x86: code that unpacks, with a compressed kernel inside.
    BzImage,
}

impl fmt::Display for Wrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Lz4Legacy => "lz4 (legacy)",
            Self::EfiZboot => "EFI-zboot",
            Self::BzImage => "bzImage",
        })
    }
}

/// Why a kernel file can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelError {
    /// The stream inside a wrapper is damaged or cut short.
    Damaged {
        /// The wrapper.
        wrapper: Wrapper,
        /// What its decoder says.
        reason: String,
    },
    /// More than [`MAX_BYTES`] came out.
    TooLarge {
        /// The bound, in bytes.
        limit: u64,
    },
    /// More than four wrappers around each other.
    TooManyLayers,
    /// What came out is no `Image` of the host's architecture.
    Image(ImageError),
    /// What came out is no ELF file that an x86 domain can start from.
    Elf(elf::ElfError),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { wrapper, reason } => {
                write!(f, "its {wrapper} wrapper is damaged: {reason}")
            }
            Self::TooLarge { limit } => write!(f, "more than {} MiB come out of it", limit >> 20),
            Self::TooManyLayers => {
                write!(f, "more than {MAX_LAYERS} wrappers lie around each other")
            }
            Self::Image(error) => error.fmt(f),
            Self::Elf(error) => error.fmt(f),
        }
    }
}

/// A kernel with nothing around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What its header says.
    pub image: Image,
    /// What was taken off, outermost first.
    pub wrappers: Vec<Wrapper>,
}

/// Takes off what is wrapped around an `Image`, the kernel of an arm64 or riscv64 host.
///
/// # Errors
/// See [`KernelError`].
pub fn unwrap_image(file: Vec<u8>, host: Architecture) -> Result<Kernel, KernelError> {
    let (bytes, wrappers) = unwrap_bounded(file, MAX_BYTES)?;
    let image = Image::read(&bytes, bytes.len() as u64, host).map_err(KernelError::Image)?;
    Ok(Kernel {
        bytes,
        image,
        wrappers,
    })
}

/// Takes off what is wrapped around an x86 kernel, and makes its ELF file flat.
///
/// # Errors
/// See [`KernelError`].
pub fn unwrap_x86(file: Vec<u8>) -> Result<elf::Flat, KernelError> {
    let (bytes, _) = unwrap_bounded(file, MAX_BYTES)?;
    elf::flatten(&bytes, MAX_BYTES).map_err(KernelError::Elf)
}

/// Takes off all wrappers; what comes out of each has at most `limit` bytes.
///
/// # Errors
/// All of [`KernelError`] but `Image` and `Elf`.
pub fn unwrap_bounded(file: Vec<u8>, limit: u64) -> Result<(Vec<u8>, Vec<Wrapper>), KernelError> {
    let mut bytes = file;
    let mut wrappers = Vec::new();
    while let Some(wrapper) = detect(&bytes) {
        if wrappers.len() == MAX_LAYERS {
            return Err(KernelError::TooManyLayers);
        }
        let extent = match wrappers.last() {
            Some(Wrapper::EfiZboot) => Extent::First,
            _ => Extent::All,
        };
        bytes = take_off(wrapper, &bytes, extent, limit)?;
        wrappers.push(wrapper);
    }
    Ok((bytes, wrappers))
}

/// How much of a compressed file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// One stream: inside another wrapper, where Linux's build makes one and may write its size behind it, which could
    /// look like the next.
    First,
    /// All streams that follow each other.
    All,
}

const MAGICS: [(&[u8], Wrapper); 5] = [
    (&[0x1f, 0x8b, 0x08], Wrapper::Gzip),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Wrapper::Xz),
    (&[0x28, 0xb5, 0x2f, 0xfd], Wrapper::Zstd),
    (&[0x04, 0x22, 0x4d, 0x18], Wrapper::Lz4),
    (&LZ4_LEGACY_MAGIC, Wrapper::Lz4Legacy),
];

/// Whether a file that begins with these 4 KiB, or is shorter and holds no more, must be unwrapped to be started.
pub fn is_wrapped(head: &[u8]) -> bool {
    detect(head).is_some()
}

fn detect(bytes: &[u8]) -> Option<Wrapper> {
    if bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg") {
        return Some(Wrapper::EfiZboot);
    }
    if bzimage::is_one(bytes) {
        return Some(Wrapper::BzImage);
    }
    detect_stream(bytes)
}

fn detect_stream(bytes: &[u8]) -> Option<Wrapper> {
    MAGICS
        .iter()
        .find(|(magic, _)| bytes.starts_with(magic))
        .map(|&(_, wrapper)| wrapper)
}

fn take_off(
    wrapper: Wrapper,
    bytes: &[u8],
    extent: Extent,
    limit: u64,
) -> Result<Vec<u8>, KernelError> {
    match wrapper {
        Wrapper::Gzip | Wrapper::Xz | Wrapper::Zstd | Wrapper::Lz4 => {
            read_streams(wrapper, bytes, extent, limit)
        }
        Wrapper::Lz4Legacy => lz4_legacy(bytes, limit),
        Wrapper::EfiZboot => {
            zboot_payload(bytes)
                .map(<[u8]>::to_vec)
                .map_err(|reason| KernelError::Damaged {
                    wrapper,
                    reason: reason.into(),
                })
        }
        Wrapper::BzImage => unwrap_bzimage(bytes, limit),
    }
}

fn read_streams(
    wrapper: Wrapper,
    bytes: &[u8],
    extent: Extent,
    limit: u64,
) -> Result<Vec<u8>, KernelError> {
    let mut out = Vec::new();
    let mut rest = read_stream(wrapper, bytes, &mut out, limit)?;
    while let Some(next) = next_stream(wrapper, rest).filter(|_| extent == Extent::All) {
        rest = read_stream(wrapper, next, &mut out, limit)?;
    }
    Ok(out)
}

/// The next stream of the same kind behind one, past what may stand between two.
fn next_stream(wrapper: Wrapper, rest: &[u8]) -> Option<&[u8]> {
    let next = match wrapper {
        Wrapper::Xz => skip_padding(rest),
        Wrapper::Zstd => skip_frames(rest),
        _ => rest,
    };
    (detect_stream(next) == Some(wrapper)).then_some(next)
}

/// xz's padding: words of zeros.
fn skip_padding(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [0, 0, 0, 0, behind @ ..] = rest {
        rest = behind;
    }
    rest
}

/// zstd's skippable frames: a magic of which the lowest half byte is free, a length, and so many bytes.
fn skip_frames(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [0x50..=0x5f, 0x2a, 0x4d, 0x18, frame @ ..] = rest {
        let behind = frame.split_first_chunk::<4>().and_then(|(length, frame)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            frame.get(length..)
        });
        rest = behind.unwrap_or_default();
    }
    rest
}

/// Appends what comes out of the stream that `bytes` begin with; what lies behind it.
fn read_stream<'a>(
    wrapper: Wrapper,
    bytes: &'a [u8],
    out: &mut Vec<u8>,
    limit: u64,
) -> Result<&'a [u8], KernelError> {
    let damaged = |reason: String| KernelError::Damaged { wrapper, reason };
    match wrapper {
        Wrapper::Xz => {
            let decoder = Stream::new_stream_decoder(XZ_MEMORY, 0);
            let decoder = decoder.map_err(|error| damaged(error.to_string()))?;
            let mut decoder = XzDecoder::new_stream(bytes, decoder);
            read_bounded(&mut decoder, wrapper, out, limit)?;
            Ok(decoder.into_inner())
        }
        Wrapper::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
            let mut decoder = decoder.map_err(|error| damaged(error.to_string()))?;
            read_bounded(&mut decoder, wrapper, out, limit)?;
            Ok(decoder.into_inner())
        }
        Wrapper::Lz4 => {
            let mut decoder = lz4_flex::frame::FrameDecoder::new(bytes);
            read_bounded(&mut decoder, wrapper, out, limit)?;
            Ok(decoder.into_inner())
        }
        _ => {
            let mut decoder = flate2::bufread::GzDecoder::new(bytes);
            read_bounded(&mut decoder, wrapper, out, limit)?;
            Ok(decoder.into_inner())
        }
    }
}

/// Appends what the decoder gives; `out` has at most `limit` bytes then.
fn read_bounded(
    decoder: impl Read,
    wrapper: Wrapper,
    out: &mut Vec<u8>,
    limit: u64,
) -> Result<(), KernelError> {
    // One byte above the limit tells "exactly the limit" from "more".
    let room = limit.saturating_add(1).saturating_sub(out.len() as u64);
    let read = decoder.take(room).read_to_end(out);
    read.map_err(|error| KernelError::Damaged {
        wrapper,
        reason: error.to_string(),
    })?;
    if out.len() as u64 > limit {
        return Err(KernelError::TooLarge { limit });
    }
    Ok(())
}

/// The kernel inside a bzImage. The payload's own compression is taken off here, since the size that Linux's build
/// writes behind it must be what comes out.
fn unwrap_bzimage(bytes: &[u8], limit: u64) -> Result<Vec<u8>, KernelError> {
    let damaged = |reason: &str| KernelError::Damaged {
        wrapper: Wrapper::BzImage,
        reason: reason.into(),
    };
    let payload = bzimage::payload(bytes).map_err(damaged)?;
    let wrapper = match detect(payload) {
        Some(Wrapper::EfiZboot | Wrapper::BzImage) | None => {
            return Err(damaged("its payload has a compression that isn't known"));
        }
        Some(wrapper) => wrapper,
    };
    let size = bzimage::size_behind(payload).ok_or_else(|| damaged("its payload is cut short"))?;
    if u64::from(size) > limit {
        return Err(KernelError::TooLarge { limit });
    }
    let out = take_off(wrapper, payload, Extent::First, limit)?;
    if out.len() as u64 != u64::from(size) {
        return Err(damaged("its kernel has another size than it says"));
    }
    Ok(out)
}

/// The compressed kernel inside an EFI-zboot file: offset and size are the words at 8 and 12.
fn zboot_payload(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let word = |offset: usize| -> Option<usize> {
        let word: [u8; 4] = bytes.get(offset..offset + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(word)).ok()
    };
    let (start, size) = word(8).zip(word(12)).ok_or("its header is cut short")?;
    let end = start
        .checked_add(size)
        .ok_or("its payload lies outside the file")?;
    let payload = bytes
        .get(start..end)
        .ok_or("its payload lies outside the file")?;
    match detect(payload) {
        Some(Wrapper::EfiZboot | Wrapper::BzImage) | None => {
            Err("its payload has a compression that isn't known")
        }
        Some(_) => Ok(payload),
    }
}

const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// What one block of the legacy format holds at most, in bytes.
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// Blocks of a 32-bit length and that many compressed bytes, to the end of the file. Linux's build appends the
/// uncompressed size, which is no block: too few bytes follow it.
fn lz4_legacy(bytes: &[u8], limit: u64) -> Result<Vec<u8>, KernelError> {
    let damaged = |reason: &str| KernelError::Damaged {
        wrapper: Wrapper::Lz4Legacy,
        reason: reason.into(),
    };
    let mut rest = bytes.get(LZ4_LEGACY_MAGIC.len()..).unwrap_or_default();
    let mut out = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        if after.is_empty() {
            break;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let block = after
            .get(..length)
            .ok_or_else(|| damaged("a block is cut short"))?;
        let block = lz4_flex::block::decompress(block, LZ4_LEGACY_BLOCK);
        out.extend(block.map_err(|error| damaged(&error.to_string()))?);
        if out.len() as u64 > limit {
            return Err(KernelError::TooLarge { limit });
        }
        rest = after.get(length..).unwrap_or_default();
    }
    Ok(out)
}
