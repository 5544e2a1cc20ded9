//! The entry of a grant: checking it, marking it as in use, and giving it back.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::grant_table::{
    ENTRIES_PER_FRAME, ENTRY_SIZE, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE,
    GTF_TYPE_MASK, GTF_WRITING, Status,
};
use layout::Gfn;

use super::Mappings;
use crate::domain::Domain;
use crate::machine::Machine;
use crate::ownership::{Claim, DomainIndex, Owner};
use crate::system::System;

/// How often an entry may change under our hands: a guest that keeps changing it holds nobody up.
const ATTEMPTS: u32 = 4;

/// One entry of one domain's grant table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Whose table.
    pub(crate) domain: DomainIndex,
    /// The entry.
    pub(crate) reference: u32,
}

/// `struct grant_entry_v1` as one word.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn flags(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    fn domain(self) -> u16 {
        (self.0 >> 16 & 0xffff) as u16
    }

    fn page(self) -> Gfn {
        Gfn::new(self.0 >> 32)
    }

    fn in_use(self, writable: bool) -> Self {
        Self(self.0 | u64::from(use_bits(writable)))
    }
}

fn use_bits(writable: bool) -> u16 {
    if writable {
        GTF_READING | GTF_WRITING
    } else {
        GTF_READING
    }
}

/// Marks an entry as in use, if it allows that, and gives the page that it names.
fn mark(word: &AtomicU64, user: u16, writable: bool) -> Result<Gfn, Status> {
    let mut seen = Entry(word.load(Ordering::SeqCst));
    for _ in 0..ATTEMPTS {
        let flags = seen.flags();
        let permits = flags & (GTF_TYPE_MASK | GTF_SUB_PAGE) == GTF_PERMIT_ACCESS;
        if !permits || seen.domain() != user {
            return Err(Status::BadGrant);
        }
        if writable && flags & GTF_READONLY != 0 {
            return Err(Status::PermissionDenied);
        }
        let marked = seen.in_use(writable).0;
        match word.compare_exchange(seen.0, marked, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return Ok(seen.page()),
            Err(changed) => seen = Entry(changed),
        }
    }
    Err(Status::TryAgain)
}

impl<M: Machine> System<M> {
    /// Takes a grant into use for `user`: marks the entry, and gives a claim on the page. The
    /// caller has `mappings` locked, so that uses of one entry begin and end one at a time, and
    /// calls [`release_grant`](Self::release_grant) when this one ends.
    pub(crate) fn use_grant(
        &self,
        grant: Grant,
        user: &Domain<M>,
        writable: bool,
        mappings: &Mappings,
    ) -> Result<Claim, Status> {
        let granting = self
            .domains
            .get(grant.domain.get())
            .ok_or(Status::BadDomain)?;
        let word = self
            .entry(granting, grant.reference)
            .ok_or(Status::BadGrant)?;
        let page = mark(word, user.id().0, writable)?;
        self.granted_frame(granting, page).ok_or_else(|| {
            self.release_grant(grant, mappings);
            Status::BadPage
        })
    }

    /// Ends a use of a grant: clears the bits that no other use needs.
    pub(crate) fn release_grant(&self, grant: Grant, mappings: &Mappings) {
        let others = || mappings.iter().filter(|mapping| mapping.grant == grant);
        let used = others().next().is_some();
        let written = others().any(|mapping| mapping.writable);
        let free = match (used, written) {
            (false, _) => use_bits(true),
            (true, false) => GTF_WRITING,
            (true, true) => 0,
        };
        let Some(granting) = self.domains.get(grant.domain.get()) else {
            return;
        };
        if let Some(word) = self.entry(granting, grant.reference) {
            word.fetch_and(!u64::from(free), Ordering::SeqCst);
        }
    }

    /// The frame of a domain's own RAM behind a page of it.
    pub(crate) fn granted_frame(&self, domain: &Domain<M>, page: Gfn) -> Option<Claim> {
        let mapping = self.machine.lookup(&domain.machine, page)?;
        self.ownership
            .claim_frame(mapping.mfn, Owner::Domain(domain.index))
    }

    fn entry<'a>(&'a self, domain: &'a Domain<M>, reference: u32) -> Option<&'a AtomicU64> {
        let frames = u64::from(domain.grant_frames_used.load(Ordering::Relaxed));
        if u64::from(reference) >= frames * ENTRIES_PER_FRAME {
            return None;
        }
        self.machine
            .word(&domain.grant_frames, u64::from(reference) * ENTRY_SIZE)
    }
}
