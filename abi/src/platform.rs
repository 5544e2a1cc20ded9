//! `platform_op` (`platform.h`): the part that a Linux control domain uses on every architecture.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XENPF_settime32`: the wall clock, 32-bit seconds.
pub const SETTIME32: u32 = 17;
/// `XENPF_get_cpuinfo`: [`PhysicalCpu`].
pub const GET_CPUINFO: u32 = 55;
/// `XENPF_settime64`: the wall clock.
pub const SETTIME64: u32 = 62;
/// `XENPF_get_dom0_console`: how firmware left the screen.
pub const GET_CONSOLE: u32 = 64;
/// The version of the structure that the caller has to name.
pub const INTERFACE_VERSION: u32 = 0x0300_0001;

/// The head of `struct xen_platform_op`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// The operation.
    pub command: u32,
    /// [`INTERFACE_VERSION`].
    pub interface_version: u32,
}

/// `struct xenpf_settime64` after the [`Head`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetTime64 {
    /// Seconds since 1970 at the given system time.
    pub seconds: u64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The system time meant, in nanoseconds.
    pub system_time: u64,
}

/// `struct xenpf_settime32` after the [`Head`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetTime32 {
    /// Seconds since 1970 at the given system time.
    pub seconds: u32,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// The system time meant, in nanoseconds.
    pub system_time: u64,
}

/// `struct xenpf_pcpuinfo` after the [`Head`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PhysicalCpu {
    /// In: the CPU's number, from 0.
    pub cpu: u32,
    /// Out: the highest number.
    pub max_present: u32,
    /// Out: `CPU_*`.
    pub flags: u32,
    /// Out: its local APIC's number.
    pub apic_id: u32,
    /// Out: its number in ACPI.
    pub acpi_id: u32,
}

/// `XEN_PCPU_FLAGS_ONLINE`.
pub const CPU_ONLINE: u32 = 1;
/// `XEN_PCPU_FLAGS_INVALID`: there is no such CPU.
pub const CPU_INVALID: u32 = 2;

const _: () = {
    assert!(size_of::<PhysicalCpu>() == 20);
    assert!(size_of::<Head>() == 8);
    assert!(size_of::<SetTime64>() == 24);
    assert!(offset_of!(SetTime64, system_time) == 16);
    assert!(size_of::<SetTime32>() == 16);
};
