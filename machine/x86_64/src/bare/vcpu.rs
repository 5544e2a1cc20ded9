//! A vCPU: where it is pinned, how it is started, and its registers.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use hypervisor::Start;
use spin::Mutex;

use super::domain::Domain;
use super::platform::{self, VirtualApic};
use super::vmrun::Registers;
use super::{cpu, instructions, mmu, vmrun};
use crate::guest_walk::Paging;
use crate::svm::context::{self, Wanted};
use crate::svm::event::{Event, Interrupted, interrupted, vector};
use crate::svm::field::Field64;
use crate::svm::vmcb::{NESTED_PAGING, Vmcb, clean, interrupt};
use crate::svm::{efer, intercept, rflags, start};

/// Numbers of the general registers.
pub mod register {
    /// RAX.
    pub const RAX: usize = 0;
    /// RCX.
    pub const RCX: usize = 1;
    /// RDX.
    pub const RDX: usize = 2;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RSI.
    pub const RSI: usize = 6;
    /// RDI.
    pub const RDI: usize = 7;
    /// R8.
    pub const R8: usize = 8;
    /// R10.
    pub const R10: usize = 10;
}

/// How a vCPU begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin {
    /// As a PVH kernel's first vCPU.
    Entry(Start),
    /// With registers that a hypercall gave.
    Registers(Wanted),
}

/// The machine's half of a vCPU. Other CPUs leave word in it; everything else is its own CPU's.
pub struct Vcpu {
    /// Its index in its domain.
    pub index: usize,
    /// The CPU that it is pinned to, by index in the host map.
    pub cpu: usize,
    /// Its local APIC.
    pub apic: VirtualApic,
    /// Its control block.
    pub block: Box<Vmcb>,
    /// Its general registers but RAX and RSP.
    pub registers: Registers,
    /// The interrupt word of the block as the guest was last entered with it.
    pub entered: Field64,
    /// An NMI waits for being injected.
    pub nmi: AtomicBool,
    start: Mutex<Option<Begin>>,
    initialised: Mutex<Option<Wanted>>,
    kicked: AtomicBool,
    /// Somebody has left an upcall, a timer or a word since its CPU last looked around. Other CPUs send an interrupt as
    /// well; this is for what a hypercall of its own leaves.
    changed: AtomicBool,
}

impl Vcpu {
    /// A vCPU that is off.
    pub fn new(index: usize, cpu: usize, apic: VirtualApic) -> Self {
        Self {
            index,
            cpu,
            apic,
            block: Box::new(Vmcb::zeroed()),
            registers: Registers::default(),
            entered: Field64::new(0),
            nmi: AtomicBool::new(false),
            start: Mutex::new(None),
            initialised: Mutex::new(None),
            kicked: AtomicBool::new(false),
            changed: AtomicBool::new(false),
        }
    }

    /// The registers that decide how its guest's addresses are translated.
    pub fn paging(&self) -> Paging {
        let state = &self.block.state;
        Paging {
            cr0: state.cr0.get(),
            cr3: state.cr3.get(),
            cr4: state.cr4.get(),
            efer: state.efer.get(),
        }
    }

    /// Machine address of its control block.
    pub fn block_address(&self) -> u64 {
        mmu::machine_address(&raw const *self.block)
    }

    /// A general register by its number, below 16.
    pub fn register(&self, number: usize) -> u64 {
        match number {
            register::RAX => self.block.state.rax.get(),
            register::RSP => self.block.state.rsp.get(),
            _ => self.registers.0.get(number).map_or(0, Field64::get),
        }
    }

    /// Gives a general register a value.
    pub fn set_register(&self, number: usize, value: u64) {
        match number {
            register::RAX => self.block.state.rax.set(value),
            register::RSP => self.block.state.rsp.set(value),
            _ => {
                if let Some(register) = self.registers.0.get(number) {
                    register.set(value);
                }
            }
        }
    }

    /// Gives a register the low 32 bits of a value, zeroes above.
    pub fn set_low(&self, number: usize, value: u32) {
        self.set_register(number, u64::from(value));
    }

    /// The hypervisor has changed parts of the block: bits of [`clean`].
    pub fn touch(&self, parts: u32) {
        let control = &self.block.control;
        control.clean.set(control.clean.get() & !parts);
    }

    /// Whether it executes in 64-bit mode.
    pub fn is_64_bit(&self) -> bool {
        const LONG: u16 = 1 << 9;
        let state = &self.block.state;
        state.efer.get() & efer::LMA != 0 && state.cs.attributes.get() & LONG != 0
    }

    /// Steps over the instruction that exited, which ends at `next`.
    pub fn advance_to(&self, next: u64) {
        let state = &self.block.state;
        let mask = if self.is_64_bit() {
            u64::MAX
        } else {
            0xffff_ffff
        };
        state.rip.set(next & mask);
        self.block.control.shadow.set(0);
        let flags = state.rflags.get();
        if flags & (rflags::RF | rflags::TF) != 0 {
            state.rflags.set(flags & !rflags::RF);
            if flags & rflags::TF != 0 {
                const SINGLE_STEP: u64 = 1 << 14;
                state.dr6.set(state.dr6.get() | SINGLE_STEP);
                self.touch(clean::DEBUG);
                self.inject(Event::exception(vector::DB));
            }
        }
    }

    /// Steps over the instruction that exited, which has `length` bytes without prefixes.
    pub fn advance(&self, length: u64) {
        let next = if cpu::this().features.next_rip {
            self.block.control.next_rip.get()
        } else {
            self.block.state.rip.get().wrapping_add(length)
        };
        self.advance_to(next);
    }

    /// Has the next entry deliver an exception, on top of what was being delivered.
    pub fn inject(&self, event: Event) {
        let field = &self.block.control.event;
        let before = match interrupted(field.get()) {
            Interrupted::Again(before) => Some(before),
            Interrupted::Nothing => None,
        };
        field.set(event.after(before).raw());
    }

    /// Leaves word for its CPU to start it.
    pub fn request_start(&self, start: Start) {
        *self.start.lock() = Some(Begin::Entry(start));
    }

    /// Keeps registers with which it is to start.
    pub fn initialise(&self, wanted: Wanted) {
        *self.initialised.lock() = Some(wanted);
    }

    /// Leaves word for its CPU to start it with the registers of `initialise`.
    pub fn request_initialised(&self) {
        let wanted = self.initialised.lock().take();
        *self.start.lock() = wanted.map(Begin::Registers);
    }

    /// Takes the word that `request_start` or `request_initialised` left.
    pub fn take_start(&self) -> Option<Begin> {
        self.start.lock().take()
    }

    /// Has its CPU look around after the hypercall that it is in.
    pub fn change(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Takes the word that `change` left.
    pub fn take_change(&self) -> bool {
        self.changed.load(Ordering::Relaxed) && self.changed.swap(false, Ordering::Acquire)
    }

    /// Leaves word for its CPU to ask the core what to do.
    pub fn request_kick(&self) {
        self.kicked.store(true, Ordering::Release);
        self.change();
    }

    /// Takes the word that `request_kick` left.
    pub fn take_kick(&self) -> bool {
        self.kicked.load(Ordering::Relaxed) && self.kicked.swap(false, Ordering::Acquire)
    }

    /// Fills in what of its control block never changes. On its own CPU, before the guest runs.
    pub fn prepare(&self, domain: &Domain) {
        /// The guest's address space identifier: 0 is the host's, and a CPU has one vCPU.
        const ASID: u32 = 1;
        let control = &self.block.control;
        intercept::set(control);
        control
            .port_map
            .set(mmu::machine_address(domain.ports.as_ptr()));
        control
            .msr_map
            .set(mmu::machine_address(domain.msrs.as_ptr()));
        control.asid.set(ASID);
        control.interrupt.set(interrupt::MASKING);
        control.nested_paging.set(NESTED_PAGING);
        control.nested_root.set(domain.root());
    }

    /// Its first state. On its own CPU.
    pub fn begin(&self, begin: &Begin) {
        self.reset();
        platform::init(&self.apic);
        instructions::reset_extended_state();
        match begin {
            Begin::Entry(wanted) => {
                // The entry lies below 4 GiB: the planner keeps PVH kernels there.
                start::pvh(&self.block, (wanted.entry.raw() & 0xffff_ffff) as u32);
                self.set_register(register::RBX, wanted.argument);
            }
            Begin::Registers(wanted) => {
                for (number, value) in context::apply(&self.block, wanted).into_iter().enumerate() {
                    self.set_register(number, value);
                }
            }
        }
        self.load();
    }

    /// Its state as start-up at `page` begins. On its own CPU.
    pub fn reset_to_page(&self, page: u8) {
        const EDX_AT_RESET: u64 = 0x0080_0f12;
        self.reset();
        start::real_mode(&self.block, page);
        self.set_register(register::RDX, EDX_AT_RESET);
        self.load();
    }

    fn reset(&self) {
        for register in &self.registers.0 {
            register.set(0);
        }
        // An NMI that an earlier run handled ends with it.
        intercept::set(&self.block.control);
        self.nmi.store(false, Ordering::Relaxed);
        self.entered.set(interrupt::MASKING);
        cpu::this().forget_translations();
    }

    fn load(&self) {
        // SAFETY: the block is a VMCB; the hypervisor doesn't use what is loaded (`super::vmrun`).
        unsafe { vmrun::load(self.block_address()) };
    }
}
