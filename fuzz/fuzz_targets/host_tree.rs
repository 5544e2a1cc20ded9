//! Any bytes as a host's device tree: it is read, planned for and made into guests' trees.
#![no_main]

use layout::{MachineAddress, MachineRange};
use libfuzzer_sys::fuzz_target;
use manifest::image::HEADER_BYTES;
use manifest::origin::Origins;
use manifest::tree::blob::Tree;
use manifest::tree::guest;
use manifest::tree::host::{self, BootFacts};
use manifest::tree::system::{self, Modules};

const SYSTEM: &[u8] = include_bytes!("../seeds/system_tree/two-domains.dtb");

fn header(_: MachineRange) -> Option<[u8; HEADER_BYTES]> {
    let mut bytes = [0; HEADER_BYTES];
    bytes[16..24].copy_from_slice(&0x20_0000u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    Some(bytes)
}

fuzz_target!(|bytes: &[u8]| {
    let (Ok(tree), Ok(system_tree)) = (Tree::read(bytes), Tree::read(SYSTEM)) else {
        return;
    };
    let mut origins = Origins::new();
    let container = Modules::Container(0x5000_0000);
    let system = system::read(&system_tree, container, &tree, &header, &mut origins);
    let range = |start, size| MachineRange::saturating(MachineAddress::new(start), size);
    let boot = BootFacts {
        hypervisor: range(0x4020_0000, 0x8_0000),
        host_tree: range(0x4800_0000, 0x1_0000),
        container: Some(range(0x5000_0000, 0x100_0000)),
    };
    let console = system.request.hypervisor.console.as_ref();
    let console = console.map(|console| console.value.as_str());
    let mut host = host::read(&tree, &boot, console, &mut origins);
    host.map.reserved.extend(system.reserved);
    let outcome = layout::plan(&host.map, &system.request);
    for domain in &outcome.plan.domains {
        let _ = guest::build(&tree, &host, &outcome.plan, domain, None);
    }
});
