//! The fixed ACPI description table: how the machine is turned off and reset.

use zerocopy::little_endian::{U32, U64};

use super::prefix;

/// Where a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Memory.
    Memory,
    /// An I/O port.
    Port,
}

/// A register of the fixed hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register {
    /// The address space.
    pub space: Space,
    /// The address; never zero.
    pub address: u64,
}

/// What the hypervisor takes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fadt {
    /// Where the DSDT is, 0 if there is none.
    pub dsdt: u64,
    /// PM1a_CNT: sleep is asked for here.
    pub pm1a_control: Option<Register>,
    /// PM1b_CNT, on machines with two halves.
    pub pm1b_control: Option<Register>,
    /// The reset register and what to write, if the firmware says that it works.
    pub reset: Option<(Register, u8)>,
    /// The port that raises an SMI, 0 if there is none.
    pub smi_command: u32,
    /// What to write there so that the firmware leaves the fixed hardware to software, 0 if it has already.
    pub acpi_enable: u8,
    /// PM_TMR: a counter of 24 bits or 32 at 3.579545 MHz.
    pub pm_timer: Option<Register>,
    /// The CMOS register with the century.
    pub century: Option<u8>,
}

impl Register {
    /// The port, if it is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.space {
            Space::Port => u16::try_from(self.address).ok(),
            Space::Memory => None,
        }
    }
}

/// Flag: the reset register is supported.
const RESET_SUPPORTED: u32 = 1 << 10;

impl Fadt {
    /// Reads a FADT whose header is checked, of any revision: what an old one lacks is not there. `None` if it is shorter
    /// than the first revision.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let word = |offset: usize| Some(prefix::<U32>(bytes.get(offset..)?)?.get());
        let long = |offset: usize| Some(prefix::<U64>(bytes.get(offset..)?)?.get());
        let register = |offset: usize| generic(bytes.get(offset..offset + 12)?);
        let port = |number: u32| {
            (number != 0).then_some(Register {
                space: Space::Port,
                address: u64::from(number),
            })
        };
        let flags = word(112)?;
        let reset = (flags & RESET_SUPPORTED != 0)
            .then(|| Some((register(116)?, *bytes.get(128)?)))
            .flatten();
        // The extended fields, where they are set, come before the old ones.
        let dsdt = long(140).filter(|address| *address != 0);
        Some(Self {
            dsdt: dsdt.unwrap_or(u64::from(word(40)?)),
            pm1a_control: register(172).or(port(word(64)?)),
            pm1b_control: register(184).or(port(word(68)?)),
            reset,
            smi_command: word(48)?,
            acpi_enable: *bytes.get(52)?,
            pm_timer: register(208).or(port(word(76)?)),
            century: bytes.get(108).copied().filter(|number| *number != 0),
        })
    }
}

/// A generic address structure; `None` if it is null or in a space that isn't handled.
fn generic(bytes: &[u8]) -> Option<Register> {
    let space = match bytes.first()? {
        0 => Space::Memory,
        1 => Space::Port,
        _ => return None,
    };
    let address: U64 = prefix(bytes.get(4..)?)?;
    (address.get() != 0).then_some(Register {
        space,
        address: address.get(),
    })
}

/// The two sleep types of a sleep state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    /// SLP_TYPa, 0 to 7.
    pub a: u8,
    /// SLP_TYPb, 0 to 7.
    pub b: u8,
}

impl Sleep {
    /// What to write to PM1a_CNT and PM1b_CNT, over the bits that `control` has: SLP_TYP and SLP_EN.
    #[must_use]
    pub const fn values(self, control: u16) -> (u16, u16) {
        const TYPE_SHIFT: u16 = 10;
        const ENABLE: u16 = 1 << 13;
        let kept = control & !(7 << TYPE_SHIFT | ENABLE);
        (
            kept | (self.a as u16) << TYPE_SHIFT | ENABLE,
            kept | (self.b as u16) << TYPE_SHIFT | ENABLE,
        )
    }
}

/// The sleep types of soft-off, `\_S5`, from the bytes of a DSDT or SSDT: a name whose value is a package of constants
/// (ACPI 6.5, 7.4.2 and 20.2). `None` if there is no such package, or one that only an interpreter could read.
#[must_use]
pub fn soft_off(aml: &[u8]) -> Option<Sleep> {
    aml.windows(4)
        .enumerate()
        .filter(|(_, name)| *name == b"_S5_")
        .find_map(|(at, _)| package(aml.get(..at)?, aml.get(at + 4..)?))
}

const NAME: u8 = 0x08;
const ROOT: u8 = b'\\';
const PACKAGE: u8 = 0x12;

/// The package after the name, if `before` ends in what defines a name.
fn package(before: &[u8], after: &[u8]) -> Option<Sleep> {
    if !matches!(before, [.., NAME] | [.., NAME, ROOT]) {
        return None;
    }
    let (PACKAGE, rest) = after.split_first().map(|(first, rest)| (*first, rest))? else {
        return None;
    };
    // The length has one byte to four; the two upper bits of the first tell how many follow.
    let lead = *rest.first()?;
    let rest = rest.get(1 + usize::from(lead >> 6)..)?;
    let (count, rest) = rest.split_first()?;
    let (a, rest) = constant(rest)?;
    let b = if *count > 1 { constant(rest)?.0 } else { a };
    (a < 8 && b < 8).then_some(Sleep { a, b })
}

/// A small integer constant, and what follows it.
fn constant(aml: &[u8]) -> Option<(u8, &[u8])> {
    match aml {
        [value @ (0 | 1), rest @ ..] => Some((*value, rest)),
        [0x0a, value, rest @ ..] => Some((*value, rest)),
        [0x0b, value, 0, rest @ ..] => Some((*value, rest)),
        [0x0c, value, 0, 0, 0, rest @ ..] => Some((*value, rest)),
        _ => None,
    }
}
