//! A bare-metal guest that reports what a domain sees, one `key=value` a line, tests it, and ends as its boot arguments
//! say. docs/guests.md has the keys.
//!
//! It tests that things are there and work; what a domain must not be able to do is the attacker's matter.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod checks;
#[cfg(target_os = "none")]
mod guest;

#[cfg(not(target_os = "none"))]
fn main() {}
