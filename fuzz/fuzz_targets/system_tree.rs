//! Any bytes as a system's device tree, on QEMU's host, through the planner to the guests' trees.
#![no_main]

use layout::{MachineAddress, MachineRange};
use libfuzzer_sys::fuzz_target;
use manifest::image::HEADER_BYTES;
use manifest::origin::Origins;
use manifest::tree::blob::Tree;
use manifest::tree::guest;
use manifest::tree::host::{self, BootFacts};
use manifest::tree::system::{self, Modules};

const HOST: &[u8] = include_bytes!("../../manifest/tests/trees/virt-gicv3.dtb");

fn header(_: MachineRange) -> Option<[u8; HEADER_BYTES]> {
    let mut bytes = [0; HEADER_BYTES];
    bytes[16..24].copy_from_slice(&0x20_0000u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    Some(bytes)
}

fuzz_target!(|bytes: &[u8]| {
    let (Ok(tree), Ok(host_tree)) = (Tree::read(bytes), Tree::read(HOST)) else {
        return;
    };
    let mut origins = Origins::new();
    let container = Modules::Container(0x5000_0000);
    let system = system::read(&tree, container, &host_tree, &header, &mut origins);
    let range = |start, size| MachineRange::saturating(MachineAddress::new(start), size);
    let boot = BootFacts {
        hypervisor: range(0x4020_0000, 0x8_0000),
        host_tree: range(0x4800_0000, 0x1_0000),
        container: Some(range(0x5000_0000, 0x400_0000)),
    };
    let console = system
        .request
        .hypervisor
        .console
        .as_ref()
        .map(|console| console.value.as_str());
    let host = host::read(&host_tree, &boot, console, &mut origins);
    let outcome = layout::plan(&host.map, &system.request);
    for domain in &outcome.plan.domains {
        let _ = guest::build(&host_tree, &host, &outcome.plan, domain, None);
    }
});
