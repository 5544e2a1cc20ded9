//! `xen_version`: what this hypervisor is, and the feature word.

use abi::{Errno, version};

use super::Answer;
use crate::caller::Caller;
use crate::machine::Machine;

/// The version of Xen whose interface this is: 4.20.
const VERSION: u64 = 4 << 16 | 20;

impl<M: Machine> Caller<'_, M> {
    #[inline]
    pub(super) fn xen_version(&self, operation: u64, _buffer: u64) -> Answer {
        match operation {
            version::VERSION => Ok(VERSION),
            version::PAGESIZE => Ok(abi::PAGE_SIZE),
            _ => Err(Errno::Enosys),
        }
    }
}
