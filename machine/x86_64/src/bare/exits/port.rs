//! IN, OUT, INS and OUTS on ports that don't pass. APM volume 2, 15.10.2 (EXITINFO1).

use hypervisor::Reason;

use super::memory::trap_devices;
use crate::bare::cpu::{self, Cpu};
use crate::bare::instructions::read_msr;
use crate::bare::platform::io::Width;
use crate::bare::platform::{self, PortRead, PortWritten};
use crate::bare::run::{self, Around};
use crate::bare::vcpu::{Vcpu, register};
use crate::boot_info::Physical;
use crate::guest_walk::{self, Access};
use crate::mmio::Register;
use crate::svm::event::{Event, vector};
use crate::svm::rflags;
use crate::svm::vmcb::{Segment, clean};

const IN: u64 = 1 << 0;
const STRING: u64 = 1 << 2;
const REPEATED: u64 = 1 << 3;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
/// How many elements of a repeated instruction are moved before interrupts are looked at.
const AT_ONCE: u64 = 64;

/// An access to a port.
pub fn access(cpu: &Cpu, vcpu: &Vcpu) -> Around {
    let what = vcpu.block.control.exit_info_1.get();
    let port = (what >> 16 & 0xffff) as u16;
    let Some(width) = Width::of(what >> 4 & 7) else {
        vcpu.inject(Event::PROTECTION);
        return Around::AsBefore;
    };
    if what & STRING != 0 {
        string(cpu, vcpu, what, port, width);
        return Around::Changed;
    }
    let accumulator = Register {
        number: 0,
        bytes: (width.bytes() & 0xf) as u8,
        high: false,
    };
    let rax = vcpu.register(register::RAX);
    let next = vcpu.block.control.exit_info_2.get();
    if what & IN != 0 {
        let value = input(cpu, port, width);
        vcpu.set_register(register::RAX, accumulator.put(rax, u64::from(value)));
        vcpu.advance_to(next);
        return Around::AsBefore;
    }
    let value = (accumulator.of(rax) & 0xffff_ffff) as u32;
    let written = platform::port_write(&cpu.caller.domain.machine().devices, port, width, value);
    vcpu.advance_to(next);
    output(cpu, written)
}

fn input(cpu: &Cpu, port: u16, width: Width) -> u32 {
    match platform::port_read(&cpu.caller.domain.machine().devices, port, width) {
        PortRead::Value(value) => value,
        PortRead::Stray => u32::MAX,
    }
}

/// What follows from a write; the instruction has been stepped over.
fn output(cpu: &Cpu, written: PortWritten) -> Around {
    let reason = match written {
        PortWritten::Done | PortWritten::Stray => return Around::AsBefore,
        PortWritten::Moved => {
            trap_devices(cpu);
            return Around::Changed;
        }
        PortWritten::Reset => Reason::Reboot,
        PortWritten::PowerOff => Reason::PowerOff,
    };
    run::follow(cpu, cpu.caller.shutdown(reason));
    Around::Changed
}

/// INS and OUTS. A repeated one is left where it is until RCX is zero, so that interrupts come through.
fn string(cpu: &Cpu, vcpu: &Vcpu, what: u64, port: u16, width: Width) {
    let state = &vcpu.block.state;
    // EXITINFO1 has a bit for addresses of 16, 32 and 64 bits.
    let mask = match what >> 7 & 7 {
        1 => 0xffff,
        2 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let index = if what & IN != 0 {
        register::RDI
    } else {
        register::RSI
    };
    let (count, repeated) = match what & REPEATED {
        0 => (1, false),
        _ => (vcpu.register(register::RCX) & mask, true),
    };
    let base = base(vcpu, what);
    let step = u64::from(width.bytes());
    for _ in 0..count.min(AT_ONCE) {
        let at = vcpu.register(index);
        let address = base.wrapping_add(at & mask);
        match element(cpu, vcpu, what & IN != 0, port, width, address) {
            Some(PortWritten::Done | PortWritten::Stray) => {}
            // The word of a reset or of a moved window is as good as the last one's.
            Some(other) => {
                vcpu.advance_to(vcpu.block.control.exit_info_2.get());
                let _ = output(cpu, other);
                return;
            }
            None => return,
        }
        let moved = if state.rflags.get() & rflags::DF == 0 {
            at.wrapping_add(step)
        } else {
            at.wrapping_sub(step)
        };
        put(vcpu, index, mask, moved);
        if repeated {
            let left = vcpu.register(register::RCX).wrapping_sub(1);
            put(vcpu, register::RCX, mask, left);
        }
    }
    if !repeated || count <= AT_ONCE {
        vcpu.advance_to(vcpu.block.control.exit_info_2.get());
    }
}

/// Changes the part of a register that has the address size: 32 bits clear those above.
fn put(vcpu: &Vcpu, number: usize, mask: u64, value: u64) {
    let whole = match mask {
        0xffff => vcpu.register(number) & !mask | value & mask,
        _ => value & mask,
    };
    vcpu.set_register(number, whole);
}

/// One element; `None` if the guest got a page fault instead.
fn element(
    cpu: &Cpu,
    vcpu: &Vcpu,
    is_in: bool,
    port: u16,
    width: Width,
    address: u64,
) -> Option<PortWritten> {
    let domain = cpu.caller.domain.machine();
    let state = &vcpu.block.state;
    let access = Access {
        write: is_in,
        fetch: false,
        user: state.cpl.get() == 3,
    };
    let bytes = usize::from(width.bytes());
    let first = guest_walk::in_page(address, bytes);
    let parts = [
        (address, 0..first),
        (address.wrapping_add(first as u64), first..bytes),
    ];
    // Both before the device is touched: a page fault leaves the instruction undone.
    let mut places = [0; 2];
    for (place, (at, part)) in places.iter_mut().zip(&parts) {
        if part.is_empty() {
            continue;
        }
        let Some(physical) = guest_walk::translate(&vcpu.paging(), *at, access, domain) else {
            page_fault(vcpu, *at, access);
            return None;
        };
        *place = physical;
    }
    let parts = parts.map(|(_, part)| part);
    if is_in {
        let value = input(cpu, port, width).to_le_bytes();
        for (physical, part) in places.into_iter().zip(parts) {
            // What isn't the domain's memory takes nothing.
            let _ = domain.write_physical(physical, value.get(part)?);
        }
        return Some(PortWritten::Done);
    }
    let mut value = [0xff; 4];
    for (physical, part) in places.into_iter().zip(parts) {
        let _ = domain.read(physical, value.get_mut(part)?);
    }
    let value = u32::from_le_bytes(value);
    Some(platform::port_write(&domain.devices, port, width, value))
}

fn page_fault(vcpu: &Vcpu, address: u64, access: Access) {
    // Bits 1 and 2 of the error code: a write, a user's.
    let code = u32::from(access.write) << 1 | u32::from(access.user) << 2;
    vcpu.block.state.cr2.set(address);
    vcpu.touch(clean::CR2);
    vcpu.inject(Event::with_code(vector::PF, code));
}

/// The base of the segment: ES for INS. For OUTS EXITINFO1 says which, with decode assists; without, DS is taken.
fn base(vcpu: &Vcpu, what: u64) -> u64 {
    let state = &vcpu.block.state;
    let flat = vcpu.is_64_bit();
    let of = |segment: &Segment| if flat { 0 } else { segment.base.get() };
    if what & IN != 0 {
        return of(&state.es);
    }
    let assisted = cpu::this().features.decode_assists;
    match what >> 10 & 7 {
        _ if !assisted => of(&state.ds),
        0 => of(&state.es),
        1 => of(&state.cs),
        2 => of(&state.ss),
        // SAFETY: a CPU in long mode has the register, which is the guest's.
        4 => unsafe { read_msr(FS_BASE) },
        // SAFETY: as above.
        5 => unsafe { read_msr(GS_BASE) },
        _ => of(&state.ds),
    }
}
