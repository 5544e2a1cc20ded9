//! Domain numbers (`domid_t` in `xen.h`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A domain's number, or one of the names that stand in its place.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct DomainId(pub u16);

impl DomainId {
    /// The first number that is no domain's.
    pub const FIRST_RESERVED: Self = Self(0x7ff0);
    /// The calling domain.
    pub const SELF: Self = Self(0x7ff0);
    /// The owner of device registers.
    pub const IO: Self = Self(0x7ff1);
    /// The hypervisor itself.
    pub const XEN: Self = Self(0x7ff2);
    /// No domain.
    pub const INVALID: Self = Self(0x7ff4);
    /// Any domain.
    pub const ANY: Self = Self(0x7ff5);

    /// Whether this names one domain by its number.
    #[must_use]
    pub const fn is_number(self) -> bool {
        self.0 < Self::FIRST_RESERVED.0
    }
}
