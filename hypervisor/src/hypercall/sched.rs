//! `sched_op`: yield, block, poll, shut down.

use core::sync::atomic::Ordering;

use abi::sched::{
    BLOCK, POLL, POLL_PORTS, Poll, REASON_CRASH, REASON_POWEROFF, REASON_REBOOT, REASON_SOFT_RESET,
    REASON_SUSPEND, REASON_WATCHDOG, REMOTE_SHUTDOWN, SHUTDOWN, SHUTDOWN_CODE, Shutdown, YIELD,
};
use abi::{Errno, Handle, number};

use super::{Answer, Flow};
use crate::caller::Caller;
use crate::life::Reason;
use crate::machine::{Machine, Next};

impl<M: Machine> Caller<'_, M> {
    pub(super) fn sched_op(&self, operation: u64, buffer: Handle) -> Flow {
        match operation {
            // Nobody else waits for this CPU.
            YIELD => Flow::Done(Ok(0)),
            BLOCK => self.block(),
            POLL => self.poll(buffer),
            SHUTDOWN => self.shutdown_op(buffer),
            SHUTDOWN_CODE | REMOTE_SHUTDOWN => {
                Err(self.refused(number::SCHED_OP, "shutdown of another kind", Errno::Eperm)).into()
            }
            // `SCHEDOP_watchdog` among them: Linux then does without.
            _ => Flow::Done(Err(Errno::Enosys)),
        }
    }

    fn block(&self) -> Flow {
        if self.system.enable_upcalls(self.domain, self.vcpu.index) {
            return Flow::Done(Ok(0));
        }
        Flow::Leave(Ok(0), Next::WaitUntil(None))
    }

    fn poll(&self, buffer: Handle) -> Flow {
        match self.poll_wanted(buffer) {
            Ok(None) => Flow::Done(Ok(0)),
            Ok(Some(timeout)) => {
                let until = (timeout != 0).then_some(timeout);
                Flow::Leave(Ok(0), Next::WaitUntil(until))
            }
            Err(error) => Flow::Done(Err(error)),
        }
    }

    /// The timeout, unless one of the ports is pending already.
    fn poll_wanted(&self, buffer: Handle) -> Result<Option<u64>, Errno> {
        let poll: Poll = self.read(buffer)?;
        if poll.count > POLL_PORTS {
            return Err(Errno::Einval);
        }
        // Before looking: what becomes pending from here on kicks this CPU, and the wait ends at
        // once.
        self.vcpu.polls.store(true, Ordering::SeqCst);
        for index in 0..u64::from(poll.count) {
            let port: u32 = self.read_entry(poll.ports, index)?;
            let events = self.domain.events.lock();
            if port >= events.end() {
                return Err(Errno::Einval);
            }
            if self.system.is_pending(self.domain, &events, port) {
                return Ok(None);
            }
        }
        Ok(Some(poll.timeout))
    }

    fn shutdown_op(&self, buffer: Handle) -> Flow {
        let reason = match self.read::<Shutdown>(buffer) {
            Ok(Shutdown { reason }) => reason,
            Err(error) => return Flow::Done(Err(error)),
        };
        let reason = match reason {
            REASON_POWEROFF => Reason::PowerOff,
            REASON_REBOOT | REASON_SOFT_RESET => Reason::Reboot,
            REASON_CRASH => Reason::crash(format_args!("the guest says so")),
            REASON_WATCHDOG => Reason::crash(format_args!("the guest's watchdog")),
            // Nobody could resume it. Linux takes any error as "suspend was cancelled".
            REASON_SUSPEND => return Flow::Done(Err(Errno::Eopnotsupp)),
            _ => return Flow::Done(Err(Errno::Einval)),
        };
        Flow::Leave(Ok(0), self.shutdown(reason))
    }

    /// `set_timer_op`: x86's form of the one-shot timer.
    pub(super) fn set_timer_op(&self, deadline: u64) -> Answer {
        self.set_singleshot((deadline != 0).then_some(deadline));
        Ok(0)
    }
}
