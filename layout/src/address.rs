//! Frame numbers, byte addresses and ranges of them, as types that don't mix.
//!
//! A guest frame number never becomes a machine frame number here: that is
//! [`DirectMap`](crate::DirectMap)'s privilege. No range in this module wraps, so code that
//! holds one needs no overflow check of its own.

use core::fmt;

/// Bits of a byte address below the frame number. Every architecture that Terrane knows has
/// 4 KiB frames, which is also Xen's ABI (`XEN_PAGE_SHIFT`, public/xen.h).
pub const FRAME_SHIFT: u32 = 12;
/// Bytes of a frame.
pub const FRAME_SIZE: u64 = 1 << FRAME_SHIFT;

/// What frame numbers of both spaces have in common.
pub trait Frame: core::marker::Copy + Ord + fmt::Debug {
    /// The byte address of the same space.
    type Address: Address<Frame = Self>;
    /// The frame with this number; see [`Mfn::new`].
    fn from_raw(raw: u64) -> Self;
    /// The number.
    fn to_raw(self) -> u64;
}

/// What byte addresses of both spaces have in common.
pub trait Address: core::marker::Copy + Ord + fmt::Debug {
    /// The frame number of the same space.
    type Frame: Frame<Address = Self>;
    /// The address with this value; any is legal.
    fn from_raw(raw: u64) -> Self;
    /// The value in bytes.
    fn to_raw(self) -> u64;
}

macro_rules! frame_and_address {
    ($frame:ident, $address:ident, $space:literal, $range:ident, $bytes:ident) => {
        #[doc = concat!("A ", $space, " frame number.")]
        #[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $frame(u64);

        impl $frame {
            /// The frame whose end is 2^64 bytes. No [`Extent`] holds it.
            pub const MAX: Self = Self(u64::MAX >> FRAME_SHIFT);

            /// The frame with this number. A number that no 64-bit byte address reaches
            /// becomes [`Self::MAX`], which is in no extent, so nobody ever owns it.
            pub const fn new(raw: u64) -> Self {
                if raw > Self::MAX.0 {
                    Self::MAX
                } else {
                    Self(raw)
                }
            }

            /// The number, at most that of [`Self::MAX`].
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The address of the frame's first byte.
            pub const fn address(self) -> $address {
                $address(self.0 << FRAME_SHIFT)
            }

            /// The frame `frames` after this one, at most [`Self::MAX`].
            pub const fn offset(self, frames: u64) -> Self {
                Self::new(self.0.saturating_add(frames))
            }
        }

        impl Frame for $frame {
            type Address = $address;
            fn from_raw(raw: u64) -> Self {
                Self::new(raw)
            }
            fn to_raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $frame {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($frame), "({:#x})"), self.0)
            }
        }

        #[doc = concat!("A ", $space, " address, in bytes. Any 64-bit value is legal.")]
        #[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $address(u64);

        impl $address {
            /// The address with this value.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The value in bytes.
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The frame that holds this byte.
            pub const fn frame(self) -> $frame {
                $frame(self.0 >> FRAME_SHIFT)
            }

            /// The byte's place in its frame, 0 to 4095.
            pub const fn offset_in_frame(self) -> u64 {
                self.0 & (FRAME_SIZE - 1)
            }

            /// The address `bytes` after this one, or `None` past 2^64.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }

        impl Address for $address {
            type Frame = $frame;
            fn from_raw(raw: u64) -> Self {
                Self(raw)
            }
            fn to_raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $address {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($address), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $address {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        #[doc = concat!("Consecutive ", $space, " frames.")]
        pub type $range = Extent<$frame>;
        #[doc = concat!("Consecutive ", $space, " bytes.")]
        pub type $bytes = ByteRange<$address>;
    };
}

frame_and_address!(Gfn, GuestAddress, "guest", GfnRange, GuestRange);
frame_and_address!(Mfn, MachineAddress, "machine", MfnRange, MachineRange);

/// Consecutive frames of one space: a start and a count. Its end is at most `MAX`, so it never
/// wraps; it may be empty.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent<F> {
    start: F,
    frames: u64,
}

impl<F: Frame> Extent<F> {
    /// `frames` frames from `start`; `None` if that passes the last addressable frame.
    pub fn new(start: F, frames: u64) -> Option<Self> {
        let end = start.to_raw().checked_add(frames)?;
        (F::from_raw(end).to_raw() == end).then_some(Self { start, frames })
    }

    /// No frames, at `start`.
    pub fn empty(start: F) -> Self {
        Self { start, frames: 0 }
    }

    /// From `start` up to and without `end`; empty if `end` isn't above `start`.
    pub fn between(start: F, end: F) -> Self {
        Self {
            start,
            frames: end.to_raw().saturating_sub(start.to_raw()),
        }
    }

    /// The first frame.
    pub fn start(&self) -> F {
        self.start
    }

    /// The number of frames.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The frame after the last.
    pub fn end(&self) -> F {
        F::from_raw(self.start.to_raw() + self.frames)
    }

    /// Whether there is no frame in it.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// The same frames as bytes.
    pub fn bytes(&self) -> ByteRange<F::Address> {
        let start = F::Address::from_raw(self.start.to_raw() << FRAME_SHIFT);
        ByteRange {
            start,
            size: self.frames << FRAME_SHIFT,
        }
    }

    /// Whether `frame` is in it.
    pub fn contains(&self, frame: F) -> bool {
        self.start <= frame && frame < self.end()
    }

    /// Whether every frame of `other` is in it. An empty `other` always is.
    pub fn covers(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end() <= self.end())
    }

    /// The frames in both, if any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let both = Self::between(self.start.max(other.start), self.end().min(other.end()));
        (!both.is_empty()).then_some(both)
    }

    /// Whether they share a frame.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }
}

impl<F: Frame> fmt::Debug for Extent<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{:#x}", self.start, self.frames)
    }
}

/// Consecutive bytes of one space. Its end is at most 2^64 - 1, so it never wraps; it may be
/// empty.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange<A> {
    start: A,
    size: u64,
}

impl<A: Address> ByteRange<A> {
    /// `size` bytes from `start`; `None` if that passes 2^64 - 1.
    pub fn new(start: A, size: u64) -> Option<Self> {
        start.to_raw().checked_add(size)?;
        Some(Self { start, size })
    }

    /// `size` bytes from `start`, cut off where it would pass 2^64 - 1.
    pub fn saturating(start: A, size: u64) -> Self {
        Self {
            start,
            size: size.min(u64::MAX - start.to_raw()),
        }
    }

    /// From `start` up to and without `end`; empty if `end` isn't above `start`.
    pub fn between(start: A, end: A) -> Self {
        Self {
            start,
            size: end.to_raw().saturating_sub(start.to_raw()),
        }
    }

    /// The first byte.
    pub fn start(&self) -> A {
        self.start
    }

    /// The number of bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The byte after the last.
    pub fn end(&self) -> A {
        A::from_raw(self.start.to_raw() + self.size)
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Every frame that one of its bytes is in, save the one that ends at 2^64: no extent holds
    /// that.
    pub fn frames_touched(&self) -> Extent<A::Frame> {
        if self.is_empty() {
            return Extent::empty(A::Frame::from_raw(self.start.to_raw() >> FRAME_SHIFT));
        }
        let first = self.start.to_raw() >> FRAME_SHIFT;
        let last = (self.end().to_raw() - 1) >> FRAME_SHIFT;
        Extent::between(A::Frame::from_raw(first), A::Frame::from_raw(last + 1))
    }

    /// Every frame that lies in it as a whole.
    pub fn frames_inside(&self) -> Extent<A::Frame> {
        let first = self.start.to_raw().div_ceil(FRAME_SIZE);
        let end = self.end().to_raw() >> FRAME_SHIFT;
        Extent::between(A::Frame::from_raw(first), A::Frame::from_raw(end))
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: A) -> bool {
        self.start <= address && address < self.end()
    }

    /// Whether every byte of `other` is in it. An empty `other` always is.
    pub fn covers(&self, other: &Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end() <= self.end())
    }

    /// The bytes in both, if any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let both = Self::between(self.start.max(other.start), self.end().min(other.end()));
        (!both.is_empty()).then_some(both)
    }

    /// Whether they share a byte.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }
}

impl<A: Address> fmt::Debug for ByteRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As `0x40000000-0x7fffffff`, first and last byte, which is how `/proc/iomem` writes it.
impl<A: Address> fmt::Display for ByteRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start.to_raw();
        if self.is_empty() {
            return write!(f, "{start:#x} (empty)");
        }
        write!(f, "{start:#x}-{:#x}", start + (self.size - 1))
    }
}
