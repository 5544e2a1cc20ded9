//! Any bytes as a kernel file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifest::kernel::unwrap_bounded;

fuzz_target!(|bytes: &[u8]| {
    let _ = unwrap_bounded(bytes.to_vec(), 1 << 20);
});
