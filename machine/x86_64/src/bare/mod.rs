//! The bare-metal half: everything that needs the CPU.

pub mod apic;
pub mod boot;
pub mod build;
pub mod capture;
pub mod console;
pub mod cpu;
pub mod domain;
pub mod entry;
pub mod exceptions;
pub mod exit;
pub mod exits;
pub mod heap;
pub mod inject;
pub mod instructions;
pub mod launch;
pub mod machine;
pub mod memory;
pub mod mmu;
pub mod panic;
pub mod platform;
pub mod run;
pub mod smp;
pub mod timer;
pub mod tsc;
pub mod vcpu;
pub mod vmrun;
