use alloc::vec;
use alloc::vec::Vec;

use layout::{MachineAddress, MachineRange};

use super::*;
use crate::pc::{Bridge, CpuNode, IommuKind, MemoryNode, PciAddress};

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

fn place(bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress {
        segment: 0,
        bus,
        device,
        function,
    }
}

fn dmar(flags: u8, scopes: &[&[u8]]) -> Vec<u8> {
    let scopes = scopes.concat();
    let mut table = vec![0; 48];
    table.extend_from_slice(&0_u16.to_le_bytes());
    table.extend_from_slice(&u16::try_from(16 + scopes.len()).unwrap().to_le_bytes());
    table.extend_from_slice(&[flags, 0, 0, 0]);
    table.extend_from_slice(&0xfed9_0000_u64.to_le_bytes());
    table.extend_from_slice(&scopes);
    table
}

const BRIDGES: [Bridge; 1] = [Bridge {
    address: PciAddress {
        segment: 0,
        bus: 0,
        device: 4,
        function: 0,
    },
    secondary: 1,
    subordinate: 4,
    isolates: false,
}];

#[test]
fn scopes_of_vt_d() {
    let endpoint = [1, 8, 0, 0, 0, 0, 2, 0];
    let behind = [1, 10, 0, 0, 0, 0, 4, 0, 5, 1];
    let bridge = [2, 8, 0, 0, 0, 0, 4, 0];
    let covers = |table: &[u8], address| {
        units(table, IommuKind::VtD)
            .iter()
            .any(|unit| unit.covers(address, &BRIDGES))
    };
    let all = dmar(1, &[]);
    assert!(covers(&all, place(7, 0, 0)));
    assert_eq!(
        units(&all, IommuKind::VtD)[0].path(),
        "acpi:DMAR:0xfed90000"
    );
    let some = dmar(0, &[&endpoint, &behind]);
    assert!(covers(&some, place(0, 2, 0)) && covers(&some, place(1, 5, 1)));
    assert!(
        !covers(&some, place(0, 3, 0))
            && !covers(&some, place(0, 4, 0))
            && !covers(&some, place(1, 5, 0))
    );
    let subtree = dmar(0, &[&bridge]);
    assert!(covers(&subtree, place(0, 4, 0)) && covers(&subtree, place(3, 0, 0)));
    assert!(!covers(&subtree, place(5, 0, 0)));
    // The bus is bypassed: QEMU describes a unit without any scope.
    assert!(!covers(&dmar(0, &[]), place(0, 2, 0)));
}

#[test]
fn a_unit_of_vt_d_says_how_many_pages_its_registers_take() {
    let with_size = |size: u8| {
        let mut table = dmar(1, &[]);
        table[48 + 5] = size;
        units(&table, IommuKind::VtD)[0].range
    };
    assert_eq!(with_size(0), range(0xfed9_0000, 0x1000));
    assert_eq!(with_size(2), range(0xfed9_0000, 0x4000));
    // The upper half is reserved.
    assert_eq!(with_size(0xf1), range(0xfed9_0000, 0x2000));
    assert_eq!(with_size(15), range(0xfed9_0000, 0x800_0000));
}

#[test]
fn entries_of_amd() {
    let block = |entries: &[[u8; 4]]| {
        let mut table = vec![0; 48];
        let entries = entries.concat();
        table.extend_from_slice(&[0x10, 0]);
        table.extend_from_slice(&u16::try_from(24 + entries.len()).unwrap().to_le_bytes());
        table.extend_from_slice(&[0; 4]);
        table.extend_from_slice(&0xfed8_0000_u64.to_le_bytes());
        table.extend_from_slice(&[0; 8]);
        table.extend_from_slice(&entries);
        units(&table, IommuKind::AmdVi)
    };
    let some = block(&[[2, 0x10, 0, 0], [3, 0, 1, 0], [4, 0xff, 2, 0]]);
    let covers = |address| some.iter().any(|unit| unit.covers(address, &[]));
    assert!(covers(place(0, 2, 0)) && covers(place(1, 0, 0)) && covers(place(2, 31, 7)));
    assert!(!covers(place(0, 3, 0)) && !covers(place(3, 0, 0)));
    assert!(block(&[[1, 0, 0, 0]])[0].covers(place(9, 1, 1), &[]));
    assert_eq!(some[0].range, range(0xfed8_0000, 0x4000));
}

#[test]
fn nodes_of_memory_and_cpus() {
    let mut table = vec![0; 48];
    let mut apic = |node: [u8; 4], id: u8, flags: u8| {
        table.extend([
            0, 16, node[0], id, flags, 0, 0, 0, 0, node[1], node[2], node[3],
        ]);
        table.extend([0; 4]);
    };
    apic([1, 0, 0, 2], 7, 1);
    apic([3, 0, 0, 0], 8, 0);
    let mut memory = |start: u64, size: u64, flags: u32| {
        table.extend([1, 40, 5, 0, 0, 0, 0, 0]);
        table.extend(start.to_le_bytes());
        table.extend(size.to_le_bytes());
        table.extend([0; 4]);
        table.extend(flags.to_le_bytes());
        table.extend([0; 8]);
    };
    memory(0x1_0000_0000, 0x8000_0000, 1);
    memory(0, 0x1000, 0);
    memory(u64::MAX, 2, 1);
    table.extend([2, 24, 0, 0, 9, 0, 0, 0, 0x34, 0x12, 0, 0, 1, 0, 0, 0]);
    table.extend([0; 8]);
    // Cut short.
    table.extend([1, 40, 5]);
    let (memory, cpus) = affinities(&table);
    let expected = MemoryNode {
        range: range(0x1_0000_0000, 0x8000_0000),
        node: 5,
    };
    assert_eq!(memory, [expected]);
    let cpu = |cpu, node| CpuNode { cpu, node };
    assert_eq!(cpus, [cpu(7, 0x0200_0001), cpu(0x1234, 9)]);
}

#[cfg(feature = "std")]
mod with_std {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Firmware's tables may hold anything.
        #[test]
        fn garbage_ends(bytes in prop::collection::vec(any::<u8>(), 0..300), amd: bool) {
            let kind = if amd { IommuKind::AmdVi } else { IommuKind::VtD };
            for unit in units(&bytes, kind) {
                let _ = unit.covers(place(0, 2, 0), &BRIDGES);
            }
            let (memory, cpus) = affinities(&bytes);
            prop_assert!(memory.len() + cpus.len() < 16);
            prop_assert!(Madt::read(&bytes).processors.len() <= 38);
            prop_assert!(ecams(&bytes).len() <= 16);
        }
    }
}
