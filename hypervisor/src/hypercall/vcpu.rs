//! `vcpu_op`: what a guest registers for its vCPUs, and their timers.

use abi::vcpu::{
    DOWN, GET_RUNSTATE_INFO, IS_UP, OFFLINE, REGISTER_RUNSTATE_MEMORY_AREA,
    REGISTER_RUNSTATE_PHYS_AREA, REGISTER_VCPU_INFO, RUNNING, RegisterArea, RegisterInfo,
    RunstateInfo, SET_PERIODIC_TIMER, SET_SINGLESHOT_TIMER, STOP_PERIODIC_TIMER,
    STOP_SINGLESHOT_TIMER, SetPeriodicTimer, SetSingleshotTimer, TIMER_FUTURE, UP,
};
use abi::{Errno, Handle, number};
use core::sync::atomic::Ordering;
use layout::Gfn;
use zerocopy::IntoBytes;

use super::Answer;
use crate::caller::Caller;
use crate::domain::Vcpu;
use crate::machine::Machine;

/// The shortest period of the periodic timer, in nanoseconds (Xen's).
const SHORTEST_PERIOD: u64 = 1_000_000;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn vcpu_op(&self, operation: u64, index: u64, buffer: Handle) -> Answer {
        let vcpu = usize::try_from(index)
            .ok()
            .and_then(|index| self.domain.vcpus.get(index))
            .ok_or(Errno::Enoent)?;
        match operation {
            IS_UP => Ok(self.vcpu_is_on(vcpu.index).unwrap_or(false).into()),
            REGISTER_VCPU_INFO => self.register_vcpu_info(vcpu, buffer),
            REGISTER_RUNSTATE_MEMORY_AREA => {
                let RegisterArea { address } = self.read(buffer)?;
                self.write(address, &self.runstate(vcpu))?;
                Ok(0)
            }
            REGISTER_RUNSTATE_PHYS_AREA => self.register_runstate(vcpu, buffer),
            GET_RUNSTATE_INFO => {
                self.write(buffer, &self.runstate(vcpu))?;
                Ok(0)
            }
            SET_PERIODIC_TIMER
            | STOP_PERIODIC_TIMER
            | SET_SINGLESHOT_TIMER
            | STOP_SINGLESHOT_TIMER => self.vcpu_timer(operation, vcpu, buffer),
            // vCPUs are started and stopped by the architecture's means (PSCI, INIT and SIPI, SBI).
            UP | DOWN => Err(self.refused(
                number::VCPU_OP,
                "starting or stopping a vCPU",
                Errno::Eopnotsupp,
            )),
            _ => Err(Errno::Enosys),
        }
    }

    fn register_vcpu_info(&self, vcpu: &Vcpu<M>, buffer: Handle) -> Answer {
        let request: RegisterInfo = self.read(buffer)?;
        let size = M::FACTS.shared_info.vcpu_info_size;
        let offset = u64::from(request.offset);
        if !offset.is_multiple_of(8) || offset + size > abi::PAGE_SIZE {
            return Err(Errno::Enxio);
        }
        let claim = self.own_frame(Gfn::new(request.gfn))?;
        self.system
            .register_info(self.domain, vcpu.index, claim, offset)?;
        Ok(0)
    }

    /// The record of a pinned vCPU never changes while it runs, so it is written once.
    fn register_runstate(&self, vcpu: &Vcpu<M>, buffer: Handle) -> Answer {
        let RegisterArea { address } = self.read(buffer)?;
        let runstate = self.runstate(vcpu);
        let (claim, offset) = self.physical_area(address, size_of::<RunstateInfo>() as u64)?;
        self.system
            .machine
            .write(&claim, offset, runstate.as_bytes());
        Ok(0)
    }

    fn runstate(&self, vcpu: &Vcpu<M>) -> RunstateInfo {
        let on = self.vcpu_is_on(vcpu.index).unwrap_or(false);
        let state = if on { RUNNING } else { OFFLINE };
        let entry_time = vcpu.since.load(Ordering::Relaxed);
        RunstateInfo {
            state,
            reserved: 0,
            entry_time,
            time: [0; 4],
        }
    }

    fn vcpu_timer(&self, operation: u64, vcpu: &Vcpu<M>, buffer: Handle) -> Answer {
        if vcpu.index != self.vcpu.index {
            return Err(Errno::Einval);
        }
        match operation {
            SET_PERIODIC_TIMER => {
                let SetPeriodicTimer { period } = self.read(buffer)?;
                if period < SHORTEST_PERIOD {
                    return Err(Errno::Einval);
                }
                self.set_periodic(Some(period));
            }
            STOP_PERIODIC_TIMER => self.set_periodic(None),
            SET_SINGLESHOT_TIMER => {
                let request: SetSingleshotTimer = self.read(buffer)?;
                let passed = request.deadline < self.system.machine.now();
                if passed && request.flags & TIMER_FUTURE != 0 {
                    return Err(Errno::Etime);
                }
                self.set_singleshot(Some(request.deadline));
            }
            _ => self.set_singleshot(None),
        }
        Ok(0)
    }
}
