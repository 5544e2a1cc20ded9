//! Why the guest was left: each reason is sent to what answers it.

use core::sync::atomic::Ordering;

use super::cpu::Cpu;
use super::exits::{hypercall, memory, port, registers};
use super::run::{self, Around};
use super::vcpu::Vcpu;
use super::{inject, instructions};
use crate::svm::event::{Event, vector};
use crate::svm::intercept::code;

/// Does what the exit asks for, and leaves the guest ready for the next entry.
pub fn handle(cpu: &Cpu, vcpu: &Vcpu) -> Around {
    let reason = vcpu.block.control.exit_code.get();
    match reason {
        code::CPUID => return registers::cpuid(vcpu),
        code::VMMCALL => return hypercall::call(cpu, vcpu),
        code::MSR => return registers::msr(cpu, vcpu),
        code::PORT => return port::access(cpu, vcpu),
        code::NESTED_FAULT => return memory::fault(cpu, vcpu),
        code::INTR => {}
        code::HLT => {
            vcpu.advance(1);
            run::halt(cpu);
        }
        code::XSETBV => return registers::xsetbv(vcpu),
        code::NMI => nmi(cpu, vcpu),
        code::IRET => inject::nmi_ends(vcpu),
        code::INVD => {
            // Dropping dirty lines would drop other domains'.
            instructions::write_back_caches();
            vcpu.advance(2);
        }
        code::RDPMC => vcpu.inject(Event::PROTECTION),
        code::VMRUN
        | code::VMLOAD..=code::SKINIT
        | code::INVLPGA
        | code::MONITOR
        | code::MWAIT
        | code::MWAIT_ARMED
        | code::RDPRU => vcpu.inject(Event::UNDEFINED),
        code::INVALID | code::INVALID_32 if memory::is_at_control_write(cpu, vcpu) => {
            vcpu.inject(Event::PROTECTION);
        }
        code::EXCEPTION..=code::LAST_EXCEPTION => exception(cpu, vcpu, reason),
        _ => crash(cpu, vcpu, "exit"),
    }
    Around::Changed
}

/// A physical NMI, which the hardware domain handles as it would without a hypervisor.
fn nmi(cpu: &Cpu, vcpu: &Vcpu) {
    if cpu.caller.domain.plan().identity.is_hardware() {
        vcpu.nmi.store(true, Ordering::Relaxed);
    }
}

/// An intercepted exception: what a guest raises goes on to it.
fn exception(cpu: &Cpu, vcpu: &Vcpu, reason: u64) {
    const DEBUG: u64 = code::EXCEPTION + vector::DB as u64;
    const ALIGNMENT: u64 = code::EXCEPTION + vector::AC as u64;
    match reason {
        DEBUG => vcpu.inject(Event::exception(vector::DB)),
        ALIGNMENT => vcpu.inject(Event::with_code(vector::AC, 0)),
        _ => crash(cpu, vcpu, "machine check, exit"),
    }
}

/// The guest can't go on.
pub fn crash(cpu: &Cpu, vcpu: &Vcpu, what: &str) {
    let control = &vcpu.block.control;
    let name = match control.exit_code.get() {
        code::SHUTDOWN => " (shutdown: a fault in a double fault)",
        code::INVALID | code::INVALID_32 => " (invalid state)",
        _ => "",
    };
    let next = cpu.caller.crash(format_args!(
        "{what} {:#x}{name}, {:#x} {:#x}, at {:#x}",
        control.exit_code.get(),
        control.exit_info_1.get(),
        control.exit_info_2.get(),
        vcpu.block.state.rip.get(),
    ));
    run::follow(cpu, next);
}
