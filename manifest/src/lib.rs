//! How a system is described: host device trees, Xen's dom0less binding, our TOML manifest.
//!
//! Descriptions become a [`layout::HostMap`] and a [`layout::SystemRequest`]; where anything is placed is
//! `layout`'s to decide. The tree half is `no_std` and runs in the hypervisor; the TOML half (feature `std`) runs
//! on the workstation only.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "std")]
pub mod capture;
pub mod container;
#[cfg(feature = "std")]
pub mod dts;
#[cfg(feature = "std")]
pub mod files;
pub mod image;
#[cfg(feature = "std")]
pub mod imagebuilder;
mod json;
#[cfg(feature = "std")]
pub mod kernel;
pub mod origin;
pub mod pc;
pub mod plan_json;
pub mod report;
#[cfg(feature = "std")]
pub mod toml;
pub mod tree;
