//! Any bytes as a container, and any place in it as a module's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifest::container::Container;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (offset, size, bytes) = input;
    if let Ok(container) = Container::open(bytes) {
        let _ = (container.tree(), container.module(offset, size));
    }
});
