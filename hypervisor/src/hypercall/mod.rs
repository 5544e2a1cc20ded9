//! Hypercalls: the one place where numbers become work. Each module below does one of them.
//!
//! # Rules
//! - Whatever can fail is checked before anything changes.
//! - An array is worked through in batches. A batch that isn't the last ends as [`Flow::Again`]:
//!   the guest re-enters at the hypercall instruction with the place reached in the arguments, so
//!   interrupts come through in between.
//! - Nothing allocates.

use abi::{Errno, number};

use crate::caller::Caller;
use crate::machine::{Machine, Next};

mod console;
mod event;
mod grant;
mod hvm;
mod memory;
mod multicall;
mod physmap;
mod platform;
mod reservation;
mod sched;
mod vcpu;
mod version;

pub(crate) use console::DomainConsole;

/// What a hypercall answers: a result, or an error that becomes the negated number.
pub(crate) type Answer = Result<u64, Errno>;

/// The arguments of a hypercall.
pub(crate) type Args = [u64; 5];

/// What a hypercall that is more than an answer leads to.
pub(crate) enum Flow {
    /// The answer.
    Done(Answer),
    /// Not finished: call again with these arguments.
    Again(Args),
    /// Finished, but the vCPU doesn't simply go on.
    Leave(Answer, Next),
}

impl From<Answer> for Flow {
    fn from(answer: Answer) -> Self {
        Self::Done(answer)
    }
}

impl<M: Machine> Caller<'_, M> {
    /// A hypercall. `args` are the five argument registers; the answer is left in the first.
    #[inline]
    pub fn hypercall(&self, number: u64, args: &mut [u64; 5]) -> Next {
        // The query that everybody makes, and that everybody measures: no lock, no guest memory.
        if number == number::XEN_VERSION
            && let Some(answer) = version::quick(args[0])
        {
            args[0] = answer;
            return Next::Advance;
        }
        self.full_hypercall(number, args)
    }

    #[inline(never)]
    fn full_hypercall(&self, number: u64, args: &mut Args) -> Next {
        let (answer, next) = match self.dispatch(number, args) {
            Flow::Done(answer) => (answer, Next::Advance),
            Flow::Leave(answer, next) => (answer, next),
            Flow::Again(again) => {
                *args = again;
                return Next::Again;
            }
        };
        args[0] = answer.unwrap_or_else(Errno::to_result);
        next
    }

    fn dispatch(&self, number: u64, args: &Args) -> Flow {
        match number {
            number::XEN_VERSION => self.xen_version(args[0], args[1]).into(),
            number::MEMORY_OP => self.memory_op(args),
            number::EVENT_CHANNEL_OP => self.event_channel_op(args),
            number::SCHED_OP => self.sched_op(args[0], args[1]),
            number::VCPU_OP => self.vcpu_op(args[0], args[1], args[2]),
            number::CONSOLE_IO => self.console_io(args),
            number::GRANT_TABLE_OP => self.grant_table_op(args),
            number::HVM_OP => self.hvm_op(args[0], args[1]).into(),
            number::PHYSDEV_OP => self.physdev_op(args[0], args[1]).into(),
            number::PLATFORM_OP => self.platform_op(args[0]).into(),
            number::MULTICALL => self.multicall(args),
            number::VM_ASSIST => self.vm_assist(args[0], args[1]).into(),
            number::SET_TIMER_OP => self.set_timer_op(args[0]).into(),
            number::SYSCTL | number::DOMCTL | number::XSM_OP | number::DM_OP | number::HYPFS_OP => {
                self.management(number).into()
            }
            _ => self.absent(number).into(),
        }
    }

    /// A hypercall that isn't there.
    #[cold]
    fn absent(&self, number: u64) -> Answer {
        if self.domain.said.absent_first(number) {
            let name = self.domain.name();
            self.system
                .log(format_args!("{name}: hypercall {number} isn't there"));
        }
        Err(Errno::Enosys)
    }

    /// An operation that is refused on purpose.
    #[cold]
    pub(crate) fn refused(&self, number: u64, what: &str, error: Errno) -> Errno {
        if self.domain.said.refused_first(number) {
            let name = self.domain.name();
            self.system.log(format_args!(
                "{name}: hypercall {number}: {what} is refused"
            ));
        }
        error
    }
}
