//! Where kernel, ramdisk and device tree go in a domain's RAM.
//!
//! Left alone, what already lies in the domain's RAM stays there. What must move goes to the
//! lowest place that fits, preferably where no module lies that is still to be copied.

use alloc::vec::Vec;

use super::sets::{self, align_down, align_up};
use crate::address::{FRAME_SIZE, GfnRange, GuestAddress, GuestRange, MachineRange, MfnRange};
use crate::host::Architecture;
use crate::plan::{Bank, Placement};
use crate::request::DomainRequest;
use crate::sort::sort_by_key;

/// No kernel begins so far above its base; bounding it keeps sums small.
pub(crate) const MOST_TEXT_OFFSET: u64 = 1 << 32;

/// On x86 what a domain starts from lies above the first MiB, where Linux looks for firmware and
/// starts CPUs.
const PC_LOWEST: GuestAddress = GuestAddress::new(1 << 20);
/// And below 4 GiB: Linux takes the addresses of ramdisk and command line for 32-bit numbers
/// (arch/x86/platform/pvh/enlighten.c, `init_pvh_bootparams`).
const PC_HIGHEST: GuestAddress = GuestAddress::new(4 << 30);

/// What a domain needs in its RAM, in bytes, headers checked.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) kernel: Item,
    pub(crate) ramdisk: Option<Item>,
    pub(crate) tree: Item,
    /// Whether the kernel itself names addresses that it must lie within.
    pub(crate) bounded: bool,
    /// Kernel and ramdisk must share a window of this size that begins at a multiple of 1 GiB.
    window: u64,
    /// Whether the modules are needed again, so that nothing may be used where it lies.
    keep: bool,
}

/// One thing to place.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Where it lies; empty for the tree, which is written afresh.
    pub(crate) source: MachineRange,
    /// Bytes that it takes in the guest.
    pub(crate) size: u64,
    /// Alignment of its base, a power of two.
    pub(crate) align: u64,
    /// Its distance from an aligned base.
    pub(crate) offset: u64,
    /// Guest addresses that it must lie within.
    pub(crate) bounds: GuestRange,
}

impl Item {
    /// Where it lies, if its bounds leave no choice.
    pub(crate) fn only_place(&self) -> Option<GuestRange> {
        let base = self.bounds.start().raw().saturating_sub(self.offset);
        let start = align_up(base, self.align).checked_add(self.offset)?;
        let range = GuestRange::new(GuestAddress::new(start), self.size)?;
        let next = GuestRange::new(GuestAddress::new(start.checked_add(self.align)?), self.size);
        let movable = next.is_some_and(|next| self.bounds.covers(&next));
        (self.bounds.covers(&range) && !movable).then_some(range)
    }

    /// The frames of the item at its lowest place in `extent`, at the same addresses in the guest.
    pub(crate) fn lowest(&self, extent: &MfnRange) -> Option<MfnRange> {
        let from = extent.bytes().start().raw().max(self.bounds.start().raw());
        let base = from.saturating_sub(self.offset);
        let start = align_up(base, self.align).checked_add(self.offset)?;
        let end = start.checked_add(self.size)?;
        let piece = sets::bytes(start, self.size).frames_touched();
        (end <= self.bounds.end().raw() && extent.covers(&piece)).then_some(piece)
    }

    /// The frames of the item at its highest place in `extent` that ends at or below the frame
    /// `top`, at the same addresses in the guest.
    pub(crate) fn highest(&self, extent: &MfnRange, top: u64) -> Option<MfnRange> {
        let lowest = extent.bytes().start().raw().max(self.bounds.start().raw());
        let end = (top.min(extent.end().raw()) * FRAME_SIZE).min(self.bounds.end().raw());
        let base = end.checked_sub(self.size)?.checked_sub(self.offset)?;
        let start = align_down(base, self.align) + self.offset;
        let piece = sets::bytes(start, self.size).frames_touched();
        (start >= lowest && extent.covers(&piece)).then_some(piece)
    }
}

/// Where things go.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) kernel: Placement,
    pub(crate) ramdisk: Option<Placement>,
    pub(crate) tree: GuestRange,
}

impl Layout {
    /// Bytes that must be moved.
    pub(crate) fn copied(&self) -> u64 {
        let all = core::iter::once(&self.kernel).chain(&self.ramdisk);
        all.filter(|item| !item.in_place)
            .map(|item| item.source.size())
            .sum()
    }
}

impl Wanted {
    /// What a request wants, if it has a kernel whose header makes sense.
    pub(crate) fn of(architecture: Architecture, request: &DomainRequest) -> Option<Self> {
        let everywhere = GuestRange::saturating(GuestAddress::new(0), u64::MAX);
        let anywhere = match architecture {
            Architecture::X86_64 => GuestRange::between(PC_LOWEST, PC_HIGHEST),
            Architecture::Aarch64 | Architecture::Riscv64 => everywhere,
        };
        let kernel = request.kernel.as_ref()?;
        if !kernel.alignment.is_power_of_two() || kernel.text_offset >= MOST_TEXT_OFFSET {
            return None;
        }
        let plain = |source: MachineRange, size: u64| Item {
            source,
            size,
            align: FRAME_SIZE,
            offset: 0,
            bounds: anywhere,
        };
        let nowhere = MachineRange::saturating(Default::default(), 0);
        let tree_bytes = align_up(request.tree_bytes.max(1), FRAME_SIZE);
        Some(Self {
            kernel: Item {
                size: kernel.memory_size.max(kernel.module.size()),
                align: kernel.alignment,
                offset: kernel.text_offset,
                bounds: kernel.bounds.unwrap_or(anywhere),
                ..plain(kernel.module, 0)
            },
            ramdisk: request
                .ramdisk
                .as_ref()
                .map(|disk| plain(disk.module, disk.module.size())),
            tree: plain(nowhere, tree_bytes),
            bounded: kernel.bounds.is_some(),
            // arm64's rule for the ramdisk (booting.rst); the others have none.
            window: match architecture {
                Architecture::Aarch64 => 32 << 30,
                Architecture::X86_64 | Architecture::Riscv64 => u64::MAX,
            },
            keep: request.keep_modules,
        })
    }

    /// Kernel, ramdisk and tree.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        core::iter::once(&self.kernel)
            .chain(&self.ramdisk)
            .chain(core::iter::once(&self.tree))
    }

    /// The fewest frames that can hold everything, alignment aside.
    pub(crate) fn least_frames(&self) -> u64 {
        let frames = self.items().map(|item| item.size.div_ceil(FRAME_SIZE));
        frames.fold(0, u64::saturating_add)
    }

    /// Bytes, in whole MiB, that hold everything from any start that the kernel can have.
    pub(crate) fn comfortable_bytes(&self) -> u64 {
        let bytes = self
            .least_frames()
            .saturating_mul(FRAME_SIZE)
            .saturating_add(self.kernel.offset);
        align_up(bytes, 1 << 20)
    }
}

/// Finds places in `banks`. `avoid` are machine ranges, normalised, with modules that are still
/// to be copied: nothing is put on them unless there is no other way.
pub(crate) fn place(wanted: &Wanted, banks: &[Bank], avoid: &[MfnRange]) -> Option<Layout> {
    let ram = Ram::new(banks);
    let avoid = ram.guest_ranges(banks, avoid);
    let stay = |item: &Item| {
        if wanted.keep {
            None
        } else {
            in_place(item, banks, &ram)
        }
    };
    let kernel = stay(&wanted.kernel);
    let ramdisk = wanted.ramdisk.as_ref().and_then(stay);
    let kernel_bytes = wanted.kernel.source.size();
    let ramdisk_bytes = wanted.ramdisk.as_ref().map_or(0, |disk| disk.source.size());
    let mut choices = [
        (kernel, ramdisk),
        (kernel, None),
        (None, ramdisk),
        (None, None),
    ];
    if kernel_bytes < ramdisk_bytes {
        choices.swap(1, 2);
    }
    let windows = ram.windows(wanted.window);
    for avoid in [avoid.as_slice(), &[]] {
        for stays in choices {
            for window in &windows {
                let room = Room {
                    ram: &ram,
                    window: *window,
                    avoid,
                };
                let found = ORDERS
                    .iter()
                    .find_map(|order| attempt(wanted, &room, stays, *order));
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    None
}

/// Where things may be put.
struct Room<'a> {
    ram: &'a Ram,
    /// Kernel and ramdisk lie within it.
    window: GuestRange,
    avoid: &'a [GuestRange],
}

const KERNEL: usize = 0;
const RAMDISK: usize = 1;
const TREE: usize = 2;

/// Every order in which three things can be put at the lowest free place. If they fit at all,
/// they fit so in the order of their addresses.
const ORDERS: [[usize; 3]; 6] = [
    [KERNEL, RAMDISK, TREE],
    [KERNEL, TREE, RAMDISK],
    [RAMDISK, KERNEL, TREE],
    [RAMDISK, TREE, KERNEL],
    [TREE, KERNEL, RAMDISK],
    [TREE, RAMDISK, KERNEL],
];

/// Puts things down in this order, beside those that stay where they are.
fn attempt(
    wanted: &Wanted,
    room: &Room<'_>,
    stays: (Option<GuestAddress>, Option<GuestAddress>),
    order: [usize; 3],
) -> Option<Layout> {
    let items = [
        Some(&wanted.kernel),
        wanted.ramdisk.as_ref(),
        Some(&wanted.tree),
    ];
    let mut places = [None; 3];
    for (at, stays) in [(KERNEL, stays.0), (RAMDISK, stays.1)] {
        if let (Some(item), Some(address)) = (items[at], stays) {
            let range = GuestRange::saturating(address, item.size);
            let mut others = places.iter().flatten();
            if others.any(|taken: &GuestRange| taken.overlaps(&range))
                || !room.window.covers(&range)
            {
                return None;
            }
            places[at] = Some(range);
        }
    }
    for at in order {
        let Some(item) = items[at] else { continue };
        if places[at].is_none() {
            let bounds = if at == TREE { item.bounds } else { room.window };
            places[at] = Some(room.ram.lowest(item, bounds, &places, room.avoid)?);
        }
    }
    let (kernel, ramdisk) = stays;
    let kernel_range = places[KERNEL]?;
    let placement = |item: &Item, range: GuestRange, in_place: bool| Placement {
        address: range.start(),
        size: item.size,
        source: item.source,
        in_place,
    };
    Some(Layout {
        kernel: placement(&wanted.kernel, kernel_range, kernel.is_some()),
        ramdisk: wanted
            .ramdisk
            .as_ref()
            .zip(places[RAMDISK])
            .map(|(item, range)| placement(item, range, ramdisk.is_some())),
        tree: places[TREE]?,
    })
}

/// The guest address of an item that can be used where it lies.
fn in_place(item: &Item, banks: &[Bank], ram: &Ram) -> Option<GuestAddress> {
    let bank = banks
        .iter()
        .find(|bank| !item.source.is_empty() && bank.machine().bytes().covers(&item.source))?;
    let offset = item.source.start().raw() - bank.mfn.address().raw();
    let address = bank.gfn.address().checked_add(offset)?;
    let range = GuestRange::new(address, item.size)?;
    let aligned = address.raw().checked_sub(item.offset).is_some_and(|base| base % item.align == 0)
        // A ramdisk may begin at any byte.
        || (item.offset == 0 && item.align == FRAME_SIZE);
    (aligned && item.bounds.covers(&range) && ram.covers(&range)).then_some(address)
}

/// A domain's RAM in guest space, lowest first.
struct Ram(Vec<GuestRange>);

impl Ram {
    fn new(banks: &[Bank]) -> Self {
        let mut ranges: Vec<GfnRange> = Vec::new();
        for bank in banks {
            match ranges.last_mut() {
                Some(last) if last.end() == bank.gfn => {
                    *last = GfnRange::between(last.start(), bank.guest().end());
                }
                _ => ranges.push(bank.guest()),
            }
        }
        Self(ranges.iter().map(GfnRange::bytes).collect())
    }

    /// The windows of `size` bytes from a multiple of 1 GiB on that hold different RAM: if
    /// things fit into any, they fit into one that begins where a piece of RAM does.
    fn windows(&self, size: u64) -> Vec<GuestRange> {
        let starts = self
            .0
            .iter()
            .map(|ram| align_down(ram.start().raw(), 1 << 30));
        let mut windows: Vec<GuestRange> = starts
            .map(|start| GuestRange::saturating(GuestAddress::new(start), size))
            .collect();
        windows.dedup();
        let end = self.0.last().map_or(0, |ram| ram.end().raw());
        let whole = windows.iter().position(|window| window.end().raw() >= end);
        windows.truncate(whole.map_or(windows.len(), |last| last + 1));
        windows
    }

    fn covers(&self, range: &GuestRange) -> bool {
        self.0.iter().any(|ram| ram.covers(range))
    }

    /// The guest's view of the machine ranges that are its own, sorted.
    fn guest_ranges(&self, banks: &[Bank], machine: &[MfnRange]) -> Vec<GuestRange> {
        let mut seen = Vec::new();
        for bank in banks {
            for part in sets::intersect(&[bank.machine()], machine) {
                let offset = part.start().raw() - bank.mfn.raw();
                let start = bank.gfn.offset(offset);
                let range = GfnRange::between(start, start.offset(part.frames()));
                seen.push(range.bytes());
            }
        }
        sort_by_key(&mut seen, |range| [range.start().raw(), 0, 0]);
        seen
    }

    /// The lowest place for `item` in `bounds` beside what is `taken` and to be avoided.
    fn lowest(
        &self,
        item: &Item,
        bounds: GuestRange,
        taken: &[Option<GuestRange>; 3],
        avoid: &[GuestRange],
    ) -> Option<GuestRange> {
        for ram in &self.0 {
            let Some(ram) = ram
                .intersection(&bounds)
                .and_then(|ram| ram.intersection(&item.bounds))
            else {
                continue;
            };
            let mut from = ram.start().raw();
            loop {
                let base = align_up(from.saturating_sub(item.offset), item.align);
                let Some(start) = base.checked_add(item.offset) else {
                    break;
                };
                let Some(range) = GuestRange::new(GuestAddress::new(start), item.size.max(1))
                else {
                    break;
                };
                if !ram.covers(&range) {
                    break;
                }
                let near = avoid.partition_point(|other| other.end() <= range.start());
                let hit = taken
                    .iter()
                    .flatten()
                    .chain(avoid.get(near))
                    .find(|o| o.overlaps(&range));
                match hit {
                    Some(other) => from = other.end().raw(),
                    None => return GuestRange::new(range.start(), item.size),
                }
            }
        }
        None
    }
}
