//! Boot structures as QEMU makes them, and hostile ones.

use super::*;
use proptest::prelude::*;

/// Memory from address 0x1000 on.
struct Memory(Vec<u8>);

const BASE: u32 = 0x1000;

impl Physical for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let start = usize::try_from(address.checked_sub(u64::from(BASE))?).ok()?;
        let end = start.checked_add(bytes.len())?;
        bytes.copy_from_slice(self.0.get(start..end)?);
        Some(())
    }
}

fn put(memory: &mut Memory, address: u64, bytes: &[u8]) {
    let start = usize::try_from(address - u64::from(BASE)).expect("small");
    memory.0[start..start + bytes.len()].copy_from_slice(bytes);
}

fn words(memory: &mut Memory, address: u64, words: &[u32]) {
    for (index, word) in words.iter().enumerate() {
        put(memory, address + index as u64 * 4, &word.to_le_bytes());
    }
}

#[test]
fn multiboot1_map_modules_and_command_line() {
    let mut memory = Memory(vec![0; 0x1000]);
    words(&mut memory, 0x1000, &[1 << 2 | 1 << 3 | 1 << 6]);
    words(&mut memory, 0x1000 + 16, &[0x1800, 1, 0x1700]);
    words(&mut memory, 0x1000 + 44, &[48, 0x1400]);
    words(&mut memory, 0x1400, &[20, 0, 0, 0x9fc00, 0, 1]);
    words(&mut memory, 0x1418, &[20, 0x10_0000, 0, 0x7fe0_0000, 0, 1]);
    words(&mut memory, 0x1700, &[0x40_0000, 0x40_1234, 0, 0]);
    put(&mut memory, 0x1800, b"hypervisor capture\0rest");
    let info = read(&memory, Protocol::Multiboot1, 0x1000).expect("well-formed");
    assert_eq!(info.ram_bytes(), 0x9fc00 + 0x7fe0_0000);
    assert_eq!(
        info.modules.as_slice(),
        [Module {
            start: 0x40_0000,
            bytes: 0x1234
        }]
    );
    assert!(info.has_word("capture"));
    assert!(!info.has_word("rest"));
    assert_eq!(info.rsdp, None);
}

#[test]
fn multiboot2_tags() {
    let mut memory = Memory(vec![0; 0x1000]);
    words(&mut memory, 0x1000, &[0x98, 0]);
    words(&mut memory, 0x1008, &[1, 16]);
    put(&mut memory, 0x1010, b"capture\0");
    words(&mut memory, 0x1018, &[3, 17, 0x40_0000, 0x40_1234, 0, 0]);
    words(&mut memory, 0x1030, &[6, 64, 24, 0]);
    words(&mut memory, 0x1040, &[0, 0, 0x9fc00, 0, 1, 0]);
    words(&mut memory, 0x1058, &[0x10_0000, 0, 0x7fe0_0000, 0, 1, 0]);
    words(&mut memory, 0x1070, &[15, 13]);
    put(&mut memory, 0x1078, b"RSDP\x02rest");
    words(&mut memory, 0x1080, &[14, 12]);
    put(&mut memory, 0x1088, b"RSDP");
    words(&mut memory, 0x1090, &[0, 8]);
    let info = read(&memory, Protocol::Multiboot2, 0x1000).expect("well-formed");
    assert_eq!(info.ram_bytes(), 0x9fc00 + 0x7fe0_0000);
    let module = Module {
        start: 0x40_0000,
        bytes: 0x1234,
    };
    assert_eq!(info.modules.as_slice(), [module]);
    assert!(info.has_word("capture"));
    let Some(Rsdp::Copy(copy)) = info.rsdp else {
        panic!("{:?}", info.rsdp)
    };
    assert_eq!(&copy[..8], b"RSDP\x02\0\0\0", "the newer copy goes first");

    words(&mut memory, 0x1030, &[99]);
    assert_eq!(
        read(&memory, Protocol::Multiboot2, 0x1000),
        Err(Malformed::NoMemoryMap)
    );
}

#[test]
fn pvh_start_info() {
    let mut memory = Memory(vec![0; 0x1000]);
    words(&mut memory, 0x1000, &[0x336e_c578, 1, 0, 1, 0x1700, 0]);
    words(
        &mut memory,
        0x1018,
        &[0x1800, 0, 0xf_5a00, 0, 0x1400, 0, 2, 0],
    );
    words(&mut memory, 0x1400, &[0, 0, 0x9fc00, 0, 1, 0]);
    words(&mut memory, 0x1418, &[0xf0000, 0, 0x10000, 0, 2, 0]);
    words(&mut memory, 0x1700, &[0x40_0000, 0, 0x1234, 0]);
    put(&mut memory, 0x1800, b"capture\0");
    let info = read(&memory, Protocol::Pvh, 0x1000).expect("well-formed");
    assert_eq!(info.regions.len(), 2);
    assert_eq!(info.ram_bytes(), 0x9fc00);
    assert_eq!(info.modules[0].bytes, 0x1234);
    assert_eq!(info.rsdp, Some(Rsdp::At(0xf_5a00)));
    assert!(info.has_word("capture"));

    words(&mut memory, 0x1000, &[0x336e_c578, 0]);
    assert_eq!(
        read(&memory, Protocol::Pvh, 0x1000),
        Err(Malformed::NoMemoryMap)
    );
    words(&mut memory, 0x1000, &[0]);
    assert_eq!(read(&memory, Protocol::Pvh, 0x1000), Err(Malformed::Magic));
}

proptest! {
    /// Whatever the structures say, reading ends, and no range wraps.
    #[test]
    fn garbage_is_survived(
        mut bytes in proptest::collection::vec(any::<u8>(), 0x400),
        protocol in prop_oneof![
            Just(Protocol::Multiboot1), Just(Protocol::Multiboot2), Just(Protocol::Pvh)
        ],
        near in 0u32..0x400,
    ) {
        if protocol == Protocol::Multiboot2 {
            bytes[..4].copy_from_slice(&0x400_u32.to_le_bytes());
            bytes[8..16].copy_from_slice(&[6, 0, 0, 0, 72, 0, 0, 0]);
        } else if protocol == Protocol::Pvh {
            bytes[..8].copy_from_slice(&[0x78, 0xc5, 0x6e, 0x33, 1, 0, 0, 0]);
            bytes[40..48].copy_from_slice(&u64::from(BASE + near).to_le_bytes());
        } else {
            bytes[0] = 0x4c;
            bytes[44..48].copy_from_slice(&near.to_le_bytes());
            bytes[48..52].copy_from_slice(&(BASE + near).to_le_bytes());
        }
        if let Ok(info) = read(&Memory(bytes), protocol, u64::from(BASE)) {
            for region in info.regions {
                prop_assert!(region.bytes > 0 && region.start.checked_add(region.bytes).is_some());
            }
        }
    }
}
