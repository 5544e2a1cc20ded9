//! Who owns which machine frames.
//!
//! The table is made once, from the plan, and never changes: a frame that a domain gives back stays
//! reserved for it, so what changes while domains run is stage 2 and not ownership. That has three
//! consequences:
//! - no lock, and a [`Claim`] never goes stale;
//! - a direct-mapped domain finds the frames that it gave back where they were, which a device may
//!   still be told;
//! - no frame goes from one domain to another, so there is no frame to clear between two owners.
//!   Whoever adds a way to hand frames on adds the clearing there.
//!
//! Reading, writing and mapping memory all take a claim; this module alone makes them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use layout::{MachineAddress, Mfn, MfnRange};

use crate::sorted;

/// A domain by its place in the system, from 0: not its domain ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainIndex(pub u16);

impl DomainIndex {
    /// The index into a list of domains.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// Whose a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The hypervisor's image, heap, stacks and tables.
    Hypervisor,
    /// RAM of the hypervisor that it shares with one domain: its shared page, its grant table.
    Pool(DomainIndex),
    /// A domain's RAM.
    Domain(DomainIndex),
    /// Registers of a device that a domain drives.
    Device(DomainIndex),
    /// Reserved RAM that the driver of a device uses, such as what a remote processor runs from.
    DeviceMemory(DomainIndex),
    /// RAM with a boot module that a restart needs.
    Module,
    /// RAM that firmware or the manifest keeps.
    Reserved,
    /// RAM that the plan gives to nobody.
    Unowned,
}

/// Consecutive frames of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The frames.
    pub frames: MfnRange,
    /// Whose.
    pub owner: Owner,
}

/// Two owners for one frame: the plan is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The one that begins first.
    pub first: Holding,
    /// The other.
    pub second: Holding,
}

/// The proof that frames have an owner, and the only way to touch or map them.
///
/// It can't be copied or made outside this module; what holds one may use these frames for this
/// owner's purposes.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    frames: MfnRange,
    owner: Owner,
}

impl Claim {
    /// The frames.
    #[must_use]
    pub const fn frames(&self) -> MfnRange {
        self.frames
    }

    /// Whose they are.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// The machine address of the byte at `offset`, if `bytes` bytes from there are inside the
    /// claim.
    #[must_use]
    pub fn address(&self, offset: u64, bytes: u64) -> Option<MachineAddress> {
        let end = offset.checked_add(bytes)?;
        let whole = self.frames.bytes();
        if end > whole.size() {
            return None;
        }
        whole.start().checked_add(offset)
    }

    /// A claim on some of its frames: `frames` frames after the first `skip`.
    #[must_use]
    pub fn part(&self, skip: u64, frames: u64) -> Option<Self> {
        let end = skip.checked_add(frames)?;
        if end > self.frames.frames() {
            return None;
        }
        let frames = MfnRange::new(self.frames.start().offset(skip), frames)?;
        Some(Self {
            frames,
            owner: self.owner,
        })
    }
}

/// The table: every frame of RAM, and every device register that a domain has.
#[derive(Debug)]
pub struct Ownership {
    holdings: Box<[Holding]>,
}

impl Ownership {
    /// Makes the table. Empty holdings are dropped; those of one owner that touch or overlap become
    /// one.
    ///
    /// # Errors
    /// The first two holdings of different owners that share a frame.
    pub fn new(holdings: Vec<Holding>) -> Result<Self, Overlap> {
        let mut ordered: Vec<Holding> = Vec::with_capacity(holdings.len());
        for holding in holdings
            .into_iter()
            .filter(|holding| !holding.frames.is_empty())
        {
            sorted::insert(&mut ordered, holding, |holding| {
                (holding.frames.start(), holding.owner)
            });
        }
        let mut merged: Vec<Holding> = Vec::with_capacity(ordered.len());
        for next in ordered {
            match merged.last_mut() {
                Some(last)
                    if last.owner == next.owner && last.frames.end() >= next.frames.start() =>
                {
                    let end = last.frames.end().max(next.frames.end());
                    last.frames = MfnRange::between(last.frames.start(), end);
                }
                Some(last) if last.frames.overlaps(&next.frames) => {
                    return Err(Overlap {
                        first: *last,
                        second: next,
                    });
                }
                _ => merged.push(next),
            }
        }
        Ok(Self {
            holdings: merged.into_boxed_slice(),
        })
    }

    /// All holdings, by address.
    #[must_use]
    pub fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    /// The holding that has this frame; `None` if it is neither RAM nor a device of any domain.
    #[must_use]
    pub fn find(&self, mfn: Mfn) -> Option<&Holding> {
        let after = self
            .holdings
            .partition_point(|holding| holding.frames.start() <= mfn);
        let holding = self.holdings.get(after.checked_sub(1)?)?;
        holding.frames.contains(mfn).then_some(holding)
    }

    /// A claim on frames, if every one of them is `owner`'s.
    #[must_use]
    pub fn claim(&self, frames: MfnRange, owner: Owner) -> Option<Claim> {
        let holding = self.find(frames.start())?;
        (holding.owner == owner && holding.frames.covers(&frames))
            .then_some(Claim { frames, owner })
    }

    /// A claim on one frame, if it is `owner`'s.
    #[must_use]
    pub fn claim_frame(&self, mfn: Mfn, owner: Owner) -> Option<Claim> {
        self.claim(MfnRange::new(mfn, 1)?, owner)
    }

    /// Claims on frames whoever owns them, one for each owner, ascending. For placing boot modules,
    /// which lie where the boot loader put them. `None` if a frame is in no holding.
    #[must_use]
    pub(crate) fn claim_all(&self, frames: MfnRange) -> Option<Vec<Claim>> {
        let mut claims = Vec::new();
        let mut at = frames.start();
        while at < frames.end() {
            let holding = self.find(at)?;
            let piece = MfnRange::between(at, holding.frames.end().min(frames.end()));
            claims.push(Claim {
                frames: piece,
                owner: holding.owner,
            });
            at = piece.end();
        }
        Some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn holding(start: u64, frames: u64, owner: Owner) -> Holding {
        Holding {
            frames: MfnRange::new(Mfn::new(start), frames).unwrap(),
            owner,
        }
    }

    const A: Owner = Owner::Domain(DomainIndex(0));
    const B: Owner = Owner::Domain(DomainIndex(1));

    #[test]
    fn neighbours_of_one_owner_become_one() {
        let table =
            Ownership::new(vec![holding(4, 4, A), holding(0, 4, A), holding(8, 1, B)]).unwrap();
        assert_eq!(table.holdings(), [holding(0, 8, A), holding(8, 1, B)]);
        assert!(
            table
                .claim(MfnRange::new(Mfn::new(2), 4).unwrap(), A)
                .is_some()
        );
    }

    #[test]
    fn one_frame_with_two_owners_is_refused() {
        let overlap = Ownership::new(vec![holding(0, 4, A), holding(3, 2, B)]).unwrap_err();
        assert_eq!((overlap.first.owner, overlap.second.owner), (A, B));
    }

    #[test]
    fn a_claim_needs_every_frame() {
        let table =
            Ownership::new(vec![holding(0, 4, A), holding(4, 4, B), holding(10, 2, A)]).unwrap();
        let claim = |start, frames, owner| {
            table.claim(MfnRange::new(Mfn::new(start), frames).unwrap(), owner)
        };
        assert!(claim(0, 4, A).is_some());
        assert!(claim(0, 5, A).is_none());
        assert!(claim(3, 1, B).is_none());
        assert!(claim(8, 1, B).is_none());
        assert!(claim(9, 2, A).is_none());
    }

    #[test]
    fn a_part_stays_inside_its_claim() {
        let table = Ownership::new(vec![holding(16, 4, A)]).unwrap();
        let claim = table
            .claim(MfnRange::new(Mfn::new(16), 4).unwrap(), A)
            .unwrap();
        assert_eq!(claim.part(1, 3).unwrap().frames().start(), Mfn::new(17));
        assert!(claim.part(1, 4).is_none());
        assert!(claim.part(u64::MAX, 2).is_none());
        assert!(claim.address(0x4000, 0).is_some());
        assert!(claim.address(0x3ff8, 9).is_none());
        assert!(claim.address(u64::MAX, 1).is_none());
    }
}
