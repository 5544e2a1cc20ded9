use super::*;
use proptest::prelude::*;

/// Memory from 0 on.
struct Ram(Vec<u8>);

impl Physical for Ram {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
        let start = usize::try_from(address).ok()?;
        let bytes = self.0.get(start..start.checked_add(buffer.len())?)?;
        buffer.copy_from_slice(bytes);
        Some(())
    }
}

impl Ram {
    fn put(&mut self, address: u64, bytes: &[u8]) {
        let start = usize::try_from(address).unwrap();
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

fn seal(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend_from_slice(&u32::try_from(36 + body.len()).unwrap().to_le_bytes());
    bytes.resize(36, 0);
    bytes.extend_from_slice(body);
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = sum.wrapping_neg();
    bytes
}

/// A MADT as QEMU's with two CPUs, one more by x2APIC entry, one that isn't there.
fn madt() -> Vec<u8> {
    let mut body = 0xfee0_0000_u32.to_le_bytes().to_vec();
    body.extend_from_slice(&[1, 0, 0, 0]);
    body.extend_from_slice(&[0, 8, 0, 0, 1, 0, 0, 0]);
    body.extend_from_slice(&[0, 8, 1, 1, 1, 0, 0, 0]);
    body.extend_from_slice(&[0, 8, 2, 0xff, 0, 0, 0, 0]);
    body.extend_from_slice(&[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
    body.extend_from_slice(&[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    body.extend_from_slice(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    body.extend_from_slice(&[4, 6, 0xff, 0, 0, 1]);
    seal(*b"APIC", &body)
}

fn host() -> Ram {
    let mut ram = Ram(vec![0; 0x10_0000]);
    let tables = [
        (0x2000_u64, seal(*b"FACP", &[0; 100])),
        (0x2100, madt()),
        (0x2300, seal(*b"HPET", &[0; 20])),
        (0x2400, seal(*b"DMAR", &[0; 20])),
        (0x2500, seal(*b"SSDT", &[1, 2, 3])),
    ];
    let list: Vec<u8> = tables
        .iter()
        .flat_map(|(address, _)| address.to_le_bytes())
        .chain(0xdead_0000_u64.to_le_bytes())
        .collect();
    ram.put(0x1000, &seal(*b"XSDT", &list));
    for (address, bytes) in tables {
        ram.put(address, &bytes);
    }
    let mut root = b"RSD PTR \0TESTER\x02".to_vec();
    root.extend_from_slice(&[0; 4]);
    root.extend_from_slice(&36_u32.to_le_bytes());
    root.extend_from_slice(&0x1000_u64.to_le_bytes());
    root.extend_from_slice(&[0; 4]);
    let sum = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte))
            .wrapping_neg()
    };
    root[8] = sum(&root[..20]);
    root[32] = sum(&root);
    ram.put(0xf_5a40, &root);
    ram
}

#[test]
fn a_bioss_tables_are_found() {
    let ram = host();
    let root = find_root(&ram).unwrap();
    assert_eq!(root, 0xf_5a40);
    let tables = Tables::read(&ram, root).unwrap();
    let names: Vec<_> = tables.list.iter().map(|table| table.signature).collect();
    assert_eq!(names, [*b"FACP", *b"APIC", *b"HPET", *b"DMAR", *b"SSDT"]);
    assert_eq!(tables.load(&ram, *b"APIC").unwrap(), madt());
    assert_eq!(tables.load(&ram, *b"MCFG"), Err(Error::Missing(*b"MCFG")));
}

#[test]
fn damage_is_told_by_its_kind() {
    let mut ram = host();
    ram.0[0x2130] ^= 1;
    let tables = Tables::read(&ram, 0xf_5a40).unwrap();
    assert_eq!(tables.load(&ram, *b"APIC"), Err(Error::Checksum(0x2100)));
    ram.0[0x1020] ^= 1;
    assert_eq!(Tables::read(&ram, 0xf_5a40), Err(Error::Checksum(0x1000)));
    ram.0[0xf_5a60] ^= 1;
    assert_eq!(Tables::read(&ram, 0xf_5a40), Err(Error::Checksum(0xf_5a40)));
    ram.0[0xf_5a40] = b'X';
    assert_eq!(find_root(&ram), Err(Error::NoRoot));
    assert_eq!(
        Tables::read(&ram, 0xf_5a40),
        Err(Error::Signature(0xf_5a40))
    );
    assert_eq!(
        Tables::read(&ram, u64::MAX - 8),
        Err(Error::Unreadable(u64::MAX - 8))
    );
}

#[test]
fn the_madt_names_cpus_and_io_apics() {
    let madt = Madt::read(&madt());
    let cpus: Vec<_> = madt
        .processors
        .iter()
        .map(|cpu| (cpu.uid, cpu.apic_id, cpu.enabled))
        .collect();
    assert_eq!(cpus, [(0, 0, true), (1, 1, true), (3, 0x100, true)]);
    assert_eq!(madt.io_apics.len(), 1);
    assert_eq!(madt.io_apics[0].address, 0xfec0_0000);
    let timer = Override {
        source: 0,
        interrupt: 2,
        flags: 0,
    };
    assert_eq!(madt.overrides, [timer]);
}

#[test]
fn the_planner_hears_of_cpus_that_are_there_and_of_every_controller() {
    let mut read = Madt::read(&madt());
    read.processors[1].enabled = false;
    let mut map = layout::HostMap::default();
    describe(&read, &mut map);
    let ids: Vec<_> = map.cpus.iter().map(|cpu| cpu.hardware_id).collect();
    assert_eq!(ids, [0, 0x100]);
    let starts: Vec<_> = map
        .controller
        .ranges
        .iter()
        .map(|range| range.start().raw())
        .collect();
    assert_eq!(starts, [0xfec0_0000, 0xfee0_0000]);
}

#[test]
fn an_iommu_is_named_once() {
    let entry = |head: [u8; 4], base: u64, length: usize| {
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&base.to_le_bytes());
        bytes.resize(length, 0);
        bytes
    };
    let table = |signature, entries: &[Vec<u8>]| {
        let mut body = vec![0; 12];
        body.extend(entries.iter().flatten());
        seal(signature, &body)
    };
    let units = |table: &[u8]| -> Vec<(String, u64)> {
        let mut map = layout::HostMap::default();
        describe_iommus(table, &mut map);
        let unit = |unit: layout::Iommu| (unit.path, unit.ranges[0].size());
        map.iommus.into_iter().map(unit).collect()
    };
    let intel = [
        entry([0, 0, 16, 0], 0xfed9_0000, 16),
        // Reserved memory, not a unit.
        entry([1, 0, 24, 0], 0xfed9_1000, 24),
        entry([0, 0, 16, 0], 0xfed9_2000, 16),
        entry([0, 0, 0, 0], 0xfed9_3000, 16),
    ];
    let expected = ["acpi:DMAR:0xfed90000", "acpi:DMAR:0xfed92000"];
    assert_eq!(
        units(&table(*b"DMAR", &intel)),
        expected.map(|name| (name.into(), 0x1000))
    );
    let mut large = entry([0, 0, 16, 0], 0xfed9_0000, 16);
    large[5] = 0xf2;
    assert_eq!(
        units(&table(*b"DMAR", &[large])),
        [("acpi:DMAR:0xfed90000".into(), 0x4000)]
    );
    let amd = [
        entry([0x10, 0, 24, 0], 0xfed8_0000, 24),
        entry([0x11, 0, 40, 0], 0xfed8_0000, 40),
    ];
    assert_eq!(
        units(&table(*b"IVRS", &amd)),
        [("acpi:IVRS:0xfed80000".into(), 0x4000)]
    );
    assert_eq!(units(b"IVRS"), []);
    for length in 0..20 {
        let short = entry([0, 0, length, 0], 0xfed9_0000, 16);
        assert_eq!(
            units(&table(*b"DMAR", &[short])).len(),
            usize::from(length == 16)
        );
    }
}

#[test]
fn the_mcfg_gives_a_range_for_the_buses() {
    let mut body = vec![0; 8];
    body.extend_from_slice(&0xb000_0000_u64.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0x10, 0xff, 0, 0, 0, 0]);
    body.extend_from_slice(&0xb000_0000_u64.to_le_bytes());
    body.extend_from_slice(&[0, 0, 5, 4, 0, 0, 0, 0]);
    let list = ecams(&seal(*b"MCFG", &body));
    assert_eq!(list.len(), 1, "buses in the wrong order");
    assert_eq!((list[0].first_bus, list[0].last_bus), (0x10, 0xff));
    assert_eq!(list[0].range.start().raw(), 0xb100_0000);
    assert_eq!(list[0].range.size(), 240 << 20);
}

fn fadt(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; 244];
    bytes[40..44].copy_from_slice(&0x7ffe_0040_u32.to_le_bytes());
    bytes[48..52].copy_from_slice(&0xb2_u32.to_le_bytes());
    bytes[64..68].copy_from_slice(&0x604_u32.to_le_bytes());
    bytes[112..116].copy_from_slice(&(1_u32 << 10).to_le_bytes());
    bytes[116..128].copy_from_slice(&[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
    bytes[128] = 0xf;
    bytes.truncate(length);
    bytes
}

#[test]
fn the_fadt_tells_how_to_turn_off_and_reset() {
    let port = |address| Register {
        space: Space::Port,
        address,
    };
    let read = Fadt::read(&fadt(244)).unwrap();
    assert_eq!(read.dsdt, 0x7ffe_0040);
    assert_eq!(read.pm1a_control, Some(port(0x604)));
    assert_eq!(read.pm1b_control, None);
    assert_eq!(read.reset, Some((port(0xcf9), 0xf)));
    assert_eq!(read.smi_command, 0xb2);
    let mut extended = fadt(244);
    extended[140..148].copy_from_slice(&0x1_0000_0000_u64.to_le_bytes());
    extended[172..184].copy_from_slice(&[0, 16, 0, 2, 0, 0, 0, 0xfe, 0, 0, 0, 0]);
    let read = Fadt::read(&extended).unwrap();
    assert_eq!(read.dsdt, 0x1_0000_0000);
    let memory = Register {
        space: Space::Memory,
        address: 0xfe00_0000,
    };
    assert_eq!(read.pm1a_control, Some(memory));
    // The first revision ends after the flags.
    assert_eq!(Fadt::read(&fadt(116)).unwrap().reset, None);
    assert_eq!(Fadt::read(&fadt(115)), None);
}

#[test]
fn soft_off_is_a_package_of_constants() {
    let sleep = |a, b| Some(Sleep { a, b });
    // QEMU's q35: Name (_S5, Package (0x04) { Zero, Zero, Zero, Zero }).
    assert_eq!(
        soft_off(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"),
        sleep(0, 0)
    );
    assert_eq!(
        soft_off(b"..\x08\\_S5_\x12\x0a\x04\x0a\x05\x0a\x07\x00\x00"),
        sleep(5, 7)
    );
    assert_eq!(
        soft_off(b"\x08_S5_\x12\x46\x00\x02\x0b\x07\x00\x01"),
        sleep(7, 1)
    );
    assert_eq!(soft_off(b"\x08_S5_\x12\x05\x01\x01"), sleep(1, 1));
    // A use of the name comes before its definition.
    assert_eq!(
        soft_off(b"\x70_S5_\x60\x08_S5_\x12\x05\x01\x01"),
        sleep(1, 1)
    );
    assert_eq!(
        soft_off(b"\x08_S5_\x12\x06\x04\x0a\x08\x00"),
        None,
        "three bits"
    );
    assert_eq!(soft_off(b"\x08_S5_\x12\x06\x04\x41BC"), None, "no constant");
    assert_eq!(soft_off(b"\x08_S5_\x12"), None);
    let off = Sleep { a: 5, b: 0 };
    assert_eq!(off.values(0x1c01), (0x3401, 0x2001));
}

#[test]
fn a_domain_without_the_hosts_tables_learns_what_isnt_there() {
    let mut ram = host();
    let guest = Guest {
        apic_ids: &[1],
        io_apics: &[],
        overrides: &[],
        host: &[],
    };
    let bytes = guest.write(0x8000);
    assert!(bytes.len() < 0x1000);
    ram.put(0x8000, &bytes);
    let seen = Tables::read(&ram, 0x8000).unwrap();
    let names: Vec<_> = seen.list.iter().map(|table| table.signature).collect();
    assert_eq!(names, [*b"APIC", *b"FACP"]);
    let table = seen.load(&ram, *b"FACP").unwrap();
    assert_eq!(table[109..111], [0x24, 0], "neither VGA nor RTC");
    assert_eq!(table[114], 0x10, "hardware-reduced");
    let found = Fadt::read(&table).unwrap();
    assert_eq!((found.pm1a_control, found.reset), (None, None));
    let mut dsdt = [0; 4];
    ram.read(found.dsdt, &mut dsdt).unwrap();
    assert_eq!(dsdt, *b"DSDT");
}

#[test]
fn a_domain_gets_its_own_madt_and_no_table_outside_the_list() {
    let mut ram = host();
    let host_tables = Tables::read(&ram, 0xf_5a40).unwrap();
    let host_madt = Madt::read(&madt());
    let guest = Guest {
        apic_ids: &[1, 0x100],
        io_apics: &host_madt.io_apics,
        overrides: &host_madt.overrides,
        host: &host_tables.list,
    };
    let bytes = guest.write(0x8000);
    ram.put(0x8000, &bytes);
    let seen = Tables::read(&ram, 0x8000).unwrap();
    let names: Vec<_> = seen.list.iter().map(|table| table.signature).collect();
    assert_eq!(names, [*b"FACP", *b"SSDT", *b"APIC"]);
    assert_eq!(seen.list[0].address, 0x2000);
    let own = seen.load(&ram, *b"APIC").unwrap();
    assert_eq!(own[40..44], [0; 4], "no PCAT_COMPAT");
    let own = Madt::read(&own);
    let cpus: Vec<_> = own
        .processors
        .iter()
        .map(|cpu| (cpu.uid, cpu.apic_id, cpu.enabled))
        .collect();
    assert_eq!(cpus, [(0, 1, true), (1, 0x100, true)]);
    assert_eq!(own.io_apics, host_madt.io_apics);
    assert_eq!(own.overrides, host_madt.overrides);
    for hidden in [*b"HPET", *b"DMAR", *b"IVRS", *b"SRAT", *b"SPCR", *b"APIC"] {
        assert!(!is_shown(hidden));
    }
}

proptest! {
    #[test]
    fn no_bytes_upset_the_readers(mut bytes in prop::collection::vec(any::<u8>(), 0..300), name in 0_usize..300) {
        if bytes.len() > name + 6 {
            bytes[name..name + 6].copy_from_slice(b"\x08_S5_\x12");
        }
        let madt = Madt::read(&bytes);
        prop_assert!(madt.processors.len() <= 128);
        let _ = ecams(&bytes);
        let mut map = layout::HostMap::default();
        describe_iommus(&bytes, &mut map);
        describe(&madt, &mut map);
        let _ = Fadt::read(&bytes);
        prop_assert!(soft_off(&bytes).is_none_or(|sleep| sleep.a < 8 && sleep.b < 8));
    }

    /// Tables with random lengths and pointers are refused or read, never more.
    #[test]
    fn no_memory_upsets_the_list(edits in prop::collection::vec((0x1000_usize..0x2600, any::<u8>()), 0..40)) {
        let mut ram = host();
        for (at, value) in edits {
            ram.0[at] = value;
        }
        if let Ok(tables) = Tables::read(&ram, 0xf_5a40) {
            for table in &tables.list {
                let _ = tables.load(&ram, table.signature);
            }
        }
    }
}

#[test]
fn the_hpets_registers_are_found_in_memory_only() {
    let mut body = [0_u8; 20];
    body[8..16].copy_from_slice(&0xfed0_0000_u64.to_le_bytes());
    assert_eq!(hpet(&seal(*b"HPET", &body)), Some(0xfed0_0000));
    body[4] = 1;
    assert_eq!(hpet(&seal(*b"HPET", &body)), None);
    assert_eq!(hpet(&seal(*b"HPET", &[0; 8])), None);
}
