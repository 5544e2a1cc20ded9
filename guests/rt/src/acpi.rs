//! What a guest needs of ACPI's tables: the CPUs, and how the machine is switched off and reset.
//!
//! It reads one table's bytes at a time and trusts nothing in them. ACPI 6.5, chapters 5.2 and 7.4.

use arrayvec::ArrayVec;

/// Local APIC numbers of the CPUs that a MADT lists as enabled, in its order.
pub fn cpus(madt: &[u8]) -> ArrayVec<u32, 64> {
    const LOCAL_APIC: u8 = 0;
    const LOCAL_X2APIC: u8 = 9;
    const ENABLED: u32 = 1;
    let mut cpus = ArrayVec::new();
    let mut rest = madt.get(44..).unwrap_or_default();
    while let [kind, length, ..] = *rest {
        let Some((entry, after)) = rest.split_at_checked(usize::from(length.max(2))) else {
            break;
        };
        let found = match kind {
            LOCAL_APIC => entry.get(3).map(|id| (u32::from(*id), word(entry, 4))),
            LOCAL_X2APIC => word(entry, 4).map(|id| (id, word(entry, 8))),
            _ => None,
        };
        if let Some((id, Some(flags))) = found
            && flags & ENABLED != 0
        {
            // A machine of more CPUs than fit is told of the first ones.
            let _ = cpus.try_push(id);
        }
        rest = after;
    }
    cpus
}

/// The fixed hardware, as far as ports go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// Where the DSDT is.
    pub dsdt: u64,
    /// The port of PM1a control, 0 if there is none.
    pub pm1a_control: u16,
    /// The port of the reset register and what resets, if there is one.
    pub reset: Option<(u16, u8)>,
    /// The port that raises an SMI, 0 if there is none.
    pub smi_command: u16,
}

/// What a FADT says.
pub fn fixed(fadt: &[u8]) -> Fixed {
    const RESET_SUPPORTED: u32 = 1 << 10;
    const PORT_SPACE: u8 = 1;
    let port = |at: usize| word(fadt, at).and_then(|port| u16::try_from(port).ok());
    let flags = word(fadt, 112).unwrap_or(0);
    let reset = (flags & RESET_SUPPORTED != 0 && fadt.get(116) == Some(&PORT_SPACE))
        .then(|| port(120).zip(fadt.get(128).copied()))
        .flatten();
    let wide = word(fadt, 140).zip(word(fadt, 144));
    let wide = wide.map_or(0, |(low, high)| u64::from(high) << 32 | u64::from(low));
    Fixed {
        dsdt: if wide == 0 {
            word(fadt, 40).unwrap_or(0).into()
        } else {
            wide
        },
        pm1a_control: port(64).unwrap_or(0),
        reset,
        smi_command: port(48).unwrap_or(0),
    }
}

/// The sleep type of "off" (`\_S5`), as the DSDT's package of constants has it first.
pub fn sleep_type_off(dsdt: &[u8]) -> Option<u8> {
    const PACKAGE: u8 = 0x12;
    const BYTE: u8 = 0x0a;
    let at = dsdt.windows(4).position(|name| name == b"_S5_")?;
    let [PACKAGE, length, rest @ ..] = dsdt.get(at + 4..)? else {
        return None;
    };
    // The two highest bits of a package's length count the bytes that follow it; then comes the number of elements.
    let skip = usize::from(length >> 6) + 1;
    match *rest.get(skip..)? {
        [BYTE, value, ..] => Some(value),
        [value @ (0 | 1), ..] => Some(value),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Fixed, cpus, fixed, sleep_type_off};
    use proptest::prelude::*;

    #[test]
    fn lists_enabled_cpus() {
        let mut madt = vec![0; 44];
        madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        madt.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        madt.extend([0, 8, 1, 5, 0, 0, 0, 0]);
        madt.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cpus(&madt).as_slice(), [0, 0x100]);
    }

    #[test]
    fn reads_the_fixed_hardware() {
        let mut fadt = vec![0; 148];
        fadt[40..44].copy_from_slice(&0x7fe0_0000_u32.to_le_bytes());
        fadt[48..52].copy_from_slice(&0xb2_u32.to_le_bytes());
        fadt[64..68].copy_from_slice(&0x604_u32.to_le_bytes());
        fadt[112..116].copy_from_slice(&(1_u32 << 10).to_le_bytes());
        fadt[116] = 1;
        fadt[120..124].copy_from_slice(&0xcf9_u32.to_le_bytes());
        fadt[128] = 0xf;
        let expected = Fixed {
            dsdt: 0x7fe0_0000,
            pm1a_control: 0x604,
            reset: Some((0xcf9, 0xf)),
            smi_command: 0xb2,
        };
        assert_eq!(fixed(&fadt), expected);
    }

    #[test]
    fn finds_the_sleep_type() {
        assert_eq!(
            sleep_type_off(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"),
            Some(0)
        );
        assert_eq!(
            sleep_type_off(b"xx\x08_S5_\x12\x08\x04\x0a\x07\x0a\x07"),
            Some(7)
        );
        assert_eq!(sleep_type_off(b"\x08_S5_\x12"), None);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            cpus(&bytes);
            fixed(&bytes);
            sleep_type_off(&bytes);
        }
    }
}
