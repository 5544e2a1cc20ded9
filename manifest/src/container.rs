//! The container: one blob with all that the hypervisor starts from.
//!
//! It begins with the system tree itself, a flattened device tree whose `totalsize` tells its length. Payloads
//! follow at the offsets that the tree names: kernels where they can run without being copied, with the memory that
//! they take beyond their file left free; everything else on a page. A boot loader puts the whole blob at a multiple
//! of [`ALIGNMENT`] and hands it over as a ramdisk.

use alloc::vec::Vec;
use core::fmt;

use crate::tree::blob;

/// Where the container is loaded, in bytes: a multiple of this.
pub const ALIGNMENT: u64 = 2 << 20;

/// Payloads other than kernels begin at a multiple of this, in bytes.
pub const PAGE: u64 = 4096;

/// The largest container that is written or read, in bytes.
pub const MAX_BYTES: u64 = 4 << 30;

/// What a payload needs of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The file's length in bytes.
    pub file_size: u64,
    /// The bytes that it takes when it runs where it lies; at least `file_size`.
    pub memory_size: u64,
    /// Alignment of its base in bytes, a power of two from [`PAGE`] to [`ALIGNMENT`].
    pub alignment: u64,
    /// Its distance from that base, in bytes.
    pub offset: u64,
}

impl Shape {
    /// A ramdisk or a tree: only its bytes count.
    #[must_use]
    pub fn data(file_size: u64) -> Self {
        Self {
            file_size,
            memory_size: file_size,
            alignment: PAGE,
            offset: 0,
        }
    }
}

/// Where the payloads lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrangement {
    /// Offset of each payload's first byte from the start of the container, in the order that they were given.
    pub offsets: Vec<u64>,
    /// The container's length in bytes, a multiple of [`PAGE`].
    pub total: u64,
}

/// A container that can't be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerError {
    /// It doesn't begin with a device tree, or that is cut short.
    NoTree,
    /// It would be larger than [`MAX_BYTES`].
    TooLarge,
    /// A module's range lies outside it.
    Outside,
}

impl fmt::Display for ContainerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTree => "the container does not begin with a device tree",
            Self::TooLarge => "the container would be larger than 4 GiB",
            Self::Outside => "a module lies outside the container",
        })
    }
}

/// Gives each payload its place behind a tree of `tree_bytes` bytes. Kernels come first: the space that one takes
/// beyond its file then lies before the data, not behind the end.
///
/// # Errors
/// [`ContainerError::TooLarge`].
pub fn arrange(tree_bytes: u64, payloads: &[Shape]) -> Result<Arrangement, ContainerError> {
    let mut order: Vec<usize> = (0..payloads.len()).collect();
    order
        .sort_by_key(|&index| core::cmp::Reverse(payloads.get(index).map(|shape| shape.alignment)));

    let mut offsets = alloc::vec![0; payloads.len()];
    let mut end = tree_bytes;
    for index in order {
        let (Some(shape), Some(place)) = (payloads.get(index), offsets.get_mut(index)) else {
            continue;
        };
        let base = end
            .saturating_sub(shape.offset)
            .checked_next_multiple_of(shape.alignment.clamp(PAGE, ALIGNMENT))
            .ok_or(ContainerError::TooLarge)?;
        *place = base.saturating_add(shape.offset);
        end = place.saturating_add(shape.memory_size.max(shape.file_size));
        if end > MAX_BYTES {
            return Err(ContainerError::TooLarge);
        }
    }
    Ok(Arrangement {
        offsets,
        total: end.next_multiple_of(PAGE),
    })
}

/// Puts tree and payloads together as arranged.
///
/// # Errors
/// [`ContainerError::Outside`] if the arrangement is not one of this tree and these payloads.
pub fn assemble(
    tree: &[u8],
    payloads: &[&[u8]],
    arrangement: &Arrangement,
) -> Result<Vec<u8>, ContainerError> {
    let total = usize::try_from(arrangement.total).map_err(|_| ContainerError::TooLarge)?;
    let mut blob = alloc::vec![0; total];
    let parts = core::iter::once((&0, &tree)).chain(arrangement.offsets.iter().zip(payloads));
    for (&offset, part) in parts {
        let start = usize::try_from(offset).map_err(|_| ContainerError::TooLarge)?;
        let end = start
            .checked_add(part.len())
            .ok_or(ContainerError::TooLarge)?;
        blob.get_mut(start..end)
            .ok_or(ContainerError::Outside)?
            .copy_from_slice(part);
    }
    Ok(blob)
}

/// A container in memory.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    bytes: &'a [u8],
    tree_bytes: usize,
}

impl<'a> Container<'a> {
    /// Takes a blob for a container.
    ///
    /// # Errors
    /// [`ContainerError::NoTree`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, ContainerError> {
        let tree_bytes = blob::total_size(bytes).ok_or(ContainerError::NoTree)?;
        Ok(Self { bytes, tree_bytes })
    }

    /// The system tree.
    #[must_use]
    pub fn tree(&self) -> &'a [u8] {
        self.bytes.get(..self.tree_bytes).unwrap_or_default()
    }

    /// A module, by its offset from the container's start and its size, in bytes.
    ///
    /// # Errors
    /// [`ContainerError::Outside`], also if it would overlap the tree.
    pub fn module(&self, offset: u64, size: u64) -> Result<&'a [u8], ContainerError> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let (start, size) = range.ok_or(ContainerError::Outside)?;
        let end = start.checked_add(size).ok_or(ContainerError::Outside)?;
        if start < self.tree_bytes {
            return Err(ContainerError::Outside);
        }
        self.bytes.get(start..end).ok_or(ContainerError::Outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::writer::Writer;
    use proptest::prelude::*;

    fn tree() -> Vec<u8> {
        let mut writer = Writer::new();
        writer.begin("");
        writer.finish(&[], 4096).unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (tree, kernel, ramdisk) = (tree(), [1; 5000], [2; 300]);
        let shapes = [
            Shape::data(300),
            Shape {
                file_size: 5000,
                memory_size: 9000,
                alignment: ALIGNMENT,
                offset: 0x8_0000,
            },
        ];
        let arrangement = arrange(tree.len() as u64, &shapes).unwrap();
        assert_eq!(arrangement.offsets, [0x8_3000, 0x8_0000]);
        let blob = assemble(&tree, &[&ramdisk, &kernel], &arrangement).unwrap();
        let container = Container::open(&blob).unwrap();
        assert_eq!(container.tree(), tree);
        assert_eq!(container.module(0x8_0000, 5000).unwrap(), kernel);
        assert_eq!(container.module(0x8_3000, 300).unwrap(), ramdisk);
        assert_eq!(container.module(0, 8).unwrap_err(), ContainerError::Outside);
        assert_eq!(
            container.module(u64::MAX, 8).unwrap_err(),
            ContainerError::Outside
        );
        assert_eq!(
            Container::open(&blob[..20]).unwrap_err(),
            ContainerError::NoTree
        );
    }

    proptest! {
        #[test]
        fn payloads_are_apart_and_aligned(
            tree_bytes in 40u64..100_000,
            sizes in prop::collection::vec((0u64..10 << 20, 0u64..4 << 20, any::<bool>()), 0..8),
        ) {
            let shapes: Vec<Shape> = sizes
                .iter()
                .map(|&(file_size, more, kernel)| Shape {
                    file_size,
                    memory_size: file_size + more,
                    alignment: if kernel { ALIGNMENT } else { PAGE },
                    offset: if kernel { 0x8_0000 } else { 0 },
                })
                .collect();
            let arrangement = arrange(tree_bytes, &shapes).unwrap();
            let mut taken = alloc::vec![(0, tree_bytes)];
            for (shape, &offset) in shapes.iter().zip(&arrangement.offsets) {
                prop_assert_eq!(offset % shape.alignment, shape.offset);
                taken.push((offset, offset + shape.memory_size));
            }
            taken.sort_unstable();
            prop_assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0 || pair[1].0 == pair[1].1));
            prop_assert!(taken.iter().all(|range| range.1 <= arrangement.total));
        }
    }
}
