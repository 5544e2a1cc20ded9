//! Every port, read and written in all three widths, but those that only end the guest or are a bus master's.

use core::ops::RangeInclusive;

use rt::random::Random;
use rt::say;

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

instruction!(in8, "in al, dx");
instruction!(in16, "in ax, dx");
instruction!(in32, "in eax, dx");
instruction!(out8, "out dx, al");
instruction!(out16, "out dx, ax");
instruction!(out32, "out dx, eax");

/// Left out: keyboard controller (resets the CPU), PCI's address, reset and data (tried elsewhere), and QEMU's ports that
/// end the emulation.
const LEFT_OUT: [RangeInclusive<u16>; 5] = [
    0x60..=0x60,
    0x64..=0x64,
    0x500..=0x504,
    0xcf8..=0xcff,
    0x8900..=0x8900,
];

/// Tries all 65,536.
pub fn every_port(target: &Target, random: &mut Random) {
    let fixed = &target.facts.fixed;
    let reset = fixed.reset.map_or(0, |(port, _)| port);
    // PM1's status and enable lie below the control; the general events, timer and watchdog above, on the chipsets that
    // are tested.
    let power = match fixed.pm1a_control {
        0 => 0..=0,
        control => control - 4..=control + 0x7c,
    };
    let mut tried = 0;
    for port in 0..=u16::MAX {
        let left_out = LEFT_OUT.iter().any(|ports| ports.contains(&port))
            || power.contains(&port)
            || port == reset
            || port == fixed.smi_command;
        if left_out {
            continue;
        }
        watchdog::progress(2 << 40 | u64::from(port));
        attempt(port, random);
        tried += 1;
    }
    watchdog::rearm();
    say!("attacker: ports={tried}");
}

fn attempt(port: u16, random: &mut Random) {
    let [value, _] = rt::exception::halves(random.word());
    let (value, number) = (value.into(), port.into());
    let faults = [in8, in16, in32, out8, out16, out32].map(|access| access(value, 0, number));
    for fault in faults.into_iter().flatten() {
        violation(format_args!("port {port:#x} gave {fault}"));
    }
    let mut text = [0_u8; 16];
    let place = text.as_mut_ptr();
    // SAFETY: the string instructions read and write the sixteen bytes of `text` at most.
    let fault = unsafe {
        rt::attempt!("rep insb", in("dx") port, inout("rdi") place => _, inout("rcx") 3_u64 => _)
    };
    if let Some(fault) = fault {
        violation(format_args!("insb of port {port:#x} gave {fault}"));
    }
}
