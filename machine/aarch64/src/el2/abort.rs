//! Loads, stores and fetches that stage 2 stops: trapped devices, and addresses that nobody has.

use aarch64_cpu::registers::{FAR_EL2, HPFAR_EL2, Readable};
use hypervisor::machine::{Next, StrayAction};
use layout::GuestAddress;

use super::cpu::Cpu;
use super::memory::translate_stage1;
use super::trap::step;
use super::vectors::Frame;
use super::{inject, run};
use crate::esr::{Fault, Syndrome};
use crate::vgic::{Outcome, Size};
use crate::vpl011::Effect;

/// The guest physical address that an access was stopped at.
fn guest_address(cpu: &Cpu, syndrome: Syndrome) -> Option<u64> {
    if syndrome.far_invalid() {
        return None;
    }
    let virtual_address = FAR_EL2.get();
    // Permission faults leave HPFAR_EL2 alone, unless they hit the table walk.
    if syndrome.fault() == Fault::Permission && !syndrome.in_table_walk() {
        let write = syndrome.write();
        let domain = cpu.caller.domain.machine();
        return translate_stage1(virtual_address, write)
            .or_else(|| domain.settled(|| translate_stage1(virtual_address, write)));
    }
    Some((HPFAR_EL2.get() & !0xf) << 8 | virtual_address & 0xfff)
}

/// Whether the address is mapped by now: another CPU had broken its entry to make it anew, and the access goes well when
/// it is tried again.
fn is_mapped(cpu: &Cpu, syndrome: Syndrome, address: u64) -> bool {
    syndrome.fault() == Fault::Translation && cpu.caller.domain.machine().lookup(address).is_some()
}

/// A load or store.
pub fn data(cpu: &Cpu, frame: &mut Frame, syndrome: Syndrome) {
    if syndrome.fault() == Fault::Other {
        return inject::external_abort(false);
    }
    let Some(address) = guest_address(cpu, syndrome) else {
        return inject::external_abort(false);
    };
    let write = syndrome.write();
    if let Some(transfer) = syndrome.transfer()
        && !syndrome.in_table_walk()
    {
        let size = match transfer.bytes_log2 {
            0 => Size::Byte,
            1 => Size::Half,
            2 => Size::Word,
            _ => Size::Double,
        };
        let value = write.then(|| {
            let unused = 64 - 8 * size.bytes();
            frame.get(transfer.general) << unused >> unused
        });
        let interrupts = cpu.caller.vcpu.machine().interrupts;
        match interrupts.mmio(cpu.vcpu, address, size, value) {
            Outcome::Value(value) => {
                frame.set(transfer.general, transfer.extend(value));
                return step();
            }
            Outcome::Done => return step(),
            Outcome::Fault => return inject::external_abort(false),
            Outcome::NotMine => {}
        }
        if let Some(read) = virtual_uart(cpu, address, value) {
            if !write {
                frame.set(transfer.general, transfer.extend(read));
            }
            return step();
        }
    }
    stray(cpu, frame, syndrome, address);
}

/// An access to the domain's virtual UART: what a read gives, zero for a write; `None` if it is none.
fn virtual_uart(cpu: &Cpu, address: u64, write: Option<u64>) -> Option<u64> {
    const BYTES: u64 = 0x1000;
    let domain = cpu.caller.domain.machine();
    let uart = domain.uart.as_ref()?;
    let offset = address
        .checked_sub(uart.base)
        .filter(|&offset| offset < BYTES)?;
    let (effect, high) = {
        let mut state = uart.state.lock();
        let effect = match write {
            // Registers are 16 bits wide at most.
            Some(value) => state.write(offset, u32::from(u16::try_from(value & 0xffff).ok()?)),
            None => state.read(offset),
        };
        (effect, state.interrupts())
    };
    domain.signal_uart(uart, high, Some(cpu.vcpu));
    match effect {
        Effect::Value(value) => Some(u64::from(value)),
        Effect::Send(byte) => {
            cpu.caller.uart_output(&[byte]);
            Some(0)
        }
        Effect::Done => Some(0),
    }
}

/// An instruction fetch.
pub fn instruction(cpu: &Cpu, frame: &mut Frame, syndrome: Syndrome) {
    match guest_address(cpu, syndrome) {
        Some(address) if is_mapped(cpu, syndrome, address) => {}
        Some(address) if syndrome.fault() != Fault::Other => {
            match cpu.caller.stray_access(GuestAddress::new(address), false) {
                StrayAction::Park => run::follow(cpu, frame, Next::Park),
                // There is no instruction to go on with.
                StrayAction::Fault | StrayAction::Ignore => inject::external_abort(true),
            }
        }
        _ => inject::external_abort(true),
    }
}

fn stray(cpu: &Cpu, frame: &mut Frame, syndrome: Syndrome, address: u64) {
    if is_mapped(cpu, syndrome, address) {
        return;
    }
    let write = syndrome.write();
    match cpu.caller.stray_access(GuestAddress::new(address), write) {
        StrayAction::Fault => inject::external_abort(false),
        StrayAction::Park => run::follow(cpu, frame, Next::Park),
        StrayAction::Ignore => match syndrome.transfer() {
            Some(transfer) => {
                if !write {
                    frame.set(transfer.general, transfer.extend(u64::MAX));
                }
                step();
            }
            // Nobody knows which registers the instruction would have changed.
            None => inject::external_abort(false),
        },
    }
}
