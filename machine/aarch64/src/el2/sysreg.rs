//! System registers that trap. Order of the cases: what guests read most comes first.

use super::cpu::Cpu;
use super::inject;
use super::trap::step;
use super::vectors::Frame;
use crate::esr::{SystemAccess, SystemRegister};

const ICC_SGI1R: SystemRegister = SystemRegister::new(3, 0, 12, 11, 5);
const ICC_ASGI1R: SystemRegister = SystemRegister::new(3, 0, 12, 11, 6);
const ICC_SGI0R: SystemRegister = SystemRegister::new(3, 0, 12, 11, 7);
const ACTLR: SystemRegister = SystemRegister::new(3, 0, 1, 0, 1);
const OSLSR: SystemRegister = SystemRegister::new(2, 0, 1, 1, 4);
/// OSLSR_EL1: the lock exists and is unlocked.
const OSLSR_VALUE: u64 = 8;

/// Answers a trapped MRS, MSR or system instruction.
pub fn access(cpu: &Cpu, frame: &mut Frame, access: SystemAccess) {
    if let Some(place) = access.register.id_index()
        && access.read
    {
        frame.set(access.general, cpu.ids.get(place));
        return step();
    }
    let read = match access.register {
        ICC_SGI1R if !access.read => {
            let value = frame.get(access.general);
            let vcpu = cpu.caller.vcpu.machine();
            vcpu.interrupts.sgi1r(cpu.vcpu, value);
            0
        }
        // Group 0 and the other security state's: no guest has them.
        ICC_ASGI1R | ICC_SGI0R if !access.read => 0,
        ACTLR => cpu.auxiliary_control,
        OSLSR => OSLSR_VALUE,
        // Breakpoints, watchpoints, OS lock, debug channel: read as zero, ignore writes.
        register if is_debug(register) => 0,
        _ => return inject::undefined(),
    };
    if access.read {
        frame.set(access.general, read);
    }
    step();
}

/// Whether a register is one of self-hosted or external debug: op0 is 2 and op1 not that of trace.
fn is_debug(register: SystemRegister) -> bool {
    register.op0() == 2 && register.op1() != 1
}
