//! What becomes of a domain's accesses to I/O ports.
//!
//! The hardware domain has the machine's ports but for those here: what isn't there for a PVH domain, what is the
//! hypervisor's, and what reaches past the domain (reset, sleep, system management). Any other domain has none.
//!
//! AMD APM vol. 2, 15.10.1 (permission map); ACPI 6.5, 4.8.3 (PM1 control); PCI Local Bus 3.0, 3.2.2.3.

use core::ops::RangeInclusive;

use arrayvec::ArrayVec;

use super::acpi::{Fadt, Register, Space};

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The hardware does it: no exit.
    Pass,
    /// Nothing is there: reads give ones, writes are dropped.
    Nobody,
    /// Nothing is there, but reads give zero.
    Zero,
    /// Port 0xcf8: [`super::pci::AddressPort`], if 32 bits are accessed from here on; else nobody's.
    PciAddress,
    /// The same, but it can't be read back, by which systems find out whether they may use it.
    PciAddressUnread,
    /// Ports 0xcfc to 0xcff: a function's registers.
    PciData,
    /// A reset of the machine: the domain's reboot, if the write asks for it.
    Reset,
    /// The keyboard controller's command port: a command that pulses the reset line is the domain's reboot.
    Keyboard,
    /// PM1 control: reads are the hardware's; a write with SLP_EN is the domain's power-off, without it is dropped.
    Sleep,
}

/// Ports that are the same on every PC, in ascending order. Not there for a PVH domain: its ACPI tables say so, or Linux
/// takes it for granted.
const FIXED: [(RangeInclusive<u16>, Access); 14] = [
    (0x00..=0x0f, Access::Nobody), // 8237: DMA that is no PCI function's
    (0x20..=0x21, Access::Nobody), // 8259A
    (0x40..=0x41, Access::Nobody), // 8254
    // Linux measures with channel 2, and reads a hundred thousand times as long as the count's high byte is all ones.
    (0x42..=0x42, Access::Zero),
    (0x43..=0x43, Access::Nobody),
    (0x64..=0x64, Access::Keyboard), // 8042
    (0x92..=0x92, Access::Nobody),   // system control port A: fast reset, A20
    (0xa0..=0xa1, Access::Nobody),   // second 8259A
    (0xb2..=0xb3, Access::Nobody),   // APM: raises SMI
    (0xc0..=0xdf, Access::Nobody),   // second 8237
    (0x4d0..=0x4d1, Access::Nobody), // ELCR
    (0xcf8..=0xcf8, Access::PciAddress),
    (0xcf9..=0xcf9, Access::Reset),
    (0xcfc..=0xcff, Access::PciData),
];

/// How many more there are at most: console, two PM1 controls, SMI command, reset, the emulator's own, and the address
/// register of configuration space.
const OWN: usize = 7;
/// QEMU's firmware configuration device (QEMU, docs/specs/fw_cfg.rst): its DMA interface copies to any machine address.
const FIRMWARE_CONFIGURATION: (u64, u16) = (0x510, 12);

/// The rules of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// This machine's, before those that every PC has.
    own: ArrayVec<(RangeInclusive<u16>, Access), OWN>,
}

impl Ports {
    /// The rules for the hardware domain of a machine with this FADT, whose hypervisor has its console's UART at the eight
    /// ports from `console` on; `emulator` if it has QEMU's firmware configuration device. With
    /// `by_memory` all of the first segment's configuration space is in memory, where reading it costs no exit: then the
    /// ports work, but can't be found, so that Linux doesn't prefer them.
    #[must_use]
    pub fn new(fadt: Option<&Fadt>, console: Option<u16>, emulator: bool, by_memory: bool) -> Self {
        let mut own = ArrayVec::new();
        // There is room for all of them: see `OWN`.
        let mut add = |first: u64, count: u16, access| {
            if let Ok(first) = u16::try_from(first) {
                own.push((first..=first.saturating_add(count - 1), access));
            }
        };
        if let Some(first) = console {
            add(u64::from(first), 8, Access::Nobody);
        }
        if by_memory {
            add(0xcf8, 1, Access::PciAddressUnread);
        }
        if emulator {
            let (first, count) = FIRMWARE_CONFIGURATION;
            add(first, count, Access::Nobody);
        }
        if let Some(fadt) = fadt {
            let port = |register: &Register| register.space == Space::Port;
            for control in [fadt.pm1a_control, fadt.pm1b_control].iter().flatten() {
                if port(control) {
                    add(control.address, 2, Access::Sleep);
                }
            }
            if fadt.smi_command != 0 {
                add(u64::from(fadt.smi_command), 1, Access::Nobody);
            }
            if let Some((register, _)) = fadt.reset.filter(|(register, _)| port(register)) {
                add(register.address, 1, Access::Reset);
            }
        }
        Self { own }
    }

    /// What an access of one byte to `port` does. A wider one passes only if all of its bytes do; else its first byte
    /// that doesn't pass decides.
    #[must_use]
    pub fn rule(&self, port: u16) -> Access {
        self.own
            .iter()
            .chain(&FIXED)
            .find(|(ports, _)| ports.contains(&port))
            .map_or(Access::Pass, |(_, access)| *access)
    }

    /// All ports that don't pass: for the permission map.
    pub fn kept(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        let rules = self.own.iter().chain(&FIXED);
        rules.map(|(ports, _)| ports.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q35() -> Fadt {
        let port = |address| Register {
            space: Space::Port,
            address,
        };
        Fadt {
            dsdt: 0,
            pm1a_control: Some(port(0x604)),
            pm1b_control: None,
            reset: Some((port(0xcf9), 0xf)),
            smi_command: 0xb2,
            acpi_enable: 2,
            pm_timer: Some(port(0x608)),
            century: Some(0x32),
        }
    }

    #[test]
    fn what_reaches_past_the_domain_never_passes() {
        let ports = Ports::new(Some(&q35()), Some(0x3f8), true, false);
        let kept: Vec<u16> = (0..=u16::MAX)
            .filter(|port| ports.rule(*port) != Access::Pass)
            .collect();
        let expected: Vec<u16> = [
            0x00..=0x0f,
            0x20..=0x21,
            0x40..=0x43,
            0x64..=0x64,
            0x92..=0x92,
            0xa0..=0xa1,
            0xb2..=0xb3,
            0xc0..=0xdf,
            0x3f8..=0x3ff,
            0x4d0..=0x4d1,
            0x510..=0x51b,
            0x604..=0x605,
            0xcf8..=0xcf9,
            0xcfc..=0xcff,
        ]
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(kept, expected);
        let mut mapped: Vec<u16> = ports.kept().flatten().collect();
        mapped.sort_unstable();
        mapped.dedup();
        assert_eq!(mapped, expected);
        assert_eq!(ports.rule(0x604), Access::Sleep);
        assert_eq!(ports.rule(0xcf9), Access::Reset);
        assert_eq!(ports.rule(0x64), Access::Keyboard);
        assert_eq!(ports.rule(0x42), Access::Zero);
        assert_eq!(ports.rule(0x3fd), Access::Nobody);
        assert_eq!(ports.rule(0xcf8), Access::PciAddress);
        let by_memory = Ports::new(Some(&q35()), Some(0x3f8), true, true);
        assert_eq!(by_memory.rule(0xcf8), Access::PciAddressUnread);
        assert_eq!(by_memory.rule(0xcf9), Access::Reset);
        assert_eq!(by_memory.rule(0xcfc), Access::PciData);
    }

    #[test]
    fn registers_in_memory_or_past_the_last_port_are_no_ports() {
        let memory = Register {
            space: Space::Memory,
            address: 0x604,
        };
        let past = Register {
            space: Space::Port,
            address: 0x1_0604,
        };
        let fadt = Fadt {
            pm1a_control: Some(memory),
            pm1b_control: Some(past),
            reset: Some((memory, 1)),
            ..q35()
        };
        let ports = Ports::new(Some(&fadt), None, false, false);
        assert_eq!(ports.rule(0x604), Access::Pass);
        assert_eq!(ports.rule(0x3f8), Access::Pass);
        assert_eq!(
            Ports::new(None, Some(0xffff), false, false).rule(0xffff),
            Access::Nobody
        );
    }

    #[test]
    fn every_register_of_a_machine_has_room() {
        let port = |address| {
            Some(Register {
                space: Space::Port,
                address,
            })
        };
        let fadt = Fadt {
            pm1b_control: port(0x704),
            reset: port(0x64).map(|register| (register, 0xfe)),
            ..q35()
        };
        let ports = Ports::new(Some(&fadt), Some(0x2f8), true, true);
        assert_eq!(ports.own.len(), OWN);
        assert_eq!(ports.rule(0x705), Access::Sleep);
        assert_eq!(ports.rule(0x64), Access::Reset);
    }
}
