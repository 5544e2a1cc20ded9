//! Memory that guest and hypervisor share without a call (`xen.h`, `arch-arm.h`, `arch-x86/xen.h`).
//!
//! Both sides change it at the same time, word by word; so this is a list of places and not a
//! structure to copy. Architectures differ in the size of their own part of `vcpu_info` and in how
//! many of those the page holds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where things are in an architecture's `shared_info`. Offsets are in bytes from the page's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `sizeof(struct vcpu_info)`.
    pub vcpu_info_size: u64,
    /// [`TimeInfo`] in it, at its end.
    pub vcpu_time: u64,
    /// How many vCPUs have theirs in the page (`XEN_LEGACY_MAX_VCPUS`), from offset 0 on.
    pub vcpus: u32,
    /// `evtchn_pending`: 64 words.
    pub pending: u64,
    /// `evtchn_mask`: 64 words.
    pub mask: u64,
    /// `wc_version`, and behind it seconds, nanoseconds, and the seconds' upper half; 32 bits each.
    pub wall_clock: u64,
}

impl Layout {
    /// arm64 and riscv64: no part of their own, one vCPU.
    pub const ARM: Self = Self::new(48, 1);
    /// x86-64: two words of its own (`cr2`, padding), 32 vCPUs.
    pub const X86_64: Self = Self::new(64, 32);

    const fn new(vcpu_info_size: u64, vcpus: u32) -> Self {
        let pending = vcpu_info_size * vcpus as u64;
        let mask = pending + 512;
        Self {
            vcpu_info_size,
            vcpu_time: vcpu_info_size - size_of::<TimeInfo>() as u64,
            vcpus,
            pending,
            mask,
            wall_clock: mask + 512,
        }
    }
}

/// `vcpu_info`: byte 0 is `evtchn_upcall_pending`, byte 1 `evtchn_upcall_mask`; this is the word
/// that holds both.
pub const VCPU_UPCALL_WORD: u64 = 0;
/// `evtchn_upcall_pending` in that word.
pub const UPCALL_PENDING: u64 = 1;
/// `evtchn_upcall_mask` in that word, all bits of its byte.
pub const UPCALL_MASK: u64 = 0xff00;
/// `vcpu_info`: `evtchn_pending_sel`, a bit for each word of `evtchn_pending`.
pub const VCPU_PENDING_SELECTOR: u64 = 8;

/// `struct vcpu_time_info`, the clock of x86 guests; Arm leaves it zero.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TimeInfo {
    /// Odd while the record is being written.
    pub version: u32,
    /// Padding.
    pub reserved: u32,
    /// The counter at the last update.
    pub tsc_timestamp: u64,
    /// System time then, in nanoseconds.
    pub system_time: u64,
    /// Nanoseconds per tick, as a fraction of 2^32.
    pub tsc_to_system_mul: u32,
    /// Shift of the counter's difference before the multiplication.
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
    /// Padding.
    pub reserved2: [u8; 2],
}

/// `XEN_PVCLOCK_TSC_STABLE_BIT`: all vCPUs see one clock that never goes back.
pub const TSC_STABLE: u8 = 1;

const _: () = {
    assert!(size_of::<TimeInfo>() == 32);
    // 64 bit: offsetof(struct vcpu_info, time).
    assert!(Layout::ARM.vcpu_time == 16 && Layout::X86_64.vcpu_time == 32);
    // arch-arm.h and arch-x86/xen.h, 64 bit: offsetof(struct shared_info, evtchn_pending), then
    // evtchn_mask, wc_version.
    assert!(Layout::ARM.pending == 48 && Layout::ARM.mask == 560 && Layout::ARM.wall_clock == 1072);
    assert!(
        Layout::X86_64.pending == 2048
            && Layout::X86_64.mask == 2560
            && Layout::X86_64.wall_clock == 3072
    );
};
