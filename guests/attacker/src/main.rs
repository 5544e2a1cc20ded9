//! A bare-metal guest that tries everything a domain must not be able to do, by CPU alone: stray accesses, garbage
//! hypercalls, every system register, every port, the interrupt controller's registers.
//!
//! It judges what it can see from inside: that a stray access gives a fault or ones, that no register of a higher level
//! is open, that it can go on. Whether the others lived, the harness judges. It has no DMA device: what those reach is
//! the plan's security statement. Without a hypervisor it runs too, as a test of itself.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod aarch64;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
use aarch64 as arch;
#[cfg(target_os = "none")]
mod common;
#[cfg(target_os = "none")]
mod hypercalls;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86_64;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
use x86_64 as arch;

#[cfg(not(target_os = "none"))]
fn main() {}
