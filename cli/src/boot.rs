//! Where a boot loader puts what it loads: hypervisor, container, and the host's tree if there is one.
//!
//! On a QEMU machine that is QEMU's to decide and is predicted here; on a board the boot script
//! loads everything where this says. Which domain gets which frames is the planner's business, not
//! this module's.

use layout::{MachineAddress, MachineRange};

/// Alignment of everything that is loaded: an arm64 Image's, the container's, and QEMU's tree.
pub const ALIGNMENT: u64 = 2 << 20;

/// QEMU puts a kernel's companions this far into RAM, or half-way if RAM is smaller.
/// Source: QEMU, hw/arm/boot.c, `arm_setup_direct_kernel_boot`.
const QEMU_COMPANIONS: u64 = 128 << 20;

/// Below this `text_offset` QEMU moves an Image up by 2 MiB, to make room for its own stub at
/// the start of RAM. Source: QEMU, hw/arm/boot.c, `BOOTLOADER_MAX_SIZE`.
const QEMU_STUB: u64 = 4096;

/// A page; multiboot modules begin on one.
const PAGE: u64 = 4096;

/// How much each thing takes in memory, where a tree is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The hypervisor's image with its zeroed data (`image_size` of its header).
    pub hypervisor: u64,
    /// Its `text_offset`.
    pub text_offset: u64,
    /// The tree as it will lie in memory (its `totalsize`).
    pub tree: u64,
    /// The container.
    pub container: u64,
}

/// Where each thing lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The hypervisor's image with its zeroed data.
    pub hypervisor: MachineRange,
    /// The host's device tree, if one is handed over.
    pub tree: Option<MachineRange>,
    /// The container.
    pub container: MachineRange,
}

/// The lowest RAM without a gap: a QEMU machine with nodes has a bank for each, and they adjoin.
pub fn lowest(ram: &[MachineRange]) -> Option<MachineRange> {
    let mut ram = ram.to_vec();
    ram.sort_by_key(MachineRange::start);
    ram.into_iter().reduce(|lowest, bank| {
        if bank.start() <= lowest.end() {
            MachineRange::between(lowest.start(), lowest.end().max(bank.end()))
        } else {
            lowest
        }
    })
}

/// Places on a QEMU arm64 machine whose RAM is `ram`, or `None` if they don't fit into it.
/// `-kernel` and `-dtb` decide two of them; the container goes into the first gap that holds it.
pub fn on_qemu(ram: MachineRange, sizes: &Sizes) -> Option<Places> {
    let stub = if sizes.text_offset < QEMU_STUB {
        ALIGNMENT
    } else {
        0
    };
    let hypervisor = at(
        ram.start()
            .raw()
            .checked_add(stub)?
            .checked_add(sizes.text_offset)?,
        sizes.hypervisor,
    )?;
    let companions = ram
        .start()
        .raw()
        .checked_add(QEMU_COMPANIONS.min(ram.size() / 2))?;
    let companions = companions
        .max(hypervisor.end().raw())
        .checked_next_multiple_of(ALIGNMENT)?;
    let tree = at(companions, sizes.tree)?;
    let container = first_gap(
        &[ram],
        &[hypervisor, tree],
        hypervisor.end().raw(),
        sizes.container,
    )?;
    let places = Places {
        hypervisor,
        tree: Some(tree),
        container,
    };
    (ram.covers(&hypervisor) && ram.covers(&tree)).then_some(places)
}

/// Where the container of a multiboot1 image begins, or `None` beyond the end of memory. The image
/// lies where it is linked; behind it, on a page, QEMU puts the names of the files, and behind
/// those, on a page, the first module. The names fit into one page unless they are absurd.
///
/// Source: QEMU, hw/i386/multiboot.c, `load_multiboot`; seen in QEMU 10.0.2. GRUB finds a place of
/// its own, and the hypervisor then plans anew.
pub fn multiboot_container(image: MachineRange) -> Option<MachineAddress> {
    let names = image.end().raw().checked_next_multiple_of(PAGE)?;
    names.checked_add(PAGE).map(MachineAddress::new)
}

/// Places on a PC whose RAM is `ram`, or `None` if they don't fit into one bank of it.
pub fn by_multiboot(
    ram: &[MachineRange],
    image: MachineRange,
    container_bytes: u64,
) -> Option<Places> {
    let container = at(multiboot_container(image)?.raw(), container_bytes)?;
    let whole = image.start().raw()..container.end().raw();
    let whole = at(whole.start, whole.end.checked_sub(whole.start)?)?;
    let places = Places {
        hypervisor: image,
        tree: None,
        container,
    };
    ram.iter().any(|bank| bank.covers(&whole)).then_some(places)
}

/// Places on a board: one after the other in the first RAM that has room, clear of `taken`
/// (what firmware reserves). `None` if there is no such room.
pub fn on_board(ram: &[MachineRange], taken: &[MachineRange], sizes: &Sizes) -> Option<Places> {
    let mut taken = taken.to_vec();
    let mut next = |size: u64, offset: u64| {
        let range = first_gap(ram, &taken, 0, size.checked_add(offset)?)?;
        taken.push(range);
        at(range.start().raw().checked_add(offset)?, size)
    };
    Some(Places {
        hypervisor: next(sizes.hypervisor, sizes.text_offset)?,
        tree: Some(next(sizes.tree, 0)?),
        container: next(sizes.container, 0)?,
    })
}

/// The lowest aligned range of `size` bytes at or above `from` that lies in one bank of `ram`
/// and touches nothing of `taken`.
fn first_gap(
    ram: &[MachineRange],
    taken: &[MachineRange],
    from: u64,
    size: u64,
) -> Option<MachineRange> {
    let mut banks: Vec<&MachineRange> = ram.iter().collect();
    banks.sort_by_key(|bank| bank.start());
    banks.into_iter().find_map(|bank| {
        let mut start = bank.start().raw().max(from);
        loop {
            start = start.checked_next_multiple_of(ALIGNMENT)?;
            let range = at(start, size)?;
            if !bank.covers(&range) {
                return None;
            }
            match taken.iter().find(|other| other.overlaps(&range)) {
                Some(other) => start = other.end().raw(),
                None => return Some(range),
            }
        }
    })
}

fn at(start: u64, size: u64) -> Option<MachineRange> {
    MachineRange::new(MachineAddress::new(start), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZES: Sizes = Sizes {
        hypervisor: MIB,
        text_offset: 0,
        tree: 35_628,
        container: 64 * MIB,
    };

    fn range(start: u64, size: u64) -> MachineRange {
        at(start, size).unwrap()
    }

    /// Figures seen in QEMU 10.0.2 (`info roms`).
    #[test]
    fn qemu_virt_puts_image_and_tree_where_seen() {
        for (memory, tree) in [
            (128, 0x4400_0000),
            (256, 0x4800_0000),
            (512, 0x4800_0000),
            (8192, 0x4800_0000),
        ] {
            let sizes = Sizes {
                container: 8 * MIB,
                ..SIZES
            };
            let places = on_qemu(range(0x4000_0000, memory * MIB), &sizes).unwrap();
            assert_eq!(places.hypervisor.start().raw(), 0x4020_0000);
            assert_eq!(places.tree.unwrap().start().raw(), tree, "{memory} MiB");
            assert_eq!(places.container.start().raw(), 0x4040_0000);
        }
    }

    /// `-numa` with 128 MiB in the first of two nodes.
    #[test]
    fn nodes_of_one_ram_are_one() {
        let nodes = [range(0x4800_0000, 896 * MIB), range(0x4000_0000, 128 * MIB)];
        let ram = range(0x4000_0000, 1024 * MIB);
        assert_eq!(lowest(&nodes), Some(ram));
        let apart = [range(0x8000_0000, MIB), range(0x4000_0000, MIB)];
        assert_eq!(lowest(&apart), Some(range(0x4000_0000, MIB)));
        assert_eq!(lowest(&[]), None);
        let sizes = Sizes {
            container: 8 * MIB,
            ..SIZES
        };
        let tree = on_qemu(ram, &sizes).unwrap().tree.unwrap();
        assert_eq!(tree.start().raw(), 0x4800_0000);
    }

    #[test]
    fn a_container_that_does_not_fit_below_the_tree_goes_above_it() {
        let ram = range(0x4000_0000, 512 * MIB);
        let places = on_qemu(
            ram,
            &Sizes {
                container: 125 * MIB,
                ..SIZES
            },
        )
        .unwrap();
        assert_eq!(places.container.start().raw(), 0x4820_0000);
        assert_eq!(
            on_qemu(
                ram,
                &Sizes {
                    container: 500 * MIB,
                    ..SIZES
                }
            ),
            None
        );
    }

    #[test]
    fn a_board_gets_its_places_around_what_firmware_keeps() {
        let ram = [range(0x8000_0000, 256 * MIB), range(0x4000_0000, 16 * MIB)];
        let taken = [range(0x4000_0000, 0x8_0000), range(0x8000_0000, 4096)];
        let places = on_board(&ram, &taken, &SIZES).unwrap();
        assert_eq!(places.hypervisor, range(0x4020_0000, MIB));
        assert_eq!(places.tree, Some(range(0x4040_0000, 35_628)));
        assert_eq!(places.container, range(0x8020_0000, 64 * MIB));
    }

    /// Figures seen in QEMU 10.0.2: an image of 0xbb000 bytes at 2 MiB, its module list at
    /// 0x2bb000 and a module at 0x2bc000.
    #[test]
    fn a_multiboot_module_lies_behind_image_and_names() {
        let ram = [range(0, 0x9_fc00), range(MIB, 2046 * MIB)];
        let image = range(2 * MIB, 0xb_b000);
        let places = by_multiboot(&ram, image, 64 * MIB).unwrap();
        assert_eq!(places.container, range(0x2b_c000, 64 * MIB));
        assert_eq!(by_multiboot(&ram, image, 2046 * MIB), None);
    }

    #[test]
    fn the_end_of_the_address_space_is_no_overflow() {
        let top = range(u64::MAX - 4 * MIB, 4 * MIB);
        assert_eq!(by_multiboot(&[top], top, 1), None);
        assert_eq!(on_board(&[top], &[], &SIZES), None);
        assert_eq!(on_qemu(top, &SIZES), None);
    }
}
