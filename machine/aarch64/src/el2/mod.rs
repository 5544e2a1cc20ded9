//! The bare-metal half: everything that needs the CPU at EL2.

pub mod boot;
pub mod cache;
pub mod entry;
pub mod heap;
pub mod mmu;
pub mod panic;
pub mod pool;
pub mod smp;
pub mod uart;
