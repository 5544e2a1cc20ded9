//! The commands that a guest may give to the ITS (IHI 0069, 5.3), and how they are made fit for the hardware.

/// A command as it lies in the queue.
pub(super) type Command = [u64; 4];

const MOVI: u64 = 0x01;
const INT: u64 = 0x03;
const CLEAR: u64 = 0x04;
const SYNC: u64 = 0x05;
const MAPD: u64 = 0x08;
const MAPC: u64 = 0x09;
const MAPTI: u64 = 0x0a;
const MAPI: u64 = 0x0b;
const INV: u64 = 0x0c;
const INVALL: u64 = 0x0d;
const MOVALL: u64 = 0x0e;
const DISCARD: u64 = 0x0f;

const VALID: u64 = 1 << 63;
/// DeviceID in the upper half of word 0.
const DEVICE: u64 = 0xffff_ffff_0000_0000;
const EVENT: u64 = 0xffff_ffff;
const COLLECTION: u64 = 0xffff;
/// RDbase, bits 50:16.
const TARGET: u64 = 0x0007_ffff_ffff_0000;
/// The interrupt translation table of a device, bits 51:8.
const ITT: u64 = 0x000f_ffff_ffff_ff00;

/// Why a command isn't carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCommand {
    /// No command of a GICv3, or of GICv4 which isn't offered.
    Unknown {
        /// Bits 7:0 of the command.
        number: u8,
    },
    /// MAPD: the interrupt translation table isn't all the domain's own memory.
    Table {
        /// Its machine address.
        start: u64,
        /// Its length in bytes.
        bytes: u64,
    },
    /// MAPC, MOVALL or SYNC names a redistributor that no vCPU has.
    Target {
        /// What it names.
        vcpu: u64,
    },
    /// MAPTI or MAPI names an interrupt that is no LPI.
    Interrupt {
        /// What it names.
        intid: u64,
    },
}

/// What a command is checked against.
pub(super) trait Rules {
    /// Whether the range is all the domain's own memory.
    fn owns(&self, start: u64, bytes: u64) -> bool;
    /// How the hardware names the redistributor of a vCPU's CPU, as bits 50:16.
    fn target(&self, vcpu: u64) -> Option<u64>;
    /// Whether the number is an LPI of the domain.
    fn is_lpi(&self, intid: u64) -> bool;
    /// Bytes of an entry in an interrupt translation table.
    fn entry_bytes(&self) -> u64;
}

/// The command for the hardware, with nothing in it but the fields that the architecture gives it.
pub(super) fn translate(command: Command, rules: &impl Rules) -> Result<Command, BadCommand> {
    let [first, second, third, fourth] = command;
    let number = first & 0xff;
    let device = number | (first & DEVICE);
    let lpi = |intid: u64| {
        if rules.is_lpi(intid) {
            Ok(())
        } else {
            Err(BadCommand::Interrupt { intid })
        }
    };
    match number {
        INT | CLEAR | INV | DISCARD => Ok([device, second & EVENT, 0, 0]),
        MOVI => Ok([device, second & EVENT, third & COLLECTION, 0]),
        MAPTI => {
            lpi(second >> 32)?;
            Ok([device, second, third & COLLECTION, 0])
        }
        MAPI => {
            lpi(second & EVENT)?;
            Ok([device, second & EVENT, third & COLLECTION, 0])
        }
        INVALL => Ok([number, 0, third & COLLECTION, 0]),
        SYNC => Ok([number, 0, target(third, rules)?, 0]),
        MOVALL => Ok([number, 0, target(third, rules)?, target(fourth, rules)?]),
        // Unmapping needs no target.
        MAPC if third & VALID == 0 => Ok([number, 0, third & COLLECTION, 0]),
        MAPC => Ok([
            number,
            0,
            VALID | target(third, rules)? | (third & COLLECTION),
            0,
        ]),
        MAPD if third & VALID == 0 => Ok([device, 0, 0, 0]),
        MAPD => {
            let size = second & 0x1f;
            let (start, bytes) = (third & ITT, rules.entry_bytes() << (size + 1));
            if !rules.owns(start, bytes) {
                return Err(BadCommand::Table { start, bytes });
            }
            Ok([device, size, VALID | start, 0])
        }
        _ => Err(BadCommand::Unknown {
            number: number as u8,
        }),
    }
}

fn target(word: u64, rules: &impl Rules) -> Result<u64, BadCommand> {
    let vcpu = (word & TARGET) >> 16;
    rules
        .target(vcpu)
        .map(|target| target & TARGET)
        .ok_or(BadCommand::Target { vcpu })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Owns 0x4000_0000 to 0x5000_0000; vCPU n's redistributor is number n + 2.
    struct Test;

    impl Rules for Test {
        fn owns(&self, start: u64, bytes: u64) -> bool {
            start >= 0x4000_0000
                && start
                    .checked_add(bytes)
                    .is_some_and(|end| end <= 0x5000_0000)
        }

        fn target(&self, vcpu: u64) -> Option<u64> {
            (vcpu < 2).then_some((vcpu + 2) << 16)
        }

        fn is_lpi(&self, intid: u64) -> bool {
            (8192..65536).contains(&intid)
        }

        fn entry_bytes(&self) -> u64 {
            12
        }
    }

    #[test]
    fn a_device_table_must_be_the_domains() {
        let mapd = |size, address| translate([MAPD | 7 << 32, size, VALID | address, 0], &Test);
        assert_eq!(
            mapd(4, 0x4000_0000),
            Ok([MAPD | 7 << 32, 4, VALID | 0x4000_0000, 0])
        );
        let table = |start, bytes| Err(BadCommand::Table { start, bytes });
        assert_eq!(mapd(4, 0x3fff_ff00), table(0x3fff_ff00, 12 * 32));
        assert_eq!(mapd(4, 0x4fff_ff00), table(0x4fff_ff00, 12 * 32));
        assert_eq!(mapd(31, 0x4000_0000), table(0x4000_0000, 12 << 32));
        assert_eq!(
            translate([MAPD, 31, 0x10_0000, 0], &Test),
            Ok([MAPD, 0, 0, 0])
        );
    }

    #[test]
    fn redistributors_are_translated() {
        assert_eq!(
            translate([MAPC, 0, VALID | 1 << 16 | 5, 0], &Test),
            Ok([MAPC, 0, VALID | 3 << 16 | 5, 0])
        );
        assert_eq!(
            translate([MAPC, 0, VALID | 2 << 16 | 5, 0], &Test),
            Err(BadCommand::Target { vcpu: 2 })
        );
        assert_eq!(
            translate([MOVALL, 0, 0, 1 << 16], &Test),
            Ok([MOVALL, 0, 2 << 16, 3 << 16])
        );
        assert_eq!(
            translate([MOVALL, 0, 0, 9 << 16], &Test),
            Err(BadCommand::Target { vcpu: 9 })
        );
        assert_eq!(
            translate([SYNC, 0, 1 << 16, 0], &Test),
            Ok([SYNC, 0, 3 << 16, 0])
        );
    }

    #[test]
    fn interrupts_are_lpis() {
        assert_eq!(
            translate([MAPTI, 40 << 32, 0, 0], &Test),
            Err(BadCommand::Interrupt { intid: 40 })
        );
        assert_eq!(
            translate([MAPI, 33, 0, 0], &Test),
            Err(BadCommand::Interrupt { intid: 33 })
        );
        assert_eq!(
            translate([MAPTI, 8192 << 32 | 1, 3, 0], &Test),
            Ok([MAPTI, 8192 << 32 | 1, 3, 0])
        );
    }

    proptest! {
        #[test]
        fn whatever_passes_is_harmless(command in any::<[u64; 4]>(), number in 0_u64..0x30) {
            let command = [command[0] & !0xff | number, command[1], command[2], command[3]];
            if let Ok(out) = translate(command, &Test) {
                prop_assert_eq!(out[0] & 0xff, number);
                prop_assert_eq!(translate_again(out), number != MAPC && number != SYNC && number != MOVALL);
                if number == MAPD && out[2] & VALID != 0 {
                    prop_assert!(Test.owns(out[2] & !VALID, Test.entry_bytes() << (out[1] + 1)));
                }
                if [MAPC, SYNC, MOVALL].contains(&number) && (number != MAPC || out[2] & VALID != 0) {
                    prop_assert!([2, 3].contains(&((out[2] & TARGET) >> 16)));
                }
            }
        }
    }

    /// Whether a translated command translates to itself, as all do that name no redistributor.
    fn translate_again(command: Command) -> bool {
        let number = command[0] & 0xff;
        translate(command, &Test) == Ok(command) && ![MAPC, SYNC, MOVALL].contains(&number)
    }
}
