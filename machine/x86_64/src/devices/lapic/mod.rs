//! The local APIC that a vCPU sees: one state behind two interfaces, registers in memory (xAPIC) and MSRs (x2APIC).
//!
//! All of it is software's: the physical local APIC belongs to the hypervisor, which takes every physical interrupt
//! and puts its vector here. What another CPU may touch of a vCPU's APIC is its [`Inbox`], atomics only; everything
//! else is its own CPU's. No lock, no allocation after the start.
//!
//! Not here: the 8259A and its INTR line (no domain has one), AMD's extended registers, directed end of interrupt.
//!
//! Intel SDM vol. 3A, "Advanced Programmable Interrupt Controller (APIC)", for x2APIC its "Extended XAPIC (x2APIC)";
//! AMD APM vol. 2, sections 16.3 to 16.6 and 16.11 on.
#![allow(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of registers, and are as wide as the type that takes them"
)]

mod command;
mod inbox;
mod registers;
mod timer;

#[cfg(test)]
mod tests;

pub use inbox::{Apics, Events, Inbox};
pub use registers::{
    BASE_ADDRESS, MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC_FIRST, MSR_X2APIC_LAST,
};
use timer::Timer;

/// What an APIC needs of its surroundings.
pub trait Platform {
    /// The guest's time-stamp counter, which is the host's.
    fn tsc(&self) -> u64;
    /// Makes the CPU of that vCPU look into its inbox. Never called for the APIC's own vCPU.
    fn kick(&self, vcpu: usize);
    /// The guest ended a level-triggered interrupt: the broadcast to IO-APICs.
    fn level_ended(&self, vcpu: usize, vector: u8);
}

/// An access that the guest gets #GP(0) for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneralProtection;

/// Which interface is on: IA32_APIC_BASE.EN and EXTD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Neither: the APIC takes no fixed interrupts.
    Disabled,
    /// Registers in memory at [`BASE_ADDRESS`].
    XApic,
    /// MSRs [`MSR_X2APIC_FIRST`] to [`MSR_X2APIC_LAST`].
    X2Apic,
}

/// Places in the local vector table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

const LVT_ENTRIES: usize = 6;
const LVT_MASKED: u32 = 1 << 16;
const SVR_ENABLE: u32 = 1 << 8;

/// Error status register bits.
mod error {
    pub(super) const SEND_ILLEGAL: u32 = 1 << 5;
    pub(super) const RECEIVE_ILLEGAL: u32 = 1 << 6;
    pub(super) const REGISTER: u32 = 1 << 7;
}

/// The local APIC of one vCPU; its own CPU's alone, but for its [`Inbox`] in [`Apics`].
#[derive(Debug)]
pub struct LocalApic<'a> {
    apics: &'a Apics,
    vcpu: usize,
    task_priority: u32,
    /// In service: a bit for each vector.
    in_service: [u32; 8],
    spurious: u32,
    lvt: [u32; LVT_ENTRIES],
    /// The two halves of the interrupt command register, as last written.
    command: [u32; 2],
    /// Errors since the last write of the status register, and what that write showed.
    errors: u32,
    error_status: u32,
    timer: Timer,
}

impl<'a> LocalApic<'a> {
    /// The APIC of vCPU `vcpu`, as it is after a reset; `None` if there is no such vCPU. The timer counts once in
    /// `tsc_per_tick` counts of the TSC, at least 1; its divider comes on top.
    #[must_use]
    pub fn new(apics: &'a Apics, vcpu: usize, tsc_per_tick: u32) -> Option<Self> {
        apics.inbox(vcpu)?;
        Some(Self {
            apics,
            vcpu,
            task_priority: 0,
            in_service: [0; 8],
            spurious: 0xff,
            lvt: [LVT_MASKED; LVT_ENTRIES],
            command: [0; 2],
            errors: 0,
            error_status: 0,
            timer: Timer::new(tsc_per_tick.max(1)),
        })
    }

    fn inbox(&self) -> &'a Inbox {
        &self.apics.inboxes[self.vcpu]
    }

    /// What INIT does: all registers but APIC ID and IA32_APIC_BASE are as after a reset, nothing is pending.
    pub fn init(&mut self) {
        self.task_priority = 0;
        self.in_service = [0; 8];
        self.spurious = 0xff;
        self.lvt = [LVT_MASKED; LVT_ENTRIES];
        self.command = [0; 2];
        self.errors = 0;
        self.error_status = 0;
        self.timer.stop();
        self.inbox().clear();
    }

    /// The state after a reset of the machine: as after INIT, with the xAPIC on.
    pub fn reset(&mut self) {
        self.inbox().forget_upcall();
        self.init();
        self.inbox().set_mode(Mode::XApic);
        self.inbox().take_events();
    }

    /// Which interface is on.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.inbox().mode()
    }

    /// The task priority as CR8 has it, 0 to 15.
    #[must_use]
    pub fn cr8(&self) -> u8 {
        (self.task_priority >> 4) as u8 & 0xf
    }

    /// The guest moved `priority` to CR8; bits above the fourth are dropped.
    pub fn set_cr8(&mut self, priority: u8) {
        self.task_priority = u32::from(priority & 0xf) << 4;
    }

    /// The processor priority: the higher of the task priority and the class of what is in service.
    #[must_use]
    pub fn processor_priority(&self) -> u8 {
        let service = highest(&self.in_service).unwrap_or(0) & 0xf0;
        let task = self.task_priority as u8;
        if task & 0xf0 >= service {
            task
        } else {
            service
        }
    }

    /// The vector that the CPU would take now: the highest pending one whose class is above the processor priority's.
    #[must_use]
    pub fn next(&self) -> Option<u8> {
        let vector = self.inbox().deliverable()?;
        (vector & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// Takes the highest vector above what is in service out of what is pending, for the CPU to take as soon as its task
    /// priority lets it. The same vector may arrive anew from then on.
    pub fn offer(&mut self) -> Option<u8> {
        let vector = self.inbox().deliverable()?;
        let service = highest(&self.in_service).unwrap_or(0);
        let is_above = vector & 0xf0 > service & 0xf0;
        (is_above && self.inbox().take(vector)).then_some(vector)
    }

    /// The CPU took the vector that was offered: it is in service.
    pub fn accept(&mut self, vector: u8) {
        let (word, bit) = place(vector);
        self.in_service[word] |= bit;
    }

    /// The CPU didn't take the vector that was offered: it is pending again.
    pub fn withdraw(&mut self, vector: u8) {
        self.inbox().put_back(vector);
    }

    /// The guest's end of interrupt: the highest vector leaves service.
    pub fn end_of_interrupt(&mut self, platform: &impl Platform) {
        let Some(vector) = highest(&self.in_service) else {
            return;
        };
        let (word, bit) = place(vector);
        self.in_service[word] &= !bit;
        if self.inbox().is_level(vector) {
            platform.level_ended(self.vcpu, vector);
        }
    }

    /// The TSC value at which [`Self::expire`] is to be called, if the timer runs.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.timer.deadline()
    }

    /// Raises the timer's interrupt if its time has come; to be called at [`Self::deadline`], harmless before.
    pub fn expire(&mut self, platform: &impl Platform) {
        if self.timer.expire(platform.tsc()) {
            self.local(Lvt::Timer);
        }
    }

    /// Raises the interrupt of a local vector table entry, unless it is masked.
    fn local(&mut self, source: Lvt) {
        let entry = self.lvt[source as usize];
        if entry & LVT_MASKED == 0 && !self.inbox().post(entry as u8, false) {
            self.errors |= error::RECEIVE_ILLEGAL;
        }
    }

    /// Notes an error and raises the error interrupt.
    fn error(&mut self, bit: u32) {
        self.errors |= bit;
        self.local(Lvt::Error);
    }
}

/// Where a vector's bit is in eight words.
const fn place(vector: u8) -> (usize, u32) {
    (vector as usize / 32, 1 << (vector % 32))
}

/// The highest vector of a set.
fn highest(words: &[u32; 8]) -> Option<u8> {
    words
        .iter()
        .enumerate()
        .rev()
        .find(|(_, bits)| **bits != 0)
        .map(|(word, bits)| (word as u32 * 32 + bits.ilog2()) as u8)
}
