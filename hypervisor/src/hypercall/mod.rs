//! Hypercalls: the one place where numbers become work. Each module below does one of them.

use abi::{Errno, number};

use crate::caller::Caller;
use crate::machine::{Machine, Next};

mod version;

/// What a hypercall answers: a result, or an error that becomes the negated number.
pub(crate) type Answer = Result<u64, Errno>;

impl<M: Machine> Caller<'_, M> {
    /// A hypercall. `args` are the five argument registers; the answer is left in the first.
    ///
    /// Queries that need no lock answer first: `xen_version` is the cost of a hypercall that everybody measures.
    pub fn hypercall(&self, number: u64, args: &mut [u64; 5]) -> Next {
        let answer = match number {
            number::XEN_VERSION => self.xen_version(args[0], args[1]),
            _ => self.absent(number),
        };
        args[0] = answer.unwrap_or_else(Errno::to_result);
        Next::Advance
    }

    /// A hypercall that isn't there.
    #[cold]
    fn absent(&self, number: u64) -> Answer {
        if self.domain.said.absent_first(number) {
            self.system.log(format_args!(
                "{}: hypercall {number} isn't there",
                self.domain.name()
            ));
        }
        Err(Errno::Enosys)
    }
}
