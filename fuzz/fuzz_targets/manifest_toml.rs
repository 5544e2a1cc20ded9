//! Any text as a manifest.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = manifest::toml::parse("fuzz.toml", text.to_owned(), Path::new(""));
});
