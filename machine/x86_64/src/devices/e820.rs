//! The PC's memory map, "e820" after the BIOS call: the host's made orderly, and the one that a domain gets.
//!
//! ACPI 6.5, chapter 15. PVH's start structure and multiboot use the same kinds.

use alloc::string::String;
use alloc::vec::Vec;

use layout::{HostMap, MachineAddress, MachineRange, Origin, RamBank, Reservation, Reserved};

/// What a range is. Where two entries overlap, the later of these kinds counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Memory to use.
    Ram,
    /// ACPI tables, memory once they have been read.
    AcpiTables,
    /// Firmware's memory that is saved over sleep.
    AcpiNvs,
    /// Not to be used. Every kind without a name here, persistent memory among them, is taken for this one.
    Reserved,
    /// Memory with errors.
    Unusable,
}

impl Kind {
    /// From the number in an entry.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Ram,
            3 => Self::AcpiTables,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            _ => Self::Reserved,
        }
    }

    /// The number in an entry.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::AcpiTables => 3,
            Self::AcpiNvs => 4,
            Self::Unusable => 5,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ram => "RAM",
            Self::AcpiTables => "ACPI tables",
            Self::AcpiNvs => "ACPI NVS",
            Self::Reserved => "firmware",
            Self::Unusable => "bad memory",
        }
    }
}

/// A range and its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub range: MachineRange,
    /// What.
    pub kind: Kind,
}

impl Entry {
    /// An entry as firmware has it; a size that passes 2^64 - 1 is cut off there.
    #[must_use]
    pub fn new(start: u64, size: u64, kind: Kind) -> Self {
        Self {
            range: MachineRange::saturating(MachineAddress::new(start), size),
            kind,
        }
    }
}

/// The same map in ascending order, without overlaps and empty entries, neighbours of one kind joined.
#[must_use]
pub fn tidy(entries: &[Entry]) -> Vec<Entry> {
    let mut edges: Vec<u64> = entries
        .iter()
        .flat_map(|entry| [entry.range.start().raw(), entry.range.end().raw()])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut result: Vec<Entry> = Vec::new();
    for pair in edges.windows(2) {
        let piece = between(pair[0], pair[1]);
        let kind = entries
            .iter()
            .filter(|entry| entry.range.covers(&piece))
            .map(|entry| entry.kind)
            .max();
        let Some(kind) = kind else { continue };
        match result.last_mut() {
            Some(last) if last.kind == kind && last.range.end() == piece.start() => {
                last.range = between(last.range.start().raw(), pair[1]);
            }
            _ => result.push(Entry { range: piece, kind }),
        }
    }
    result
}

/// Puts a map into the host's description: memory as banks of whole frames, all else as reserved.
pub fn describe(entries: &[Entry], map: &mut HostMap) {
    for entry in tidy(entries) {
        if entry.kind == Kind::Ram {
            let range = entry.range.frames_inside().bytes();
            if !range.is_empty() {
                map.ram.push(RamBank {
                    range,
                    node: None,
                    origin: Origin::NONE,
                });
            }
        } else {
            map.reserved.push(Reserved {
                range: entry.range,
                name: String::from(entry.kind.name()),
                kind: Reservation::Kept,
                origin: Origin::NONE,
            });
        }
    }
}

/// The map of a domain in the host's layout: the host's, in which memory that the domain doesn't own is reserved, so that
/// neither its memory allocator nor its placement of BARs goes there. `extra` is added last, such as its ACPI tables.
#[must_use]
pub fn guest(host: &[Entry], owned: &[MachineRange], extra: &[Entry]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for entry in tidy(host) {
        if entry.kind != Kind::Ram {
            entries.push(entry);
            continue;
        }
        let mut own: Vec<MachineRange> = owned
            .iter()
            .filter_map(|range| range.intersection(&entry.range))
            .collect();
        own.sort_unstable();
        let mut at = entry.range.start().raw();
        for range in own {
            entries.push(Entry {
                range: between(at, range.start().raw()),
                kind: Kind::Reserved,
            });
            entries.push(Entry {
                range,
                kind: Kind::Ram,
            });
            at = at.max(range.end().raw());
        }
        entries.push(Entry {
            range: between(at, entry.range.end().raw()),
            kind: Kind::Reserved,
        });
    }
    entries.retain(|entry| !entry.range.is_empty());
    entries.extend_from_slice(extra);
    tidy(&entries)
}

fn between(start: u64, end: u64) -> MachineRange {
    MachineRange::between(MachineAddress::new(start), MachineAddress::new(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What QEMU's q35 with 2 GiB says.
    fn q35() -> Vec<Entry> {
        vec![
            Entry::new(0, 0x9_fc00, Kind::Ram),
            Entry::new(0x9_fc00, 0x400, Kind::Reserved),
            Entry::new(0xf_0000, 0x1_0000, Kind::Reserved),
            Entry::new(0x10_0000, 0x7fed_f000, Kind::Ram),
            Entry::new(0x7ffd_f000, 0x2_1000, Kind::Reserved),
            Entry::new(0xb000_0000, 0x1000_0000, Kind::Reserved),
            Entry::new(0xfffc_0000, 0x4_0000, Kind::Reserved),
        ]
    }

    #[test]
    fn the_host_gets_whole_frames_and_the_names_of_the_rest() {
        let mut map = HostMap::default();
        describe(&q35(), &mut map);
        let banks: Vec<_> = map.ram.iter().map(|bank| bank.range).collect();
        assert_eq!(
            banks,
            [between(0, 0x9_f000), between(0x10_0000, 0x7ffd_f000)]
        );
        assert_eq!(map.reserved.len(), 5);
        assert_eq!(map.reserved[0].range, between(0x9_fc00, 0xa_0000));
    }

    #[test]
    fn the_stricter_kind_wins() {
        let map = [
            Entry::new(0x1000, 0x9000, Kind::Ram),
            Entry::new(0x3000, 0x1000, Kind::AcpiNvs),
            Entry::new(0x3800, 0x1800, Kind::AcpiTables),
            Entry::new(u64::MAX - 10, 100, Kind::Reserved),
        ];
        let expected = [
            Entry::new(0x1000, 0x2000, Kind::Ram),
            Entry::new(0x3000, 0x1000, Kind::AcpiNvs),
            Entry::new(0x4000, 0x1000, Kind::AcpiTables),
            Entry::new(0x5000, 0x5000, Kind::Ram),
            Entry::new(u64::MAX - 10, 10, Kind::Reserved),
        ];
        assert_eq!(tidy(&map), expected);
    }

    #[test]
    fn a_domain_sees_what_it_does_not_own_as_reserved() {
        let owned = [between(0, 0x9_f000), between(0x100_0000, 0x7ffd_f000)];
        let tables = Entry::new(0x7ff0_0000, 0x1000, Kind::AcpiTables);
        let map = guest(&q35(), &owned, &[tables]);
        let expected = [
            Entry::new(0, 0x9_f000, Kind::Ram),
            Entry::new(0x9_f000, 0x1000, Kind::Reserved),
            Entry::new(0xf_0000, 0x1_0000 + 0xf0_0000, Kind::Reserved),
            Entry::new(0x100_0000, 0x7ef0_0000, Kind::Ram),
            tables,
            Entry::new(0x7ff0_1000, 0xd_e000, Kind::Ram),
        ];
        assert_eq!(map[..6], expected);
        assert_eq!(map.len(), 9);
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (0_u64..64, 0_u64..32, 0_u32..6);
        prop::collection::vec(entry, 0..20).prop_map(|list| {
            list.into_iter()
                .map(|(start, size, kind)| Entry::new(start, size, Kind::of(kind)))
                .collect()
        })
    }

    fn kind_at(map: &[Entry], address: u64) -> Option<Kind> {
        map.iter()
            .filter(|entry| entry.range.contains(MachineAddress::new(address)))
            .map(|entry| entry.kind)
            .max()
    }

    proptest! {
        #[test]
        fn tidying_changes_no_byte(map in entries()) {
            let tidied = tidy(&map);
            for address in 0..100 {
                prop_assert_eq!(kind_at(&map, address), kind_at(&tidied, address));
            }
            for pair in tidied.windows(2) {
                prop_assert!(pair[0].range.end() <= pair[1].range.start());
                prop_assert!(pair[0].kind != pair[1].kind || pair[0].range.end() < pair[1].range.start());
            }
        }

        #[test]
        fn a_guests_memory_is_the_hosts_and_its_own(map in entries(), owned in prop::collection::vec((0_u64..64, 0_u64..32), 0..6)) {
            let owned: Vec<_> = owned.into_iter().map(|(start, size)| between(start, start + size)).collect();
            let seen = guest(&map, &owned, &[]);
            for address in 0..100 {
                let host = kind_at(&map, address);
                let own = owned.iter().any(|range| range.contains(MachineAddress::new(address)));
                let expected = if host == Some(Kind::Ram) && !own { Some(Kind::Reserved) } else { host };
                prop_assert_eq!(kind_at(&seen, address), expected);
            }
        }
    }
}
