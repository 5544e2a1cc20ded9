//! Any text as a configuration of ImageBuilder; what comes of it is read as a manifest.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use manifest::imagebuilder::{Reading, import};

fuzz_target!(|text: &str| {
    // What the configuration names is as good as anything else that the fuzzer finds: the text itself.
    let file = |name: &str| (name.len() % 2 == 0).then(|| text.as_bytes().to_vec());
    let reading = Reading {
        name: "fuzz",
        folder: Path::new("folder"),
        file: &file,
    };
    if let Some(manifest) = import(text, &reading).manifest {
        match manifest::toml::parse("fuzz.toml", manifest, Path::new("")) {
            Ok(manifest) => assert_eq!(manifest.problems, []),
            Err(error) => panic!("{error}"),
        }
    }
});
