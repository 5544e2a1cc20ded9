//! PCI's configuration space: the host bridge's registers that move memory, base addresses over others' RAM, messages to
//! others' CPUs. No function is made a bus master.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rt::random::Random;
use rt::{cpu, exception, say};

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const COMMAND: u8 = 0x04;
const HEADER: u8 = 0x0c;
const CAPABILITIES: u8 = 0x34;
const BUS_MASTER: u32 = 1 << 2;
const MEMORY_AND_PORTS: u32 = 3;
const MSI: u32 = 5;
const MSI_X: u32 = 0x11;

/// Where configuration space is in memory, 0 while the ports are used.
static WINDOW: AtomicU64 = AtomicU64::new(0);

fn select(function: u32, register: u8) {
    let address = 1 << 31 | function << 8 | u32::from(register & 0xfc);
    // SAFETY: the address register; no Rust value depends on it.
    unsafe {
        core::arch::asm!("out dx, eax", in("dx") ADDRESS, in("eax") address, options(nostack))
    }
}

/// Where a register is in memory, if configuration space is there.
fn in_memory(function: u32, register: u8) -> Option<u64> {
    let window = WINDOW.load(Relaxed);
    (window != 0).then(|| window + (u64::from(function) << 12) + u64::from(register & 0xfc))
}

fn read(function: u32, register: u8) -> u32 {
    if let Some(at) = in_memory(function, register) {
        return exception::read32(at).unwrap_or(u32::MAX);
    }
    select(function, register);
    let value;
    // SAFETY: reads a function's register.
    unsafe { core::arch::asm!("in eax, dx", in("dx") DATA, out("eax") value, options(nostack)) }
    value
}

fn write(function: u32, register: u8, value: u32) {
    if let Some(at) = in_memory(function, register) {
        let _ = exception::write32(at, value);
        return;
    }
    select(function, register);
    // SAFETY: writes a function's register; bus mastering stays off, so no memory changes by it.
    unsafe { core::arch::asm!("out dx, eax", in("dx") DATA, in("eax") value, options(nostack)) }
}

/// Every function of bus 0.
pub fn every_function(target: &Target, random: &mut Random) {
    let window = window(target);
    let identity = read(0, 0);
    let by_ports = round(target, random);
    if let Some(window) = window {
        WINDOW.store(window, Relaxed);
        if round(target, random) != by_ports || read(0, 0) != identity {
            violation(format_args!("ports and memory lead to different functions"));
        }
        WINDOW.store(0, Relaxed);
    }
    // Other widths; the address register is 32 bits wide, and the reset register lies in it.
    for register in 0..=255 {
        select(0, register);
        cpu::out8(DATA + u16::from(register & 3), register);
        cpu::out16(DATA + u16::from(register & 2), u16::MAX);
        cpu::out8(ADDRESS, register);
        cpu::in8(DATA + u16::from(register & 3));
    }
    if let Some(window) = window {
        by_memory(window, target, random);
    }
    if read(0, 0) != identity {
        violation(format_args!("configuration space has moved"));
    }
    watchdog::rearm();
    say!("attacker: functions={by_ports}");
}

/// Every function once, by ports or by memory; says how many there are.
fn round(target: &Target, random: &mut Random) -> u32 {
    let mut count = 0;
    for function in 0..256 {
        watchdog::progress(17 << 40 | u64::from(function));
        if matches!(read(function, 0), u32::MAX | 0) {
            continue;
        }
        count += 1;
        if function == 0 {
            host_bridge(target, random);
        } else {
            base_addresses(function, target);
            messages(function, target, random);
        }
    }
    count
}

/// Where configuration space is in memory, by the MCFG.
fn window(target: &Target) -> Option<u64> {
    const FIRST_BASE: u64 = 44;
    let (_, table) = target
        .facts
        .tables
        .iter()
        .find(|(name, _)| name == b"MCFG")?;
    // The field isn't aligned to its size.
    let at = table.start + FIRST_BASE;
    Some(u64::from(cpu::read32(at + 4)) << 32 | u64::from(cpu::read32(at)))
}

/// The host bridge's registers once more, by memory and in all widths; then the rest of bus 0's window, read only.
fn by_memory(window: u64, target: &Target, random: &mut Random) {
    const BUS: u64 = 1 << 20;
    let low = exception::read64(target.reach.end - 8);
    for register in (0x10..0x1000_u64).step_by(4) {
        watchdog::progress(21 << 40 | register);
        let at = window + register;
        let Ok(old) = exception::read32(at) else {
            continue;
        };
        let [noise, _] = exception::halves(random.word());
        for value in [u32::MAX, 0, noise] {
            let _ = exception::write32(at, value);
            let _ = exception::write32(at + 1, value);
            let _ = exception::write64(at, u64::from(value) << 32 | u64::from(value));
        }
        if exception::read64(target.reach.end - 8) != low {
            violation(format_args!(
                "host bridge register {register:#x} moves memory"
            ));
        }
        let _ = exception::write32(at, old);
    }
    for at in (window..window + BUS).step_by(1024) {
        watchdog::progress(22 << 40 | at);
        let _ = exception::read32(at + 8);
    }
}

/// Every register of the host bridge: where configuration space, shadowed and hidden memory are is set there.
fn host_bridge(target: &Target, random: &mut Random) {
    let low = exception::read64(target.reach.end - 8);
    for register in (0x10..=0xfc).step_by(4) {
        let old = read(0, register);
        let [noise, _] = exception::halves(random.word());
        for value in [u32::MAX, 0, noise] {
            write(0, register, value);
            if exception::read64(target.reach.end - 8) != low {
                violation(format_args!(
                    "host bridge register {register:#x} moves memory"
                ));
            }
        }
        write(0, register, old);
    }
}

/// Base addresses over the hypervisor's and everybody's RAM, with the windows open, and put back.
fn base_addresses(function: u32, target: &Target) {
    const PLAIN: u32 = 0;
    if read(function, HEADER) >> 16 & 0x7f != PLAIN {
        return;
    }
    let command = read(function, COMMAND);
    let low = exception::read64(target.reach.end - 8);
    for register in (0x10..0x28).step_by(4) {
        let old = read(function, register);
        let [top, _] = exception::halves(target.reach.top.saturating_sub(0x80_0000));
        for value in [
            0x10_0000,
            0x20_0000,
            top,
            0xfee0_0000,
            0xfec0_0000,
            u32::MAX,
            0,
        ] {
            write(function, register, value);
            write(function, COMMAND, command & !BUS_MASTER | MEMORY_AND_PORTS);
            if exception::read64(target.reach.end - 8) != low {
                violation(format_args!("function {function:#x} lies over memory"));
            }
        }
        write(function, COMMAND, command & !BUS_MASTER);
        write(function, register, old);
    }
    write(function, COMMAND, command);
}

/// Messages with vectors, delivery modes and destinations that aren't the guest's.
fn messages(function: u32, target: &Target, random: &mut Random) {
    const HAS_CAPABILITIES: u32 = 1 << 20;
    const ENABLE: u32 = 1 << 16;
    if read(function, COMMAND) & HAS_CAPABILITIES == 0 {
        return;
    }
    let [mut at, ..] = read(function, CAPABILITIES).to_le_bytes();
    for _ in 0..48 {
        at &= 0xfc;
        if at < 0x40 {
            return;
        }
        let head = read(function, at);
        match head & 0xff {
            MSI if at <= 0xec => {
                for mode in 0..8 {
                    let [noise, destination] = exception::halves(random.word());
                    write(function, at + 4, 0xfee0_0000 | destination & 0xf_fffc);
                    write(function, at + 8, mode << 8 | noise & 0xff);
                    write(function, at + 12, mode << 8 | noise & 0xff);
                    write(function, at, head | ENABLE);
                    write(function, at, head & !ENABLE);
                }
                // An address that is no interrupt's: the function would write to memory.
                let [address, _] = exception::halves(target.reach.start);
                write(function, at + 4, address);
                write(function, at, head | ENABLE);
                write(function, at, head & !ENABLE);
            }
            MSI_X => {
                write(function, at, head | 1 << 31);
                write(function, at + 4, u32::MAX);
                write(function, at + 8, u32::MAX);
                write(function, at, head & !(1 << 31));
            }
            _ => {}
        }
        let [_, next, ..] = head.to_le_bytes();
        at = next;
    }
}
