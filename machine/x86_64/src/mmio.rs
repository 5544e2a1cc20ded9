//! The instructions with which guests reach registers in memory that the hypervisor answers: MOV in its forms and XCHG.
//! Nothing here computes an address: the nested page fault says it. APM volume 3, chapter 1 (encoding) and 3.
//!
//! Instructions that compute with memory aren't here: drivers load and store.

/// The width of code and default operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Real mode and 16-bit segments.
    Bits16,
    /// 32-bit segments.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

/// A general register, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register {
    /// Its number, below 16.
    pub number: u8,
    /// How many bytes of it: 1, 2, 4 or 8.
    pub bytes: u8,
    /// It is AH, CH, DH or BH: the second byte.
    pub high: bool,
}

impl Register {
    /// The part's value in the whole register's.
    #[must_use]
    pub const fn of(self, whole: u64) -> u64 {
        let shifted = if self.high { whole >> 8 } else { whole };
        shifted & ones(self.bytes)
    }

    /// The whole register after `value` has gone into the part. Four bytes clear those above.
    #[must_use]
    pub const fn put(self, whole: u64, value: u64) -> u64 {
        let value = value & ones(self.bytes);
        match self.bytes {
            8 | 4 => value,
            _ if self.high => whole & !0xff00 | value << 8,
            bytes => whole & !ones(bytes) | value,
        }
    }
}

/// All ones in the low `bytes` bytes, 1 to 8.
const fn ones(bytes: u8) -> u64 {
    u64::MAX >> (64 - 8 * bytes as u32)
}

/// What a load does with the bytes above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extend {
    /// Zeroes, also for a load as wide as its register.
    Zero,
    /// Copies of the sign.
    Sign,
}

impl Extend {
    /// A value of `bytes` bytes, extended to 64 bits.
    #[must_use]
    pub const fn apply(self, value: u64, bytes: u8) -> u64 {
        let unused = 64 - 8 * bytes as u32;
        match self {
            Self::Zero => value << unused >> unused,
            Self::Sign => ((value << unused).cast_signed() >> unused).cast_unsigned(),
        }
    }
}

/// What an instruction does with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Memory goes to a register.
    Load(Register, Extend),
    /// A register goes to memory.
    Store(Register),
    /// A constant goes to memory.
    StoreConstant(u64),
    /// Memory and a register change places.
    Exchange(Register),
}

/// An instruction that accesses memory once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Its bytes, at most 15.
    pub length: u8,
    /// Bytes of memory that it accesses: 1, 2, 4 or 8.
    pub bytes: u8,
    /// What it does.
    pub action: Action,
}

/// The instruction at the start of `bytes`; `None` for one that isn't among those above, or whose end isn't there.
#[must_use]
pub fn decode(bytes: &[u8], mode: Mode) -> Option<Instruction> {
    let mut code = Code {
        bytes: bytes.get(..bytes.len().min(15))?,
        at: 0,
    };
    let prefixes = Prefixes::read(&mut code, mode)?;
    let wide = prefixes.operand;
    let opcode = code.byte()?;
    let (bytes, action) = match opcode {
        0x88 => (1, Action::Store(prefixes.modrm(&mut code, 1)?)),
        0x89 => (wide, Action::Store(prefixes.modrm(&mut code, wide)?)),
        0x8a => {
            let register = prefixes.modrm(&mut code, 1)?;
            (1, Action::Load(register, Extend::Zero))
        }
        0x8b => {
            let register = prefixes.modrm(&mut code, wide)?;
            (wide, Action::Load(register, Extend::Zero))
        }
        0x86 => (1, Action::Exchange(prefixes.modrm(&mut code, 1)?)),
        0x87 => (wide, Action::Exchange(prefixes.modrm(&mut code, wide)?)),
        0xa0..=0xa3 => {
            code.skip(prefixes.address)?;
            let bytes = if opcode & 1 == 0 { 1 } else { wide };
            let accumulator = Register {
                number: 0,
                bytes,
                high: false,
            };
            let action = if opcode < 0xa2 {
                Action::Load(accumulator, Extend::Zero)
            } else {
                Action::Store(accumulator)
            };
            (bytes, action)
        }
        0xc6 | 0xc7 => {
            let bytes = if opcode == 0xc6 { 1 } else { wide };
            let register = prefixes.modrm(&mut code, bytes)?;
            if register.number & 7 != 0 || register.high {
                return None;
            }
            // Eight bytes have a constant of four, whose sign is copied.
            let constant = code.number(bytes.min(4))?;
            let constant = Extend::Sign.apply(constant, bytes.min(4));
            (bytes, Action::StoreConstant(constant & ones(bytes)))
        }
        0x63 if mode == Mode::Bits64 => {
            let register = prefixes.modrm(&mut code, wide)?;
            (wide.min(4), Action::Load(register, Extend::Sign))
        }
        0x0f => {
            let (bytes, extend) = match code.byte()? {
                0xb6 => (1, Extend::Zero),
                0xb7 => (2, Extend::Zero),
                0xbe => (1, Extend::Sign),
                0xbf => (2, Extend::Sign),
                _ => return None,
            };
            (
                bytes,
                Action::Load(prefixes.modrm(&mut code, wide)?, extend),
            )
        }
        _ => return None,
    };
    if prefixes.lock && !matches!(action, Action::Exchange(_)) {
        return None;
    }
    Some(Instruction {
        length: u8::try_from(code.at).ok()?,
        bytes,
        action,
    })
}

/// The bytes of an instruction, and how many of them have been read.
struct Code<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Code<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, count: u8) -> Option<()> {
        (0..count).try_for_each(|_| self.byte().map(|_| ()))
    }

    fn number(&mut self, count: u8) -> Option<u64> {
        let mut value = 0;
        for index in 0..count {
            value |= u64::from(self.byte()?) << (8 * index);
        }
        Some(value)
    }
}

/// What prefixes and mode make of an instruction.
struct Prefixes {
    /// Bytes of an operand that isn't a byte.
    operand: u8,
    /// Bytes of an address.
    address: u8,
    /// REX, or 0.
    rex: u8,
    /// LOCK: of these instructions only XCHG takes it.
    lock: bool,
}

const REX_WIDE: u8 = 8;
const REX_REGISTER: u8 = 4;

impl Prefixes {
    fn read(code: &mut Code<'_>, mode: Mode) -> Option<Self> {
        let (mut operand, mut address, mut lock, mut rex) = (false, false, false, 0);
        loop {
            match code.peek()? {
                0x66 => operand = true,
                0x67 => address = true,
                0xf0 => lock = true,
                // Segments and repetition, which change nothing here.
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf2 | 0xf3 => {}
                found @ 0x40..=0x4f if mode == Mode::Bits64 => {
                    // Only the last one counts, right before the opcode.
                    code.at += 1;
                    rex = found;
                    if matches!(
                        code.peek()?,
                        0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x40
                            ..=0x4f | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3
                    ) {
                        rex = 0;
                        continue;
                    }
                    break;
                }
                _ => break,
            }
            code.at += 1;
        }
        Some(Self {
            operand: match (mode, operand) {
                (Mode::Bits64, _) if rex & REX_WIDE != 0 => 8,
                (Mode::Bits16, false) | (Mode::Bits32 | Mode::Bits64, true) => 2,
                _ => 4,
            },
            address: match (mode, address) {
                (Mode::Bits64, false) => 8,
                (Mode::Bits16, false) | (Mode::Bits32, true) => 2,
                _ => 4,
            },
            rex,
            lock,
        })
    }

    /// Reads ModRM and what belongs to it; gives the register operand of `bytes` bytes. `None` if the other operand is a
    /// register too.
    fn modrm(&self, code: &mut Code<'_>, bytes: u8) -> Option<Register> {
        let modrm = code.byte()?;
        let (kind, register, base) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        if kind == 3 {
            return None;
        }
        let displacement = if self.address == 2 {
            match kind {
                0 if base == 6 => 2,
                kind => kind,
            }
        } else {
            // With base 4 there is a SIB byte, which has a base of its own.
            let base = if base == 4 { code.byte()? & 7 } else { base };
            match kind {
                0 if base == 5 => 4,
                0 => 0,
                1 => 1,
                _ => 4,
            }
        };
        code.skip(displacement)?;
        let high = bytes == 1 && self.rex == 0 && register >= 4;
        let number = if high {
            register - 4
        } else if self.rex & REX_REGISTER != 0 {
            register + 8
        } else {
            register
        };
        Some(Register {
            number,
            bytes,
            high,
        })
    }
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;
