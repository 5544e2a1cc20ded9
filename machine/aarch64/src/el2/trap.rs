//! Traps from a guest: each is sent to what answers it.

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, Readable, Writeable};
use hypervisor::machine::Next;

use super::cpu::{self, Cpu};
use super::vectors::Frame;
use super::{abort, calls, inject, run, sysreg};
use crate::esr::{Syndrome, class};

/// The immediate of Xen's hypercalls: public/arch-arm.h, XEN_HYPERCALL_TAG.
const XEN_HYPERCALL: u64 = 0xea1;

/// A synchronous exception.
pub extern "C" fn synchronous(frame: &mut Frame) {
    let cpu = cpu::this();
    let syndrome = Syndrome(ESR_EL2.get());
    match syndrome.class() {
        class::HVC64 => match syndrome.immediate() {
            XEN_HYPERCALL => hypercall(cpu, frame),
            0 => calls::call(cpu, frame),
            _ => {
                // An HVC returns behind itself; the exception belongs to the instruction.
                ELR_EL2.set(ELR_EL2.get() - 4);
                inject::undefined();
            }
        },
        class::SYSTEM => sysreg::access(cpu, frame, syndrome.system()),
        class::DATA_ABORT => abort::data(cpu, frame, syndrome),
        class::SMC64 => match syndrome.immediate() {
            0 => {
                step();
                calls::call(cpu, frame);
            }
            _ => inject::undefined(),
        },
        class::INSTRUCTION_ABORT => abort::instruction(cpu, frame, syndrome),
        // Instructions of features that the ID registers hide.
        _ => inject::undefined(),
    }
}

fn hypercall(cpu: &Cpu, frame: &mut Frame) {
    let number = frame.x[16];
    let Some(args) = frame.x.first_chunk_mut::<5>() else {
        return;
    };
    match cpu.caller.hypercall(number, args) {
        Next::Advance => {}
        Next::Again => ELR_EL2.set(ELR_EL2.get() - 4),
        next => run::follow(cpu, frame, next),
    }
}

/// Steps over the trapped instruction, which is four bytes long: AArch32 has none that gets here.
pub fn step() {
    ELR_EL2.set(ELR_EL2.get() + 4);
}

/// An interrupt.
pub extern "C" fn interrupt(frame: &mut Frame) {
    let cpu = cpu::this();
    run::take_interrupts(cpu);
    run::look_around(cpu, frame);
}

/// An error that the hardware reports late; nobody knows what it hit, so the domain ends.
pub extern "C" fn error(frame: &mut Frame) {
    let cpu = cpu::this();
    let next = cpu.caller.crash(format_args!(
        "SError, ESR {:#x}, at {:#x}",
        ESR_EL2.get(),
        ELR_EL2.get()
    ));
    run::follow(cpu, frame, next);
}
