//! System registers that trap. ID registers come first: they are read the most.

use super::cpu::Cpu;
use super::inject;
use super::trap::step;
use super::vectors::Frame;
use crate::esr::SystemAccess;
use crate::sysregs::{Answer, answer};

/// Answers a trapped MRS, MSR or system instruction.
pub fn access(cpu: &Cpu, frame: &mut Frame, access: SystemAccess) {
    if let Some(place) = access.register.id_index()
        && access.read
    {
        frame.set(access.general, cpu.ids.get(place));
        return step();
    }
    let value = match answer(access) {
        Answer::SendInterrupts => {
            let value = frame.get(access.general);
            cpu.caller.vcpu.machine().interrupts.sgi1r(cpu.vcpu, value);
            0
        }
        Answer::AuxiliaryControl => cpu.auxiliary_control,
        Answer::Constant(value) => value,
        Answer::Undefined => return inject::undefined(),
    };
    if access.read {
        frame.set(access.general, value);
    }
    step();
}
