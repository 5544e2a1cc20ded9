//! A machine of memory in a `Vec` and scripted CPUs, so that the hypervisor's core runs on a
//! workstation: under tests, under Miri, under fuzzers.
//!
//! What it is: [`Fake`] implements [`hypervisor::Machine`] and records what is done to it.
//! [`Board`] describes a machine with its plan, small enough to be checked frame by frame.
//! [`Guest`] plays a guest: it reads and writes memory through stage 2 and makes hypercalls, over
//! and over where the core says so.
//!
//! Under Miri: `MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p terrane-machine-fake`
//! (proptest reads its environment); the tests make fewer cases there.
//!
//! What it isn't: an emulator. No instruction is executed; a guest's virtual addresses are its
//! physical ones.
#![forbid(unsafe_code)]

mod board;
mod guest;
mod invariants;
mod machine;
mod memory;

pub use board::{Board, DEVICES, DomainSpec, HARDWARE, NO_ROLE, RAM_START};
pub use guest::{Guest, Stopped};
pub use machine::{CLOCK, Fake, FakeDomain, FakeVcpu, Power, VcpuState};
pub use memory::Memory;
