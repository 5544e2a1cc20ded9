//! Nested page faults: registers that the hypervisor answers, devices that aren't mapped yet, and strays.

use hypervisor::machine::{Next, StrayAction};
use layout::GuestAddress;

use crate::bare::cpu::Cpu;
use crate::bare::domain::Domain;
use crate::bare::platform::io::Width;
use crate::bare::platform::{self, MmioWritten};
use crate::bare::run::{self, Around};
use crate::bare::vcpu::Vcpu;
use crate::boot_info::Physical;
use crate::guest_walk::{self, Access};
use crate::mmio::{self, Action, Instruction, Mode, Register};
use crate::svm::event::Event;
use crate::svm::intercept::fault;

/// The longest instruction.
const LONGEST: usize = 15;

/// A nested page fault.
pub fn fault(cpu: &Cpu, vcpu: &Vcpu) -> Around {
    let control = &vcpu.block.control;
    let (what, address) = (control.exit_info_1.get(), control.exit_info_2.get());
    let domain = cpu.caller.domain.machine();
    let is_access = what & (fault::FETCH | fault::IN_WALK) == 0;
    if is_access && domain.devices.is_trapped(address) {
        emulate(cpu, vcpu, address, what & fault::WRITE != 0);
        return Around::Changed;
    }
    // It was a device that is mapped with its first use, or another CPU was changing the tables.
    if what & fault::PRESENT == 0 && domain.map_met(address) {
        return Around::AsBefore;
    }
    stray(cpu, vcpu, address, what & fault::WRITE != 0, is_access);
    Around::Changed
}

/// What an address that nobody answers reads as, or that the access is over.
fn stray(cpu: &Cpu, vcpu: &Vcpu, address: u64, write: bool, is_access: bool) {
    match cpu.caller.stray_access(GuestAddress::new(address), write) {
        StrayAction::Park => run::follow(cpu, Next::Park),
        StrayAction::Ignore if is_access => {
            let domain = cpu.caller.domain.machine();
            match instruction(vcpu, domain) {
                Some(instruction) => {
                    finish(vcpu, &instruction, u64::MAX);
                }
                None => vcpu.inject(Event::PROTECTION),
            }
        }
        StrayAction::Fault | StrayAction::Ignore => vcpu.inject(Event::PROTECTION),
    }
}

/// A load or store of registers that the hypervisor answers.
fn emulate(cpu: &Cpu, vcpu: &Vcpu, address: u64, write: bool) {
    let domain = cpu.caller.domain.machine();
    let decoded = instruction(vcpu, domain);
    let Some(instruction) = decoded else {
        return stray(cpu, vcpu, address, write, false);
    };
    let Some(width) = Width::of(u64::from(instruction.bytes)) else {
        return stray(cpu, vcpu, address, write, false);
    };
    let stored = match instruction.action {
        Action::Load(..) => None,
        Action::Store(register) | Action::Exchange(register) => {
            Some(register.of(vcpu.register(usize::from(register.number))))
        }
        Action::StoreConstant(value) => Some(value),
    };
    // Registers that are hidden read as ones, as if no device were there: DSDTs look.
    let mut loaded = u64::MAX;
    if matches!(instruction.action, Action::Load(..) | Action::Exchange(_))
        && let Some(value) = platform::mmio_read(&domain.devices, &vcpu.apic, address, width)
    {
        loaded = value;
    }
    let written = stored
        .and_then(|value| platform::mmio_write(&domain.devices, &vcpu.apic, address, width, value));
    finish(vcpu, &instruction, loaded);
    if written == Some(MmioWritten::Moved) {
        trap_devices(cpu);
    }
}

/// The registers that the hypervisor answers have moved with a BAR. The instruction has been stepped over: if this ends
/// the domain, the vCPU may have begun anew when it returns.
pub fn trap_devices(cpu: &Cpu) {
    if cpu.caller.domain.machine().trap_devices().is_err() {
        let next = cpu.caller.crash(format_args!(
            "no table is left to take an MSI-X table out of the domain"
        ));
        run::follow(cpu, next);
    }
}

/// Gives the register what was loaded, and steps on.
fn finish(vcpu: &Vcpu, instruction: &Instruction, loaded: u64) {
    let put = |register: Register, value| {
        let number = usize::from(register.number);
        vcpu.set_register(number, register.put(vcpu.register(number), value));
    };
    match instruction.action {
        Action::Load(register, extend) => put(register, extend.apply(loaded, instruction.bytes)),
        Action::Exchange(register) => put(register, loaded),
        Action::Store(_) | Action::StoreConstant(_) => {}
    }
    let next = vcpu.block.state.rip.get();
    vcpu.advance_to(next.wrapping_add(u64::from(instruction.length)));
}

/// The instruction at which the guest exited, as far as it is one that [`mmio`] knows.
fn instruction(vcpu: &Vcpu, domain: &Domain) -> Option<Instruction> {
    let mut bytes = [0; LONGEST];
    let length = fetch(vcpu, domain, &mut bytes);
    let mode = if vcpu.is_64_bit() {
        Mode::Bits64
    } else if vcpu.block.state.cs.attributes.get() & DEFAULT_32 != 0 {
        Mode::Bits32
    } else {
        Mode::Bits16
    };
    mmio::decode(bytes.get(..length)?, mode)
}

/// Whether the guest exited at a MOV to a control register (0F 22, with or without REX).
pub fn is_at_control_write(cpu: &Cpu, vcpu: &Vcpu) -> bool {
    let mut bytes = [0; LONGEST];
    let length = fetch(vcpu, cpu.caller.domain.machine(), &mut bytes);
    matches!(
        bytes.get(..length),
        Some([0x0f, 0x22, ..] | [0x40..=0x4f, 0x0f, 0x22, ..])
    )
}

/// The D bit in a code segment's attributes.
const DEFAULT_32: u16 = 1 << 10;

/// The bytes of the instruction at which the guest exited, by decode assists or by the guest's own tables; how many there
/// are.
fn fetch(vcpu: &Vcpu, domain: &Domain, bytes: &mut [u8; LONGEST]) -> usize {
    let control = &vcpu.block.control;
    let assisted = usize::from(control.instruction_length.get() & 0xf);
    if assisted > 0 {
        for (byte, field) in bytes.iter_mut().zip(&control.instruction) {
            *byte = field.get();
        }
        return assisted.min(LONGEST);
    }
    let state = &vcpu.block.state;
    let mut at = state.rip.get();
    if !vcpu.is_64_bit() {
        at = at.wrapping_add(state.cs.base.get()) & 0xffff_ffff;
    }
    let in_page = guest_walk::in_page(at, LONGEST);
    let (first, second) = bytes.split_at_mut(in_page);
    let paging = vcpu.paging();
    let access = Access {
        fetch: true,
        user: state.cpl.get() == 3,
        ..Access::READ
    };
    let read = |address: u64, bytes: &mut [u8]| {
        let physical = guest_walk::translate(&paging, address, access, domain)?;
        domain.read(physical, bytes)
    };
    if read(at, first).is_none() {
        return 0;
    }
    let next = at.wrapping_add(in_page as u64);
    if !second.is_empty() && read(next, second).is_none() {
        return in_page;
    }
    LONGEST
}
