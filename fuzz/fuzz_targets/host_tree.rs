//! Any bytes as a host's device tree: it is read, planned for and made into a guest's tree.
#![no_main]

use layout::{MachineAddress, MachineRange};
use libfuzzer_sys::fuzz_target;
use manifest::origin::Origins;
use manifest::tree::blob::Tree;
use manifest::tree::host::{self, BootFacts};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tree) = Tree::read(bytes) else { return };
    let range = |start, size| MachineRange::saturating(MachineAddress::new(start), size);
    let boot = BootFacts {
        hypervisor: range(0x4020_0000, 0x8_0000),
        host_tree: range(0x4800_0000, 0x1_0000),
        container: Some(range(0x5000_0000, 0x400_0000)),
    };
    let console = host::resolve_console(&tree, None);
    let _ = host::read(&tree, &boot, console.as_deref(), &mut Origins::new());
});
