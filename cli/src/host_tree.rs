//! Edits of a host's device tree that a boot loader would make: where the container lies, and
//! how much memory there is.

use std::fmt;

use layout::{MachineAddress, MachineRange, RamBank};
use manifest::origin::{Origins, Position};
use manifest::tree::blob::{MAX_BYTES, Node, Tree, TreeError};
use manifest::tree::writer::TooLarge;
use manifest::tree::{edit, host};

/// A tree that can't be edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditError {
    /// It isn't a device tree.
    Read(TreeError),
    /// It would be larger than the hypervisor reads.
    Write(TooLarge),
    /// The root has one cell for an address, and memory here takes two.
    Address(u64),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Address(start) => {
                write!(
                    f,
                    "memory from {start:#x} on ends above 4 GiB, and its root's addresses have 32 bits"
                )
            }
        }
    }
}

/// The tree, packed, with the container at machine addresses `start` to `end` (exclusive), named
/// as a kernel's initrd is (Linux, Documentation/arch/arm64/booting.rst). Its length doesn't
/// depend on the two addresses.
///
/// # Errors
/// See [`EditError`].
pub fn with_container(blob: &[u8], start: u64, end: u64) -> Result<Vec<u8>, EditError> {
    let tree = Tree::read(blob).map_err(EditError::Read)?;
    let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
    let properties: [(&str, &[u8]); 2] =
        [("linux,initrd-start", &start), ("linux,initrd-end", &end)];
    edit::with_properties(&tree, "chosen", &properties, MAX_BYTES).map_err(EditError::Write)
}

/// The tree with room for the seed of the operating system's random numbers, 32 bytes of `/chosen`
/// `rng-seed` (Devicetree specification, `/chosen`). The bytes are zero: QEMU puts new ones in
/// their place at each reset, and the plan doesn't depend on them.
///
/// # Errors
/// See [`EditError`].
pub fn with_seed(blob: &[u8]) -> Result<Vec<u8>, EditError> {
    let tree = Tree::read(blob).map_err(EditError::Read)?;
    let properties: [(&str, &[u8]); 1] = [("rng-seed", &[0; 32])];
    edit::with_properties(&tree, "chosen", &properties, MAX_BYTES).map_err(EditError::Write)
}

/// The tree with `size` bytes from `start` on reserved, which its firmware keeps.
///
/// # Errors
/// See [`EditError`].
pub fn with_reservation(blob: &[u8], start: u64, size: u64) -> Result<Vec<u8>, EditError> {
    let tree = Tree::read(blob).map_err(EditError::Read)?;
    edit::with_reservation(&tree, start, size, MAX_BYTES).map_err(EditError::Write)
}

/// RAM that is to be added to a tree and has been named already.
#[derive(Debug)]
pub struct Twice {
    /// What is to be added.
    pub bank: RamBank,
    /// What names some of it: a node of the tree, or without a position a bank that is added before it.
    pub named: Vec<(RamBank, Option<Position>)>,
}

/// What of these banks the tree names, or another of them before.
///
/// # Errors
/// The tree can't be read.
pub fn named_twice(blob: &[u8], banks: &[RamBank]) -> Result<Vec<Twice>, EditError> {
    let tree = Tree::read(blob).map_err(EditError::Read)?;
    let mut origins = Origins::new();
    let of_tree = first_reading(&tree, &mut origins).map.ram;
    let twice = banks.iter().enumerate().map(|(index, bank)| {
        let overlaps = |other: &&RamBank| other.range.overlaps(&bank.range);
        let nodes = of_tree.iter().filter(overlaps);
        let nodes = nodes.map(|other| (other.clone(), origins.get(other.origin).cloned()));
        let earlier = banks.iter().take(index).filter(overlaps);
        let earlier = earlier.map(|other| (other.clone(), None));
        Twice {
            bank: bank.clone(),
            named: nodes.chain(earlier).collect(),
        }
    });
    Ok(twice.filter(|found| !found.named.is_empty()).collect())
}

/// RAM that is to be added to a tree and in which there are registers.
#[derive(Debug, PartialEq)]
pub struct Over {
    /// What is to be added.
    pub bank: RamBank,
    /// Whose registers begin first, where they are, and the node.
    pub first: (String, MachineRange, Option<Position>),
    /// How many others' are there too.
    pub others: usize,
}

/// Which of these banks lie over registers of the tree's.
///
/// # Errors
/// The tree can't be read.
pub fn over_registers(blob: &[u8], banks: &[RamBank]) -> Result<Vec<Over>, EditError> {
    let tree = Tree::read(blob).map_err(EditError::Read)?;
    let mut origins = Origins::new();
    let host = first_reading(&tree, &mut origins);
    let map = &host.map;
    let devices = map.devices.iter().zip(&host.device_nodes);
    let devices = devices.filter(|(_, node)| !tree.node(**node).is_some_and(is_memory));
    let devices = devices.map(|(device, _)| (device.path.as_str(), &device.ranges, device.origin));
    let iommus = map.iommus.iter();
    let iommus = iommus.map(|iommu| (iommu.path.as_str(), &iommu.ranges, iommu.origin));
    let controller = &map.controller;
    let controller = (
        "the interrupt controller",
        &controller.ranges,
        controller.origin,
    );
    let owners: Vec<_> = devices.chain(iommus).chain([controller]).collect();
    // What a driver finds in reserved memory.
    let is_reserved = |range: &MachineRange| {
        map.reserved
            .iter()
            .any(|reserved| reserved.range.covers(range))
    };
    let over = banks.iter().filter_map(|bank| {
        let within = owners.iter().filter_map(|(what, ranges, origin)| {
            let theirs = ranges.iter().filter(|range| range.overlaps(&bank.range));
            let first = theirs
                .filter(|range| !is_reserved(range))
                .min_by_key(|it| it.start())?;
            Some((*what, *first, *origin))
        });
        let within: Vec<_> = within.collect();
        let (what, range, origin) = within.iter().min_by_key(|(_, range, _)| range.start())?;
        Some(Over {
            bank: bank.clone(),
            first: ((*what).to_owned(), *range, origins.get(*origin).cloned()),
            others: within.len() - 1,
        })
    });
    Ok(over.collect())
}

/// Whether a device is memory that may lie in RAM: firmware's frame buffer, and SRAM, which boards have in their lowest
/// addresses and Amlogic's in RAM.
fn is_memory(node: Node<'_, '_>) -> bool {
    let is_sram = |node: Node<'_, '_>| node.is_compatible("mmio-sram");
    is_sram(node) || node.parent().is_some_and(is_sram) || node.is_compatible("simple-framebuffer")
}

/// A reading of the tree for its memory: the boot loader's facts aren't known yet.
pub fn first_reading(tree: &Tree<'_>, origins: &mut Origins) -> host::Host {
    let nowhere = MachineRange::saturating(MachineAddress::new(0), 0);
    let facts = host::BootFacts {
        hypervisor: nowhere,
        host_tree: nowhere,
        container: None,
    };
    host::read(tree, &facts, None, origins)
}

/// The tree with these banks of memory beside those that it has, none of which they overlap.
///
/// # Errors
/// See [`EditError`].
pub fn with_memory(blob: &[u8], banks: &[RamBank]) -> Result<Vec<u8>, EditError> {
    let mut blob = blob.to_vec();
    for bank in banks {
        let tree = Tree::read(&blob).map_err(EditError::Read)?;
        let (address_cells, size_cells) = tree.root().child_cells();
        let mut reg = Vec::new();
        for (start, size) in entries(&bank.range, address_cells, size_cells)? {
            reg.extend(cells(start, address_cells));
            reg.extend(cells(size, size_cells));
        }
        let name = node_for(&tree, bank.range.start().raw());
        let properties: [(&str, &[u8]); 2] = [("device_type", b"memory\0"), ("reg", &reg)];
        blob = edit::with_properties(&tree, &name, &properties, MAX_BYTES)
            .map_err(EditError::Write)?;
    }
    Ok(blob)
}

/// The name of the node for a bank that begins there: one that the tree doesn't have, or that of a memory node of no
/// bytes, which holds the place for what the boot loader fills in.
fn node_for(tree: &Tree<'_>, start: u64) -> String {
    let first = format!("memory@{start:x}");
    let more = (1..).map(|number: u32| format!("memory-{number}@{start:x}"));
    let mut names = std::iter::once(first.clone()).chain(more);
    let is_free = |name: &String| match tree.root().child(name) {
        Some(node) => holds_a_place(node),
        None => true,
    };
    names.find(is_free).unwrap_or(first)
}

/// Whether all of a node's `reg` that says how much there is says nothing.
fn holds_a_place(node: Node<'_, '_>) -> bool {
    let (address_cells, size_cells) = node.parent().map_or((2, 1), Node::child_cells);
    let reg = node.value("reg").unwrap_or_default();
    let sizes = reg
        .chunks((address_cells + size_cells).max(1) * 4)
        .flat_map(|entry| entry.iter().skip(address_cells * 4));
    let is_memory = node.string("device_type") == Some("memory") && node.is_enabled();
    is_memory && sizes.into_iter().all(|byte| *byte == 0)
}

/// A bank as starts and sizes that the root's cells hold: a size of 4 GiB doesn't go into one.
fn entries(
    bank: &MachineRange,
    address_cells: usize,
    size_cells: usize,
) -> Result<Vec<(u64, u64)>, EditError> {
    const IN_ONE_CELL: u64 = 1 << 31;
    let start = bank.start().raw();
    if address_cells < 2 && bank.end().raw() > 1 << 32 {
        return Err(EditError::Address(start));
    }
    let most = if size_cells < 2 {
        IN_ONE_CELL
    } else {
        u64::MAX
    };
    let mut entries = Vec::new();
    let mut done = 0;
    while done < bank.size() {
        let size = (bank.size() - done).min(most);
        entries.push((start + done, size));
        done += size;
    }
    Ok(entries)
}

/// A number in this many cells of 32 bits, the highest first.
fn cells(number: u64, count: usize) -> Vec<u8> {
    let bytes = u128::from(number).to_be_bytes();
    let kept = bytes.len().saturating_sub(count.saturating_mul(4));
    bytes.get(kept..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::Origin;
    use manifest::tree::writer::Writer;

    fn sample() -> Vec<u8> {
        std::fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/hosts/virt-2g.dtb"
        ))
        .unwrap()
    }

    #[test]
    fn the_container_is_named_and_the_length_stays() {
        let edited = with_container(&sample(), 0x4040_0000, 0x4140_0000).unwrap();
        let tree = Tree::read(&edited).unwrap();
        let chosen = tree.find("/chosen").unwrap();
        assert_eq!(chosen.u64("linux,initrd-start"), Some(0x4040_0000));
        assert_eq!(chosen.u64("linux,initrd-end"), Some(0x4140_0000));
        assert!(chosen.has("stdout-path"));
        assert_eq!(
            with_container(&edited, 0, u64::MAX).unwrap().len(),
            edited.len()
        );
    }

    #[test]
    fn the_seed_has_room_and_nothing_else_changes() {
        let edited = with_seed(&sample()).unwrap();
        let tree = Tree::read(&edited).unwrap();
        let chosen = tree.find("/chosen").unwrap();
        assert_eq!(chosen.value("rng-seed"), Some([0; 32].as_slice()));
        assert!(chosen.has("stdout-path"));
    }

    fn bank(start: u64, size: u64) -> RamBank {
        RamBank {
            range: MachineRange::saturating(MachineAddress::new(start), size),
            node: None,
            origin: Origin::NONE,
        }
    }

    #[test]
    fn memory_is_added_in_the_roots_cells() {
        let edited = with_memory(&sample(), &[bank(1 << 32, 1 << 30)]).unwrap();
        let tree = Tree::read(&edited).unwrap();
        let node = tree.find("/memory@100000000").unwrap();
        let reg = [1u32, 0, 0, 1 << 30].map(u32::to_be_bytes).concat();
        assert_eq!(node.value("reg"), Some(reg.as_slice()));
        assert_eq!(node.string("device_type"), Some("memory"));
        assert!(tree.find("/memory@40000000").is_some());
    }

    /// Starts and sizes of a tree's RAM, by start.
    fn ram(blob: &[u8]) -> Vec<(u64, u64)> {
        let tree = Tree::read(blob).unwrap();
        let ram = first_reading(&tree, &mut Origins::new()).map.ram;
        let mut ram: Vec<_> = ram
            .iter()
            .map(|bank| (bank.range.start().raw(), bank.range.size()))
            .collect();
        ram.sort_unstable();
        ram
    }

    /// A tree with one memory node for these cells.
    fn tree(name: &str, status: &str, reg: &[u64]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.node("", |root| {
            root.cells("#address-cells", &[2]);
            root.cells("#size-cells", &[2]);
            root.node(name, |memory| {
                memory.string("device_type", "memory");
                memory.string("status", status);
                memory.numbers("reg", reg);
            });
        });
        writer.finish(&[], 4096).unwrap()
    }

    #[test]
    fn what_a_node_says_of_other_ram_stays() {
        let fill = |blob: Vec<u8>| ram(&with_memory(&blob, &[bank(0x4000_0000, 0x1000)]).unwrap());
        let (filled, other) = ((0x4000_0000, 0x1000), (0x8000_0000, 0x1000));
        let name = "memory@40000000";
        let misnamed = tree(name, "okay", &[0x8000_0000, 0x1000]);
        assert_eq!(fill(misnamed), [filled, other]);
        let disabled = tree(name, "disabled", &[0x4000_0000, 0x1000]);
        assert_eq!(fill(disabled), [filled]);
        // What a boot loader fills in.
        let place = tree(name, "okay", &[0x4000_0000, 0]);
        assert_eq!(fill(place.clone()), [filled]);
        let filled_in = with_memory(&place, &[bank(0x4000_0000, 0x1000)]).unwrap();
        let nodes = Tree::read(&filled_in).unwrap();
        assert_eq!(nodes.root().children().count(), 1);
        assert_eq!(fill(tree("memory", "okay", &[0, 0])), [filled]);
    }

    #[test]
    fn ram_that_is_named_already_is_found() {
        let board = tree(
            "memory",
            "okay",
            &[0x4000_0000, 0x1000, 0x8000_0000, 0x1000],
        );
        let twice = |banks: &[RamBank]| -> Vec<(u64, usize)> {
            let found = named_twice(&board, banks).unwrap();
            let short = found.iter();
            short
                .map(|it| (it.bank.range.start().raw(), it.named.len()))
                .collect()
        };
        let beside = [bank(0x4000_1000, 0x1000), bank(0x3fff_f000, 0x1000)];
        assert_eq!(twice(&beside), []);
        assert_eq!(twice(&[bank(0x4000_0000, 1 << 32)]), [(0x4000_0000, 2)]);
        let pair = [bank(0, 0x2000), bank(0x1000, 0x1000)];
        assert_eq!(twice(&pair), [(0x1000, 1)]);
        assert_eq!(twice(&[bank(0x4000_0000, 0)]), []);
    }

    /// What RAM over these nodes is told: whose registers come first and how many others' do.
    fn over(bank: RamBank, nodes: impl FnOnce(&mut Writer)) -> Option<(String, u64, usize)> {
        let mut writer = Writer::new();
        writer.node("", |root| {
            root.cells("#address-cells", &[2]);
            root.cells("#size-cells", &[2]);
            nodes(root);
        });
        let blob = writer.finish(&[], 4096).unwrap();
        let found = over_registers(&blob, &[bank]).unwrap().pop()?;
        let (what, range, _) = found.first;
        Some((what, range.start().raw(), found.others))
    }

    fn node(above: &mut Writer, name: &str, compatible: &str, reg: [u64; 2], more: &str) {
        above.node(name, |node| {
            node.string("compatible", compatible);
            node.numbers("reg", &reg);
            node.string("status", more);
        });
    }

    #[test]
    fn ram_lies_over_no_registers() {
        let nodes = |root: &mut Writer| {
            node(root, "uart@5000", "x,uart", [0x5000, 0x1000], "okay");
            node(root, "gpio@3000", "x,gpio", [0x3000, 0x1000], "okay");
            node(
                root,
                "intc@7000",
                "arm,cortex-a9-gic",
                [0x7000, 0x1000],
                "okay",
            );
            node(root, "off@1000", "x,off", [0x1000, 0x1000], "disabled");
        };
        let first = |found: &str, start, others| Some((found.to_owned(), start, others));
        assert_eq!(over(bank(0, 0x3000), nodes), None);
        assert_eq!(over(bank(0, 0x3001), nodes), first("/gpio@3000", 0x3000, 0));
        assert_eq!(
            over(bank(0x3800, 0x1_0000), nodes),
            first("/gpio@3000", 0x3000, 2)
        );
        let controller = first("the interrupt controller", 0x7000, 0);
        assert_eq!(over(bank(0x6000, 0x1_0000), nodes), controller);
    }

    #[test]
    fn what_is_memory_may_lie_in_ram() {
        let nodes = |root: &mut Writer| {
            root.node("reserved-memory", |above| {
                above.cells("#address-cells", &[2]);
                above.cells("#size-cells", &[2]);
                above.flag("ranges");
                node(above, "log@1000", "ramoops", [0x1000, 0x1000], "okay");
            });
            root.node("sram@2000", |sram| {
                sram.string("compatible", "mmio-sram");
                sram.numbers("reg", &[0x2000, 0x1000]);
                sram.cells("#address-cells", &[2]);
                sram.cells("#size-cells", &[2]);
                sram.flag("ranges");
                node(
                    sram,
                    "mailbox@2000",
                    "arm,scmi-shmem",
                    [0x2000, 0x100],
                    "okay",
                );
            });
            node(
                root,
                "screen@3000",
                "simple-framebuffer",
                [0x3000, 0x1000],
                "okay",
            );
            // In a region of firmware's.
            node(root, "smem@1800", "x,smem", [0x1800, 0x100], "okay");
        };
        assert_eq!(over(bank(0, 0x1_0000), nodes), None);
    }

    #[test]
    fn a_bank_is_split_where_one_cell_is_too_small_for_it() {
        let range = |start, size| MachineRange::saturating(MachineAddress::new(start), size);
        let bank = range(1 << 32, 5 << 30);
        assert_eq!(entries(&bank, 2, 2), Ok(vec![(1 << 32, 5 << 30)]));
        let expected = [(4 << 30, 2 << 30), (6 << 30, 2 << 30), (8 << 30, 1 << 30)];
        assert_eq!(entries(&bank, 2, 1), Ok(expected.to_vec()));
        assert_eq!(entries(&bank, 1, 1), Err(EditError::Address(1 << 32)));
        let low = range(2 << 30, 2 << 30);
        assert_eq!(entries(&low, 1, 1), Ok(vec![(2 << 30, 2 << 30)]));
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(matches!(
            with_container(b"rubbish", 0, 0),
            Err(EditError::Read(_))
        ));
    }
}
