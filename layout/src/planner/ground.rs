//! The host map in the planner's terms: what is RAM, and what of it anybody may have.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::sets::{self, align_down, align_up};
use crate::address::{FRAME_SHIFT, MachineRange, MfnRange};
use crate::conflict::Side;
use crate::host::{Architecture, BootKind, BootRange, HostMap, Origin, Reservation};
use crate::request::SystemRequest;
use crate::size::Size;

/// A host map with its RAM sorted out.
pub(crate) struct Ground<'a> {
    pub(crate) host: &'a HostMap,
    /// All RAM, by byte: banks may meet inside a frame.
    pub(crate) ram_bytes: Vec<MachineRange>,
    /// Whole frames of RAM.
    pub(crate) ram: Vec<MfnRange>,
    /// Frames of RAM that aren't reserved and in which no device has registers, without what is
    /// promised: `low`.
    pub(crate) usable: Vec<MfnRange>,
    /// Usable frames that only the hardware domain can have.
    pub(crate) low: Vec<MfnRange>,
    /// The other frames of RAM.
    pub(crate) reserved: Vec<MfnRange>,
    /// Those of them that a direct-mapped hardware domain has as RAM, unless a device of somebody else
    /// has registers there.
    pub(crate) kernels: Vec<MfnRange>,
}

impl<'a> Ground<'a> {
    pub(crate) fn new(host: &'a HostMap) -> Self {
        let ram_bytes = sets::normalise_bytes(host.ram.iter().map(|bank| bank.range).collect());
        let ram = ram_bytes.iter().map(MachineRange::frames_inside).collect();
        let ram = sets::normalise(ram);
        let mut kernels = Vec::new();
        let mut kept = Vec::new();
        for reserved in &host.reserved {
            let of_kind = match reserved.kind {
                Reservation::Kernel => &mut kernels,
                Reservation::Kept | Reservation::NoMap => &mut kept,
            };
            of_kind.push(reserved.range.frames_touched());
        }
        let mut taken: Vec<MfnRange> = registers(host)
            .map(|(range, ..)| range.frames_touched())
            .collect();
        taken.extend_from_slice(&kernels);
        taken.extend_from_slice(&kept);
        let taken = sets::normalise(taken);
        let (kernels, kept) = (sets::normalise(kernels), sets::normalise(kept));
        let all = sets::subtract(&ram, &taken);
        let first = [hardware_only(host.architecture)];
        Self {
            host,
            usable: sets::subtract(&all, &first),
            low: sets::intersect(&all, &first),
            reserved: sets::intersect(&ram, &taken),
            kernels: sets::subtract(&sets::intersect(&ram, &kernels), &kept),
            ram,
            ram_bytes,
        }
    }

    /// Whether all of these bytes are RAM, reserved or not.
    pub(crate) fn is_ram(&self, range: &MachineRange) -> bool {
        self.ram_bytes.iter().any(|ram| ram.covers(range))
    }

    /// The host's RAM as a side of a conflict: the banks that are nearest to `range`.
    pub(crate) fn ram_side(&self, range: Option<MachineRange>) -> Side {
        let near = range.map_or(0, |range| range.start().raw());
        let distance = |ram: &MachineRange| {
            let (start, end) = (ram.start().raw(), ram.end().raw());
            near.saturating_sub(end).max(start.saturating_sub(near))
        };
        let bank = self
            .host
            .ram
            .iter()
            .min_by_key(|bank| distance(&bank.range));
        match bank {
            Some(bank) => Side {
                what: format!("the host's RAM {}", bank.range),
                origin: bank.origin,
                domain: None,
            },
            None => Side {
                what: String::from("the host, which has no RAM"),
                origin: Origin::NONE,
                domain: None,
            },
        }
    }

    /// The frames in which the hypervisor's image lies, if the host map says so.
    pub(crate) fn image(&self) -> Option<MfnRange> {
        let images = self.boot(BootKind::Hypervisor);
        images
            .map(|boot| boot.range.frames_touched())
            .find(|frames| !frames.is_empty())
    }

    /// What the boot loader placed, of one kind.
    pub(crate) fn boot(&self, kind: BootKind) -> impl Iterator<Item = &'a BootRange> {
        let boot = self.host.boot.iter();
        boot.filter(move |boot| boot.kind == kind)
    }
}

/// Where a PC starts its CPUs and keeps what its firmware left: the first MiB. Linux takes none of
/// it for itself but the code that starts CPUs, and a second domain couldn't have that 1:1 too.
pub(crate) fn hardware_only(architecture: Architecture) -> MfnRange {
    let end = match architecture {
        Architecture::X86_64 => 256,
        Architecture::Aarch64 | Architecture::Riscv64 => 0,
    };
    sets::frames(0, end)
}

/// Everything that has registers: its range, what it is, and who says so.
pub(crate) fn registers(host: &HostMap) -> impl Iterator<Item = (MachineRange, &str, Origin)> {
    let devices = host.devices.iter().flat_map(|device| {
        let one = move |range: &MachineRange| (*range, device.path.as_str(), device.origin);
        device.ranges.iter().map(one)
    });
    devices.chain(own_registers(host))
}

/// The part of [`registers`] that the hypervisor drives, or leaves alone, and no domain has.
pub(crate) fn own_registers(host: &HostMap) -> impl Iterator<Item = (MachineRange, &str, Origin)> {
    let iommus = host.iommus.iter().flat_map(|iommu| {
        let one = move |range: &MachineRange| (*range, iommu.path.as_str(), iommu.origin);
        iommu.ranges.iter().map(one)
    });
    let controller = host.controller.ranges.iter();
    let controller =
        controller.map(|range| (*range, "the interrupt controller", host.controller.origin));
    iommus.chain(controller)
}

/// Every module of a request: the domain, what it is, where it lies, and who asks for it.
pub(crate) fn modules(
    request: &SystemRequest,
) -> impl Iterator<Item = (usize, &'static str, MachineRange, Origin)> {
    request
        .domains
        .iter()
        .enumerate()
        .flat_map(|(index, domain)| {
            let kernel = domain.kernel.iter();
            let kernel = kernel.map(move |kernel| (index, "kernel", kernel.module, kernel.origin));
            let ramdisk = domain.ramdisk.iter();
            let ramdisk = ramdisk.map(move |disk| (index, "ramdisk", disk.module, disk.origin));
            let tree = domain.partial_tree.iter();
            let tree = tree.map(move |tree| (index, "partial tree", tree.module, tree.origin));
            kernel.chain(ramdisk).chain(tree)
        })
}

/// The start, at a multiple of `align` frames, of `frames` free frames that is nearest to
/// `near`.
pub(crate) fn nearest_free(
    free: &[MfnRange],
    frames: u64,
    near: u64,
    align: u64,
) -> Option<MfnRange> {
    let starts = free.iter().filter_map(|extent| {
        let lowest = align_up(extent.start().raw(), align);
        let highest = align_down(extent.end().raw().checked_sub(frames)?, align);
        (lowest <= highest).then(|| {
            let below = align_down(near, align).clamp(lowest, highest);
            let above = align_up(near, align).clamp(lowest, highest);
            if near.abs_diff(below) <= near.abs_diff(above) {
                below
            } else {
                above
            }
        })
    });
    let start = starts.min_by_key(|start| near.abs_diff(*start))?;
    Some(sets::frames(start, start + frames))
}

/// The largest free extent that begins at a multiple of `align` frames.
pub(crate) fn largest_free(free: &[MfnRange], align: u64) -> Option<MfnRange> {
    let aligned = free.iter().map(|extent| {
        let end = align_down(extent.end().raw(), align);
        sets::frames(align_up(extent.start().raw(), align).min(end), end)
    });
    aligned
        .filter(|extent| !extent.is_empty())
        .max_by_key(MfnRange::frames)
}

/// `range` as a manifest writes it.
pub(crate) fn as_static(range: &MfnRange) -> String {
    let size = Size(range.frames() << FRAME_SHIFT);
    format!(
        "{{ start = {}, size = \"{size:#}\" }}",
        range.start().address()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_free_looks_both_ways() {
        let free = [sets::frames(0x1000, 0x2000), sets::frames(0x3000, 0x8000)];
        let start = |near| nearest_free(&free, 0x200, near, 0x200).map(|r| r.start().raw());
        assert_eq!(start(0x2100), Some(0x1e00));
        assert_eq!(start(0x2f00), Some(0x3000));
        assert_eq!(start(0x3101), Some(0x3200));
        assert_eq!(start(0x30ff), Some(0x3000));
        assert_eq!(start(u64::MAX), Some(0x7e00));
        assert_eq!(nearest_free(&free, 0x5001, 0, 1), None);
    }
}
