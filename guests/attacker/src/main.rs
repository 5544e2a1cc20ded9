//! A bare-metal guest that tries everything a domain must not be able to do, by CPU alone: stray accesses, garbage
//! hypercalls, every system register, every conduit, the interrupt controller's registers.
//!
//! It judges what it can see from inside: that a stray access gives an abort or ones, that no register of a higher level
//! is open, that it can go on. Whether the others lived, the harness judges. It has no DMA device: what those reach is
//! the plan's security statement. Without a hypervisor it runs too, as a test of itself.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod code;
#[cfg(target_os = "none")]
mod controller;
#[cfg(target_os = "none")]
mod crowd;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod hypercalls;
#[cfg(target_os = "none")]
mod instructions;
#[cfg(target_os = "none")]
mod stray;
#[cfg(target_os = "none")]
mod sysregs;
#[cfg(target_os = "none")]
mod tables;
#[cfg(target_os = "none")]
mod watchdog;

#[cfg(not(target_os = "none"))]
fn main() {}
