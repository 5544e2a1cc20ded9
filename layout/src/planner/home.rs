//! Where the hypervisor's own memory can go, the cheapest place first.

use alloc::vec::Vec;

use super::ground::{Ground, modules};
use super::sets::{self, SUPERPAGE, align_down, align_up, frames};
use crate::address::{FRAME_SIZE, MfnRange};
use crate::host::{Architecture, BootKind};
use crate::need;
use crate::request::SystemRequest;
use crate::sort::sort_by_key;

/// What the hypervisor needs, and what its memory mustn't lie on.
pub(crate) struct Home {
    /// Frames of the region, whole superpages.
    pub(crate) need: u64,
    /// Frames of the image.
    image: u64,
    /// The frame below which the region ends.
    below: u64,
    /// Where the image lies now, if the host map says so.
    loaded: Option<MfnRange>,
    /// Trees and modules, which are still to be read when the region is first written.
    unread: Vec<MfnRange>,
}

/// A place for the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) region: MfnRange,
    pub(crate) image: MfnRange,
    /// Whether the image already lies there.
    pub(crate) in_place: bool,
}

/// On x86 other CPUs begin with 32-bit addresses, by tables that lie in the image.
const fn below(architecture: Architecture) -> u64 {
    match architecture {
        Architecture::X86_64 => (4 << 30) / FRAME_SIZE,
        Architecture::Aarch64 | Architecture::Riscv64 => u64::MAX,
    }
}

impl Home {
    pub(crate) fn new(ground: &Ground<'_>, request: &SystemRequest) -> Self {
        let host = ground.host;
        let boot = host
            .boot
            .iter()
            .filter(|boot| boot.kind != BootKind::Hypervisor);
        let unread = boot
            .map(|boot| boot.range)
            .chain(modules(request).map(|it| it.2));
        Self {
            need: need::hypervisor_bytes(host, request) / FRAME_SIZE,
            image: need::image_bytes(host, request).div_ceil(FRAME_SIZE),
            below: below(host.architecture),
            loaded: ground.image(),
            unread: sets::normalise(unread.map(|range| range.frames_touched()).collect()),
        }
    }

    /// The region that begins at frame `start`, if it can be there: not over what is still to
    /// be read, and not half over the running image, which then couldn't be moved.
    pub(crate) fn at(&self, start: u64) -> Option<Place> {
        let region = MfnRange::new(crate::Mfn::new(start), self.need)?;
        if region.end().raw() > self.below || !sets::intersect(&[region], &self.unread).is_empty() {
            return None;
        }
        if let Some(loaded) = self.loaded
            && region.covers(&loaded)
        {
            return Some(Place {
                region,
                image: loaded,
                in_place: true,
            });
        }
        let image = frames(start, start + self.image);
        let moves_over_itself = self.loaded.is_some_and(|loaded| loaded.overlaps(&image));
        (!moves_over_itself).then_some(Place {
            region,
            image,
            in_place: false,
        })
    }

    /// The highest place in `extent` that ends at or below the frame `end`.
    pub(crate) fn highest(&self, extent: &MfnRange, end: u64) -> Option<Place> {
        let top = end.min(extent.end().raw()).min(self.below);
        let mut start = align_down(top.checked_sub(self.need)?, SUPERPAGE);
        while start >= extent.start().raw() {
            if let Some(place) = self.at(start) {
                return Some(place);
            }
            // The next place that isn't stopped by the same thing: what is still to be read, or
            // the running image, which must be covered or left behind.
            let region = frames(start, start + self.need);
            let first = self
                .unread
                .partition_point(|unread| unread.end() <= region.start());
            let unread = self
                .unread
                .get(first)
                .filter(|unread| unread.overlaps(&region));
            let limit = match unread {
                Some(unread) => unread.start().raw().checked_sub(self.need)?,
                None => {
                    let loaded = self.loaded?.start().raw();
                    let covered = align_down(loaded, SUPERPAGE) < start;
                    if covered {
                        loaded
                    } else {
                        loaded.checked_sub(self.image)?
                    }
                }
            };
            start = align_down(limit, SUPERPAGE);
        }
        None
    }

    /// The places worth trying, cheapest first: at the ends of free extents and around the
    /// running image. A place costs what it breaks: free pieces left over, then a move, then
    /// the size of the extent that loses contiguity.
    pub(crate) fn candidates(&self, free: &[MfnRange]) -> Vec<Place> {
        let mut places: Vec<(u64, u64, Place)> = Vec::new();
        for extent in free.iter().filter(|extent| extent.frames() >= self.need) {
            let last = align_down(extent.end().raw() - self.need, SUPERPAGE);
            let first = align_up(extent.start().raw(), SUPERPAGE);
            for start in self.around_image(extent).chain([first, last]) {
                let region = frames(start, start.saturating_add(self.need));
                let Some(place) = self.at(start).filter(|_| extent.covers(&region)) else {
                    continue;
                };
                let pieces = u64::from(extent.start() < region.start())
                    + u64::from(region.end() < extent.end());
                let broken = 2 * pieces + u64::from(!place.in_place);
                places.push((broken, extent.frames(), place));
            }
        }
        sort_by_key(&mut places, |(broken, size, place)| {
            [*broken, *size, place.region.start().raw()]
        });
        places.dedup_by_key(|place| place.2);
        places.into_iter().map(|(.., place)| place).collect()
    }

    /// The lowest and the highest start from which the region covers the image where it lies.
    fn around_image(&self, extent: &MfnRange) -> impl Iterator<Item = u64> {
        let loaded = self.loaded.filter(|loaded| extent.covers(loaded));
        let starts = loaded.map(|loaded| {
            let lowest = align_up(loaded.end().raw().saturating_sub(self.need), SUPERPAGE);
            [lowest, align_down(loaded.start().raw(), SUPERPAGE)]
        });
        starts.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(need: u64, loaded: (u64, u64), unread: &[(u64, u64)]) -> Home {
        let unread = unread
            .iter()
            .map(|(start, end)| frames(*start, *end))
            .collect();
        let loaded = frames(loaded.0, loaded.1);
        Home {
            need,
            image: loaded.frames(),
            below: u64::MAX,
            loaded: Some(loaded),
            unread,
        }
    }

    #[test]
    fn the_highest_place_is_found_in_few_steps() {
        let all = frames(0, 1 << 51);
        let far = 1 << 50;
        let start = |home: Home| {
            home.highest(&all, u64::MAX)
                .map(|it| it.region.start().raw())
        };
        assert_eq!(
            start(home(0x400, (0x200, 0x280), &[])),
            Some((1 << 51) - 0x400)
        );
        // All above the image is still to be read.
        assert_eq!(
            start(home(0x400, (0x200, 0x280), &[(0x700, 1 << 51)])),
            Some(0x200)
        );
        assert_eq!(
            start(home(0x400, (0x200, 0x280), &[(0x5ff, 1 << 51)])),
            Some(0)
        );
        // A running image that fills most of RAM.
        assert_eq!(start(home(far, (far, 2 * far), &[])), Some(far));
        assert_eq!(start(home(far, (far + 1, 2 * far), &[])), Some(far));
        assert_eq!(start(home(far, (far - 1, 2 * far - 1), &[])), None);
        assert_eq!(
            start(home(far + 0x200, (far + 1, 2 * far), &[])),
            Some(far - 0x200)
        );
    }
}
