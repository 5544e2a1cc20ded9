//! Any bytes as a PC's description and as a system's tree beside it, split at the first NUL: read, planned for, and
//! written again.
#![no_main]

use layout::{MachineAddress, MachineRange};
use libfuzzer_sys::fuzz_target;
use manifest::image::HEADER_BYTES;
use manifest::origin::Origins;
use manifest::pc::{self, BootFacts};
use manifest::tree::blob::Tree;
use manifest::tree::system::{self, Modules};

const SYSTEM: &[u8] = include_bytes!("../seeds/system_tree/two-domains.dtb");
const CONTAINER: u64 = 0x30_1000;

fn no_header(_: MachineRange) -> Option<[u8; HEADER_BYTES]> {
    None
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let line = parts.next().unwrap_or_default();
    let Ok(machine) = std::str::from_utf8(line)
        .map_err(drop)
        .and_then(|line| pc::read(line).map_err(drop))
    else {
        return;
    };
    assert_eq!(pc::read(&pc::write(&machine)).ok().as_ref(), Some(&machine));
    let tree = parts.next().and_then(|bytes| Tree::read(bytes).ok());
    let Some(tree) = tree.or_else(|| Tree::read(SYSTEM).ok()) else {
        return;
    };
    let range = |start, size| MachineRange::saturating(MachineAddress::new(start), size);
    let boot = BootFacts {
        hypervisor: range(0x20_0000, 0x10_0000),
        container: Some(range(CONTAINER, 0x400_0000)),
    };
    let mut origins = Origins::new();
    let modules = Modules::Container(CONTAINER);
    let system = system::read(&tree, modules, &machine, &no_header, &mut origins);
    let mut host = pc::host_map(&machine, &boot, &mut origins);
    host.map.reserved.extend(system.reserved);
    let _ = layout::plan(&host.map, &system.request);
});
