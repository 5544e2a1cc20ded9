//! What several targets share: booting from two device trees, and memory that is read.

use layout::{MachineAddress, MachineRange};
use machine_x86_64::boot_info::Physical;
use manifest::image::HEADER_BYTES;
use manifest::origin::Origins;
use manifest::tree::blob::Tree;
use manifest::tree::guest;
use manifest::tree::host::{self, BootFacts};
use manifest::tree::system::{self, Contents, Modules};

const CONTAINER: u64 = 0x5000_0000;

/// The modules' bytes: every kernel begins as an arm64 Image of 2 MiB, and every partial tree is this one.
struct Files<'a> {
    partial_tree: &'a [u8],
}

impl Contents for Files<'_> {
    fn header(&self, _: MachineRange) -> Option<[u8; HEADER_BYTES]> {
        let mut bytes = [0; HEADER_BYTES];
        bytes[16..24].copy_from_slice(&0x20_0000u64.to_le_bytes());
        bytes[56..60].copy_from_slice(b"ARM\x64");
        Some(bytes)
    }

    fn partial_tree(&self, _: MachineRange) -> Option<&[u8]> {
        Some(self.partial_tree)
    }
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

/// What a hypervisor does with a host's and a system's tree: both are read, planned for and made into guests' trees. The
/// system's modules are in a container and where the tree says; its partial trees are this one.
pub fn boot(host_tree: &[u8], system_tree: &[u8], partial_tree: &[u8]) {
    let (Ok(host_tree), Ok(system_tree)) = (Tree::read(host_tree), Tree::read(system_tree)) else {
        return;
    };
    for modules in [Modules::Container(CONTAINER), Modules::Absolute] {
        let mut origins = Origins::new();
        let files = Files { partial_tree };
        let system = system::read(&system_tree, modules, &host_tree, &files, &mut origins);
        let facts = BootFacts {
            hypervisor: range(0x4020_0000, 0x8_0000),
            host_tree: range(0x4800_0000, 0x1_0000),
            container: (modules != Modules::Absolute).then(|| range(CONTAINER, 0x400_0000)),
        };
        let console = system.request.hypervisor.console.as_ref();
        let console = console.map(|console| console.value.as_str());
        let mut host = host::read(&host_tree, &facts, console, &mut origins);
        host.map.reserved.extend(system.reserved);
        let outcome = layout::plan(&host.map, &system.request);
        for domain in &outcome.plan.domains {
            let partial_tree = Tree::read(partial_tree).ok();
            let partial_tree = partial_tree.filter(|_| domain.partial_tree.is_some());
            let partial_tree = partial_tree.as_ref();
            let _ = guest::build(&host_tree, &host, &outcome.plan, domain, partial_tree);
        }
    }
}

/// Machine memory from address 0 on.
pub struct Window<'a>(pub &'a [u8]);

impl Physical for Window<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let start = usize::try_from(address).ok()?;
        bytes.copy_from_slice(self.0.get(start..start.checked_add(bytes.len())?)?);
        Some(())
    }
}
