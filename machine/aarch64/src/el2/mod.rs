//! The bare-metal half: everything that needs the CPU at EL2.

pub mod abort;
pub mod boot;
pub mod build;
pub mod cache;
pub mod calls;
pub mod cpu;
pub mod domain;
pub mod entry;
pub mod firmware;
pub mod heap;
pub mod inject;
pub mod launch;
pub mod machine;
pub mod memory;
pub mod mmu;
pub mod panic;
pub mod registers;
pub mod run;
pub mod smp;
pub mod sysreg;
pub mod trap;
pub mod uart;
pub mod vcpu;
pub mod vectors;
