//! `vcpu_op` (`vcpu.h`).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `VCPUOP_initialise`: gives a PV vCPU its registers.
pub const INITIALISE: u64 = 0;
/// `VCPUOP_up`: starts it.
pub const UP: u64 = 1;
/// `VCPUOP_down`: stops it.
pub const DOWN: u64 = 2;
/// `VCPUOP_is_up`: whether it runs.
pub const IS_UP: u64 = 3;
/// `VCPUOP_get_runstate_info`: [`RunstateInfo`].
pub const GET_RUNSTATE_INFO: u64 = 4;
/// `VCPUOP_register_runstate_memory_area`: by virtual address.
pub const REGISTER_RUNSTATE_MEMORY_AREA: u64 = 5;
/// `VCPUOP_set_periodic_timer`.
pub const SET_PERIODIC_TIMER: u64 = 6;
/// `VCPUOP_stop_periodic_timer`.
pub const STOP_PERIODIC_TIMER: u64 = 7;
/// `VCPUOP_set_singleshot_timer`.
pub const SET_SINGLESHOT_TIMER: u64 = 8;
/// `VCPUOP_stop_singleshot_timer`.
pub const STOP_SINGLESHOT_TIMER: u64 = 9;
/// `VCPUOP_register_vcpu_info`: [`RegisterInfo`].
pub const REGISTER_VCPU_INFO: u64 = 10;
/// `VCPUOP_send_nmi`: x86.
pub const SEND_NMI: u64 = 11;
/// `VCPUOP_get_physid`: x86, a hardware domain whose vCPUs are pinned.
pub const GET_PHYSID: u64 = 12;
/// `VCPUOP_register_vcpu_time_memory_area`: by virtual address.
pub const REGISTER_TIME_MEMORY_AREA: u64 = 13;
/// `VCPUOP_register_runstate_phys_area`: by guest-physical address.
pub const REGISTER_RUNSTATE_PHYS_AREA: u64 = 14;
/// `VCPUOP_register_vcpu_time_phys_area`: by guest-physical address.
pub const REGISTER_TIME_PHYS_AREA: u64 = 15;

/// `RUNSTATE_running`.
pub const RUNNING: i32 = 0;
/// `RUNSTATE_offline`.
pub const OFFLINE: i32 = 3;
/// `XEN_RUNSTATE_UPDATE`: the record is being written.
pub const RUNSTATE_UPDATE: u64 = 1 << 63;

/// `VCPU_SSHOTTMR_future`: refuse a time that has passed.
pub const TIMER_FUTURE: u32 = 1;

/// `struct vcpu_runstate_info`, in the layout of 64-bit guests.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RunstateInfo {
    /// The state now.
    pub state: i32,
    /// Padding.
    pub reserved: u32,
    /// Since when, in nanoseconds of system time.
    pub entry_time: u64,
    /// Nanoseconds spent running, runnable, blocked, offline.
    pub time: [u64; 4],
}

/// `struct vcpu_register_vcpu_info`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterInfo {
    /// The guest page that holds it.
    pub gfn: u64,
    /// Its place in the page.
    pub offset: u32,
    /// Padding.
    pub reserved: u32,
}

/// `struct vcpu_register_runstate_memory_area` and its kin: one address.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterArea {
    /// Virtual or guest-physical, as the operation says.
    pub address: u64,
}

/// `struct vcpu_set_periodic_timer`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetPeriodicTimer {
    /// Nanoseconds between two ticks.
    pub period: u64,
}

/// `struct vcpu_set_singleshot_timer`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetSingleshotTimer {
    /// When, in nanoseconds of system time.
    pub deadline: u64,
    /// [`TIMER_FUTURE`].
    pub flags: u32,
    /// Padding.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<RunstateInfo>() == 48);
    assert!(offset_of!(RunstateInfo, entry_time) == 8);
    assert!(size_of::<RegisterInfo>() == 16);
    assert!(size_of::<SetSingleshotTimer>() == 16);
};
