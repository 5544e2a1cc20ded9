//! Error codes of hypercalls (`errno.h`). A hypercall answers with the negated number.

/// An error that a hypercall gives to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Errno {
    /// The domain has no right to do this.
    Eperm = 1,
    /// No such entry.
    Enoent = 2,
    /// No such domain.
    Esrch = 3,
    /// No such unit, for example an impossible address for a registered area.
    Enxio = 6,
    /// Too many entries in one call.
    E2big = 7,
    /// Try again.
    Eagain = 11,
    /// A bound that the plan gave the domain is reached.
    Enomem = 12,
    /// Forbidden for this domain.
    Eacces = 13,
    /// A guest handle points to memory that the guest itself couldn't use.
    Efault = 14,
    /// In use.
    Ebusy = 16,
    /// Exists already.
    Eexist = 17,
    /// No such device.
    Enodev = 19,
    /// An argument has a value outside its range.
    Einval = 22,
    /// Nothing left of something that is counted.
    Enospc = 28,
    /// The hypercall or its sub-operation isn't there.
    Enosys = 38,
    /// The time has passed.
    Etime = 62,
    /// The answer doesn't fit.
    Enobufs = 105,
    /// The operation is there, but not in this form.
    Eopnotsupp = 95,
}

impl Errno {
    /// The value of the result register: the negated number in two's complement.
    #[must_use]
    pub const fn to_result(self) -> u64 {
        (self as u64).wrapping_neg()
    }

    /// The negated number as structures carry it.
    #[must_use]
    pub const fn to_i32(self) -> i32 {
        -(self as i32)
    }
}

const _: () = assert!(Errno::Enosys.to_result() == 0xffff_ffff_ffff_ffda);
