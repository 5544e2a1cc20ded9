//! `hvm_op` (`hvm/hvm_op.h`, `hvm/params.h`).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DomainId;

/// `HVMOP_set_param`.
pub const SET_PARAM: u64 = 0;
/// `HVMOP_get_param`.
pub const GET_PARAM: u64 = 1;
/// `HVMOP_pagetable_dying`: x86 shadow paging.
pub const PAGETABLE_DYING: u64 = 9;
/// `HVMOP_get_time`.
pub const GET_TIME: u64 = 10;
/// `HVMOP_set_evtchn_upcall_vector`: x86.
pub const SET_UPCALL_VECTOR: u64 = 23;

/// `HVM_PARAM_CALLBACK_IRQ`: how upcalls reach the domain.
pub const PARAM_CALLBACK_IRQ: u32 = 0;
/// `HVM_PARAM_STORE_PFN`: the page of the XenStore ring.
pub const PARAM_STORE_PFN: u32 = 1;
/// `HVM_PARAM_STORE_EVTCHN`: its event channel.
pub const PARAM_STORE_EVTCHN: u32 = 2;
/// `HVM_PARAM_CONSOLE_PFN`: the page of the console ring.
pub const PARAM_CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_CONSOLE_EVTCHN`: its event channel.
pub const PARAM_CONSOLE_EVTCHN: u32 = 18;
/// The first index that is no parameter (`HVM_NR_PARAMS`).
pub const PARAM_COUNT: u32 = 39;

/// `struct xen_hvm_param`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Param {
    /// Whose.
    pub domain: DomainId,
    /// Padding.
    pub reserved: u16,
    /// `PARAM_*`.
    pub index: u32,
    /// In for set, out for get.
    pub value: u64,
}

/// `struct xen_hvm_evtchn_upcall_vector`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UpcallVector {
    /// Which vCPU.
    pub vcpu: u32,
    /// Its vector, 16 or more.
    pub vector: u8,
    /// Padding.
    pub reserved: [u8; 3],
}

const _: () = {
    assert!(size_of::<Param>() == 16);
    assert!(offset_of!(Param, value) == 8);
    assert!(size_of::<UpcallVector>() == 8);
};
