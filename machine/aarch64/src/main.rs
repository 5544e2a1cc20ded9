//! The hypervisor image. All of it is in the library; the linker script begins it at `_start`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use machine_aarch64 as _;

/// A workstation builds the workspace too; there is nothing to run there.
#[cfg(not(target_os = "none"))]
fn main() {}
