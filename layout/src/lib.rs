//! Which domain gets which machine frames, where it sees them, and why not.
//!
//! This is the one planner of the workstation's command and of the hypervisor: both call
//! [`plan`] with a [`HostMap`] and a [`SystemRequest`] and get the same [`Outcome`] for the
//! same input. It knows addresses, domain kinds and placement. It doesn't know any
//! architecture's registers, any file format or any allocator.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod address;
pub mod conflict;
pub mod diagnose;
pub mod domain;
pub mod fixed;
pub mod host;
pub mod need;
pub mod plan;
pub mod planner;
pub mod reach;
pub mod request;
mod size;
mod sort;

pub use address::{
    ByteRange, Extent, FRAME_SHIFT, FRAME_SIZE, Gfn, GfnRange, GuestAddress, GuestRange,
    MachineAddress, MachineRange, Mfn, MfnRange,
};
pub use conflict::{Code, Conflict, Severity, Side};
pub use diagnose::diagnose;
pub use domain::{Capabilities, DirectMap, Identity, Kind, MemoryFeature, PopulateRule};
pub use host::{
    Architecture, BootKind, BootRange, Controller, ControllerKind, Dma, DmaWindow, HostCpu,
    HostDevice, HostMap, Iommu, Located, Origin, RamBank, Reservation, Reserved,
};
pub use plan::{
    Bank, Copy, DomainPlan, HypervisorPlan, Item, Outcome, Owned, Owner, Placement, Plan, Refusal,
};
pub use planner::plan;
pub use request::{
    DeviceRequest, DomainRequest, EventChannelRequest, HypervisorRequest, KernelRequest, Limits,
    MemoryRequest, ModuleRequest, OnConflict, OnStop, OnStrayAccess, Policies, Scrub, ShareRole,
    SharedMemoryRequest, StaticRange, SystemRequest,
};
pub use size::Size;
