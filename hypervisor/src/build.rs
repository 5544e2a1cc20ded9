//! Building a domain, exactly as planned: stage 2, boot modules, device tree.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use layout::{
    Copy as ModuleCopy, FRAME_SIZE, GuestRange, MachineAddress, MachineRange, MfnRange, Scrub,
};

use crate::domain::{Domain, GivenBack};
use crate::machine::{Access, CacheFlush, Machine};
use crate::ownership::{Claim, DomainIndex, Owner};
use crate::sorted;
use crate::system::{BuildError, System};

/// For a guest that begins with its caches off.
const DOWN_TO_MEMORY: CacheFlush = CacheFlush {
    clean: true,
    invalidate: true,
};

impl<M: Machine> System<M> {
    /// Builds a domain whose modules are in place and whose shared frames are clear.
    pub(crate) fn build(&self, domain: &Domain<M>) -> Result<(), BuildError> {
        self.map_memory(domain)?;
        self.map_devices(domain)?;
        self.show_wall_clock(domain);
        self.show_clocks(domain);
        self.write_tree(domain)
    }

    /// Builds a domain anew after its end.
    pub(crate) fn rebuild(&self, domain: &Domain<M>) -> Result<(), BuildError> {
        self.take_down(domain);
        // Its next life mustn't be seen through the grants of this one.
        if let Some(holder) = self.mapped_by(domain) {
            return Err(BuildError::StillMapped(holder));
        }
        domain.said.reset();
        for copy in self
            .copies
            .iter()
            .filter(|copy| copy.domain == domain.index.get())
        {
            // The other domains run: nothing is put aside in their RAM.
            self.place(copy, |owner| owner == Owner::Domain(domain.index))?;
        }
        self.build(domain)
    }

    /// Undoes all that a domain has done; none of its vCPUs runs.
    pub(crate) fn take_down(&self, domain: &Domain<M>) {
        self.end_grants(domain);
        self.close_some(domain, u32::MAX);
        domain.events.lock().reset();
        self.machine.clear(&domain.shared_info);
        self.machine.unmap_all(&domain.machine);
        self.machine.reset_domain(&domain.machine);
        *domain.given_back.lock() = GivenBack::default();
        domain.grant_frames_used.store(1, Ordering::Relaxed);
        domain.callback.store(0, Ordering::Relaxed);
    }

    fn map_memory(&self, domain: &Domain<M>) -> Result<(), BuildError> {
        for bank in &domain.plan.banks {
            let owner = Owner::Domain(domain.index);
            let claim = self
                .ownership
                .claim(bank.machine(), owner)
                .ok_or(BuildError::Bank(bank.machine()))?;
            // What is reserved is content of firmware's, or of the domain's last life.
            if self.scrub == Scrub::All && !bank.reserved {
                self.clear_but_modules(domain, &claim);
            }
            self.machine
                .map(&domain.machine, bank.gfn, &claim, Access::Ram)
                .map_err(|error| BuildError::Stage2(bank.gfn, error))?;
        }
        Ok(())
    }

    fn map_devices(&self, domain: &Domain<M>) -> Result<(), BuildError> {
        for holding in self.ownership.holdings() {
            let access = match holding.owner {
                Owner::Device(index) if index == domain.index => Access::Device,
                Owner::DeviceMemory(index) if index == domain.index => Access::RamData,
                _ => continue,
            };
            let Some(claim) = self.ownership.claim(holding.frames, holding.owner) else {
                continue;
            };
            let at = Self::device_page(holding.frames.start());
            self.machine
                .map(&domain.machine, at, &claim, access)
                .map_err(|error| BuildError::Stage2(at, error))?;
        }
        Ok(())
    }

    /// Writes the guest's clock for the vCPUs whose `vcpu_info` is in the shared page.
    fn show_clocks(&self, domain: &Domain<M>) {
        let events = domain.events.lock();
        for vcpu in &domain.vcpus {
            self.show_clock(domain, &events, vcpu.index);
        }
    }

    /// Clears a bank but for the modules in it, which are placed by now.
    fn clear_but_modules(&self, domain: &Domain<M>, bank: &Claim) {
        let plan = &domain.plan;
        let placements = [Some(&plan.kernel), plan.ramdisk.as_ref()]
            .into_iter()
            .flatten();
        let mut keep: Vec<MfnRange> = Vec::new();
        let ranges = placements.filter_map(|placement| plan.machine_ranges(placement.range()));
        for range in ranges.flatten() {
            if let Some(inside) = range.frames_touched().intersection(&bank.frames()) {
                sorted::insert(&mut keep, inside, |range| range.start());
            }
        }
        let mut at = bank.frames().start();
        for kept in keep
            .into_iter()
            .chain([MfnRange::empty(bank.frames().end())])
        {
            let skip = at.raw() - bank.frames().start().raw();
            let frames = kept.start().raw().saturating_sub(at.raw());
            if let Some(gap) = bank.part(skip, frames) {
                self.machine.clear(&gap);
            }
            at = at.max(kept.end());
        }
    }

    /// Writes the guest's device tree.
    fn write_tree(&self, domain: &Domain<M>) -> Result<(), BuildError> {
        if domain.tree.len() as u64 > domain.plan.tree.size() {
            return Err(BuildError::Tree);
        }
        let place = GuestRange::saturating(domain.plan.tree.start(), domain.tree.len() as u64);
        let pieces = domain.plan.machine_ranges(place).ok_or(BuildError::Tree)?;
        let mut rest = &*domain.tree;
        for piece in pieces {
            let claim = self
                .ownership
                .claim(piece.frames_touched(), Owner::Domain(domain.index))
                .ok_or(BuildError::NotOwned(piece))?;
            let offset = piece.start().offset_in_frame();
            let (bytes, after) = usize::try_from(piece.size())
                .ok()
                .and_then(|size| rest.split_at_checked(size))
                .ok_or(BuildError::Tree)?;
            self.machine.write(&claim, offset, bytes);
            self.machine
                .flush_cache(&claim, offset, piece.size(), DOWN_TO_MEMORY);
            rest = after;
        }
        Ok(())
    }

    /// Carries out one copy of the plan, if `may_hold` allows it in each owner's frames.
    pub(crate) fn place(
        &self,
        copy: &ModuleCopy,
        may_hold: impl Fn(Owner) -> bool,
    ) -> Result<(), BuildError> {
        let segments = self.segments(copy, may_hold)?;
        let upwards = segments
            .first()
            .is_none_or(|first| first.to.at() <= first.from.at());
        let carry = |segment: &Segment| {
            let Segment { from, to, bytes } = segment;
            self.machine
                .copy(&from.claim, from.offset, &to.claim, to.offset, *bytes);
        };
        // Where the two overlap, the end that is about to be overwritten goes first.
        if upwards {
            segments.iter().for_each(carry)
        } else {
            segments.iter().rev().for_each(carry)
        }
        Ok(())
    }

    /// Zeroes what follows a copied module in its last frame: another domain's may have lain
    /// there.
    pub(crate) fn clear_behind(&self, copy: &ModuleCopy) {
        const ZEROES: [u8; 64] = [0; 64];
        let Some(end) = copy.destination.last().map(MachineRange::end) else {
            return;
        };
        let used = end.offset_in_frame();
        let Some(claim) = Self::owner_of(copy)
            .filter(|_| used > 0)
            .and_then(|owner| self.ownership.claim_frame(end.frame(), owner))
        else {
            return;
        };
        let mut at = used;
        while at < FRAME_SIZE {
            let left = usize::try_from(FRAME_SIZE - at).unwrap_or(ZEROES.len());
            let piece = ZEROES.get(..left).unwrap_or(&ZEROES);
            self.machine.write(&claim, at, piece);
            at += piece.len() as u64;
        }
        let rest = FRAME_SIZE - used;
        self.machine.flush_cache(&claim, used, rest, DOWN_TO_MEMORY);
    }

    fn owner_of(copy: &ModuleCopy) -> Option<Owner> {
        let index = u16::try_from(copy.domain).ok()?;
        Some(Owner::Domain(DomainIndex(index)))
    }

    /// Cuts a copy where either side changes its owner or its place.
    fn segments(
        &self,
        copy: &ModuleCopy,
        may_hold: impl Fn(Owner) -> bool,
    ) -> Result<Vec<Segment>, BuildError> {
        let mut segments = Vec::new();
        let mut source = copy.source;
        for destination in &copy.destination {
            let mut destination = *destination;
            while !destination.is_empty() {
                let from = self.piece(source).ok_or(BuildError::NotOwned(source))?;
                let to = self
                    .piece(destination)
                    .filter(|piece| may_hold(piece.claim.owner()))
                    .ok_or(BuildError::NotOwned(destination))?;
                let bytes = from.bytes.min(to.bytes);
                source = after(source, bytes);
                destination = after(destination, bytes);
                segments.push(Segment { from, to, bytes });
            }
        }
        Ok(segments)
    }

    /// The first bytes of a range that lie in one holding, whoever owns it.
    fn piece(&self, range: MachineRange) -> Option<Piece> {
        let claim = self
            .ownership
            .claim_all(range.frames_touched())?
            .into_iter()
            .next()?;
        let offset = range.start().offset_in_frame();
        let bytes = (claim.frames().bytes().size() - offset).min(range.size());
        (bytes > 0).then_some(Piece {
            claim,
            offset,
            bytes,
        })
    }
}

/// Consecutive bytes of one owner.
struct Piece {
    claim: Claim,
    offset: u64,
    bytes: u64,
}

impl Piece {
    fn at(&self) -> MachineAddress {
        MachineAddress::new(self.claim.frames().bytes().start().raw() + self.offset)
    }
}

/// Bytes to be copied that change no owner on either side.
struct Segment {
    from: Piece,
    to: Piece,
    bytes: u64,
}

fn after(range: MachineRange, bytes: u64) -> MachineRange {
    let start = MachineAddress::new(range.start().raw().saturating_add(bytes));
    MachineRange::saturating(start, range.size().saturating_sub(bytes))
}
