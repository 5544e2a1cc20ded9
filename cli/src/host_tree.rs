//! Edits of a host's device tree that a boot loader would make: where the container lies, and
//! how much memory there is.

use std::fmt;

use layout::{MachineRange, RamBank};
use manifest::tree::blob::{MAX_BYTES, Tree, TreeError};
use manifest::tree::edit;
use manifest::tree::writer::TooLarge;

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

/// The tree with these banks of memory beside those that it has.
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
        let name = format!("memory@{:x}", bank.range.start().raw());
        let properties: [(&str, &[u8]); 2] = [("device_type", b"memory\0"), ("reg", &reg)];
        blob = edit::with_properties(&tree, &name, &properties, MAX_BYTES)
            .map_err(EditError::Write)?;
    }
    Ok(blob)
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
    use layout::{MachineAddress, Origin};

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

    #[test]
    fn memory_is_added_in_the_roots_cells() {
        let range = MachineRange::saturating(MachineAddress::new(0x1_0000_0000), 1 << 30);
        let edited = with_memory(
            &sample(),
            &[RamBank {
                range,
                node: None,
                origin: Origin::NONE,
            }],
        )
        .unwrap();
        let tree = Tree::read(&edited).unwrap();
        let node = tree.find("/memory@100000000").unwrap();
        let reg = [1u32, 0, 0, 1 << 30].map(u32::to_be_bytes).concat();
        assert_eq!(node.value("reg"), Some(reg.as_slice()));
        assert_eq!(node.string("device_type"), Some("memory"));
        assert!(tree.find("/memory@40000000").is_some());
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
