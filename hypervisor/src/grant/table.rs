//! Mapping pages of other domains, and taking the mappings back.

use abi::grant_table::Status;
use layout::{Gfn, GfnRange, Mfn};

use super::{Grant, GrantMapping, Mappings};
use crate::domain::Domain;
use crate::machine::{Access, Machine, MapError};
use crate::system::System;

impl<M: Machine> System<M> {
    /// Maps a granted page into a domain; gives the handle and the frame.
    pub(crate) fn map_grant(
        &self,
        holder: &Domain<M>,
        grant: Grant,
        page: Gfn,
        writable: bool,
    ) -> Result<(usize, Mfn), Status> {
        if grant.domain == holder.index {
            return Err(Status::GeneralError);
        }
        let mut mappings = self.mappings.lock();
        let handle = mappings.free(holder.index).ok_or(Status::NoSpace)?;
        let _stage2 = holder.given_back.lock();
        // The page must be empty: a balloon page or one of the regions without memory.
        if self.machine.lookup(&holder.machine, page).is_some() {
            return Err(Status::BadVirtualAddress);
        }
        let claim = self.use_grant(grant, holder, writable, &mappings)?;
        let access = if writable {
            Access::RamData
        } else {
            Access::RamReadOnly
        };
        let mfn = claim.frames().start();
        if let Err(error) = self.machine.map(&holder.machine, page, &claim, access) {
            self.release_grant(grant, &mappings);
            return Err(match error {
                MapError::OutOfTables => Status::NoSpace,
                MapError::BeyondReach => Status::BadVirtualAddress,
            });
        }
        let mapping = GrantMapping {
            holder: holder.index,
            grant,
            page,
            mfn,
            writable,
        };
        mappings.set(handle, mapping);
        Ok((handle, mfn))
    }

    /// Takes a mapping back. `page` is checked if it is given.
    pub(crate) fn unmap_grant(
        &self,
        holder: &Domain<M>,
        handle: usize,
        page: Option<Gfn>,
    ) -> Result<(), Status> {
        let mut mappings = self.mappings.lock();
        let mapping = *mappings.get(handle).ok_or(Status::BadHandle)?;
        if mapping.holder != holder.index {
            return Err(Status::BadHandle);
        }
        if page.is_some_and(|page| page != mapping.page) {
            return Err(Status::BadVirtualAddress);
        }
        self.take_back(holder, handle, mapping, &mut mappings)
    }

    /// Takes back all mappings that a domain holds, and all grants that it gave and nobody uses:
    /// it has ended. From here on none of its pages can be borrowed until it grants anew.
    pub(crate) fn end_grants(&self, domain: &Domain<M>) {
        let mut mappings = self.mappings.lock();
        for handle in Mappings::share(domain.index) {
            if let Some(mapping) = mappings.take(handle) {
                self.release_grant(mapping.grant, &mappings);
            }
        }
        // Under the lock, so that no use of an entry is half-way.
        self.machine.clear(&domain.grant_frames);
    }

    /// Whether a domain has another domain's frame mapped by a grant.
    pub fn is_granted(&self, holder: &Domain<M>, mfn: Mfn) -> bool {
        let mappings = self.mappings.lock();
        mappings
            .iter()
            .any(|mapping| mapping.holder == holder.index && mapping.mfn == mfn)
    }

    /// Another domain that has pages of this one mapped.
    pub(crate) fn mapped_by(&self, domain: &Domain<M>) -> Option<crate::DomainIndex> {
        let mappings = self.mappings.lock();
        mappings
            .iter()
            .find(|mapping| mapping.grant.domain == domain.index)
            .map(|mapping| mapping.holder)
    }

    fn take_back(
        &self,
        holder: &Domain<M>,
        handle: usize,
        mapping: GrantMapping,
        mappings: &mut Mappings,
    ) -> Result<(), Status> {
        let _stage2 = holder.given_back.lock();
        // The guest may have put something else there since.
        let there = self
            .machine
            .lookup(&holder.machine, mapping.page)
            .is_some_and(|now| now.mfn == mapping.mfn);
        if there {
            let page = GfnRange::new(mapping.page, 1).ok_or(Status::GeneralError)?;
            self.machine
                .unmap(&holder.machine, page)
                .map_err(|_| Status::GeneralError)?;
            self.machine.settle(&holder.machine);
        }
        mappings.take(handle);
        self.release_grant(mapping.grant, mappings);
        Ok(())
    }
}
