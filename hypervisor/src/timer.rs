//! The timers that a vCPU can ask the hypervisor for; they arrive as `VIRQ_TIMER`. The
//! architecture's own guest timers are not here: those belong to the machine crate or to the
//! hardware.

use abi::event_channel::VIRQ_TIMER;

use crate::caller::Caller;
use crate::machine::Machine;

/// A vCPU's timers, in nanoseconds of [`Machine::now`].
#[derive(Debug, Default)]
pub(crate) struct Timers {
    singleshot: Option<u64>,
    /// The next tick and the time between two.
    periodic: Option<(u64, u64)>,
}

impl Timers {
    fn next(&self) -> Option<u64> {
        let tick = self.periodic.map(|(tick, _)| tick);
        self.singleshot.into_iter().chain(tick).min()
    }

    /// Takes out what is due; says whether anything was.
    fn take_due(&mut self, now: u64) -> bool {
        let shot = self
            .singleshot
            .take_if(|deadline| *deadline <= now)
            .is_some();
        let Some((tick, period)) = self.periodic else {
            return shot;
        };
        if tick > now {
            return shot;
        }
        // Ticks that were missed aren't made up for.
        self.periodic = Some((now.saturating_add(period), period));
        true
    }
}

impl<M: Machine> Caller<'_, M> {
    /// The timer of [`Machine::set_timer`] ran out.
    pub fn timer_expired(&self) {
        let due = {
            let mut timers = self.vcpu.timers.lock();
            let due = timers.take_due(self.system.machine.now());
            self.system
                .machine
                .set_timer(&self.vcpu.machine, timers.next());
            due
        };
        if due {
            self.system
                .send_virq(self.domain, VIRQ_TIMER, self.vcpu.index);
        }
    }

    /// Sets or stops the one-shot timer. A time that has passed counts as now.
    pub(crate) fn set_singleshot(&self, deadline: Option<u64>) {
        self.vcpu.timers.lock().singleshot = deadline;
        self.timer_expired();
    }

    /// Sets or stops the periodic timer.
    pub(crate) fn set_periodic(&self, period: Option<u64>) {
        let now = self.system.machine.now();
        self.vcpu.timers.lock().periodic =
            period.map(|period| (now.saturating_add(period), period));
        self.timer_expired();
    }

    /// Stops both: the vCPU stops.
    pub(crate) fn stop_timers(&self) {
        *self.vcpu.timers.lock() = Timers::default();
        self.system.machine.set_timer(&self.vcpu.machine, None);
    }
}
