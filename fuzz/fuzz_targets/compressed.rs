//! Any payload behind a compression's first bytes, bare or in an EFI-zboot file: what comes out is bounded, whatever
//! the payload says that it would be. Run with a bound on memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifest::kernel::unwrap_bounded;

const LIMIT: u64 = 1 << 20;

/// What each format begins with, and how EFI-zboot names it.
const FORMATS: [(&[u8], &str); 6] = [
    (&[0x1f, 0x8b, 0x08], "gzip"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[], "gzip"),
];

/// Bytes of EFI-zboot's header.
const HEADER: usize = 64;

fn zboot(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; HEADER];
    file[..2].copy_from_slice(b"MZ");
    file[4..8].copy_from_slice(b"zimg");
    file[8..12].copy_from_slice(&(HEADER as u32).to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..24 + name.len()].copy_from_slice(name.as_bytes());
    file.extend_from_slice(payload);
    file
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, payload)) = bytes.split_first() else {
        return;
    };
    let (magic, name) = FORMATS[usize::from(choice & 0x7f) % FORMATS.len()];
    let stream = [magic, payload].concat();
    let file = if choice & 0x80 != 0 {
        zboot(name, &stream)
    } else {
        stream
    };
    if let Ok((kernel, _)) = unwrap_bounded(file, LIMIT) {
        // Without a wrapper nothing comes out.
        assert!(kernel.len() as u64 <= LIMIT.max(bytes.len() as u64 + HEADER as u64 + 8));
    }
});
