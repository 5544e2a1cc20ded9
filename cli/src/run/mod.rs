//! A system in QEMU, watched: `terrane run`.

pub mod lines;
pub mod outcome;
pub mod sinks;
pub mod supervisor;
pub mod terminal;
