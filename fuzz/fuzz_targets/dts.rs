//! Any bytes as a device tree source, and what it makes as a tree for Xen.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifest::dts::{self, NoFiles};
use manifest::tree::blob::Tree;

fuzz_target!(|bytes: &[u8]| {
    let _ = dts::is_source(bytes);
    let source = match dts::parse("x.dts", bytes.to_vec(), &mut NoFiles) {
        Ok(source) => source,
        Err(broken) => {
            assert!(!broken.errors.is_empty());
            return;
        }
    };
    let tree = Tree::read(&source.blob).expect("what it writes can be read");
    for node in tree.nodes() {
        for property in node.properties() {
            let _ = source.value(node, property.name, 0..property.value.len());
        }
    }
    terrane_fuzz::boot(&source.blob, &source.blob, &source.blob);
});
