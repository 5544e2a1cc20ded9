//! ELF kernels for x86: made flat, with what their PVH notes say of place and entry.
//!
//! Any ELF64 file for x86-64 with the note `XEN_ELFNOTE_PHYS32_ENTRY` will do: Linux's vmlinux, small guests. The flat
//! image is memory from the lowest physical address of the loadable segments to the last byte that the file fills;
//! what lies above it in memory is zero.
//!
//! Source: Xen, public/elfnote.h, `XEN_ELFNOTE_PHYS32_ENTRY` and `XEN_ELFNOTE_PHYS32_RELOC`.

use std::fmt;

use layout::{GuestAddress, GuestRange, KernelRequest, MachineRange, Origin};
use object::LittleEndian as Le;
use object::elf::{EM_X86_64, FileHeader64, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// The 32-bit entry point with paging off.
const PHYS32_ENTRY: u32 = 18;
/// The kernel may lie elsewhere than its segments say, within bounds.
const PHYS32_RELOC: u32 = 19;
/// The owner of both notes.
const OWNER: &[u8] = b"Xen";

const PAGE: u64 = 4096;
/// The alignment of a kernel that may lie elsewhere, if neither note nor segments name one.
const DEFAULT_ALIGNMENT: u64 = 2 << 20;
/// A kernel that must stay where its segments say gets in steps of this what its address has.
const LARGEST_FIXED_ALIGNMENT: u64 = 2 << 20;

/// Why an ELF file can't be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfError {
    /// It is no ELF64 file for x86-64.
    NotElf,
    /// Its headers, segments or notes lie outside the file, overlap or wrap.
    Malformed,
    /// It has no loadable segment.
    Empty,
    /// It takes more memory than the bound, in bytes.
    TooLarge(u64),
    /// It has no PVH note, or one whose entry lies outside its segments.
    NoEntry,
    /// Its relocation note has an alignment that isn't a power of two, or bounds that can't hold it.
    Bounds,
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("it is no ELF64 file for x86-64"),
            Self::Malformed => f.write_str("its ELF headers are malformed"),
            Self::Empty => f.write_str("its ELF file has nothing to load"),
            Self::TooLarge(limit) => write!(f, "it takes more than {} MiB of memory", limit >> 20),
            Self::NoEntry => f.write_str("it has no PVH note (XEN_ELFNOTE_PHYS32_ENTRY)"),
            Self::Bounds => f.write_str("its note XEN_ELFNOTE_PHYS32_RELOC can't be fulfilled"),
        }
    }
}

/// A kernel as it lies in memory, and what it asks of its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flat {
    /// Its bytes, from its lowest address on. Not empty.
    pub bytes: Vec<u8>,
    /// The memory that it takes from there, in bytes; at least the length of `bytes`.
    pub memory_size: u64,
    /// The alignment of its base in bytes, a power of two, at least 4096.
    pub alignment: u64,
    /// Its distance from an aligned base, in bytes.
    pub text_offset: u64,
    /// Guest addresses that it must lie within: its own, if it can't be moved.
    pub bounds: GuestRange,
    /// Where its first vCPU starts, in bytes from its first byte.
    pub entry: u64,
}

impl Flat {
    /// What the planner is asked, with the flat image at `module`.
    #[must_use]
    pub fn request(&self, module: MachineRange, origin: Origin) -> KernelRequest {
        KernelRequest {
            module,
            memory_size: self.memory_size,
            alignment: self.alignment,
            text_offset: self.text_offset,
            bounds: Some(self.bounds),
            entry: Some(self.entry),
            origin,
        }
    }
}

/// What a loadable segment says.
struct Segment<'a> {
    /// Its physical address.
    start: u64,
    /// The address behind its last byte in memory.
    end: u64,
    bytes: &'a [u8],
    align: u64,
}

/// Makes an ELF file flat that takes at most `limit` bytes of memory.
///
/// # Errors
/// See [`ElfError`].
pub fn flatten(file: &[u8], limit: u64) -> Result<Flat, ElfError> {
    let header = FileHeader64::<Le>::parse(file).map_err(|_| ElfError::NotElf)?;
    if header.is_big_endian() || header.e_machine(Le) != EM_X86_64 {
        return Err(ElfError::NotElf);
    }
    let headers = header
        .program_headers(Le, file)
        .map_err(|_| ElfError::Malformed)?;
    let segments = segments(file, headers)?;
    let (first, last) = segments
        .first()
        .zip(segments.last())
        .ok_or(ElfError::Empty)?;
    let (start, end) = (first.start, last.end);
    let memory_size = end - start;
    if memory_size > limit {
        return Err(ElfError::TooLarge(limit));
    }
    let notes = Notes::read(file, headers)?;
    let entry = notes
        .entry
        .filter(|entry| (start..end).contains(entry))
        .ok_or(ElfError::NoEntry)?;
    let place = match notes.relocation {
        Some(relocation) => relocation.place(&segments, start, end)?,
        None => Place::fixed(start, end),
    };
    Ok(Flat {
        bytes: image(&segments, start)?,
        memory_size,
        alignment: place.alignment,
        text_offset: start % place.alignment,
        bounds: GuestRange::between(
            GuestAddress::new(place.bounds.0),
            GuestAddress::new(place.bounds.1),
        ),
        entry: entry - start,
    })
}

/// The loadable segments that take memory, by address; none overlaps another.
fn segments<'a>(
    file: &'a [u8],
    headers: &[ProgramHeader64<Le>],
) -> Result<Vec<Segment<'a>>, ElfError> {
    let mut segments = Vec::new();
    let loadable = headers.iter().filter(|header| header.p_type(Le) == PT_LOAD);
    for header in loadable.filter(|header| header.p_memsz(Le) > 0) {
        let start = header.p_paddr(Le);
        let end = start.checked_add(header.p_memsz(Le));
        let bytes = header.data(Le, file).map_err(|()| ElfError::Malformed)?;
        if bytes.len() as u64 > header.p_memsz(Le) {
            return Err(ElfError::Malformed);
        }
        segments.push(Segment {
            start,
            end: end.ok_or(ElfError::Malformed)?,
            bytes,
            align: header.p_align(Le),
        });
    }
    segments.sort_by_key(|segment| segment.start);
    let apart = segments
        .windows(2)
        .all(|pair| matches!(pair, [one, other] if one.end <= other.start));
    apart.then_some(segments).ok_or(ElfError::Malformed)
}

/// The segments' bytes at their distances from `start`. Their sum of memory is bounded before.
fn image(segments: &[Segment<'_>], start: u64) -> Result<Vec<u8>, ElfError> {
    let mut image = Vec::new();
    for segment in segments.iter().filter(|segment| !segment.bytes.is_empty()) {
        let offset = usize::try_from(segment.start - start).map_err(|_| ElfError::Malformed)?;
        image.resize(offset, 0);
        image.extend_from_slice(segment.bytes);
    }
    if image.is_empty() {
        return Err(ElfError::Empty);
    }
    Ok(image)
}

/// Where a kernel may lie.
struct Place {
    alignment: u64,
    /// First and last address, exclusive.
    bounds: (u64, u64),
}

impl Place {
    /// Where it says, and nowhere else.
    fn fixed(start: u64, end: u64) -> Self {
        let alignment = 1_u64 << start.trailing_zeros().min(63);
        Self {
            alignment: alignment.clamp(PAGE, LARGEST_FIXED_ALIGNMENT),
            bounds: (start, end),
        }
    }
}

/// The relocation note's words: alignment, lowest address, address of the last byte.
#[derive(Default)]
struct Relocation {
    alignment: Option<u64>,
    lowest: Option<u64>,
    last: Option<u64>,
}

impl Relocation {
    fn place(&self, segments: &[Segment<'_>], start: u64, end: u64) -> Result<Place, ElfError> {
        let of_segments = segments.iter().map(|segment| segment.align).max();
        let alignment = self
            .alignment
            .or(of_segments.filter(|align| *align >= PAGE))
            .unwrap_or(DEFAULT_ALIGNMENT);
        let lowest = self.lowest.unwrap_or(0);
        let above = self.last.unwrap_or(u64::from(u32::MAX)) + 1;
        let fits = above
            .checked_sub(lowest)
            .is_some_and(|room| room >= end - start);
        if !alignment.is_power_of_two() || !fits {
            return Err(ElfError::Bounds);
        }
        Ok(Place {
            alignment: alignment.max(PAGE),
            bounds: (lowest, above),
        })
    }
}

#[derive(Default)]
struct Notes {
    /// The entry's physical address.
    entry: Option<u64>,
    relocation: Option<Relocation>,
}

impl Notes {
    fn read(file: &[u8], headers: &[ProgramHeader64<Le>]) -> Result<Self, ElfError> {
        let mut found = Self::default();
        for header in headers {
            let notes = header.notes(Le, file).map_err(|_| ElfError::Malformed)?;
            let Some(mut notes) = notes else { continue };
            while let Some(note) = notes.next().map_err(|_| ElfError::Malformed)? {
                if note.name() != OWNER {
                    continue;
                }
                match note.n_type(Le).0 {
                    PHYS32_ENTRY => found.entry = number(note.desc()),
                    PHYS32_RELOC => found.relocation = Some(relocation(note.desc())),
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// A note of one number, of 32 or 64 bits.
fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => Some(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        8 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// The words that are there; a note may end after any of them.
fn relocation(bytes: &[u8]) -> Relocation {
    let mut words = bytes.chunks_exact(4).map(number);
    let mut next = || words.next().flatten();
    Relocation {
        alignment: next(),
        lowest: next(),
        last: next(),
    }
}
