//! Terrane's arm64 machine: the CPU at EL2, its MMU, interrupts and firmware.
//!
//! Whatever can be decided without the CPU is a plain module here and tested on a workstation;
//! [`el2`] holds the rest and exists in the bare-metal program only.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod descriptor;
pub mod esr;
pub mod exception;
pub mod gic;
pub mod idregs;
pub mod smccc;
pub mod stage1;
pub mod stage2;
pub mod sysregs;
pub mod vgic;
pub mod vpl011;

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod el2;
