//! `multicall`: several hypercalls in one.

use abi::multicall::Entry;
use abi::{Errno, number};

use super::{Args, Flow};
use crate::caller::Caller;
use crate::machine::{Machine, Next};

/// Calls of one batch.
const BATCH: u64 = 8;

impl<M: Machine> Caller<'_, M> {
    /// Arguments: the list of calls and their number. An unfinished batch goes on with the rest of
    /// the list; an unfinished call of the list is entered again with its own place in it, which
    /// the list's entry keeps.
    pub(super) fn multicall(&self, args: &Args) -> Flow {
        let (list, count) = (args[0], args[1]);
        let count = count & 0xffff_ffff;
        for index in 0..count.min(BATCH) {
            match self.one_of_many(list, index) {
                // A call that would wait doesn't: waking early is allowed, and the rest of the list
                // has its turn.
                Ok(Next::Park) => return Flow::Leave(Ok(0), Next::Park),
                Ok(_) => {}
                Err(Stop::Again) => return rest(args, list, index, count),
                Err(Stop::Bad(error)) => return Flow::Done(Err(error)),
            }
        }
        if count > BATCH {
            rest(args, list, BATCH, count)
        } else {
            Flow::Done(Ok(0))
        }
    }

    /// Makes one call of the list; says what the vCPU would do next if it were the only one.
    fn one_of_many(&self, list: u64, index: u64) -> Result<Next, Stop> {
        let entry: Entry = self.read_entry(list, index).map_err(Stop::Bad)?;
        let flow = match entry.number {
            number::MULTICALL => Flow::Done(Err(Errno::Einval)),
            _ => self.dispatch(entry.number, &entry.args),
        };
        let (answer, next) = match flow {
            Flow::Done(answer) => (answer, Next::Advance),
            Flow::Leave(answer, next) => (answer, next),
            Flow::Again(args) => {
                self.write_entry(list, index, &Entry { args, ..entry })
                    .map_err(Stop::Bad)?;
                return Err(Stop::Again);
            }
        };
        let result = answer.unwrap_or_else(Errno::to_result);
        // A vCPU that stops for good has nobody left to read the result.
        if next != Next::Park {
            self.write_entry(list, index, &Entry { result, ..entry })
                .map_err(Stop::Bad)?;
        }
        Ok(next)
    }
}

/// Why a list isn't gone on with.
enum Stop {
    /// A call of it isn't finished.
    Again,
    /// An entry can't be read or written.
    Bad(Errno),
}

/// The call for what is left of a list.
fn rest(args: &Args, list: u64, done: u64, count: u64) -> Flow {
    let Some(list) = list.checked_add(done * size_of::<Entry>() as u64) else {
        return Flow::Done(Err(Errno::Efault));
    };
    let mut again = *args;
    again[0] = list;
    again[1] = count - done;
    Flow::Again(again)
}
