//! What a PVH domain finds in its memory when it starts: the start structure with memory map and
//! command line, and its ACPI tables, all in the plan's one range.

use alloc::vec::Vec;

use layout::GuestRange;
use manifest::pc::START_BYTES;

use crate::devices::acpi;
use crate::devices::e820::{self, Entry, Kind};
use crate::devices::start_info::StartInfo;

/// Where in the range the ACPI tables begin: what lies before them is read once and forgotten, so that
/// the domain may use it as memory.
const TABLES_AT: u64 = START_BYTES / 2;
const PAGE: u64 = 4096;

/// What a domain starts from.
#[derive(Debug, Clone, Copy)]
pub struct First<'a> {
    /// The plan's range.
    pub place: GuestRange,
    /// `FLAG_*` of the start structure.
    pub flags: u32,
    /// Address and bytes of the ramdisk.
    pub ramdisk: Option<(u64, u64)>,
    /// The command line.
    pub command_line: &'a [u8],
    /// Its ACPI tables.
    pub acpi: acpi::Guest<'a>,
}

/// It takes more than its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl First<'_> {
    /// The bytes to lie in the range, and the domain's memory map: `memory`, in which the ACPI tables are
    /// marked.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn write(&self, memory: &[Entry]) -> Result<(Vec<u8>, Vec<Entry>), TooLarge> {
        let start = self.place.start().raw();
        let tables_at = start + TABLES_AT;
        let tables = self.acpi.write(tables_at);
        let tables_bytes = (tables.len() as u64).next_multiple_of(PAGE);
        if TABLES_AT + tables_bytes > self.place.size() {
            return Err(TooLarge);
        }
        let mut memory = memory.to_vec();
        memory.push(Entry::new(tables_at, tables_bytes, Kind::AcpiTables));
        let memory = e820::tidy(&memory);
        let modules: Vec<(u64, u64)> = self.ramdisk.into_iter().collect();
        let info = StartInfo {
            flags: self.flags,
            modules: &modules,
            command_line: self.command_line,
            rsdp: tables_at,
            memory: &memory,
        };
        let mut bytes = info.write(start);
        if bytes.len() as u64 > TABLES_AT {
            return Err(TooLarge);
        }
        bytes.resize(usize::try_from(TABLES_AT).map_err(|_| TooLarge)?, 0);
        bytes.extend_from_slice(&tables);
        Ok((bytes, memory))
    }
}

#[cfg(test)]
mod tests {
    use layout::GuestAddress;

    use super::*;

    fn first(place: GuestRange, command_line: &[u8]) -> First<'_> {
        First {
            place,
            flags: 3,
            ramdisk: Some((0x400_0000, 0x1234)),
            command_line,
            acpi: acpi::Guest {
                apic_ids: &[0, 1],
                io_apics: &[],
                overrides: &[],
                host: &[],
            },
        }
    }

    #[test]
    fn the_tables_are_where_the_structure_and_the_map_say() {
        let place = GuestRange::saturating(GuestAddress::new(0x700_0000), START_BYTES);
        let ram = [Entry::new(0, 0x1000_0000, Kind::Ram)];
        let (bytes, memory) = first(place, b"console=hvc0").write(&ram).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (line, rsdp) = (word(24), word(32));
        assert_eq!(rsdp, 0x700_8000);
        let tables = usize::try_from(TABLES_AT).unwrap();
        assert!(bytes[tables..].starts_with(b"RSD PTR "));
        let line = usize::try_from(line - 0x700_0000).unwrap();
        assert!(bytes[line..].starts_with(b"console=hvc0\0"));
        assert_eq!(memory[1], Entry::new(0x700_8000, 0x1000, Kind::AcpiTables));
        assert_eq!(memory.len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let place = GuestRange::saturating(GuestAddress::new(0x700_0000), START_BYTES);
        let long = vec![b'x'; 40_000];
        assert_eq!(first(place, &long).write(&[]).unwrap_err(), TooLarge);
        let small = GuestRange::saturating(GuestAddress::new(0x700_0000), TABLES_AT);
        assert_eq!(first(small, b"").write(&[]).unwrap_err(), TooLarge);
    }
}
