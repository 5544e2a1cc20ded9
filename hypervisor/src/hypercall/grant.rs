//! `grant_table_op`: arguments in, a status for each entry out. What grants are is in
//! [`crate::grant`].

use core::sync::atomic::Ordering;

use abi::grant_table::{
    CACHE_CLEAN, CACHE_FLUSH, CACHE_INVALIDATE, COPY, COPY_DEST_GREF, COPY_SOURCE_GREF,
    CacheFlush as FlushRequest, Copy as CopyRequest, CopyPointer, GET_VERSION, GetVersion,
    MAP_APPLICATION, MAP_CONTAINS_PTE, MAP_GRANT_REF, MAP_HOST, MAP_READONLY, Map, QUERY_SIZE,
    QuerySize, SET_VERSION, SETUP_TABLE, SetVersion, SetupTable, Status, UNMAP_GRANT_REF, Unmap,
};
use abi::{DomainId, Errno, Handle, number};
use layout::{FRAME_SIZE, Gfn, GuestAddress, MachineAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Answer, Args, Flow};
use crate::caller::Caller;
use crate::domain::Domain;
use crate::grant::{Grant, Mappings};
use crate::machine::{CacheFlush, Machine};
use crate::ownership::{Claim, Owner};

/// Entries of one batch.
const BATCH: u64 = 16;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn grant_table_op(&self, args: &Args) -> Flow {
        let (buffer, count) = (args[1], args[2] & 0xffff_ffff);
        match args[0] {
            MAP_GRANT_REF => self.each_entry(args, |entry: Map| self.map_grant(entry)),
            UNMAP_GRANT_REF => self.each_entry(args, |entry: Unmap| self.unmap_grant(entry)),
            COPY => self.each_entry(args, |entry: CopyRequest| self.copy_grant(entry)),
            CACHE_FLUSH => self.flush_entries(args),
            SETUP_TABLE if count == 1 => self.setup_table(buffer).into(),
            QUERY_SIZE if count == 1 => self.query_size(buffer).into(),
            SETUP_TABLE | QUERY_SIZE => Flow::Done(Err(Errno::Einval)),
            SET_VERSION => self.set_version(buffer).into(),
            GET_VERSION => self.get_version(buffer).into(),
            _ => Err(self.refused(
                number::GRANT_TABLE_OP,
                "an operation beyond version 1",
                Errno::Enosys,
            ))
            .into(),
        }
    }

    /// Works through an array, one batch at a time. Each entry comes back with its own status.
    fn each_entry<T>(&self, args: &Args, work: impl Fn(T) -> T) -> Flow
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let (buffer, count) = (args[1], args[2] & 0xffff_ffff);
        for index in 0..count.min(BATCH) {
            let done = self.read_entry::<T>(buffer, index).and_then(|entry| {
                // An entry that can't take its status isn't begun.
                self.write_entry(buffer, index, &entry)?;
                self.write_entry(buffer, index, &work(entry))
            });
            if let Err(error) = done {
                return Flow::Done(Err(error));
            }
        }
        self.rest_of::<T>(args, count)
    }

    fn rest_of<T>(&self, args: &Args, count: u64) -> Flow {
        if count <= BATCH {
            return Flow::Done(Ok(0));
        }
        let Some(buffer) = args[1].checked_add(BATCH * size_of::<T>() as u64) else {
            return Flow::Done(Err(Errno::Efault));
        };
        let mut again = *args;
        again[1] = buffer;
        again[2] = count - BATCH;
        Flow::Again(again)
    }

    fn map_grant(&self, mut entry: Map) -> Map {
        let forms = MAP_HOST | MAP_APPLICATION | MAP_CONTAINS_PTE;
        let address = GuestAddress::new(entry.host_address);
        let mapped = self.granting(entry.domain).and_then(|domain| {
            if entry.flags & forms != MAP_HOST {
                return Err(Status::GeneralError);
            }
            if address.offset_in_frame() != 0 {
                return Err(Status::BadVirtualAddress);
            }
            let grant = Grant {
                domain: domain.index,
                reference: entry.reference,
            };
            let writable = entry.flags & MAP_READONLY == 0;
            self.system
                .map_grant(self.domain, grant, address.frame(), writable)
        });
        entry.status = Status::Okay as i16;
        match mapped {
            Ok((handle, mfn)) => {
                entry.handle = u32::try_from(handle).unwrap_or(u32::MAX);
                entry.device_address = mfn.address().raw();
            }
            Err(status) => entry.status = status as i16,
        }
        entry
    }

    fn unmap_grant(&self, mut entry: Unmap) -> Unmap {
        let page = (entry.host_address != 0).then(|| GuestAddress::new(entry.host_address).frame());
        let unmapped = match usize::try_from(entry.handle) {
            Ok(handle) => self.system.unmap_grant(self.domain, handle, page),
            Err(_) => Err(Status::BadHandle),
        };
        entry.status = status(unmapped);
        entry
    }

    fn copy_grant(&self, mut entry: CopyRequest) -> CopyRequest {
        entry.status = status(self.copy_one(&entry));
        entry
    }

    fn copy_one(&self, entry: &CopyRequest) -> Result<(), Status> {
        let fits = |pointer: &CopyPointer| {
            u64::from(pointer.offset) + u64::from(entry.length) <= FRAME_SIZE
        };
        if !fits(&entry.source) || !fits(&entry.destination) {
            return Err(Status::BadCopyArgument);
        }
        // Held throughout, so that no other use of the same entries begins or ends meanwhile.
        let mappings = self.system.mappings.lock();
        let [from_grant, to_grant] =
            [COPY_SOURCE_GREF, COPY_DEST_GREF].map(|bit| entry.flags & bit != 0);
        let from = self.copy_end(&entry.source, from_grant, false, &mappings)?;
        let to = self.copy_end(&entry.destination, to_grant, true, &mappings);
        if let Ok(to) = &to {
            let machine = &self.system.machine;
            let length = u64::from(entry.length);
            machine.copy(&from.claim, from.offset, &to.claim, to.offset, length);
        }
        for end in [Some(&from), to.as_ref().ok()].into_iter().flatten() {
            if let Some(grant) = end.grant {
                self.system.release_grant(grant, &mappings);
            }
        }
        to.map(|_| ())
    }

    /// One end of a copy: a page of the caller, or a granted one which is in use from here on.
    fn copy_end(
        &self,
        end: &CopyPointer,
        by_grant: bool,
        writable: bool,
        mappings: &Mappings,
    ) -> Result<CopyEnd, Status> {
        let offset = u64::from(end.offset);
        if !by_grant {
            if end.domain != DomainId::SELF && end.domain != self.domain.id() {
                return Err(Status::PermissionDenied);
            }
            let page = Gfn::new(end.page);
            let claim = self
                .system
                .granted_frame(self.domain, page)
                .ok_or(Status::BadPage)?;
            return Ok(CopyEnd {
                claim,
                offset,
                grant: None,
            });
        }
        let domain = self.granting(end.domain)?;
        let reference = u32::try_from(end.page & 0xffff_ffff).map_err(|_| Status::BadGrant)?;
        let grant = Grant {
            domain: domain.index,
            reference,
        };
        let claim = self
            .system
            .use_grant(grant, self.domain, writable, mappings)?;
        Ok(CopyEnd {
            claim,
            offset,
            grant: Some(grant),
        })
    }

    fn granting(&self, id: DomainId) -> Result<&Domain<M>, Status> {
        self.system
            .domain_by_id(self.domain, id)
            .map_err(|_| Status::BadDomain)
    }

    fn setup_table(&self, buffer: Handle) -> Answer {
        let mut request: SetupTable = self.read(buffer)?;
        let outcome = self.table_owner(request.domain).and_then(|domain| {
            let max = domain.plan.limits.max_grant_frames;
            if request.frames > max {
                Err(Status::GeneralError)
            } else {
                Ok(domain)
            }
        });
        if let Ok(domain) = outcome {
            // Where they appear is the guest's choice, by `add_to_physmap`; until then there is no
            // page to name.
            for index in 0..u64::from(request.frames) {
                self.write_entry(request.list, index, &u64::MAX)?;
            }
            domain
                .grant_frames_used
                .fetch_max(request.frames, Ordering::Relaxed);
        }
        request.status = status(outcome.map(|_| ()));
        self.write(buffer, &request)?;
        Ok(0)
    }

    fn query_size(&self, buffer: Handle) -> Answer {
        let mut request: QuerySize = self.read(buffer)?;
        let outcome = self.table_owner(request.domain);
        if let Ok(domain) = outcome {
            request.frames = domain.grant_frames_used.load(Ordering::Relaxed);
            request.max_frames = domain.plan.limits.max_grant_frames;
        }
        request.status = status(outcome.map(|_| ()));
        self.write(buffer, &request)?;
        Ok(0)
    }

    fn set_version(&self, buffer: Handle) -> Answer {
        let SetVersion { version } = self.read(buffer)?;
        if version != 1 {
            return Err(Errno::Enosys);
        }
        self.write(buffer, &SetVersion { version })?;
        Ok(0)
    }

    fn get_version(&self, buffer: Handle) -> Answer {
        let request: GetVersion = self.read(buffer)?;
        self.managed(request.domain)?;
        self.write(
            buffer,
            &GetVersion {
                version: 1,
                ..request
            },
        )?;
        Ok(0)
    }

    fn flush_entries(&self, args: &Args) -> Flow {
        let (buffer, count) = (args[1], args[2] & 0xffff_ffff);
        for index in 0..count.min(BATCH) {
            if let Err(error) = self
                .read_entry(buffer, index)
                .and_then(|entry| self.flush_one(&entry))
            {
                return Flow::Done(Err(error));
            }
        }
        self.rest_of::<FlushRequest>(args, count)
    }

    fn flush_one(&self, entry: &FlushRequest) -> Result<(), Errno> {
        let (offset, length) = (u64::from(entry.offset), u64::from(entry.length));
        if length == 0 || entry.operation == 0 {
            return Ok(());
        }
        // By machine address only; not by grant reference.
        if entry.operation & !(CACHE_CLEAN | CACHE_INVALIDATE) != 0 {
            return Err(Errno::Eopnotsupp);
        }
        if offset + length > FRAME_SIZE {
            return Err(Errno::Einval);
        }
        let mfn = MachineAddress::new(entry.address).frame();
        let invalidate = entry.operation & CACHE_INVALIDATE != 0;
        let clean = entry.operation & CACHE_CLEAN != 0;
        if let Some(own) = self
            .system
            .ownership
            .claim_frame(mfn, Owner::Domain(self.domain.index))
        {
            self.system
                .machine
                .flush_cache(&own, offset, length, CacheFlush { clean, invalidate });
            return Ok(());
        }
        let mappings = self.system.mappings.lock();
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.holder == self.domain.index && mapping.mfn == mfn)
            .ok_or(Errno::Eperm)?;
        let owner = Owner::Domain(mapping.grant.domain);
        let foreign = self
            .system
            .ownership
            .claim_frame(mfn, owner)
            .ok_or(Errno::Eperm)?;
        // What its owner wrote is never thrown away.
        self.system.machine.flush_cache(
            &foreign,
            offset,
            length,
            CacheFlush {
                clean: true,
                invalidate,
            },
        );
        Ok(())
    }

    /// The domain whose table is meant, if the caller may ask about it.
    fn table_owner(&self, id: DomainId) -> Result<&Domain<M>, Status> {
        self.managed(id).map_err(|error| match error {
            Errno::Eperm => Status::PermissionDenied,
            _ => Status::BadDomain,
        })
    }

    /// A frame of a domain's grant table, which the table then has.
    pub(super) fn grant_frame(&self, domain: &Domain<M>, index: u64) -> Option<Claim> {
        let claim = domain.grant_frames.part(index, 1)?;
        let frames = u32::try_from(index + 1).ok()?;
        domain
            .grant_frames_used
            .fetch_max(frames, Ordering::Relaxed);
        Some(claim)
    }
}

/// One end of a copy.
struct CopyEnd {
    claim: Claim,
    offset: u64,
    /// The grant that is in use for it.
    grant: Option<Grant>,
}

fn status(outcome: Result<(), Status>) -> i16 {
    outcome.err().unwrap_or(Status::Okay) as i16
}
