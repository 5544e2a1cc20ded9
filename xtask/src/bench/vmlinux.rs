//! x86-64's kernel without its wrapping, and a bare guest in its place.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use manifest::kernel::unwrap_bounded;
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD, PT_NOTE, ProgramType};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// No kernel is larger.
const LIMIT: u64 = 256 << 20;

/// Writes the ELF file inside a bzImage.
pub fn unwrap(kernel: &Path, as_file: &Path) -> Result<()> {
    let file = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let (elf, _) = unwrap_bounded(file, LIMIT)
        .map_err(|error| anyhow::anyhow!("{}: {error}", kernel.display()))?;
    fs::write(as_file, elf).with_context(|| format!("cannot write {}", as_file.display()))
}

/// Writes a copy of `kernel`, an ELF file with a PVH note, in which the bare-metal `guest` lies over the kernel's first
/// bytes and is what the note enters: as much to load, so that what happens before a guest's first instruction can be
/// counted in a guest that tells.
pub fn disguise(guest: &Path, kernel: &Path, as_file: &Path) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (guest, mut bytes) = (read(guest)?, read(kernel)?);
    let kernels = segments(&bytes, PT_LOAD)?;
    for own in segments(&guest, PT_LOAD)? {
        let below = kernels
            .iter()
            .find(|kernel| kernel.address <= own.address)
            .context("the guest lies below the kernel")?;
        let start = below.file.start + (own.address - below.address);
        let end = start + own.size;
        ensure!(
            end <= below.file.end,
            "the guest isn't linked inside the kernel's first part"
        );
        let data = guest
            .get(own.file)
            .context("the guest's file is cut short")?;
        let (front, rest) = bytes
            .get_mut(start..end)
            .context("the kernel's file is cut short")?
            .split_at_mut(data.len());
        front.copy_from_slice(data);
        rest.fill(0);
    }
    let note = |elf: &[u8]| xen_note(elf, PHYS32_ENTRY)?.context("there is no PVH note");
    let entry = guest[note(&guest)?.value].to_vec();
    let place = note(&bytes)?.value;
    ensure!(place.len() == entry.len(), "the two notes differ in size");
    bytes[place].copy_from_slice(&entry);
    // The guest can't be moved, whatever the kernel can.
    if let Some(relocation) = xen_note(&bytes, PHYS32_RELOC)? {
        bytes[relocation.kind].fill(0xff);
    }
    fs::write(as_file, bytes).with_context(|| format!("cannot write {}", as_file.display()))
}

/// The entry for PVH guests (Xen, public/elfnote.h).
const PHYS32_ENTRY: usize = 18;
/// Where the kernel may be moved (likewise).
const PHYS32_RELOC: usize = 19;

/// A note's parts in its file.
struct Note {
    kind: Range<usize>,
    value: Range<usize>,
}

/// Where an ELF file has a note of this kind by "Xen".
fn xen_note(elf: &[u8], wanted: usize) -> Result<Option<Note>> {
    for notes in segments(elf, PT_NOTE)? {
        let mut at = notes.file.start;
        while at + 12 <= notes.file.end {
            let word = |offset: usize| -> Option<usize> {
                let bytes: [u8; 4] = elf.get(at + offset..at + offset + 4)?.try_into().ok()?;
                usize::try_from(u32::from_le_bytes(bytes)).ok()
            };
            let (name, value, kind) = (word(0), word(4), word(8));
            let (Some(name), Some(value), Some(kind)) = (name, value, kind) else {
                bail!("a note is cut short");
            };
            let start = at + 12 + name.next_multiple_of(4);
            if kind == wanted && elf.get(at + 12..at + 16) == Some(b"Xen\0") {
                ensure!(start + value <= elf.len(), "a note is cut short");
                return Ok(Some(Note {
                    kind: at + 8..at + 12,
                    value: start..start + value,
                }));
            }
            at = start + value.next_multiple_of(4);
        }
    }
    Ok(None)
}

/// A part of an ELF file.
struct Segment {
    /// Its physical address.
    address: usize,
    /// Bytes in memory.
    size: usize,
    /// Where they are in the file, as far as they are.
    file: Range<usize>,
}

fn segments(elf: &[u8], kind: ProgramType) -> Result<Vec<Segment>> {
    let header: &FileHeader64<Endianness> = FileHeader64::parse(elf)?;
    let endian = header.endian()?;
    let mut segments = Vec::new();
    for segment in header.program_headers(endian, elf)? {
        if segment.p_type(endian) != kind {
            continue;
        }
        let start = usize::try_from(segment.p_offset(endian))?;
        segments.push(Segment {
            address: usize::try_from(segment.p_paddr(endian))?,
            size: usize::try_from(segment.p_memsz(endian))?,
            file: start..start + usize::try_from(segment.p_filesz(endian))?,
        });
    }
    Ok(segments)
}
