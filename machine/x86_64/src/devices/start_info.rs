//! The structure with which a PVH kernel starts, version 1, and what hangs from it.
//!
//! Xen's `arch-x86/hvm/start_info.h`. The hypervisor finds one when QEMU starts it by the PVH entry, and writes one for
//! its domains.

use alloc::vec::Vec;
use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::e820;

/// "xEn3" with bit 7 of the "E" set.
pub const MAGIC: u32 = 0x336e_c578;
/// With a memory map.
pub const VERSION: u32 = 1;
/// `SIF_PRIVILEGED`, public/xen.h.
pub const FLAG_PRIVILEGED: u32 = 1 << 0;
/// `SIF_INITDOMAIN`: the hardware domain, whose console is the hypervisor's.
pub const FLAG_INITIAL_DOMAIN: u32 = 1 << 1;

/// `struct hvm_start_info`. Addresses are guest physical; zero is "not there".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u32,
    /// 0 or 1.
    pub version: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// How many [`Module`]s there are.
    pub module_count: u32,
    /// Where the first is.
    pub modules: u64,
    /// The command line, ended by a zero byte.
    pub command_line: u64,
    /// ACPI's root pointer.
    pub rsdp: u64,
    /// Version 1: the first [`MemoryEntry`].
    pub memory: u64,
    /// Version 1: how many there are.
    pub memory_count: u32,
    /// Zero.
    pub reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Module {
    /// Where it is.
    pub address: u64,
    /// Its bytes.
    pub size: u64,
    /// Its command line, as above.
    pub command_line: u64,
    /// Zero.
    pub reserved: u64,
}

/// `struct hvm_memmap_table_entry`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MemoryEntry {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// [`e820::Kind::number`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 56);
    assert!(offset_of!(Header, modules) == 16);
    assert!(offset_of!(Header, rsdp) == 32);
    assert!(offset_of!(Header, memory) == 40);
    assert!(offset_of!(Header, memory_count) == 48);
    assert!(size_of::<Module>() == 32);
    assert!(offset_of!(Module, command_line) == 16);
    assert!(size_of::<MemoryEntry>() == 24);
    assert!(offset_of!(MemoryEntry, kind) == 16);
};

/// What a kernel is told.
#[derive(Debug, Clone, Copy)]
pub struct StartInfo<'a> {
    /// `FLAG_*`.
    pub flags: u32,
    /// Address and bytes of each module: the ramdisk.
    pub modules: &'a [(u64, u64)],
    /// Up to its first zero byte, if it has one.
    pub command_line: &'a [u8],
    /// Guest physical address of ACPI's root pointer, 0 without ACPI.
    pub rsdp: u64,
    /// Memory, in order.
    pub memory: &'a [e820::Entry],
}

impl StartInfo<'_> {
    /// The bytes to lie at guest physical `address`, a multiple of 8 below 4 GiB: header, modules, memory map, command line.
    #[must_use]
    pub fn write(&self, address: u64) -> Vec<u8> {
        let command_line = self.command_line.split(|byte| *byte == 0).next();
        let modules_at = address + size_of::<Header>() as u64;
        let memory_at = modules_at + (self.modules.len() * size_of::<Module>()) as u64;
        let line_at = memory_at + (self.memory.len() * size_of::<MemoryEntry>()) as u64;
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            flags: self.flags,
            module_count: count(self.modules),
            modules: if self.modules.is_empty() {
                0
            } else {
                modules_at
            },
            command_line: line_at,
            rsdp: self.rsdp,
            memory: memory_at,
            memory_count: count(self.memory),
            reserved: 0,
        };
        let mut bytes = header.as_bytes().to_vec();
        for (address, size) in self.modules {
            let module = Module {
                address: *address,
                size: *size,
                ..Module::default()
            };
            bytes.extend_from_slice(module.as_bytes());
        }
        for entry in self.memory {
            let entry = MemoryEntry {
                address: entry.range.start().raw(),
                size: entry.range.size(),
                kind: entry.kind.number(),
                reserved: 0,
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes.extend_from_slice(command_line.unwrap_or_default());
        bytes.push(0);
        bytes
    }
}

/// A list in memory never has 2^32 entries.
fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use e820::{Entry, Kind};

    fn at<T: FromBytes>(bytes: &[u8], offset: u64) -> T {
        let offset = usize::try_from(offset).unwrap();
        T::read_from_prefix(&bytes[offset..]).unwrap().0
    }

    #[test]
    fn a_kernel_finds_everything_by_the_header() {
        let memory = [
            Entry::new(0, 0x9_f000, Kind::Ram),
            Entry::new(0x10_0000, 0x100_0000, Kind::AcpiTables),
        ];
        let info = StartInfo {
            flags: FLAG_INITIAL_DOMAIN,
            modules: &[(0x200_0000, 12345)],
            command_line: b"console=hvc0\0rest",
            rsdp: 0xe_0000,
            memory: &memory,
        };
        let base = 0x8000;
        let bytes = info.write(base);
        let header: Header = at(&bytes, 0);
        assert_eq!((header.magic, header.version, header.flags), (MAGIC, 1, 2));
        assert_eq!((header.module_count, header.memory_count), (1, 2));
        assert_eq!(header.rsdp, 0xe_0000);
        let module: Module = at(&bytes, header.modules - base);
        assert_eq!((module.address, module.size), (0x200_0000, 12345));
        let second: MemoryEntry = at(&bytes, header.memory - base + 24);
        assert_eq!(
            (second.address, second.size, second.kind),
            (0x10_0000, 0x100_0000, 3)
        );
        assert_eq!(
            &bytes[usize::try_from(header.command_line - base).unwrap()..],
            b"console=hvc0\0"
        );
        assert_eq!(
            &bytes[..4],
            b"xEn3".map(|b| if b == b'E' { b | 0x80 } else { b })
        );
    }

    #[test]
    fn nothing_is_a_null_address() {
        let info = StartInfo {
            flags: 0,
            modules: &[],
            command_line: b"",
            rsdp: 0,
            memory: &[],
        };
        let bytes = info.write(0x8000);
        let header: Header = at(&bytes, 0);
        assert_eq!((header.modules, header.module_count), (0, 0));
        assert_eq!(bytes[56..], [0]);
    }
}
