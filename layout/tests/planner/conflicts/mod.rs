//! A bad configuration for every code, and the words that mend it.

mod devices;
mod domains;
mod links;
mod memory;
mod statics;
mod together;

use terrane_layout::*;

pub use crate::common::*;

/// Plans a system that has exactly one thing wrong with it, and gives that back.
pub fn conflict(host: &HostMap, request: &SystemRequest) -> Conflict {
    let outcome = plan(host, request);
    check_invariants(host, request, &outcome);
    assert_eq!(outcome.conflicts.len(), 1, "{:#?}", outcome.conflicts);
    outcome.conflicts.into_iter().next().expect("one conflict")
}

pub fn code(host: &HostMap, request: &SystemRequest) -> &'static str {
    conflict(host, request).code.as_str()
}

pub fn direct(static_mem: &[(u64, u64)]) -> DomainRequest {
    let mut guest = domain("guest", MemoryRequest::SumOfStatic, 0, false);
    guest.direct_map = Some(true.into());
    guest.static_mem = static_mem
        .iter()
        .map(|(start, size)| fixed(*start, *size))
        .collect();
    guest
}

pub fn sized(size: u64) -> DomainRequest {
    domain("guest", MemoryRequest::Size(size), 0, false)
}

pub fn one(guest: DomainRequest) -> Conflict {
    conflict(&virt(2 * GIB, 2), &system(vec![guest]))
}

pub fn named(guest: DomainRequest) -> &'static str {
    one(guest).code.as_str()
}
