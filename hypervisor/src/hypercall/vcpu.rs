//! `vcpu_op`: what a guest registers for its vCPUs, and their timers.

use abi::hvm_vcpu::Context;
use abi::shared_info::TimeInfo;
use abi::vcpu::{
    DOWN, GET_RUNSTATE_INFO, INITIALISE, IS_UP, OFFLINE, REGISTER_RUNSTATE_MEMORY_AREA,
    REGISTER_RUNSTATE_PHYS_AREA, REGISTER_TIME_MEMORY_AREA, REGISTER_TIME_PHYS_AREA,
    REGISTER_VCPU_INFO, RUNNING, RegisterArea, RegisterInfo, RunstateInfo, SET_PERIODIC_TIMER,
    SET_SINGLESHOT_TIMER, STOP_PERIODIC_TIMER, STOP_SINGLESHOT_TIMER, SetPeriodicTimer,
    SetSingleshotTimer, TIMER_FUTURE, UP,
};
use abi::{Errno, Handle, number};
use core::sync::atomic::Ordering;
use layout::Gfn;
use zerocopy::IntoBytes;

use super::{Answer, Flow};
use crate::caller::Caller;
use crate::domain::Vcpu;
use crate::machine::Machine;

/// The shortest period of the periodic timer, in nanoseconds (Xen's).
const SHORTEST_PERIOD: u64 = 1_000_000;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn vcpu_op(&self, operation: u64, index: u64, buffer: Handle) -> Flow {
        let vcpu = usize::try_from(index)
            .ok()
            .and_then(|index| self.domain.vcpus.get(index));
        match (vcpu, operation) {
            (None, _) => Flow::Done(Err(Errno::Enoent)),
            (Some(vcpu), INITIALISE | UP | DOWN) => self.power(operation, vcpu, buffer),
            (Some(vcpu), _) => self.vcpu_answer(operation, vcpu, buffer).into(),
        }
    }

    /// vCPUs are started and stopped by the architecture's means (PSCI, INIT and SIPI, SBI), and by
    /// these where the architecture has them.
    fn power(&self, operation: u64, vcpu: &Vcpu<M>, buffer: Handle) -> Flow {
        if !self.system.machine.vcpus_by_hypercall() {
            if operation == INITIALISE {
                return Flow::Done(Err(Errno::Enosys));
            }
            let what = "starting or stopping a vCPU";
            return Flow::Done(Err(self.refused(number::VCPU_OP, what, Errno::Eopnotsupp)));
        }
        match operation {
            INITIALISE => self.initialise(vcpu, buffer).into(),
            UP => self.vcpu_up(vcpu.index).map(|()| 0).into(),
            _ if vcpu.index == self.vcpu.index => Flow::Leave(Ok(0), self.vcpu_off()),
            // Another one: only it can stop itself.
            _ => {
                let what = "stopping another vCPU";
                Flow::Done(Err(self.refused(number::VCPU_OP, what, Errno::Eopnotsupp)))
            }
        }
    }

    fn initialise(&self, vcpu: &Vcpu<M>, buffer: Handle) -> Answer {
        let context: Context = self.read(buffer)?;
        self.vcpu_initialise(vcpu.index, &context)?;
        Ok(0)
    }

    fn vcpu_answer(&self, operation: u64, vcpu: &Vcpu<M>, buffer: Handle) -> Answer {
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
            REGISTER_TIME_MEMORY_AREA | REGISTER_TIME_PHYS_AREA => {
                self.register_time(operation, buffer)
            }
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

    /// One clock holds for all vCPUs and for ever, so it is written once.
    fn register_time(&self, operation: u64, buffer: Handle) -> Answer {
        let clock = self.system.machine.guest_clock().ok_or(Errno::Enosys)?;
        // Even, so the record is whole, and not the 0 of a record that nobody has written.
        let clock = TimeInfo {
            version: 2,
            ..clock
        };
        let RegisterArea { address } = self.read(buffer)?;
        match (operation, address) {
            // The guest takes back its page: nothing is ever written there again.
            (REGISTER_TIME_MEMORY_AREA, 0) => {}
            (REGISTER_TIME_MEMORY_AREA, _) => self.write(address, &clock)?,
            _ => {
                let size = size_of::<TimeInfo>() as u64;
                let (claim, offset) = self.physical_area(address, size)?;
                self.system.machine.write(&claim, offset, clock.as_bytes());
            }
        }
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
