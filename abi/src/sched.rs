//! `sched_op` (`sched.h`).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{DomainId, Handle};

/// `SCHEDOP_yield`.
pub const YIELD: u64 = 0;
/// `SCHEDOP_block`: unmask events and wait for one.
pub const BLOCK: u64 = 1;
/// `SCHEDOP_shutdown`: [`Shutdown`].
pub const SHUTDOWN: u64 = 2;
/// `SCHEDOP_poll`: wait for one of some ports.
pub const POLL: u64 = 3;
/// `SCHEDOP_remote_shutdown`: [`RemoteShutdown`].
pub const REMOTE_SHUTDOWN: u64 = 4;
/// `SCHEDOP_shutdown_code`: records the reason only.
pub const SHUTDOWN_CODE: u64 = 5;
/// `SCHEDOP_watchdog`: [`Watchdog`].
pub const WATCHDOG: u64 = 6;
/// `SCHEDOP_pin_override`.
pub const PIN_OVERRIDE: u64 = 7;

/// `SHUTDOWN_poweroff`.
pub const REASON_POWEROFF: u32 = 0;
/// `SHUTDOWN_reboot`.
pub const REASON_REBOOT: u32 = 1;
/// `SHUTDOWN_suspend`.
pub const REASON_SUSPEND: u32 = 2;
/// `SHUTDOWN_crash`.
pub const REASON_CRASH: u32 = 3;
/// `SHUTDOWN_watchdog`.
pub const REASON_WATCHDOG: u32 = 4;
/// `SHUTDOWN_soft_reset`.
pub const REASON_SOFT_RESET: u32 = 5;

/// The most ports that one poll names (Xen's limit).
pub const POLL_PORTS: u32 = 128;

/// `struct sched_shutdown`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Shutdown {
    /// `REASON_*`.
    pub reason: u32,
}

/// `struct sched_poll`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Poll {
    /// Array of `u32` ports.
    pub ports: Handle,
    /// How many.
    pub count: u32,
    /// Padding.
    pub reserved: u32,
    /// Nanoseconds of system time at which to give up; 0: never.
    pub timeout: u64,
}

/// `struct sched_remote_shutdown`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoteShutdown {
    /// Whom.
    pub domain: DomainId,
    /// Padding.
    pub reserved: u16,
    /// `REASON_*`.
    pub reason: u32,
}

/// `struct sched_watchdog`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Watchdog {
    /// Which timer; 0 makes a new one.
    pub id: u32,
    /// Seconds; 0 ends it.
    pub timeout: u32,
}

const _: () = {
    assert!(size_of::<Poll>() == 24);
    assert!(offset_of!(Poll, timeout) == 16);
    assert!(size_of::<RemoteShutdown>() == 8);
};
