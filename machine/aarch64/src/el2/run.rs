//! Running and waiting: interrupts at EL2, and what a CPU does while its vCPU doesn't run.

use core::sync::atomic::Ordering;

use aarch64_cpu::registers::{CNTHP_CTL_EL2, CNTPCT_EL0, Readable, Writeable};
use hypervisor::machine::Next;

use super::cpu::Cpu;
use super::panic::halt_if_failed;
use super::registers::write_register;
use super::vcpu::reset;
use super::vectors::Frame;
use crate::gic::KICK;

/// Takes every interrupt that is pending for this CPU: the hypervisor's own are handled, a domain's
/// go to its interrupt controller.
pub fn take_interrupts(cpu: &Cpu) {
    halt_if_failed();
    let machine = cpu.caller.system.machine();
    let vcpu = cpu.caller.vcpu.machine();
    while let Some(acknowledged) = machine.gic.acknowledge() {
        machine.gic.drop_priority(acknowledged);
        let number = acknowledged.intid();
        if number == KICK || number == machine.gic.facts().maintenance {
            vcpu.interrupts.flush(cpu.vcpu);
        } else if number == machine.timer {
            CNTHP_CTL_EL2.set(0);
        } else if Some(number) == machine.uart_interrupt {
            while let Some(byte) = machine.uart.and_then(|uart| uart.receive()) {
                cpu.caller.system.console_input(byte);
            }
        } else {
            vcpu.interrupts.physical(cpu.vcpu, acknowledged);
            continue;
        }
        machine.gic.deactivate(acknowledged);
    }
}

/// What other CPUs and the hypervisor's timer have left for this vCPU to do.
pub fn look_around(cpu: &Cpu, frame: &mut Frame) {
    let vcpu = cpu.caller.vcpu.machine();
    let deadline = vcpu.deadline.load(Ordering::Relaxed);
    if deadline != u64::MAX {
        if CNTPCT_EL0.get() >= deadline {
            vcpu.deadline.store(u64::MAX, Ordering::Relaxed);
            cpu.caller.timer_expired();
        } else {
            set_alarm(deadline);
        }
    }
    if vcpu.take_kick() {
        follow(cpu, frame, cpu.caller.kicked());
    }
}

/// Does what the core wants with the vCPU; the instruction that trapped has been stepped over.
pub fn follow(cpu: &Cpu, frame: &mut Frame, next: Next) {
    match next {
        Next::Advance | Next::Resume | Next::Again => {}
        Next::WaitUntil(deadline) => wait(cpu, frame, deadline),
        Next::Park => idle(cpu, frame),
    }
}

/// Waits until the vCPU is started, and gives it its first state.
pub fn idle(cpu: &Cpu, frame: &mut Frame) {
    let vcpu = cpu.caller.vcpu.machine();
    loop {
        // Before looking: the interrupt of whoever asks for a start from here on ends the wait.
        take_interrupts(cpu);
        if let Some(start) = vcpu.take_start() {
            // The domain may have ended since somebody asked for the start.
            if vcpu.take_kick() && cpu.caller.kicked() == Next::Park {
                continue;
            }
            vcpu.interrupts.power_on(cpu.vcpu);
            reset(frame, start);
            return;
        }
        // Interrupts are masked: a pending one ends the wait and is taken by the next round.
        aarch64_cpu::asm::wfi();
    }
}

/// Waits until something is pending for the guest, or the time has come.
fn wait(cpu: &Cpu, frame: &mut Frame, deadline: Option<u64>) {
    let vcpu = cpu.caller.vcpu.machine();
    let machine = cpu.caller.system.machine();
    let deadline = deadline.map(|time| machine.count_at(time));
    loop {
        take_interrupts(cpu);
        if vcpu.take_kick() {
            return follow(cpu, frame, cpu.caller.kicked());
        }
        if vcpu.interrupts.has_pending(cpu.vcpu) {
            return;
        }
        let timer = vcpu.deadline.load(Ordering::Relaxed);
        let now = CNTPCT_EL0.get();
        if timer <= now {
            vcpu.deadline.store(u64::MAX, Ordering::Relaxed);
            cpu.caller.timer_expired();
            return;
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return;
        }
        let next = deadline.unwrap_or(u64::MAX).min(timer);
        if next != u64::MAX {
            set_alarm(next);
        }
        aarch64_cpu::asm::wfi();
    }
}

/// Has the hypervisor's timer interrupt this CPU at a count.
pub fn set_alarm(count: u64) {
    write_register!("cnthp_cval_el2", count);
    CNTHP_CTL_EL2.set(1);
}
