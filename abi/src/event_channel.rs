//! `event_channel_op` (`event_channel.h`), two-level form.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DomainId;

/// `EVTCHNOP_bind_interdomain`.
pub const BIND_INTERDOMAIN: u64 = 0;
/// `EVTCHNOP_bind_virq`.
pub const BIND_VIRQ: u64 = 1;
/// `EVTCHNOP_bind_pirq`: x86 PV's physical interrupts.
pub const BIND_PIRQ: u64 = 2;
/// `EVTCHNOP_close`.
pub const CLOSE: u64 = 3;
/// `EVTCHNOP_send`.
pub const SEND: u64 = 4;
/// `EVTCHNOP_status`.
pub const STATUS: u64 = 5;
/// `EVTCHNOP_alloc_unbound`.
pub const ALLOC_UNBOUND: u64 = 6;
/// `EVTCHNOP_bind_ipi`.
pub const BIND_IPI: u64 = 7;
/// `EVTCHNOP_bind_vcpu`.
pub const BIND_VCPU: u64 = 8;
/// `EVTCHNOP_unmask`.
pub const UNMASK: u64 = 9;
/// `EVTCHNOP_reset`.
pub const RESET: u64 = 10;
/// `EVTCHNOP_init_control`: the FIFO form.
pub const INIT_CONTROL: u64 = 11;
/// `EVTCHNOP_expand_array`: the FIFO form.
pub const EXPAND_ARRAY: u64 = 12;
/// `EVTCHNOP_set_priority`: the FIFO form.
pub const SET_PRIORITY: u64 = 13;

/// Ports of the two-level form with 64-bit words, port 0 included (`EVTCHN_2L_NR_CHANNELS`).
pub const PORTS: u32 = 4096;

/// `EVTCHNSTAT_closed`.
pub const STATUS_CLOSED: u32 = 0;
/// `EVTCHNSTAT_unbound`.
pub const STATUS_UNBOUND: u32 = 1;
/// `EVTCHNSTAT_interdomain`.
pub const STATUS_INTERDOMAIN: u32 = 2;
/// `EVTCHNSTAT_virq`.
pub const STATUS_VIRQ: u32 = 4;
/// `EVTCHNSTAT_ipi`.
pub const STATUS_IPI: u32 = 5;

/// `VIRQ_TIMER`: the vCPU's one-shot or periodic timer ran out. One per vCPU.
pub const VIRQ_TIMER: u32 = 0;
/// `VIRQ_DEBUG`: the guest is asked for its state. One per vCPU.
pub const VIRQ_DEBUG: u32 = 1;
/// `VIRQ_CONSOLE`: there is input on the console.
pub const VIRQ_CONSOLE: u32 = 2;
/// `VIRQ_DOM_EXC`: another domain ended.
pub const VIRQ_DOMAIN_EXCEPTION: u32 = 3;
/// `VIRQ_XENOPROF`. One per vCPU.
pub const VIRQ_XENOPROF: u32 = 7;
/// `VIRQ_ARGO`: one per domain that any domain may bind.
pub const VIRQ_ARGO: u32 = 11;
/// `VIRQ_XENPMU`. One per vCPU.
pub const VIRQ_XENPMU: u32 = 13;
/// How many there are (`NR_VIRQS`).
pub const VIRQ_COUNT: u32 = 24;

/// `struct evtchn_alloc_unbound`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllocUnbound {
    /// In: who gets the port.
    pub domain: DomainId,
    /// In: who may bind to it.
    pub remote: DomainId,
    /// Out: the port.
    pub port: u32,
}

/// `struct evtchn_bind_interdomain`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindInterdomain {
    /// In: the other domain.
    pub remote: DomainId,
    /// Padding.
    pub reserved: u16,
    /// In: its unbound port.
    pub remote_port: u32,
    /// Out: the caller's port.
    pub port: u32,
}

/// `struct evtchn_bind_virq`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVirq {
    /// In: `VIRQ_*`.
    pub virq: u32,
    /// In: the vCPU.
    pub vcpu: u32,
    /// Out: the port.
    pub port: u32,
}

/// `struct evtchn_bind_ipi`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindIpi {
    /// In: the vCPU that is notified.
    pub vcpu: u32,
    /// Out: the port.
    pub port: u32,
}

/// `struct evtchn_close`, `struct evtchn_send`, `struct evtchn_unmask`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Port {
    /// The port.
    pub port: u32,
}

/// `struct evtchn_bind_vcpu`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVcpu {
    /// The port.
    pub port: u32,
    /// The vCPU that is notified from now on.
    pub vcpu: u32,
}

/// `struct evtchn_reset`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reset {
    /// Whose ports are closed.
    pub domain: DomainId,
}

/// `struct evtchn_status`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Status {
    /// In: whose port.
    pub domain: DomainId,
    /// Padding.
    pub reserved: u16,
    /// In: the port.
    pub port: u32,
    /// Out: `STATUS_*`.
    pub status: u32,
    /// Out: the vCPU that is notified.
    pub vcpu: u32,
    /// Out: unbound and interdomain: the other domain's number; VIRQ: its number.
    pub detail: u32,
    /// Out: interdomain: the other port.
    pub remote_port: u32,
}

const _: () = {
    assert!(size_of::<AllocUnbound>() == 8);
    assert!(size_of::<BindInterdomain>() == 12);
    assert!(size_of::<BindVirq>() == 12);
    assert!(size_of::<BindIpi>() == 8);
    assert!(size_of::<Reset>() == 2);
    assert!(size_of::<Status>() == 24);
    assert!(offset_of!(Status, detail) == 16);
};
