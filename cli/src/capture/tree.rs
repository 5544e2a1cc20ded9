//! A machine that has a device tree: the tree as the boot loader gave it to this kernel.

use layout::{Architecture, MachineAddress, MachineRange};
use manifest::capture;
use manifest::origin::Origins;
use manifest::tree::blob::Tree;
use manifest::tree::host;

use super::files::Files;
use super::iomem;
use crate::diagnostics::Diagnostic;

/// Linux, Documentation/ABI/testing/sysfs-firmware-ofw.
const TREE: &str = "sys/firmware/fdt";

/// Describes it, as one line of JSON.
///
/// # Errors
/// What couldn't be read.
pub fn describe(files: &Files, architecture: Architecture) -> Result<String, Vec<Diagnostic>> {
    let one = |found| vec![found];
    let Some(bytes) = files.bytes_if_there(TREE).map_err(one)? else {
        let message = format!("this machine has no device tree ({})", files.shown(TREE));
        let found = Diagnostic::error("host-unknown", message).with_help(
            "one that ACPI describes can't be a host on this architecture; firmware may have a setting for a device tree",
        );
        return Err(one(found));
    };
    let tree = Tree::read(&bytes).map_err(|_| one(files.nonsense(TREE)))?;
    // An EFI stub takes the memory nodes out: the kernel has EFI's memory map instead.
    let memory = if has_memory(&tree) {
        Vec::new()
    } else {
        memory(files).map_err(one)?
    };
    Ok(capture::write_tree(architecture, &bytes, &memory))
}

fn has_memory(tree: &Tree<'_>) -> bool {
    let nowhere = MachineRange::saturating(MachineAddress::new(0), 0);
    let facts = host::BootFacts {
        hypervisor: nowhere,
        host_tree: nowhere,
        container: None,
    };
    let map = host::read(tree, &facts, None, &mut Origins::new()).map;
    !map.ram.is_empty()
}

/// What the kernel uses as RAM. What firmware keeps for itself isn't among it, and the tree doesn't name it.
fn memory(files: &Files) -> Result<Vec<MachineRange>, Diagnostic> {
    let entries = iomem::read(files, "proc/iomem")?;
    let ram = entries
        .into_iter()
        .filter(|entry| entry.depth == 0 && entry.name == "System RAM");
    Ok(ram.map(|entry| entry.range).collect())
}
