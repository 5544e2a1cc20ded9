//! Running and waiting: into the guest and out of it, interrupts, and what a CPU does while its vCPU doesn't run.

use core::sync::atomic::Ordering;

use hypervisor::Start;
use hypervisor::machine::Next;
use layout::GuestAddress;

use super::cpu::Cpu;
use super::platform::{self, Taken};
use super::vcpu::Vcpu;
use super::{console, exit, inject, instructions, tsc, vmrun};
use crate::devices::lapic::Events;
use crate::svm::rflags;
use crate::svm::vmcb::clean;

/// Runs this CPU's vCPU for good: [`super::cpu::start`] has run.
pub fn enter(cpu: &'static Cpu) -> ! {
    idle(cpu);
    loop {
        look_around(cpu);
        while run_guest(cpu) == Around::AsBefore {}
    }
}

/// Whether something but the guest's registers may have changed by an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// Nothing: the guest may go on at once.
    AsBefore,
    /// Interrupts, timers, or words that others have left.
    Changed,
}

/// Into the guest and out of it, and does what it came out for.
fn run_guest(cpu: &Cpu) -> Around {
    let vcpu = cpu.caller.vcpu.machine();
    let domain = cpu.caller.domain.machine();
    let control = &vcpu.block.control;
    let stale = domain.enter(vcpu.index);
    control.tlb_control.set(cpu.flush(stale));
    // SAFETY: the block is this vCPU's own, filled by `Vcpu::prepare`: nested tables of the domain, which hold nothing of the
    // hypervisor's, and every intercept that `svm::intercept` names. `cpu::start` has switched SVM on.
    unsafe { vmrun::run(&vcpu.registers, cpu.block) };
    domain.left(vcpu.index);
    control.clean.set(clean::ALL);
    let offered = inject::collect(vcpu);
    match exit::handle(cpu, vcpu) {
        Around::AsBefore if !offered => Around::AsBefore,
        _ => Around::Changed,
    }
}

/// Takes every interrupt that is pending for this CPU.
fn take_interrupts(cpu: &Cpu) {
    while let Some(vector) = instructions::take_interrupt() {
        took(cpu, vector);
    }
}

fn took(cpu: &Cpu, vector: u8) {
    let devices = &cpu.caller.domain.machine().devices;
    let apic = &cpu.caller.vcpu.machine().apic;
    match platform::on_physical_interrupt(devices, apic, vector) {
        Taken::Nothing => {}
        Taken::Console => {
            while let Some(byte) = console::receive() {
                cpu.caller.system.console_input(byte);
            }
        }
    }
}

/// What other CPUs, devices and timers have left for this vCPU to do, before it enters the guest.
fn look_around(cpu: &Cpu) {
    let vcpu = cpu.caller.vcpu.machine();
    take_interrupts(cpu);
    if platform::timer_expired(&cpu.caller.domain.machine().devices, &vcpu.apic) {
        cpu.caller.timer_expired();
    }
    if vcpu.take_kick() {
        follow(cpu, cpu.caller.kicked());
    }
    let events = platform::take_events(&vcpu.apic);
    if events != Events::default() {
        meet(cpu, vcpu, events);
    }
    inject::offer(cpu, vcpu);
    platform::arm_timer(&vcpu.apic, None);
}

/// NMI, INIT and start-up have arrived for a vCPU that runs. Start-up without INIT means nothing to it.
fn meet(cpu: &Cpu, vcpu: &Vcpu, events: Events) {
    if events.nmi {
        vcpu.nmi.store(true, Ordering::Relaxed);
    }
    if events.init {
        match events.start_up {
            Some(page) => vcpu.reset_to_page(page),
            None => wait_for_start_up(cpu, vcpu),
        }
    }
}

/// Does what the core wants with the vCPU; the instruction that exited has been stepped over.
pub fn follow(cpu: &Cpu, next: Next) {
    match next {
        Next::Advance | Next::Resume | Next::Again => {}
        Next::WaitUntil(deadline) => wait(cpu, Some(deadline)),
        Next::Park => idle(cpu),
    }
}

/// Waits until the vCPU is started, by the core or by start-up, and gives it its first state.
pub fn idle(cpu: &Cpu) {
    let vcpu = cpu.caller.vcpu.machine();
    loop {
        take_interrupts(cpu);
        let events = platform::take_events(&vcpu.apic);
        if let Some(page) = events.start_up
            && begin(cpu, vcpu, page)
        {
            return;
        }
        if let Some(start) = vcpu.take_start() {
            // The domain may have ended since somebody asked for the start.
            if vcpu.take_kick() && cpu.caller.kicked() == Next::Park {
                continue;
            }
            vcpu.begin(&start);
            return;
        }
        if let Some(vector) = instructions::wait_for_interrupt() {
            took(cpu, vector);
        }
    }
}

/// Start-up for a vCPU that the core counts as stopped: tells it. Whether the vCPU runs now.
fn begin(cpu: &Cpu, vcpu: &Vcpu, page: u8) -> bool {
    let entry = GuestAddress::new(u64::from(page) << 12);
    let start = Start { entry, argument: 0 };
    if cpu.caller.vcpu_on(cpu.caller.vcpu.index(), start).is_err() {
        return false;
    }
    // The word that this has left says less than `page` does.
    let _ = vcpu.take_start();
    vcpu.reset_to_page(page);
    true
}

/// After INIT: waits for start-up.
fn wait_for_start_up(cpu: &Cpu, vcpu: &Vcpu) {
    loop {
        take_interrupts(cpu);
        if vcpu.take_kick() && cpu.caller.kicked() == Next::Park {
            return idle(cpu);
        }
        if let Some(page) = platform::take_events(&vcpu.apic).start_up {
            return vcpu.reset_to_page(page);
        }
        if let Some(vector) = instructions::wait_for_interrupt() {
            took(cpu, vector);
        }
    }
}

/// HLT: waits for an interrupt that the guest takes.
pub fn halt(cpu: &Cpu) {
    wait(cpu, None);
}

/// Waits until something is pending for the guest. `until` is `None` for HLT, which lets through what the guest takes;
/// else the time at which the wait ends, if it does.
fn wait(cpu: &Cpu, until: Option<Option<u64>>) {
    let vcpu = cpu.caller.vcpu.machine();
    let devices = &cpu.caller.domain.machine().devices;
    let takes_interrupts = until.is_some() || vcpu.block.state.rflags.get() & rflags::IF != 0;
    let deadline = until.flatten().map(|time| devices.host.clock.tsc_at(time));
    loop {
        take_interrupts(cpu);
        if vcpu.take_kick() {
            return follow(cpu, cpu.caller.kicked());
        }
        let expired = platform::timer_expired(devices, &vcpu.apic);
        if expired {
            cpu.caller.timer_expired();
        }
        let events = platform::take_events(&vcpu.apic);
        if events.nmi || events.init {
            return meet(cpu, vcpu, events);
        }
        if takes_interrupts && platform::next_vector(devices, &vcpu.apic).is_some() {
            return;
        }
        if until.is_some() && (expired || deadline.is_some_and(|deadline| deadline <= tsc::now())) {
            return;
        }
        platform::arm_timer(&vcpu.apic, deadline);
        if let Some(vector) = instructions::wait_for_interrupt() {
            took(cpu, vector);
        }
    }
}
