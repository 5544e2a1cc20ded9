//! `multicall` (`xen.h`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct multicall_entry`. x86's six arguments and the five of the others take the same room.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// The hypercall's number.
    pub number: u64,
    /// Its answer.
    pub result: u64,
    /// Its arguments.
    pub args: [u64; 5],
    /// x86's sixth, which no hypercall uses.
    pub unused: u64,
}

const _: () = assert!(size_of::<Entry>() == 64);
