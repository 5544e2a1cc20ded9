//! Special frames at guest pages: the shared page, the grant table, device registers.

use abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, CONTINUATION_SHIFT, GRANT_TABLE_STATUS, OPERATION_MASK,
    RemoveFromPhysmap, SPACE_DEVICE, SPACE_GRANT_TABLE, SPACE_SHARED_INFO,
};
use abi::{Errno, Handle, number};
use layout::{Gfn, GfnRange, Mfn};

use super::{Answer, Args, Flow};
use crate::caller::Caller;
use crate::domain::Domain;
use crate::machine::{Access, Machine, MapError};
use crate::ownership::{Claim, Owner};

/// Entries of one batch.
const BATCH: u64 = 32;

impl From<MapError> for Errno {
    fn from(error: MapError) -> Self {
        match error {
            MapError::OutOfTables => Self::Enomem,
            MapError::BeyondReach => Self::Einval,
        }
    }
}

impl<M: Machine> Caller<'_, M> {
    pub(super) fn add_to_physmap(&self, buffer: Handle) -> Answer {
        let request: AddToPhysmap = self.read(buffer)?;
        let domain = self.managed(request.domain)?;
        self.add(domain, request.space, request.index, request.gpfn)?;
        Ok(0)
    }

    pub(super) fn add_to_physmap_batch(&self, args: &Args) -> Flow {
        match self.add_batch(args) {
            Ok(None) => Flow::Done(Ok(0)),
            Ok(Some(again)) => Flow::Again(again),
            Err(error) => Flow::Done(Err(error)),
        }
    }

    /// One batch; the arguments of the next if there is one. Each entry gets its own result.
    fn add_batch(&self, args: &Args) -> Result<Option<Args>, Errno> {
        let operation = args[0] & OPERATION_MASK;
        let done = args[0] >> CONTINUATION_SHIFT;
        let request: AddToPhysmapBatch = self.read(args[1])?;
        let domain = self.managed(request.domain)?;
        let count = u64::from(request.size);
        if done > count {
            return Err(Errno::Einval);
        }
        let batch_end = count.min(done + BATCH);
        for entry in done..batch_end {
            let index: u64 = self.read_entry(request.indices, entry)?;
            let page: u64 = self.read_entry(request.gpfns, entry)?;
            let result = self.add(domain, u32::from(request.space), index, page);
            let status = result.map_or_else(Errno::to_i32, |()| 0);
            self.write_entry(request.errors, entry, &status)?;
        }
        let mut again = *args;
        again[0] = operation | batch_end << CONTINUATION_SHIFT;
        Ok((batch_end < count).then_some(again))
    }

    fn add(&self, domain: &Domain<M>, space: u32, index: u64, page: u64) -> Result<(), Errno> {
        let (claim, access) = match space {
            SPACE_SHARED_INFO if index == 0 => (domain.shared_info.part(0, 1), Access::Ram),
            SPACE_GRANT_TABLE if index & GRANT_TABLE_STATUS == 0 => {
                (self.grant_frame(domain, index), Access::RamData)
            }
            SPACE_DEVICE => {
                let owner = Owner::Device(domain.index);
                (
                    self.system.ownership.claim_frame(Mfn::new(index), owner),
                    Access::Device,
                )
            }
            SPACE_SHARED_INFO | SPACE_GRANT_TABLE => (None, Access::RamData),
            // A domain's own pages stay where the plan put them; another domain's are reached by
            // grants.
            _ => {
                let what = "add_to_physmap of a page of RAM";
                return Err(self.refused(number::MEMORY_OP, what, Errno::Eopnotsupp));
            }
        };
        let claim: Claim = claim.ok_or(Errno::Einval)?;
        let page = GfnRange::new(Gfn::new(page), 1).ok_or(Errno::Einval)?;
        // What was there, if it was RAM, is the domain's again as soon as it asks for it.
        let mut given_back = domain.given_back.lock();
        let was_home = self.system.is_home(domain, page.start());
        self.system
            .machine
            .map(&domain.machine, page.start(), &claim, access)?;
        given_back.displaced(was_home);
        Ok(())
    }

    pub(super) fn remove_from_physmap(&self, buffer: Handle) -> Answer {
        let request: RemoveFromPhysmap = self.read(buffer)?;
        let domain = self.managed(request.domain)?;
        let page = GfnRange::new(Gfn::new(request.gpfn), 1).ok_or(Errno::Einval)?;
        let mut given_back = domain.given_back.lock();
        if self
            .system
            .machine
            .lookup(&domain.machine, page.start())
            .is_none()
        {
            return Err(Errno::Einval);
        }
        let was_home = self.system.is_home(domain, page.start());
        self.system.machine.unmap(&domain.machine, page)?;
        self.system.machine.settle(&domain.machine);
        given_back.displaced(was_home);
        Ok(0)
    }
}
