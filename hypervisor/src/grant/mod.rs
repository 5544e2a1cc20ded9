//! Grants: a domain lets another one use pages of its own.
//!
//! The granting domain writes entries into its grant table, which the hypervisor provides; the
//! other asks for a page by the entry's number. An entry in use carries bits that the granting
//! domain must not clear, so both sides change the same word: flags, domain and frame of an entry
//! are one 64-bit word here.
//!
//! All mappings of the system are in one table of a fixed size, in which each domain has its share.

mod access;
mod table;

use alloc::boxed::Box;
use core::ops::Range;

use layout::{Gfn, Mfn};

use crate::ownership::DomainIndex;

pub(crate) use access::Grant;

/// Mappings that each domain can hold.
pub(crate) const MAPPINGS_PER_DOMAIN: usize = 512;

/// A page of another domain that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrantMapping {
    /// Who has it mapped.
    pub(crate) holder: DomainIndex,
    /// What is mapped.
    pub(crate) grant: Grant,
    /// Where in the holder.
    pub(crate) page: Gfn,
    /// The frame.
    pub(crate) mfn: Mfn,
    /// Whether it can be written.
    pub(crate) writable: bool,
}

/// All mappings of the system. A handle is an index into this table.
#[derive(Debug)]
pub(crate) struct Mappings(Box<[Option<GrantMapping>]>);

impl Mappings {
    /// A table for so many domains. One domain alone has nobody to map from.
    pub(crate) fn new(domains: usize) -> Self {
        let share = if domains > 1 { MAPPINGS_PER_DOMAIN } else { 0 };
        Self(alloc::vec![None; domains * share].into_boxed_slice())
    }

    /// The handles that a domain's mappings can have.
    pub(crate) fn share(holder: DomainIndex) -> Range<usize> {
        let start = holder.get() * MAPPINGS_PER_DOMAIN;
        start..start + MAPPINGS_PER_DOMAIN
    }

    /// A free place in a domain's share.
    pub(crate) fn free(&self, holder: DomainIndex) -> Option<usize> {
        let share = Self::share(holder);
        let places = self.0.get(share.clone())?;
        share
            .zip(places)
            .find(|(_, place)| place.is_none())
            .map(|(handle, _)| handle)
    }

    /// A mapping by its handle.
    pub(crate) fn get(&self, handle: usize) -> Option<&GrantMapping> {
        self.0.get(handle)?.as_ref()
    }

    /// Enters a mapping at a free place.
    pub(crate) fn set(&mut self, handle: usize, mapping: GrantMapping) {
        if let Some(place) = self.0.get_mut(handle) {
            *place = Some(mapping);
        }
    }

    /// Takes a mapping out.
    pub(crate) fn take(&mut self, handle: usize) -> Option<GrantMapping> {
        self.0.get_mut(handle)?.take()
    }

    /// All mappings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &GrantMapping> {
        self.0.iter().flatten()
    }
}
