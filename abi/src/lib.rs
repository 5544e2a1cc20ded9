//! Xen's public interface as Rust types: hypercall numbers, structures, error codes. No behaviour.
//!
//! Facts come from Xen's public headers (`xen/include/public/`, licensed for reuse by any guest);
//! each module names its header. Everything is little-endian and 64-bit, as all architectures of
//! this project are; where x86-64 differs from arm64 and riscv64, the difference is a value
//! ([`shared_info::Layout`]) and not a second set of types.
//!
//! Structures have explicit padding, so that a copy to a guest never carries bytes that nobody
//! wrote. Sizes and offsets are asserted when the crate is compiled.
#![no_std]
#![forbid(unsafe_code)]

pub mod console;
pub mod domain_id;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod grant_table;
pub mod hvm;
pub mod hvm_vcpu;
pub mod memory;
pub mod multicall;
pub mod number;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod shared_info;
pub mod vcpu;
pub mod version;

pub use domain_id::DomainId;
pub use errno::Errno;

/// A guest handle: the guest-virtual address of a buffer (`XEN_GUEST_HANDLE`).
pub type Handle = u64;

/// Size of the frames that the interface counts in, on every architecture.
pub const PAGE_SIZE: u64 = 4096;
