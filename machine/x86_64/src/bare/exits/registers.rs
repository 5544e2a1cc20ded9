//! CPUID, model-specific registers and XCR0.

use crate::bare::cpu::Cpu;
use crate::bare::instructions::{self, ThisCpu};
use crate::bare::platform::{self, MsrWritten};
use crate::bare::run::Around;
use crate::bare::vcpu::{Vcpu, register};
use crate::devices::cpuid::XCR0_ALLOWED;
use crate::devices::lapic::GeneralProtection;
use crate::devices::msr::{Access, EFER_WRITABLE, Model, rule};
use crate::features::Cpuid;
use crate::svm::event::Event;
use crate::svm::vmcb::clean;
use crate::svm::{cr0, efer, hypercall_page, is_pat, is_xcr0};

/// CPUID.
pub fn cpuid(vcpu: &Vcpu) -> Around {
    let low = |number| (vcpu.register(number) & 0xffff_ffff) as u32;
    let cr4 = vcpu.block.state.cr4.get();
    let leaf = platform::cpuid(&vcpu.apic, low(register::RAX), low(register::RCX), cr4);
    vcpu.set_low(register::RAX, leaf.eax);
    vcpu.set_low(register::RBX, leaf.ebx);
    vcpu.set_low(register::RCX, leaf.ecx);
    vcpu.set_low(register::RDX, leaf.edx);
    vcpu.advance(2);
    Around::AsBefore
}

/// RDMSR or WRMSR.
pub fn msr(cpu: &Cpu, vcpu: &Vcpu) -> Around {
    let number = (vcpu.register(register::RCX) & 0xffff_ffff) as u32;
    let is_read = vcpu.block.control.exit_info_1.get() & 1 == 0;
    let done = if is_read {
        read(cpu, vcpu, number).map(|value| {
            vcpu.set_register(register::RAX, value & 0xffff_ffff);
            vcpu.set_register(register::RDX, value >> 32);
        })
    } else {
        let high = vcpu.register(register::RDX) << 32;
        let value = high | vcpu.register(register::RAX) & 0xffff_ffff;
        write(cpu, vcpu, number, value)
    };
    match done {
        Ok(()) => vcpu.advance(2),
        Err(GeneralProtection) => vcpu.inject(Event::PROTECTION),
    }
    if is_read {
        Around::AsBefore
    } else {
        Around::Changed
    }
}

fn read(cpu: &Cpu, vcpu: &Vcpu, number: u32) -> Result<u64, GeneralProtection> {
    let state = &vcpu.block.state;
    match rule(number) {
        Access::Model(Model::Efer) => Ok(state.efer.get() & !efer::SVME),
        Access::Model(Model::Pat) => Ok(state.pat.get()),
        _ => platform::read_msr(&cpu.caller.domain.machine().devices, &vcpu.apic, number),
    }
}

fn write(cpu: &Cpu, vcpu: &Vcpu, number: u32, value: u64) -> Result<(), GeneralProtection> {
    let state = &vcpu.block.state;
    let domain = cpu.caller.domain.machine();
    match rule(number) {
        Access::Model(Model::Efer) => write_efer(cpu, vcpu, value),
        Access::Model(Model::Pat) if is_pat(value) => {
            state.pat.set(value);
            vcpu.touch(clean::NESTED);
            Ok(())
        }
        Access::Model(Model::Pat) => Err(GeneralProtection),
        _ => match platform::write_msr(&domain.devices, &vcpu.apic, number, value)? {
            MsrWritten::Done => Ok(()),
            MsrWritten::HypercallPage(page) => domain
                .write_physical(page, &hypercall_page::bytes())
                .ok_or(GeneralProtection),
        },
    }
}

/// EFER: long mode can't be switched while paging is on, and features that the CPU lacks can't be.
fn write_efer(cpu: &Cpu, vcpu: &Vcpu, value: u64) -> Result<(), GeneralProtection> {
    const FFXSR: u64 = 1 << 14;
    const TCE: u64 = 1 << 15;
    let state = &vcpu.block.state;
    let basic = ThisCpu.leaf(0x8000_0001, 0);
    let mut writable = EFER_WRITABLE;
    if basic.edx & 1 << 25 == 0 {
        writable &= !FFXSR;
    }
    if basic.ecx & 1 << 17 == 0 {
        writable &= !TCE;
    }
    let old = state.efer.get();
    let paging = state.cr0.get() & cr0::PG != 0;
    if value & !(writable | efer::LMA) != 0 || paging && (old ^ value) & efer::LME != 0 {
        return Err(GeneralProtection);
    }
    state
        .efer
        .set(value & writable | old & efer::LMA | efer::SVME);
    vcpu.touch(clean::CONTROL);
    if (old ^ value) & efer::NXE != 0 {
        // What the TLB holds was made with the old meaning of bit 63; WRMSR itself would have dropped it.
        cpu.forget_translations();
    }
    Ok(())
}

/// XSETBV: XCR0 becomes the guest's wish for real, within what [`XCR0_ALLOWED`] says.
pub fn xsetbv(vcpu: &Vcpu) -> Around {
    let state = &vcpu.block.state;
    let low = vcpu.register(register::RAX) & 0xffff_ffff;
    let value = vcpu.register(register::RDX) << 32 | low;
    let supported = u64::from(ThisCpu.leaf(0xd, 0).eax & XCR0_ALLOWED);
    let register = vcpu.register(register::RCX) & 0xffff_ffff;
    if register != 0 || state.cpl.get() != 0 || !is_xcr0(value, supported) {
        vcpu.inject(Event::PROTECTION);
        return Around::AsBefore;
    }
    // SAFETY: the CPU has XSAVE, or the guest's XSETBV had raised #UD; the value is one that the architecture allows.
    unsafe { instructions::set_extended_state(value) };
    vcpu.advance(3);
    Around::AsBefore
}
