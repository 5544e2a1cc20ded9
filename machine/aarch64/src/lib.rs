//! Terrane's arm64 machine: the CPU at EL2, its MMU, interrupts and firmware.
//!
//! Whatever can be decided without the CPU is a plain module here and tested on a workstation.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod gic;
pub mod vgic;
