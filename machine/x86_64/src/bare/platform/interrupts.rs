//! Interrupts and timers of a vCPU.

use core::sync::atomic::Ordering;

use super::devices::{Devices, Surroundings, VirtualApic};
use super::host::Host;
use crate::bare::{apic, timer, tsc};
use crate::devices::interrupt::FIRST_HYPERVISOR_VECTOR;
use crate::devices::lapic::Events;

/// What a physical interrupt leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nothing but to look around, as after any exit.
    Nothing,
    /// The hypervisor's UART has received something.
    Console,
}

/// A physical interrupt has been taken on the CPU of this vCPU: ends it, and gives a device's to the vCPU.
pub fn on_physical_interrupt(devices: &Devices, vcpu: &VirtualApic, vector: u8) -> Taken {
    match vector {
        // It isn't in service.
        apic::SPURIOUS => return Taken::Nothing,
        apic::CONSOLE => {
            apic::end_of_interrupt();
            return Taken::Console;
        }
        // It has fired, so nothing is armed.
        apic::TIMER => vcpu.armed.store(u64::MAX, Ordering::Relaxed),
        apic::ERROR => {
            apic::take_errors();
        }
        FIRST_HYPERVISOR_VECTOR.. => {}
        _ => {
            // Masked at its pin before its end: a level that is still there would be back at once.
            let mut level = false;
            for shared in &devices.chips {
                level |= shared.with(|model, chip| model.level_arrived(vcpu.vcpu, vector, chip));
            }
            if let Some(inbox) = vcpu.apics.inbox(vcpu.vcpu) {
                inbox.post(vector, level);
            }
        }
    }
    apic::end_of_interrupt();
    Taken::Nothing
}

/// The vector that waits to be injected next; with a callback vector that waits, that one, whatever the local APIC's priorities are.
pub fn next_vector(devices: &Devices, vcpu: &VirtualApic) -> Option<u8> {
    // Without a callback vector the core raises the upcall anew once the guest has chosen a way.
    let callback = devices.callback.load(Ordering::Relaxed);
    if callback != 0 && vcpu.called.load(Ordering::Acquire) {
        return Some(callback);
    }
    vcpu.local.lock().next()
}

/// Takes the vector to inject next out of what waits, for the entry that follows. What arrives from then on waits anew, so
/// that nothing is lost between its delivery and the next exit. After that exit comes [`accept`] or [`withdraw`].
pub fn offer(devices: &Devices, vcpu: &VirtualApic) -> Option<u8> {
    let callback = devices.callback.load(Ordering::Relaxed);
    let called = callback != 0 && vcpu.called.swap(false, Ordering::AcqRel);
    vcpu.offered_callback.store(called, Ordering::Relaxed);
    if called {
        return Some(callback);
    }
    vcpu.local.lock().offer()
}

/// The guest took the vector that was offered.
pub fn accept(vcpu: &VirtualApic, vector: u8) {
    if !vcpu.offered_callback.load(Ordering::Relaxed) {
        vcpu.local.lock().accept(vector);
    }
}

/// The guest didn't take the vector that was offered: it waits again.
pub fn withdraw(vcpu: &VirtualApic, vector: u8) {
    if vcpu.offered_callback.load(Ordering::Relaxed) {
        vcpu.called.store(true, Ordering::Release);
    } else {
        vcpu.local.lock().withdraw(vector);
    }
}

/// Takes NMI, INIT and start-up. An INIT has been done to the local APIC already.
pub fn take_events(vcpu: &VirtualApic) -> Events {
    let Some(inbox) = vcpu.apics.inbox(vcpu.vcpu) else {
        return Events::default();
    };
    if !inbox.has_events() {
        return Events::default();
    }
    let events = inbox.take_events();
    if events.init {
        // An upcall stays: the guest's "upcall pending" is set, and nobody would raise it again.
        let upcall = vcpu.upcall.load(Ordering::Acquire);
        let waits = inbox.is_requested(upcall);
        vcpu.local.lock().init();
        if waits {
            inbox.post_upcall(upcall);
        }
    }
    events
}

/// The state of the local APIC after a reset or an INIT. On the vCPU's own CPU, or while it is parked.
pub fn init(vcpu: &VirtualApic) {
    vcpu.local.lock().reset();
    vcpu.called.store(false, Ordering::Release);
    vcpu.upcall.store(0, Ordering::Release);
    vcpu.core_timer.store(u64::MAX, Ordering::Relaxed);
}

/// The task priority, as CR8 has it.
pub fn cr8(vcpu: &VirtualApic) -> u8 {
    vcpu.local.lock().cr8()
}

/// The guest moved a value to CR8.
pub fn set_cr8(vcpu: &VirtualApic, priority: u8) {
    vcpu.local.lock().set_cr8(priority);
}

/// Delivers the event-channel upcall, from any CPU.
pub fn raise_upcall(vcpu: &VirtualApic) {
    match vcpu.upcall.load(Ordering::Acquire) {
        0 => vcpu.called.store(true, Ordering::Release),
        vector => {
            if let Some(inbox) = vcpu.apics.inbox(vcpu.vcpu) {
                inbox.post_upcall(vector);
            }
        }
    }
    kick(vcpu);
}

/// Makes the vCPU's CPU look around, unless it is the calling one, which does that anyway.
pub fn kick(vcpu: &VirtualApic) {
    if apic::id() != vcpu.id {
        apic::send_kick(vcpu.id);
    }
}

/// Makes a CPU look around; not the calling one.
pub fn send_kick(apic_id: u32) {
    apic::send_kick(apic_id);
}

/// Sets or stops the core's timer for this vCPU, at nanoseconds of [`Host::now`]. On its own CPU, or while it is parked.
pub fn set_core_timer(host: &Host, vcpu: &VirtualApic, time: Option<u64>) {
    let deadline = time.map_or(u64::MAX, |time| host.clock.tsc_at(time));
    vcpu.core_timer.store(deadline, Ordering::Relaxed);
}

/// Lets the timers fire whose time has come: the local APIC's by itself, the core's as the answer.
pub fn timer_expired(devices: &Devices, vcpu: &VirtualApic) -> bool {
    let mut local = vcpu.local.lock();
    let core = vcpu.core_timer.load(Ordering::Relaxed);
    if local.deadline().is_none() && core == u64::MAX {
        return false;
    }
    let now = tsc::now();
    if local.deadline().is_some_and(|deadline| deadline <= now) {
        local.expire(&Surroundings(devices));
    }
    let expired = core <= now;
    if expired {
        vcpu.core_timer.store(u64::MAX, Ordering::Relaxed);
    }
    expired
}

/// Has the CPU's timer interrupt at the first of the vCPU's timers, or at `until`, a value of the TSC. Before the guest is
/// entered, and before the CPU waits.
pub fn arm_timer(vcpu: &VirtualApic, until: Option<u64>) {
    let local = vcpu.local.lock().deadline().unwrap_or(u64::MAX);
    let core = vcpu.core_timer.load(Ordering::Relaxed);
    let first = local.min(core).min(until.unwrap_or(u64::MAX));
    // An interrupt that comes too early is harmless, and rarer than a timer that is set again.
    if first < vcpu.armed.load(Ordering::Relaxed) {
        vcpu.armed.store(first, Ordering::Relaxed);
        timer::arm(first);
    }
}
