//! Fields of structures that the CPU reads and writes behind the compiler's back while a guest runs.
//!
//! Each is a relaxed atomic, which costs no more than a plain access and lets a vCPU's state be reached through a
//! shared reference. Between VMRUN and VMEXIT the CPU owns them; at other times the vCPU's own CPU does.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

macro_rules! field {
    ($name:ident, $cell:ty, $value:ty, $width:literal) => {
        #[doc = concat!("A field of ", $width, " bits.")]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name($cell);

        impl $name {
            /// A field with a value.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(<$cell>::new(value))
            }

            /// Its value.
            #[inline]
            #[must_use]
            pub fn get(&self) -> $value {
                self.0.load(Ordering::Relaxed)
            }

            /// Gives it a value.
            #[inline]
            pub fn set(&self, value: $value) {
                self.0.store(value, Ordering::Relaxed);
            }
        }
    };
}

field!(Field8, AtomicU8, u8, "8");
field!(Field16, AtomicU16, u16, "16");
field!(Field32, AtomicU32, u32, "32");
field!(Field64, AtomicU64, u64, "64");
