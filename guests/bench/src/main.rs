//! A bare-metal guest that counts what one trap of each kind costs, in instructions.
//!
//! It is for QEMU with one CPU and `-icount shift=0,sleep=off`: there a nanosecond of the guest's clock is an
//! instruction, whoever runs it. It measures; what a domain sees is the probe's matter.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod aarch64;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86_64;

#[cfg(not(target_os = "none"))]
fn main() {}
