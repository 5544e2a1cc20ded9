//! x86 kernels: ELF files made flat, bzImages of every compression, hostile ones, and Debian's.
#![cfg(feature = "std")]

use std::io::Write;

use layout::{GuestAddress, GuestRange};
use proptest::prelude::*;
use terrane_manifest::kernel::elf::{ElfError, Flat, flatten};
use terrane_manifest::kernel::{KernelError, Wrapper, unwrap_bounded, unwrap_x86};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;
const HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;

/// A loadable segment: address, bytes in the file, bytes in memory.
type Segment = (u64, Vec<u8>, u64);

/// An ELF64 file for x86-64 with these segments and Xen's notes (type, description).
fn elf(segments: &[Segment], notes: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut note = Vec::new();
    for (kind, description) in notes {
        note.extend(4u32.to_le_bytes());
        note.extend(u32::try_from(description.len()).unwrap().to_le_bytes());
        note.extend(kind.to_le_bytes());
        note.extend(b"Xen\0");
        note.extend(description);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    let count = segments.len() + 1;
    let mut file = vec![0; usize::from(HEADER)];
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    file[16..18].copy_from_slice(&2u16.to_le_bytes());
    file[18..20].copy_from_slice(&62u16.to_le_bytes());
    file[20..24].copy_from_slice(&1u32.to_le_bytes());
    file[32..40].copy_from_slice(&u64::from(HEADER).to_le_bytes());
    file[52..54].copy_from_slice(&HEADER.to_le_bytes());
    file[54..56].copy_from_slice(&PROGRAM_HEADER.to_le_bytes());
    file[56..58].copy_from_slice(&u16::try_from(count).unwrap().to_le_bytes());
    let mut content: Vec<u8> = Vec::new();
    let first = (usize::from(HEADER) + count * usize::from(PROGRAM_HEADER)) as u64;
    let mut header = |kind: u32, address: u64, bytes: &[u8], memory: u64, align: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        let offset = first + content.len() as u64;
        for number in [offset, address, address, bytes.len() as u64, memory, align] {
            file.extend(number.to_le_bytes());
        }
        content.extend(bytes);
    };
    for (address, bytes, memory) in segments {
        header(1, *address, bytes, *memory, 0x20_0000);
    }
    header(4, 0, &note, note.len() as u64, 4);
    file.extend(content);
    file
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Two segments with a gap between them, and zeroed data behind the second.
fn segments() -> Vec<Segment> {
    let text: Vec<u8> = (0..0x1800u32).map(|i| (i % 251) as u8).collect();
    vec![
        (16 * MIB + 0x4000, vec![7; 0x100], 3 * MIB),
        (16 * MIB, text, 0x2000),
    ]
}

fn entry_note() -> (u32, Vec<u8>) {
    (18, words(&[0x100_0850, 0]))
}

fn sample() -> Vec<u8> {
    elf(&segments(), &[entry_note()])
}

fn range(start: u64, end: u64) -> GuestRange {
    GuestRange::between(GuestAddress::new(start), GuestAddress::new(end))
}

fn compress(wrapper: Wrapper, bytes: &[u8]) -> Vec<u8> {
    match wrapper {
        Wrapper::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Wrapper::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Wrapper::Zstd => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(bytes, level)
        }
        _ => {
            let block = lz4_flex::block::compress(bytes);
            let mut file = vec![0x02, 0x21, 0x4c, 0x18];
            file.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            file.extend(block);
            file
        }
    }
}

/// A bzImage around a payload that is already compressed. Linux's build writes the size behind all but gzip, which
/// ends with it.
fn bzimage(wrapper: Wrapper, kernel: &[u8]) -> Vec<u8> {
    let mut payload = compress(wrapper, kernel);
    if wrapper != Wrapper::Gzip {
        payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
    }
    around(&payload)
}

fn around(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 5 * 512 + 0x2cc];
    file[0x1f1] = 4;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&0x2ccu32.to_le_bytes());
    let length = u32::try_from(payload.len()).unwrap();
    file[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
    file.extend(payload);
    file.extend([0; 100]);
    file
}

const COMPRESSIONS: [Wrapper; 4] = [
    Wrapper::Gzip,
    Wrapper::Xz,
    Wrapper::Zstd,
    Wrapper::Lz4Legacy,
];

#[test]
fn segments_become_memory() {
    let flat = flatten(&sample(), LIMIT).unwrap();
    assert_eq!(flat.memory_size, 3 * MIB + 0x4000);
    assert_eq!(flat.bytes.len(), 0x4100);
    assert_eq!(flat.bytes[..0x1800], segments()[1].1);
    assert!(flat.bytes[0x1800..0x4000].iter().all(|&byte| byte == 0));
    assert!(flat.bytes[0x4000..].iter().all(|&byte| byte == 7));
    assert_eq!(flat.entry, 0x850);
}

#[test]
fn a_kernel_without_the_relocation_note_stays_where_it_says() {
    let flat = flatten(&sample(), LIMIT).unwrap();
    assert_eq!(flat.bounds, range(16 * MIB, 19 * MIB + 0x4000));
    assert_eq!((flat.alignment, flat.text_offset), (2 * MIB, 0));
}

#[test]
fn the_relocation_note_may_end_after_any_word() {
    let with = |note: &[u32]| {
        let notes = [entry_note(), (19, words(note))];
        flatten(&elf(&segments(), &notes), LIMIT).map(|flat| (flat.alignment, flat.bounds))
    };
    let everywhere = range(0, 1 << 32);
    assert_eq!(with(&[]), Ok((2 * MIB, everywhere)));
    assert_eq!(with(&[0x10_0000]), Ok((MIB, everywhere)));
    assert_eq!(
        with(&[0x10_0000, 0x100_0000]),
        Ok((MIB, range(16 * MIB, 1 << 32)))
    );
    let last = [0x20_0000, 0x100_0000, 0x3fff_ffff];
    assert_eq!(with(&last), Ok((2 * MIB, range(16 * MIB, 1 << 30))));
    assert_eq!(with(&[0x30_0000]), Err(ElfError::Bounds));
    assert_eq!(with(&[0]), Err(ElfError::Bounds));
    assert_eq!(with(&[4096, 0x100_0000, 0x10f_ffff]), Err(ElfError::Bounds));
    assert_eq!(with(&[4096, 0x200_0000, 0x100_0000]), Err(ElfError::Bounds));
}

#[test]
fn what_cannot_start_is_refused() {
    let refused = |segments: &[Segment], notes: &[(u32, Vec<u8>)]| {
        flatten(&elf(segments, notes), LIMIT).unwrap_err()
    };
    assert_eq!(refused(&segments(), &[]), ElfError::NoEntry);
    assert_eq!(
        refused(&segments(), &[(18, words(&[0x100]))]),
        ElfError::NoEntry
    );
    assert_eq!(refused(&segments(), &[(18, vec![0; 3])]), ElfError::NoEntry);
    assert_eq!(refused(&[], &[entry_note()]), ElfError::Empty);
    let empty = [(16 * MIB, vec![], MIB)];
    assert_eq!(refused(&empty, &[entry_note()]), ElfError::Empty);
    let overlapping = [(MIB, vec![1], MIB), (MIB + 4096, vec![1], MIB)];
    assert_eq!(refused(&overlapping, &[entry_note()]), ElfError::Malformed);
    let wrapping = [(u64::MAX - 1, vec![1], MIB)];
    assert_eq!(refused(&wrapping, &[entry_note()]), ElfError::Malformed);
    let longer = [(MIB, vec![1; 2], 1)];
    assert_eq!(refused(&longer, &[entry_note()]), ElfError::Malformed);
    let far = [(MIB, vec![1], 1), (1 << 40, vec![1], 1)];
    assert_eq!(refused(&far, &[entry_note()]), ElfError::TooLarge(LIMIT));
    assert_eq!(flatten(b"\x7fELF", LIMIT), Err(ElfError::NotElf));
    let mut arm = sample();
    arm[18] = 183;
    assert_eq!(flatten(&arm, LIMIT), Err(ElfError::NotElf));
}

#[test]
fn every_bzimage_comes_off() {
    for wrapper in COMPRESSIONS {
        let flat = unwrap_x86(bzimage(wrapper, &sample())).unwrap();
        assert!(flat == flatten(&sample(), LIMIT).unwrap(), "{wrapper}");
        let around = compress(Wrapper::Gzip, &bzimage(wrapper, &sample()));
        let (bytes, wrappers) = unwrap_bounded(around, LIMIT).unwrap();
        assert!(bytes == sample(), "{wrapper}");
        assert_eq!(wrappers, [Wrapper::Gzip, Wrapper::BzImage]);
    }
    assert!(unwrap_x86(compress(Wrapper::Zstd, &sample())).is_ok());
    assert!(unwrap_x86(sample()).is_ok());
}

/// The size lies behind a payload: what comes out of its first stream is the kernel.
#[test]
fn a_bzimage_has_one_stream() {
    let twice = [sample(), sample()].map(|kernel| compress(Wrapper::Gzip, &kernel));
    let flat = unwrap_x86(around(&twice.concat())).unwrap();
    assert!(flat == flatten(&sample(), LIMIT).unwrap());
}

#[test]
fn a_bzimage_that_lies_is_refused() {
    let good = bzimage(Wrapper::Xz, &sample());
    let damaged = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        matches!(unwrap_x86(file), Err(KernelError::Damaged { .. }))
    };
    assert!(damaged(0x206, &[7, 2]), "too old");
    assert!(damaged(0x248, &[0xff; 4]), "outside the file");
    assert!(damaged(0x24c, &[0xff; 4]), "beyond the file");
    assert!(damaged(0x24c, &[2, 0, 0, 0]), "no room for the size");
    assert!(damaged(0x248, &[0xcd, 2, 0, 0]), "no compression");
    let payload_end = good.len() - 100;
    assert!(damaged(payload_end - 4, &[1]), "another size");
    let mut bomb = bzimage(Wrapper::Gzip, &vec![0; 4 << 20]);
    assert_eq!(
        unwrap_bounded(bomb.clone(), 1 << 20),
        Err(KernelError::TooLarge { limit: 1 << 20 })
    );
    // Also if it denies it.
    let size = bomb.len() - 104;
    bomb[size..size + 4].copy_from_slice(&[0; 4]);
    assert!(unwrap_bounded(bomb, 1 << 20).is_err());
}

fn check(flat: &Flat, limit: u64) {
    assert!(!flat.bytes.is_empty() && flat.bytes.len() as u64 <= flat.memory_size);
    assert!(flat.memory_size <= limit && flat.entry < flat.memory_size);
    assert!(flat.alignment.is_power_of_two() && flat.text_offset < flat.alignment);
    assert!(flat.bounds.size() >= flat.memory_size);
}

proptest! {
    #[test]
    fn hostile_files_do_not_panic(
        damage in prop::collection::vec((0usize..400, any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let notes = [entry_note(), (19, words(&[0x20_0000, 0x100_0000, 0x3fff_ffff]))];
        let mut file = elf(&segments(), &notes);
        for (at, byte) in damage {
            file[at] = byte;
        }
        file.truncate(file.len().min(cut.index(file.len() * 2)));
        if let Ok(flat) = flatten(&file, LIMIT) {
            check(&flat, LIMIT);
        }
    }

    #[test]
    fn hostile_bzimages_do_not_panic(
        which in 0..COMPRESSIONS.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = bzimage(COMPRESSIONS[which], &sample());
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok((bytes, _)) = unwrap_bounded(bytes, 1 << 20) {
            let _ = flatten(&bytes, 1 << 20);
        }
    }
}

/// Debian's kernels, if the downloads are there (`cargo xtask test` fetches them).
#[test]
fn debian_kernels() {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".cache"));
    let Some(cache) = cache.or(home) else { return };
    let kernel = |version: &str| {
        let folder = format!("terrane/guests/debian-{version}-amd64/Image");
        std::fs::read(cache.join(folder)).ok()
    };
    if let Some(file) = kernel("6.1") {
        let flat = unwrap_x86(file).unwrap();
        check(&flat, 512 * MIB);
        assert_eq!(flat.bounds.start().raw(), 16 * MIB);
        assert_eq!(flat.bounds.size(), flat.memory_size, "it can't be moved");
        assert!(
            (70 * MIB..80 * MIB).contains(&flat.bounds.end().raw()),
            "{:?}",
            flat.bounds
        );
    }
    if let Some(file) = kernel("6.12") {
        let flat = unwrap_x86(file).unwrap();
        check(&flat, 512 * MIB);
        assert_eq!(flat.bounds, range(16 * MIB, 1 << 30));
        assert_eq!((flat.alignment, flat.text_offset), (2 * MIB, 0));
    }
}
