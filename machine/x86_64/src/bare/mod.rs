//! The bare-metal half: everything that needs the CPU.

pub mod boot;
pub mod console;
pub mod cpu;
pub mod entry;
pub mod exceptions;
pub mod heap;
pub mod mmu;
pub mod panic;
