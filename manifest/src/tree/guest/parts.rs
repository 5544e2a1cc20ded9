//! Nodes and properties that both kinds of guest trees have.

use alloc::format;
use alloc::vec::Vec;

use layout::{DomainPlan, GuestAddress, GuestRange};

use super::hypervisor_node::Regions;
use crate::tree::blob::{Node, Tree};
use crate::tree::writer::Writer;

/// Bytes from an address, cut off at the end of the address space.
pub fn guest_range(start: u64, size: u64) -> GuestRange {
    GuestRange::saturating(GuestAddress::new(start), size)
}

/// The most bytes of a range whose size has one cell: below 4 GiB, and a multiple of what mappings are cut at.
const LARGEST_OF_ONE_CELL: u64 = (4 << 30) - (2 << 20);

/// How many cells an address and a size take where a node stands.
#[derive(Debug, Clone, Copy)]
pub struct CellCounts {
    pub address: usize,
    pub size: usize,
}

impl CellCounts {
    /// The counts of a node of the host's, which may be anything: beyond four no reader would follow.
    pub fn of(node: Node<'_, '_>) -> Self {
        let (address, size) = node.child_cells();
        Self {
            address: address.min(4),
            size: size.min(4),
        }
    }

    pub const TWO: Self = Self {
        address: 2,
        size: 2,
    };

    /// The counts at the root of a domain's tree: the hardware domain's root is the host's.
    pub fn at_root_of(domain: &DomainPlan, host: &Tree<'_>) -> Self {
        if domain.identity.is_hardware() {
            Self::of(host.root())
        } else {
            Self::TWO
        }
    }

    /// What addresses end below, in bytes.
    pub fn end(self) -> u64 {
        if self.address == 1 { 1 << 32 } else { u64::MAX }
    }

    /// The most bytes of one range.
    pub fn largest(self) -> u64 {
        if self.size == 1 {
            LARGEST_OF_ONE_CELL
        } else {
            u64::MAX
        }
    }

    /// A range in pieces whose sizes can be written.
    fn pieces(self, range: GuestRange) -> impl Iterator<Item = GuestRange> {
        let mut rest = (range.start().raw(), range.size());
        core::iter::from_fn(move || {
            let (start, bytes) = rest;
            let piece = bytes.min(self.largest());
            rest = (start.saturating_add(piece), bytes - piece);
            (piece > 0).then(|| guest_range(start, piece))
        })
    }

    fn push(value: &mut Vec<u8>, number: u64, cells: usize) {
        let bytes = number.to_be_bytes();
        // One cell takes the lower half; more than two are filled with zeros in front.
        match cells {
            0 => {}
            1 => value.extend_from_slice(&bytes[4..]),
            _ => {
                value.resize(value.len() + (cells - 2) * 4, 0);
                value.extend_from_slice(&bytes);
            }
        }
    }

    /// A `reg` of these ranges. One that its cells can't say is left out: cut off, it would name something else.
    pub fn reg<'r>(self, ranges: impl IntoIterator<Item = &'r GuestRange>) -> Vec<u8> {
        let mut value = Vec::new();
        let can_say = |number: u64, cells: usize| cells != 1 || number >> 32 == 0;
        for range in ranges {
            if !can_say(range.start().raw(), self.address) || !can_say(range.size(), self.size) {
                continue;
            }
            Self::push(&mut value, range.start().raw(), self.address);
            Self::push(&mut value, range.size(), self.size);
        }
        value
    }
}

/// The domain's RAM, one node.
pub fn memory(writer: &mut Writer, domain: &DomainPlan, cells: CellCounts) {
    let ram: Vec<GuestRange> = domain
        .guest_ram()
        .iter()
        .flat_map(|range| cells.pieces(range.bytes()))
        .collect();
    let Some(first) = ram.first() else { return };
    writer.node(&format!("memory@{:x}", first.start().raw()), |node| {
        node.string("device_type", "memory");
        node.bytes("reg", &cells.reg(&ram));
    });
}

/// PSCI by `hvc`: the host's own says `smc`, which is trapped.
pub fn psci(writer: &mut Writer) {
    writer.node("psci", |node| {
        node.strings("compatible", &["arm,psci-1.0", "arm,psci-0.2"]);
        node.string("method", "hvc");
    });
}

/// What `/chosen` always has: the command line and the place of the ramdisk.
pub fn chosen(node: &mut Writer, domain: &DomainPlan) {
    node.string("bootargs", &domain.command_line);
    if let Some(ramdisk) = &domain.ramdisk {
        let range = ramdisk.range();
        node.numbers("linux,initrd-start", &[range.start().raw()]);
        node.numbers("linux,initrd-end", &[range.end().raw()]);
    }
}

/// The node that makes Linux see Xen. `gic` is the controller's phandle and the cells of its specifiers.
///
/// Source: Xen, docs/misc/arm/device-tree/guest.txt.
pub fn hypervisor(
    writer: &mut Writer,
    regions: &Regions,
    cells: CellCounts,
    gic: Option<(u32, usize)>,
) {
    writer.node("hypervisor", |node| {
        node.strings("compatible", &["xen,xen-4.20", "xen,xen"]);
        let all = core::iter::once(&regions.grant_table).chain(&regions.extended);
        node.bytes("reg", &cells.reg(all));
        if let Some((phandle, specifier_cells)) = gic {
            // PPI 31 tells of events: for all CPUs (0xf00), level-triggered, active low.
            let mut specifier = alloc::vec![1, 15, 0xf08];
            specifier.resize(specifier_cells.max(3), 0);
            node.cells("interrupts", &specifier);
            node.cells("interrupt-parent", &[phandle]);
        }
    });
}
