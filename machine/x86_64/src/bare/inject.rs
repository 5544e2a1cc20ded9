//! What is delivered to the guest at entry, and what became of it. The virtual interrupt is offered with its real vector
//! and the CPU delivers it when the guest can take it, which costs no exit: at the next one the pending bit is gone.
//! APM volume 2, 15.21.

use core::sync::atomic::Ordering;

use super::cpu::Cpu;
use super::platform;
use super::vcpu::Vcpu;
use crate::svm::event::{Event, Interrupted, interrupted};
use crate::svm::intercept::first;
use crate::svm::vmcb::{clean, interrupt};

/// Before entry: offers the highest interrupt that the local APIC has, and injects an NMI that waits.
pub fn offer(cpu: &Cpu, vcpu: &Vcpu) {
    let control = &vcpu.block.control;
    let devices = &cpu.caller.domain.machine().devices;
    let before = control.interrupt.get();
    let vector = platform::offer(devices, &vcpu.apic);
    let word = interrupt::offer(before, vector, platform::cr8(&vcpu.apic));
    vcpu.entered.set(word);
    if word != before {
        control.interrupt.set(word);
        vcpu.touch(clean::INTERRUPT);
    }
    if vcpu.nmi.load(Ordering::Relaxed) {
        offer_nmi(vcpu);
    }
}

/// Injects an NMI, unless the guest handles one, or another event comes first.
fn offer_nmi(vcpu: &Vcpu) {
    let control = &vcpu.block.control;
    let intercepts = control.first_intercepts.get();
    // While the guest handles one, its IRET exits.
    if intercepts & first::IRET != 0 || control.event.get() != 0 {
        return;
    }
    vcpu.nmi.store(false, Ordering::Relaxed);
    vcpu.inject(Event::NMI);
    control.first_intercepts.set(intercepts | first::IRET);
    vcpu.touch(clean::INTERCEPTS);
}

/// The guest's IRET: its NMI handler is about to end. An NMI that waits is injected before the instruction is executed, so
/// one instruction earlier than a CPU would take it.
pub fn nmi_ends(vcpu: &Vcpu) {
    let control = &vcpu.block.control;
    let intercepts = control.first_intercepts.get();
    control.first_intercepts.set(intercepts & !first::IRET);
    vcpu.touch(clean::INTERCEPTS);
}

/// After an exit: what was delivered, what has to be delivered again, and the task priority. Whether an interrupt was
/// offered, so that it or another one must be offered before the next entry.
pub fn collect(vcpu: &Vcpu) -> bool {
    let control = &vcpu.block.control;
    let again = match interrupted(control.interrupted_event.get()) {
        Interrupted::Nothing => 0,
        Interrupted::Again(event) => event.raw(),
    };
    control.event.set(again);
    let (before, after) = (vcpu.entered.get(), control.interrupt.get());
    let offered = interrupt::offered(before);
    if let Some(vector) = offered {
        if interrupt::delivered(before, after) {
            platform::accept(&vcpu.apic, vector);
        } else {
            platform::withdraw(&vcpu.apic, vector);
        }
    }
    if (before ^ after) & interrupt::TASK_PRIORITY != 0 {
        platform::set_cr8(&vcpu.apic, (after & interrupt::TASK_PRIORITY) as u8);
    }
    vcpu.entered.set(after);
    offered.is_some()
}
