//! Terrane's x86-64 machine: AMD's SVM with nested paging, and the PC around it.
//!
//! Whatever can be decided without the CPU is a plain module here and tested on a workstation;
//! [`bare`] holds the rest and exists in the bare-metal program only.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod boot_info;
pub mod devices;
pub mod discover;
pub mod features;
pub mod first;
pub mod guest_walk;
pub mod mmio;
pub mod npt;
pub mod paging;
pub mod svm;
pub mod time;
pub mod windows;

#[cfg(all(target_arch = "x86_64", target_os = "none"))]
pub mod bare;
