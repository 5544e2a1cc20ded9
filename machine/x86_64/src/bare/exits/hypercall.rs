//! VMMCALL: Xen's hypercalls. Numbers and arguments lie in registers as public/arch-x86/xen-x86_64.h says.

use abi::Errno;
use hypervisor::machine::Next;

use crate::bare::cpu::Cpu;
use crate::bare::run::{self, Around};
use crate::bare::vcpu::{Vcpu, register};
use crate::svm::event::Event;

const LENGTH: u64 = 3;
/// The argument registers in 64-bit mode.
const ARGUMENTS: [usize; 5] = [
    register::RDI,
    register::RSI,
    register::RDX,
    register::R10,
    register::R8,
];

/// A hypercall. Only the kernel may make one, and only a 64-bit one: structures of 32-bit guests differ.
pub fn call(cpu: &Cpu, vcpu: &Vcpu) -> Around {
    let state = &vcpu.block.state;
    if state.cpl.get() != 0 {
        vcpu.inject(Event::UNDEFINED);
        return Around::AsBefore;
    }
    if !vcpu.is_64_bit() {
        vcpu.advance(LENGTH);
        // EAX takes the low half of the error.
        vcpu.set_low(
            register::RAX,
            (Errno::Enosys.to_result() & 0xffff_ffff) as u32,
        );
        return Around::AsBefore;
    }
    let mut args = ARGUMENTS.map(|number| vcpu.register(number));
    match cpu.caller.hypercall(state.rax.get(), &mut args) {
        Next::Again => {
            for (number, value) in ARGUMENTS.into_iter().zip(args) {
                vcpu.set_register(number, value);
            }
            Around::Changed
        }
        Next::Advance => {
            vcpu.advance(LENGTH);
            state.rax.set(args[0]);
            if vcpu.take_change() {
                Around::Changed
            } else {
                Around::AsBefore
            }
        }
        next => {
            vcpu.advance(LENGTH);
            state.rax.set(args[0]);
            run::follow(cpu, next);
            Around::Changed
        }
    }
}
