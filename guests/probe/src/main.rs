//! A bare-metal guest that reports what a domain sees, one `key=value` a line, tests it, and ends as its boot arguments
//! say. docs/guests.md has the keys.
//!
//! It tests that things are there and work; what a domain must not be able to do is the attacker's matter.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod aarch64;
#[cfg(target_os = "none")]
mod common;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86_64;

#[cfg(not(target_os = "none"))]
fn main() {}
