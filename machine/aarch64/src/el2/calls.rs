//! The firmware that a guest calls: SMCCC and PSCI, by HVC #0 or SMC #0.

use hypervisor::{Next, Start};
use hypervisor::{Reason, StartError};
use layout::GuestAddress;

use super::cpu::Cpu;
use super::vectors::Frame;
use super::{firmware, run};
use crate::smccc::{self as number, INVALID_PARAMETERS, NOT_SUPPORTED, SMC64, SUCCESS};

/// Bits of MPIDR_EL1 that name a CPU: Aff3 and Aff2 to Aff0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// Answers the call in `frame`; the instruction has been stepped over.
pub fn call(cpu: &Cpu, frame: &mut Frame) {
    // The function identifier is W0.
    let function = low_word(frame.x[0]);
    let [_, first, second, third, ..] = frame.x;
    let wide = function & SMC64 != 0;
    let narrow = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let next = match function {
        number::PSCI_VERSION | number::VERSION => answer(frame, number::VERSION_1_1),
        number::PSCI_FEATURES => answer(frame, number::psci_feature(narrow(first))),
        number::ARCH_FEATURES => answer(frame, architecture_feature(narrow(first))),
        number::WORKAROUND_1 | number::WORKAROUND_3 => {
            answer(frame, firmware::call(function, [first, second, third]))
        }
        // It is on for good; a guest that wants it off is not told.
        number::WORKAROUND_2 => answer(frame, SUCCESS),
        number::MIGRATE_INFO_TYPE => answer(frame, number::NO_MIGRATION),
        number::CPU_OFF => cpu.caller.vcpu_off(),
        number::SYSTEM_OFF => cpu.caller.shutdown(Reason::PowerOff),
        number::SYSTEM_RESET => cpu.caller.shutdown(Reason::Reboot),
        _ => match function & !SMC64 {
            number::CPU_ON => {
                let start = Start {
                    entry: GuestAddress::new(narrow(second)),
                    argument: narrow(third),
                };
                let result = cpu_on(cpu, narrow(first), start);
                answer(frame, result)
            }
            number::AFFINITY_INFO => {
                let result = affinity_info(cpu, narrow(first), narrow(second));
                answer(frame, result)
            }
            number::CPU_SUSPEND => {
                // Every state is a standby state, whatever the parameter asks for: the call returns
                // when an interrupt is pending.
                frame.x[0] = SUCCESS;
                Next::WaitUntil(None)
            }
            number::SYSTEM_RESET2 => match narrow(first) {
                0 => cpu.caller.shutdown(Reason::Reboot),
                _ => answer(frame, INVALID_PARAMETERS),
            },
            _ => answer(frame, NOT_SUPPORTED),
        },
    };
    run::follow(cpu, frame, next);
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a W register is the low half of its X register"
)]
const fn low_word(value: u64) -> u32 {
    value as u32
}

fn answer(frame: &mut Frame, value: u64) -> Next {
    frame.x[0] = value;
    Next::Advance
}

/// The firmware knows which workarounds this CPU needs, and its answer holds for the guest.
fn architecture_feature(function: u64) -> u64 {
    match u32::try_from(function) {
        Ok(number::VERSION | number::ARCH_FEATURES) => SUCCESS,
        Ok(asked @ (number::WORKAROUND_1 | number::WORKAROUND_2 | number::WORKAROUND_3)) => {
            number::guest_feature(asked, firmware::feature(asked))
        }
        _ => NOT_SUPPORTED,
    }
}

/// The index of the calling domain's vCPU with this affinity.
fn find(cpu: &Cpu, affinity: u64) -> Option<u32> {
    let mut vcpus = cpu.caller.domain.vcpus().iter();
    vcpus
        .find(|vcpu| vcpu.machine().affinity() & AFFINITY == affinity)
        .map(|vcpu| vcpu.index())
}

fn cpu_on(cpu: &Cpu, affinity: u64, start: Start) -> u64 {
    if !start.entry.raw().is_multiple_of(4) {
        return number::INVALID_ADDRESS;
    }
    let Some(index) = find(cpu, affinity) else {
        return INVALID_PARAMETERS;
    };
    match cpu.caller.vcpu_on(index, start) {
        Ok(()) => SUCCESS,
        Err(StartError::AlreadyOn) => number::ALREADY_ON,
        Err(_) => number::INTERNAL_FAILURE,
    }
}

fn affinity_info(cpu: &Cpu, affinity: u64, lowest_level: u64) -> u64 {
    if lowest_level != 0 {
        return INVALID_PARAMETERS;
    }
    match find(cpu, affinity).and_then(|index| cpu.caller.vcpu_is_on(index)) {
        Some(true) => number::AFFINITY_ON,
        Some(false) => number::AFFINITY_OFF,
        None => INVALID_PARAMETERS,
    }
}
