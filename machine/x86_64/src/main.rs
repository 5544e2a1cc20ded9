//! The hypervisor image. All of it is in the library; the boot loader enters it in `bare/entry.s`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use machine_x86_64 as _;

/// A workstation builds the workspace too; there is nothing to run there.
#[cfg(not(target_os = "none"))]
fn main() {}
