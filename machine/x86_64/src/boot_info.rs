//! What the boot loader hands over: the memory map, the modules, the command line, the RSDP.
//!
//! Read from the information structure of multiboot1 or multiboot2 or the PVH start info into one form. Only
//! [`Physical`] touches memory, so that hostile structures are met under tests on a workstation.
//! Nothing here is believed further than its own structure: whether a range is RAM is for the host
//! map to say.

use arrayvec::ArrayVec;

/// The most entries of a memory map; QEMU gives some 10, a server up to 60.
pub const MAX_REGIONS: usize = 128;
/// The most modules that are looked at; the container is the first.
pub const MAX_MODULES: usize = 4;
/// Bytes of a command line that are kept.
pub const COMMAND_LINE_BYTES: usize = 256;

/// Type of an e820 entry for usable RAM (ACPI 6.5, table 15.2: AddressRangeMemory).
pub const E820_RAM: u32 = 1;

/// Reads machine memory.
pub trait Physical {
    /// Copies bytes from a machine address. `None` if part of the range can't be read.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()>;
}

/// How the boot loader entered the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Multiboot Specification 0.6.96.
    Multiboot1,
    /// Multiboot2 Specification 2.0.
    Multiboot2,
    /// Xen's PVH entry (docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h).
    Pvh,
}

/// An entry of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// Bytes; not zero, and the range doesn't wrap.
    pub bytes: u64,
    /// The e820 type, [`E820_RAM`] or another.
    pub kind: u32,
}

/// A file that the boot loader placed in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// First byte.
    pub start: u64,
    /// Bytes; the range doesn't wrap.
    pub bytes: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootInfo {
    /// The memory map in the boot loader's order.
    pub regions: ArrayVec<Region, MAX_REGIONS>,
    /// The modules in the boot loader's order.
    pub modules: ArrayVec<Module, MAX_MODULES>,
    /// The command line without its terminating zero, cut to what is kept.
    pub command_line: ArrayVec<u8, COMMAND_LINE_BYTES>,
    /// Where ACPI begins, where the protocol tells it.
    pub rsdp: Option<Rsdp>,
}

/// ACPI's root pointer (ACPI 6.5, 5.2.5.3), as a boot loader passes it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rsdp {
    /// Its machine address.
    At(u64),
    /// Its content. The first revision has the first 20 bytes only; the rest is zero then.
    Copy([u8; RSDP_BYTES]),
}

/// Bytes of a root pointer of the second revision.
pub const RSDP_BYTES: usize = 36;

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A structure lies where memory can't be read.
    Unreadable,
    /// The start info's magic number is another.
    Magic,
    /// There is no memory map: a start info of version 0, multiboot1's flag 6 clear, no such tag of
    /// multiboot2.
    NoMemoryMap,
    /// The memory map has more than [`MAX_REGIONS`] entries.
    TooManyRegions,
}

impl Malformed {
    /// The sentence on the console.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unreadable => "a boot structure lies where there is no memory",
            Self::Magic => "the start info's magic number is wrong",
            Self::NoMemoryMap => "the boot loader passed no memory map",
            Self::TooManyRegions => "the boot loader's memory map has too many entries",
        }
    }
}

/// Reads the structure at `address`.
///
/// # Errors
/// [`Malformed`].
pub fn read(
    memory: &impl Physical,
    protocol: Protocol,
    address: u64,
) -> Result<BootInfo, Malformed> {
    match protocol {
        Protocol::Multiboot1 => multiboot1(memory, address),
        Protocol::Multiboot2 => multiboot2(memory, address),
        Protocol::Pvh => pvh(memory, address),
    }
}

fn fetch<const N: usize>(memory: &impl Physical, address: u64) -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    memory
        .read(address, &mut bytes)
        .ok_or(Malformed::Unreadable)?;
    Ok(bytes)
}

fn word(memory: &impl Physical, address: u64) -> Result<u32, Malformed> {
    fetch(memory, address).map(u32::from_le_bytes)
}

fn long(memory: &impl Physical, address: u64) -> Result<u64, Malformed> {
    fetch(memory, address).map(u64::from_le_bytes)
}

/// `base` + `offset`, where the sum is an address at all.
fn at(base: u64, offset: u64) -> Result<u64, Malformed> {
    base.checked_add(offset).ok_or(Malformed::Unreadable)
}

impl BootInfo {
    fn add_region(&mut self, start: u64, bytes: u64, kind: u32) -> Result<(), Malformed> {
        // What wraps or is empty describes nothing.
        if bytes == 0 || start.checked_add(bytes).is_none() {
            return Ok(());
        }
        let region = Region { start, bytes, kind };
        self.regions
            .try_push(region)
            .map_err(|_| Malformed::TooManyRegions)
    }

    /// Modules beyond [`MAX_MODULES`] aren't used, so they are left out.
    fn add_module(&mut self, start: u64, bytes: u64) {
        if start.checked_add(bytes).is_some() {
            let _ = self.modules.try_push(Module { start, bytes });
        }
    }

    fn read_command_line(&mut self, memory: &impl Physical, address: u64) -> Result<(), Malformed> {
        for offset in 0..COMMAND_LINE_BYTES as u64 {
            let [byte] = fetch(memory, at(address, offset)?)?;
            if byte == 0 || self.command_line.try_push(byte).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Whether a word, delimited by blanks, is on the command line.
    pub fn has_word(&self, word: &str) -> bool {
        self.command_line
            .split(|byte| byte.is_ascii_whitespace())
            .any(|found| found == word.as_bytes())
    }

    /// Bytes of RAM in the memory map.
    pub fn ram_bytes(&self) -> u64 {
        self.regions
            .iter()
            .filter(|region| region.kind == E820_RAM)
            .fold(0, |sum: u64, region| sum.saturating_add(region.bytes))
    }
}

fn multiboot1(memory: &impl Physical, address: u64) -> Result<BootInfo, Malformed> {
    const COMMAND_LINE: u32 = 1 << 2;
    const MODULES: u32 = 1 << 3;
    const MEMORY_MAP: u32 = 1 << 6;
    let field = |offset| word(memory, at(address, offset)?).map(u64::from);
    let flags = word(memory, address)?;
    let mut info = BootInfo::default();
    if flags & MEMORY_MAP == 0 {
        return Err(Malformed::NoMemoryMap);
    }
    let (length, first) = (field(44)?, field(48)?);
    let end = first + length;
    let mut entry = first;
    // An entry is its own size, base, length and type; the size doesn't count itself.
    while entry + 24 <= end {
        let size = u64::from(word(memory, entry)?);
        let (start, bytes) = (long(memory, entry + 4)?, long(memory, entry + 12)?);
        info.add_region(start, bytes, word(memory, entry + 20)?)?;
        entry += size + 4;
    }
    if flags & COMMAND_LINE != 0 {
        info.read_command_line(memory, field(16)?)?;
    }
    if flags & MODULES != 0 {
        let (count, list) = (field(20)?, field(24)?);
        for index in 0..count.min(MAX_MODULES as u64) {
            let start = u64::from(word(memory, list + index * 16)?);
            let end = u64::from(word(memory, list + index * 16 + 4)?);
            info.add_module(start, end.saturating_sub(start));
        }
    }
    Ok(info)
}

/// A fixed part of total size and a reserved word, then tags of type, size and content, each at a
/// multiple of 8 (Multiboot2 Specification 2.0, 3.6).
fn multiboot2(memory: &impl Physical, address: u64) -> Result<BootInfo, Malformed> {
    const END: u32 = 0;
    const COMMAND_LINE: u32 = 1;
    const MODULE: u32 = 3;
    const MEMORY_MAP: u32 = 6;
    const OLD_RSDP: u32 = 14;
    const NEW_RSDP: u32 = 15;
    let mut info = BootInfo::default();
    let end = at(address, u64::from(word(memory, address)?))?;
    let mut tag = at(address, 8)?;
    let mut old_rsdp = None;
    while at(tag, 8)? <= end {
        let (kind, size) = (word(memory, tag)?, u64::from(word(memory, tag + 4)?));
        let content = tag + 8;
        match kind {
            END => break,
            COMMAND_LINE => info.read_command_line(memory, content)?,
            MODULE => {
                let first = u64::from(word(memory, content)?);
                let end = u64::from(word(memory, at(content, 4)?)?);
                info.add_module(first, end.saturating_sub(first));
            }
            MEMORY_MAP => multiboot2_map(memory, content, at(tag, size)?, &mut info)?,
            OLD_RSDP => old_rsdp = Some(rsdp_copy(memory, content, size)?),
            NEW_RSDP => info.rsdp = Some(rsdp_copy(memory, content, size)?),
            _ => {}
        }
        // A tag without its own header would be followed by itself.
        tag = at(tag, size.max(8).next_multiple_of(8))?;
    }
    info.rsdp = info.rsdp.or(old_rsdp);
    if info.regions.is_empty() {
        return Err(Malformed::NoMemoryMap);
    }
    Ok(info)
}

/// The content of a tag of `size` bytes, its header of eight included.
fn rsdp_copy(memory: &impl Physical, content: u64, size: u64) -> Result<Rsdp, Malformed> {
    let mut copy = [0; RSDP_BYTES];
    let bytes = usize::try_from(size.saturating_sub(8)).unwrap_or(RSDP_BYTES);
    let bytes = copy.get_mut(..bytes.min(RSDP_BYTES)).unwrap_or_default();
    memory.read(content, bytes).ok_or(Malformed::Unreadable)?;
    Ok(Rsdp::Copy(copy))
}

/// The size of an entry and a version, then entries of base, length and type.
fn multiboot2_map(
    memory: &impl Physical,
    content: u64,
    end: u64,
    info: &mut BootInfo,
) -> Result<(), Malformed> {
    let step = u64::from(word(memory, content)?).max(24);
    let mut entry = at(content, 8)?;
    while at(entry, 24)? <= end {
        let (start, bytes) = (long(memory, entry)?, long(memory, at(entry, 8)?)?);
        info.add_region(start, bytes, word(memory, at(entry, 16)?)?)?;
        entry = at(entry, step)?;
    }
    Ok(())
}

fn pvh(memory: &impl Physical, address: u64) -> Result<BootInfo, Malformed> {
    const MAGIC: u32 = 0x336e_c578;
    let word_at = |offset| word(memory, at(address, offset)?);
    let long_at = |offset| long(memory, at(address, offset)?);
    if word_at(0)? != MAGIC {
        return Err(Malformed::Magic);
    }
    if word_at(4)? < 1 {
        return Err(Malformed::NoMemoryMap);
    }
    let mut info = BootInfo::default();
    let (map, entries) = (long_at(40)?, u64::from(word_at(48)?));
    if map == 0 || entries == 0 {
        return Err(Malformed::NoMemoryMap);
    }
    for index in 0..entries {
        let entry = at(map, index * 24)?;
        let (start, bytes) = (long(memory, entry)?, long(memory, at(entry, 8)?)?);
        info.add_region(start, bytes, word(memory, at(entry, 16)?)?)?;
    }
    let (count, list) = (u64::from(word_at(12)?), long_at(16)?);
    for index in 0..count.min(MAX_MODULES as u64) {
        let entry = at(list, index * 32)?;
        info.add_module(long(memory, entry)?, long(memory, at(entry, 8)?)?);
    }
    let command_line = long_at(24)?;
    if command_line != 0 {
        info.read_command_line(memory, command_line)?;
    }
    info.rsdp = Some(long_at(32)?).filter(|&rsdp| rsdp != 0).map(Rsdp::At);
    Ok(info)
}

#[cfg(test)]
#[path = "boot_info_tests.rs"]
mod tests;
