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
    /// The addresses that it should lie within, if it can only run there: first and last, exclusive. They count only
    /// where the container's own address is known.
    pub bounds: Option<(u64, u64)>,
}

impl Shape {
    /// The first address from `from` on where it may begin.
    fn first_from(&self, from: u64) -> Option<u64> {
        let aligned = from
            .saturating_sub(self.offset)
            .checked_next_multiple_of(self.alignment.clamp(PAGE, ALIGNMENT))?;
        aligned.checked_add(self.offset)
    }

    /// A ramdisk or a tree: only its bytes count.
    #[must_use]
    pub fn data(file_size: u64) -> Self {
        Self {
            file_size,
            memory_size: file_size,
            alignment: PAGE,
            offset: 0,
            bounds: None,
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

/// Gives each payload its place behind a tree of `tree_bytes` bytes, in a container that will be loaded at machine
/// address `base`, a multiple of [`PAGE`]; 0 stands for any multiple of [`ALIGNMENT`]. Kernels come first: the space
/// that one takes beyond its file then lies before the data, not behind the end. If the place is known, a kernel with
/// bounds is put where it can run, and data fill what is left free below it.
///
/// # Errors
/// [`ContainerError::TooLarge`].
pub fn arrange(
    tree_bytes: u64,
    payloads: &[Shape],
    base: u64,
) -> Result<Arrangement, ContainerError> {
    let mut order: Vec<(usize, &Shape)> = payloads.iter().enumerate().collect();
    let lowest = |shape: &Shape| shape.bounds.map_or(0, |(lowest, _)| lowest);
    order.sort_by_key(|(_, shape)| (core::cmp::Reverse(shape.alignment), lowest(shape)));

    let mut offsets = alloc::vec![0; payloads.len()];
    let mut end = base
        .checked_add(tree_bytes)
        .ok_or(ContainerError::TooLarge)?;
    // Room that was left below kernels with bounds.
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for (index, shape) in order {
        let bytes = shape.memory_size.max(shape.file_size);
        let bounds = shape.bounds.filter(|_| base > 0);
        let bounded = bounds.and_then(|(lowest, highest)| {
            let start = shape.first_from(end.max(lowest))?;
            (start.checked_add(bytes)? <= highest).then_some(start)
        });
        let filled = gaps.iter_mut().find_map(|gap| {
            let start = shape.first_from(gap.0)?;
            let fits = start.checked_add(bytes)? <= gap.1;
            fits.then(|| gap.0 = start + bytes)?;
            Some(start)
        });
        let place = match (bounded, filled) {
            (Some(start), _) => {
                gaps.push((end, start));
                start
            }
            (None, Some(start)) => start,
            (None, None) => shape.first_from(end).ok_or(ContainerError::TooLarge)?,
        };
        end = end.max(place.saturating_add(bytes));
        if end - base > MAX_BYTES {
            return Err(ContainerError::TooLarge);
        }
        if let Some(offset) = offsets.get_mut(index) {
            *offset = place - base;
        }
    }
    Ok(Arrangement {
        offsets,
        total: (end - base).next_multiple_of(PAGE),
    })
}

/// Puts tree and payloads together as arranged; each payload is asked for when the one before it is in its place.
///
/// # Errors
/// [`ContainerError::Outside`] if the arrangement is not one of this tree and these payloads.
pub fn assemble<P: AsRef<[u8]>>(
    tree: &[u8],
    payloads: impl IntoIterator<Item = P>,
    arrangement: &Arrangement,
) -> Result<Vec<u8>, ContainerError> {
    let total = usize::try_from(arrangement.total).map_err(|_| ContainerError::TooLarge)?;
    let mut blob = alloc::vec![0; total];
    let mut put = |offset: u64, part: &[u8]| {
        let start = usize::try_from(offset).map_err(|_| ContainerError::TooLarge)?;
        let end = start
            .checked_add(part.len())
            .ok_or(ContainerError::TooLarge)?;
        blob.get_mut(start..end)
            .ok_or(ContainerError::Outside)?
            .copy_from_slice(part);
        Ok(())
    };
    put(0, tree)?;
    for (&offset, payload) in arrangement.offsets.iter().zip(payloads) {
        put(offset, payload.as_ref())?;
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
                bounds: None,
            },
        ];
        let arrangement = arrange(tree.len() as u64, &shapes, 0).unwrap();
        assert_eq!(arrangement.offsets, [0x8_3000, 0x8_0000]);
        let blob = assemble(&tree, [&ramdisk[..], &kernel], &arrangement).unwrap();
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

    const MIB: u64 = 1 << 20;

    /// As QEMU loads it: behind the hypervisor's image, on a page.
    const BASE: u64 = 3 * MIB + PAGE;

    fn bounded(file_size: u64, memory_size: u64, bounds: (u64, u64)) -> Shape {
        Shape {
            file_size,
            memory_size,
            alignment: ALIGNMENT,
            offset: 0,
            bounds: Some(bounds),
        }
    }

    #[test]
    fn a_kernel_lies_where_it_runs_and_data_below_it() {
        let kernel = bounded(40 * MIB, 58 * MIB, (16 * MIB, 74 * MIB));
        let shapes = [Shape::data(8 * MIB), kernel, Shape::data(6 * MIB)];
        let arrangement = arrange(2 * PAGE, &shapes, BASE).unwrap();
        let places: Vec<u64> = arrangement.offsets.iter().map(|it| BASE + it).collect();
        assert_eq!(places, [BASE + 2 * PAGE, 16 * MIB, 74 * MIB]);
        assert_eq!(arrangement.total, 80 * MIB - BASE);
        // Without a place it is a kernel like any other.
        let anywhere = arrange(2 * PAGE, &shapes, 0).unwrap();
        assert_eq!(anywhere.offsets[1], 2 * MIB);
    }

    #[test]
    fn a_place_that_is_taken_or_below_does_not_count() {
        let fixed = bounded(40 * MIB, 58 * MIB, (16 * MIB, 74 * MIB));
        let arrangement = arrange(PAGE, &[fixed, fixed], BASE).unwrap();
        let places: Vec<u64> = arrangement.offsets.iter().map(|it| BASE + it).collect();
        assert_eq!(places, [16 * MIB, 74 * MIB]);
        let above = arrange(PAGE, &[fixed], 1 << 30).unwrap();
        assert_eq!(above.offsets, [ALIGNMENT]);
    }

    proptest! {
        #[test]
        fn payloads_in_a_known_place_are_apart_and_aligned(
            base in 1u64..1 << 18,
            sizes in prop::collection::vec((0u64..10 << 20, 0u64..4 << 20, prop::option::of((0u64..512, 0u64..64))), 0..8),
        ) {
            let base = base * PAGE;
            let shapes: Vec<Shape> = sizes
                .iter()
                .map(|&(file_size, more, bounds)| match bounds {
                    Some((start, size)) => {
                        bounded(file_size, file_size + more, (start * MIB, (start + size) * MIB))
                    }
                    None => Shape::data(file_size),
                })
                .collect();
            let arrangement = arrange(PAGE, &shapes, base).unwrap();
            let mut taken = alloc::vec![(0, PAGE)];
            for (shape, &offset) in shapes.iter().zip(&arrangement.offsets) {
                prop_assert_eq!((base + offset) % shape.alignment, 0);
                taken.push((offset, offset + shape.memory_size));
            }
            taken.sort_unstable();
            prop_assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0 || pair[1].0 == pair[1].1));
            prop_assert!(taken.iter().all(|range| range.1 <= arrangement.total));
        }

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
                    bounds: None,
                })
                .collect();
            let arrangement = arrange(tree_bytes, &shapes, 0).unwrap();
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
