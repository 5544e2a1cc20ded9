//! Any bytes as a kernel file: unwrapped, and as an ELF file made flat.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifest::kernel::{elf, unwrap_bounded};

const LIMIT: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((bytes, _)) = unwrap_bounded(bytes.to_vec(), LIMIT)
        && let Ok(flat) = elf::flatten(&bytes, LIMIT)
    {
        assert!(flat.bytes.len() as u64 <= flat.memory_size && flat.memory_size <= LIMIT);
        assert!(flat.entry < flat.memory_size);
        assert!(flat.bounds.size() >= flat.memory_size);
    }
});
