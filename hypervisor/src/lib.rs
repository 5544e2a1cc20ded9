//! The arch-neutral core of the hypervisor: who owns which frames, domains, vCPUs, hypercalls,
//! events, grants, console.
//!
//! It is safe Rust over one trait, [`Machine`], and makes no placement decision: domains are built
//! exactly as the plan says. It knows no architecture, reads no file format, and never waits for
//! another CPU.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod console;
pub mod machine;
pub mod ownership;

mod build;
mod caller;
mod domain;
mod event;
mod grant;
mod guest;
mod hypercall;
mod life;
mod sorted;
mod stray;
mod system;
mod timer;

pub use caller::Caller;
pub use domain::{Domain, Setup, Vcpu};
pub use life::{CAUSE_LENGTH, Reason, StartError};
pub use machine::{
    Access, BadContext, CacheFlush, Direction, Facts, GuestFault, Machine, MapError, Mapping, Next,
    NotSupported, PhysicalCpu, Start, StrayAction,
};
pub use ownership::{Claim, DomainIndex, Holding, Owner, Ownership};
pub use system::{BuildError, System};
