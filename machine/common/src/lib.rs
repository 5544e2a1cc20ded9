//! Memory on the bare machine: what the hypervisor hands out to itself, its heap and pages for translation tables, and
//! what it reads and writes of domains'.
//!
//! What the machine crates would otherwise have each for itself, because it needs `unsafe` and no CPU. Which memory it is
//! they decide; so all of this runs under tests and Miri on a workstation.
#![cfg_attr(not(test), no_std)]

mod heap;
pub mod memory;
pub mod pool;
mod tables;

pub use heap::Heap;
pub use pool::Pool;
pub use tables::{DomainTables, Translations};
