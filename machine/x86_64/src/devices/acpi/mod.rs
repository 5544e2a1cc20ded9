//! ACPI tables: what the hypervisor reads of the host's, and the allow-list that a domain gets.
//!
//! No AML is interpreted. Of the DSDT one package of constants is looked for, the one that a power-off needs.
//! Everything here comes from firmware and is believed as far as it is checked: lengths, checksums, signatures.
//!
//! Tables that tell what the machine is are read by `manifest::pc::acpi`, which the workstation has too.
//!
//! ACPI 6.5: 5.2.5 (root pointer), 5.2.6 (header), 5.2.8 (XSDT), 5.2.9 (FADT).

mod fadt;
mod guest;
mod host;

#[cfg(test)]
mod tests;

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::boot_info::{Physical, RSDP_BYTES};
pub use fadt::{Fadt, Register, Sleep, Space, soft_off};
pub use guest::{Guest, is_shown};
pub use host::{describe, describe_iommus, hpet, iommu_registers};
pub use manifest::pc::acpi::{Ecam, IoApic, Madt, Override, Processor, affinities, ecams, units};

/// The most bytes of one table that are read.
const LARGEST_TABLE: u32 = 4 << 20;
/// The most tables of a list.
const MOST_TABLES: usize = 256;

/// What is wrong with the host's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No root pointer where it may be.
    NoRoot,
    /// Memory there can't be read.
    Unreadable(u64),
    /// The bytes don't add up to zero.
    Checksum(u64),
    /// Another signature than expected.
    Signature(u64),
    /// A length that can't be.
    Length(u64),
    /// No table with this signature.
    Missing([u8; 4]),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoot => f.write_str("no ACPI root pointer"),
            Self::Unreadable(address) => write!(f, "the ACPI table at {address:#x} can't be read"),
            Self::Checksum(address) => {
                write!(f, "the ACPI table at {address:#x} has a wrong checksum")
            }
            Self::Signature(address) => {
                write!(
                    f,
                    "the ACPI table at {address:#x} has another signature than expected"
                )
            }
            Self::Length(address) => write!(f, "the ACPI table at {address:#x} has a wrong length"),
            Self::Missing(signature) => {
                write!(f, "no ACPI table {}", signature.escape_ascii())
            }
        }
    }
}

/// The root system description pointer, revision 2.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Root {
    signature: [u8; 8],
    checksum: u8,
    oem: [u8; 6],
    revision: u8,
    rsdt: U32,
    length: U32,
    xsdt: U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

/// What every table begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem: [u8; 6],
    oem_table: [u8; 8],
    oem_revision: U32,
    creator: [u8; 4],
    creator_revision: U32,
}

const _: () = {
    assert!(size_of::<Root>() == RSDP_BYTES);
    assert!(offset_of!(Root, xsdt) == 24);
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(offset_of!(Header, checksum) == 9);
};

const HEADER_BYTES: usize = 36;
const ROOT_SIGNATURE: [u8; 8] = *b"RSD PTR ";
/// What the first revision's checksum covers.
const FIRST_ROOT_BYTES: usize = 20;
/// Where the revision is; the RSDT's address follows it.
const REVISION: usize = 15;

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// A structure at the start of some bytes.
fn prefix<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}

fn structure<T: FromBytes>(memory: &impl Physical, address: u64) -> Result<T, Error> {
    let mut bytes = vec![0; size_of::<T>()];
    memory
        .read(address, &mut bytes)
        .ok_or(Error::Unreadable(address))?;
    prefix(&bytes).ok_or(Error::Length(address))
}

/// Looks for the root pointer where a BIOS puts it: in the first KiB of the extended BIOS data area, then from 0xe0000 to
/// 0xfffff. UEFI tells its place by other means.
///
/// # Errors
/// [`Error::NoRoot`].
pub fn find_root(memory: &impl Physical) -> Result<u64, Error> {
    const EXTENDED_DATA_SEGMENT: u64 = 0x40e;
    const BLOCK: usize = 0x400;
    let segment: U16 = structure(memory, EXTENDED_DATA_SEGMENT).unwrap_or_default();
    let area = u64::from(segment.get()) << 4;
    let areas = [(area, 0x400), (0xe_0000, 0x2_0000)];
    for (start, size) in areas.into_iter().filter(|(start, _)| *start != 0) {
        for block_at in (start..start + size).step_by(BLOCK) {
            let mut block = [0; BLOCK];
            if memory.read(block_at, &mut block).is_none() {
                continue;
            }
            for (address, place) in (block_at..).step_by(16).zip(block.chunks_exact(16)) {
                if place.starts_with(&ROOT_SIGNATURE)
                    && structure::<[u8; FIRST_ROOT_BYTES]>(memory, address)
                        .is_ok_and(|bytes| sums_to_zero(&bytes))
                {
                    return Ok(address);
                }
            }
        }
    }
    Err(Error::NoRoot)
}

/// A table that the root's list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its signature.
    pub signature: [u8; 4],
    /// Where it is, in machine addresses.
    pub address: u64,
    /// Its bytes, header included.
    pub length: u32,
}

/// The host's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// In the order of the XSDT or, on old firmware, the RSDT.
    pub list: Vec<Table>,
}

impl Tables {
    /// Reads the list that the root pointer at `root` leads to. A table in it that can't be read or has a length that
    /// can't be is left out.
    ///
    /// # Errors
    /// The root pointer or the list itself is bad.
    pub fn read(memory: &impl Physical, root: u64) -> Result<Self, Error> {
        let first: [u8; FIRST_ROOT_BYTES] = structure(memory, root)?;
        if first[REVISION] < 2 {
            return Self::of_root(memory, &first, root);
        }
        let whole: [u8; RSDP_BYTES] = structure(memory, root)?;
        Self::of_root(memory, &whole, root)
    }

    /// Reads the list that a root pointer leads to, as [`Tables::read`] does. `place` is where it lies or lay, for what is
    /// said of it.
    ///
    /// # Errors
    /// As there.
    pub fn of_root(memory: &impl Physical, root: &[u8], place: u64) -> Result<Self, Error> {
        let first = root.get(..FIRST_ROOT_BYTES).ok_or(Error::Length(place))?;
        if !first.starts_with(&ROOT_SIGNATURE) {
            return Err(Error::Signature(place));
        }
        if !sums_to_zero(first) {
            return Err(Error::Checksum(place));
        }
        let rsdt: U32 = prefix(&first[16..]).ok_or(Error::Length(place))?;
        let mut list = (u64::from(rsdt.get()), *b"RSDT");
        if first[REVISION] >= 2 {
            let pointer: Root = prefix(root).ok_or(Error::Length(place))?;
            if !sums_to_zero(pointer.as_bytes()) {
                return Err(Error::Checksum(place));
            }
            if pointer.xsdt.get() != 0 {
                list = (pointer.xsdt.get(), *b"XSDT");
            }
        }
        let (address, signature) = list;
        let bytes = load(memory, address, signature)?;
        let entries = &bytes[HEADER_BYTES..];
        let addresses: Vec<u64> = if signature == *b"XSDT" {
            let (chunks, _) = entries.as_chunks();
            chunks
                .iter()
                .map(|bytes| u64::from_le_bytes(*bytes))
                .collect()
        } else {
            let (chunks, _) = entries.as_chunks();
            chunks
                .iter()
                .map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
                .collect()
        };
        let list = addresses
            .into_iter()
            .take(MOST_TABLES)
            .filter_map(|address| table(memory, address).ok())
            .collect();
        Ok(Self { list })
    }

    /// The bytes of the first table with that signature, checked.
    ///
    /// # Errors
    /// There is none, or it is bad.
    pub fn load(&self, memory: &impl Physical, signature: [u8; 4]) -> Result<Vec<u8>, Error> {
        let table = self
            .list
            .iter()
            .find(|table| table.signature == signature)
            .ok_or(Error::Missing(signature))?;
        load(memory, table.address, signature)
    }
}

fn table(memory: &impl Physical, address: u64) -> Result<Table, Error> {
    let header: Header = structure(memory, address)?;
    let length = header.length.get();
    if length > LARGEST_TABLE || (length as usize) < HEADER_BYTES {
        return Err(Error::Length(address));
    }
    Ok(Table {
        signature: header.signature,
        address,
        length,
    })
}

/// The bytes of the table at `address`, header included; there are at least the header's.
///
/// # Errors
/// It can't be read, has another signature, or its length or checksum is wrong.
pub fn load(memory: &impl Physical, address: u64, signature: [u8; 4]) -> Result<Vec<u8>, Error> {
    let table = table(memory, address)?;
    if table.signature != signature {
        return Err(Error::Signature(address));
    }
    let mut bytes = vec![0; table.length as usize];
    memory
        .read(address, &mut bytes)
        .ok_or(Error::Unreadable(address))?;
    if !sums_to_zero(&bytes) {
        return Err(Error::Checksum(address));
    }
    Ok(bytes)
}
