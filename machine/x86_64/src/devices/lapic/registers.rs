//! The APIC's registers by both ways, and the MSRs around them.

use super::timer::Kind;
use super::{GeneralProtection, LVT_MASKED, LocalApic, Lvt, Mode, Platform, SVR_ENABLE, error};

/// Where the xAPIC's page of registers is, in guest physical addresses. It doesn't move.
pub const BASE_ADDRESS: u64 = layout::fixed::LOCAL_APIC;
/// IA32_APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The first MSR of the x2APIC; its number is this plus a register's offset divided by 16.
pub const MSR_X2APIC_FIRST: u32 = 0x800;
/// The last MSR that the architecture keeps for the x2APIC.
pub const MSR_X2APIC_LAST: u32 = 0x8ff;

const BASE_BSP: u64 = 1 << 8;
const BASE_EXTD: u64 = 1 << 10;
const BASE_EN: u64 = 1 << 11;

/// An integrated APIC with six local vectors.
const VERSION: u32 = 0x14 | (super::LVT_ENTRIES as u32 - 1) << 16;

/// Registers by their offset divided by 16.
mod index {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TASK_PRIORITY: u32 = 0x08;
    pub(super) const ARBITRATION: u32 = 0x09;
    pub(super) const PROCESSOR_PRIORITY: u32 = 0x0a;
    pub(super) const END: u32 = 0x0b;
    pub(super) const REMOTE_READ: u32 = 0x0c;
    pub(super) const LOGICAL: u32 = 0x0d;
    pub(super) const FORMAT: u32 = 0x0e;
    pub(super) const SPURIOUS: u32 = 0x0f;
    pub(super) const IN_SERVICE: u32 = 0x10;
    pub(super) const LEVELS: u32 = 0x18;
    pub(super) const PENDING: u32 = 0x20;
    pub(super) const ERRORS: u32 = 0x28;
    pub(super) const COMMAND: u32 = 0x30;
    pub(super) const COMMAND_HIGH: u32 = 0x31;
    pub(super) const TIMER: u32 = 0x32;
    pub(super) const THERMAL: u32 = 0x33;
    pub(super) const PERFORMANCE: u32 = 0x34;
    pub(super) const LINT0: u32 = 0x35;
    pub(super) const LINT1: u32 = 0x36;
    pub(super) const ERROR: u32 = 0x37;
    pub(super) const INITIAL: u32 = 0x38;
    pub(super) const CURRENT: u32 = 0x39;
    pub(super) const DIVIDE: u32 = 0x3e;
    pub(super) const SELF_IPI: u32 = 0x3f;
}

impl Lvt {
    const fn at(register: u32) -> Option<Self> {
        Some(match register {
            index::TIMER => Self::Timer,
            index::THERMAL => Self::Thermal,
            index::PERFORMANCE => Self::Performance,
            index::LINT0 => Self::Lint0,
            index::LINT1 => Self::Lint1,
            index::ERROR => Self::Error,
            _ => return None,
        })
    }

    /// The bits that a guest sets: vector and mask, then the entry's own.
    const fn writable(self) -> u32 {
        let common = 0xff | LVT_MASKED;
        match self {
            Self::Timer => common | 3 << 17,
            Self::Thermal | Self::Performance => common | 7 << 8,
            Self::Lint0 | Self::Lint1 => common | 7 << 8 | 1 << 13 | 1 << 15,
            Self::Error => common,
        }
    }

    /// The bits that only hardware sets, which a guest writes back as it read them: delivery status, remote IRR.
    const fn read_only(self) -> u32 {
        match self {
            Self::Lint0 | Self::Lint1 => 1 << 12 | 1 << 14,
            _ => 1 << 12,
        }
    }
}

impl LocalApic<'_> {
    /// A read of the register page, `offset` bytes from [`BASE_ADDRESS`]. What no register is there reads as zero, and
    /// so does everything if the xAPIC isn't on. Registers are 32 bits wide, at multiples of 16.
    pub fn mmio_read(&mut self, offset: u32, platform: &impl Platform) -> u32 {
        if self.mode() != Mode::XApic || !offset.is_multiple_of(4) || offset >= 0x1000 {
            return 0;
        }
        match (offset.is_multiple_of(16), offset / 16) {
            (true, index::ID) => self.inbox().apic_id() << 24,
            (true, index::ARBITRATION | index::REMOTE_READ | index::END | index::SELF_IPI) => 0,
            (true, index::FORMAT) if self.inbox().is_flat() => u32::MAX,
            (true, index::FORMAT) => 0x0fff_ffff,
            (true, index::COMMAND_HIGH) => self.command[1],
            (true, register) => self.read(register, platform).unwrap_or_else(|| {
                self.error(error::REGISTER);
                0
            }),
            (false, _) => 0,
        }
    }

    /// A write of 32 bits to the register page. Reserved bits and registers that aren't there ignore it.
    pub fn mmio_write(&mut self, offset: u32, value: u32, platform: &impl Platform) {
        if self.mode() != Mode::XApic || !offset.is_multiple_of(16) || offset >= 0x1000 {
            return;
        }
        match offset / 16 {
            // The ID is that of the CPU.
            index::ID | index::VERSION | index::ARBITRATION | index::PROCESSOR_PRIORITY => {}
            index::REMOTE_READ | index::CURRENT | index::IN_SERVICE..index::ERRORS => {}
            index::END => self.end_of_interrupt(platform),
            index::LOGICAL => self.inbox().set_logical(value),
            index::FORMAT => self.inbox().set_flat(value >> 28 == 0xf),
            index::TASK_PRIORITY => self.task_priority = value & 0xff,
            index::ERRORS => self.latch_errors(),
            index::COMMAND => {
                self.command[0] = value & !(1 << 12);
                self.send(value, self.command[1], false, platform);
            }
            index::COMMAND_HIGH => self.command[1] = value & 0xff00_0000,
            index::SELF_IPI => self.error(error::REGISTER),
            register => {
                if !self.write(register, value, platform) {
                    self.error(error::REGISTER);
                }
            }
        }
    }

    /// RDMSR of an x2APIC register, [`MSR_X2APIC_FIRST`] to [`MSR_X2APIC_LAST`].
    ///
    /// # Errors
    /// Another mode is on, no register is there, or it can't be read.
    pub fn msr_read(
        &mut self,
        msr: u32,
        platform: &impl Platform,
    ) -> Result<u64, GeneralProtection> {
        let register = self.x2apic_register(msr)?;
        match register {
            index::ID => Ok(u64::from(self.inbox().apic_id())),
            index::COMMAND => Ok(u64::from(self.command[1]) << 32 | u64::from(self.command[0])),
            _ => self
                .read(register, platform)
                .map(u64::from)
                .ok_or(GeneralProtection),
        }
    }

    /// WRMSR to an x2APIC register.
    ///
    /// # Errors
    /// Another mode is on, no register is there, it can't be written, or a reserved bit is set. Nothing is changed then.
    pub fn msr_write(
        &mut self,
        msr: u32,
        value: u64,
        platform: &impl Platform,
    ) -> Result<(), GeneralProtection> {
        let register = self.x2apic_register(msr)?;
        if register == index::COMMAND {
            // Vector, modes, level, trigger, shorthand. The delivery status is gone in this mode.
            const COMMAND_BITS: u32 = 0xff | 0xf << 8 | 3 << 14 | 3 << 18;
            let low = value as u32;
            allow(low, COMMAND_BITS)?;
            self.command = [low, (value >> 32) as u32];
            self.send(low, self.command[1], true, platform);
            return Ok(());
        }
        let value = u32::try_from(value).map_err(|_| GeneralProtection)?;
        match register {
            index::TASK_PRIORITY => {
                allow(value, 0xff)?;
                self.task_priority = value;
            }
            index::END => {
                allow(value, 0)?;
                self.end_of_interrupt(platform);
            }
            index::ERRORS => {
                allow(value, 0)?;
                self.latch_errors();
            }
            index::SELF_IPI => {
                allow(value, 0xff)?;
                if !self.inbox().post(value as u8, false) {
                    self.error(error::SEND_ILLEGAL);
                }
            }
            _ => {
                let bits = match register {
                    index::SPURIOUS => 0xff | SVR_ENABLE | 1 << 9,
                    index::INITIAL => u32::MAX,
                    index::DIVIDE => 0b1011,
                    _ => match Lvt::at(register) {
                        Some(lvt) => lvt.writable() | lvt.read_only(),
                        None => return Err(GeneralProtection),
                    },
                };
                allow(value, bits)?;
                if !self.write(register, value, platform) {
                    return Err(GeneralProtection);
                }
            }
        }
        Ok(())
    }

    /// IA32_APIC_BASE. The first vCPU is the bootstrap processor.
    #[must_use]
    pub fn base(&self) -> u64 {
        let mode = match self.mode() {
            Mode::Disabled => 0,
            Mode::XApic => BASE_EN,
            Mode::X2Apic => BASE_EN | BASE_EXTD,
        };
        let bootstrap = if self.vcpu == 0 { BASE_BSP } else { 0 };
        BASE_ADDRESS | mode | bootstrap
    }

    /// A write of IA32_APIC_BASE: switches between the modes.
    ///
    /// # Errors
    /// The address or a reserved bit would change, EXTD would be on without EN, or the architecture has no such
    /// transition: into the x2APIC only from the xAPIC, out of it only to disabled.
    pub fn set_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        if (value ^ self.base()) & !(BASE_EN | BASE_EXTD) != 0 {
            return Err(GeneralProtection);
        }
        let next = match (value & BASE_EN != 0, value & BASE_EXTD != 0) {
            (true, true) => Mode::X2Apic,
            (true, false) => Mode::XApic,
            (false, false) => Mode::Disabled,
            (false, true) => return Err(GeneralProtection),
        };
        match (self.mode(), next) {
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => {
                return Err(GeneralProtection);
            }
            (now, next) if now == next => {}
            // An APIC that was off begins anew.
            (_, Mode::Disabled) => {
                self.init();
                self.inbox().set_mode(next);
            }
            (_, next) => self.inbox().set_mode(next),
        }
        Ok(())
    }

    /// IA32_TSC_DEADLINE.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline()
    }

    /// A write of IA32_TSC_DEADLINE: ignored unless the timer is in that mode. A deadline that is past fires at the
    /// next [`LocalApic::expire`].
    pub fn set_tsc_deadline(&mut self, deadline: u64) {
        self.timer.set_tsc_deadline(deadline);
    }

    fn x2apic_register(&self, msr: u32) -> Result<u32, GeneralProtection> {
        if self.mode() != Mode::X2Apic || !(MSR_X2APIC_FIRST..=MSR_X2APIC_LAST).contains(&msr) {
            return Err(GeneralProtection);
        }
        Ok(msr - MSR_X2APIC_FIRST)
    }

    /// A register that reads the same by both ways; `None` if there is none that can be read.
    fn read(&self, register: u32, platform: &impl Platform) -> Option<u32> {
        let word = (register & 7) as usize;
        Some(match register {
            index::VERSION => VERSION,
            index::TASK_PRIORITY => self.task_priority,
            index::PROCESSOR_PRIORITY => u32::from(self.processor_priority()),
            index::LOGICAL => self.inbox().logical(),
            index::SPURIOUS => self.spurious,
            index::IN_SERVICE..index::LEVELS => self.in_service[word],
            index::LEVELS..index::PENDING => self.inbox().levels(word),
            index::PENDING..index::ERRORS => self.inbox().pending(word),
            index::ERRORS => self.error_status,
            index::COMMAND => self.command[0],
            index::INITIAL => self.timer.initial(),
            index::CURRENT => self.timer.current(platform.tsc()),
            index::DIVIDE => self.timer.divide(),
            _ => self.lvt[Lvt::at(register)? as usize],
        })
    }

    /// A register that takes the same bits by both ways; `false` if there is none that can be written.
    fn write(&mut self, register: u32, value: u32, platform: &impl Platform) -> bool {
        match register {
            index::SPURIOUS => self.set_spurious(value),
            index::INITIAL => self.timer.set_initial(value, platform.tsc()),
            index::DIVIDE => self.timer.set_divide(value, platform.tsc()),
            _ => match Lvt::at(register) {
                Some(lvt) => self.set_lvt(lvt, value),
                None => return false,
            },
        }
        true
    }

    fn set_lvt(&mut self, lvt: Lvt, value: u32) {
        let masked = if self.spurious & SVR_ENABLE == 0 {
            LVT_MASKED
        } else {
            0
        };
        self.lvt[lvt as usize] = value & lvt.writable() | masked;
        if lvt == Lvt::Timer {
            self.timer.set_kind(Kind::of(value));
        }
    }

    /// An APIC that software disables masks its local vectors, for good.
    fn set_spurious(&mut self, value: u32) {
        self.spurious = value & (0xff | SVR_ENABLE | 1 << 9);
        let enabled = value & SVR_ENABLE != 0;
        if !enabled {
            for entry in &mut self.lvt {
                *entry |= LVT_MASKED;
            }
        }
        self.inbox().set_enabled(enabled);
    }

    /// A write of the error status register shows what has gathered since the last one.
    fn latch_errors(&mut self) {
        self.error_status = core::mem::take(&mut self.errors);
    }
}

/// #GP if `value` has a bit outside `bits`.
fn allow(value: u32, bits: u32) -> Result<(), GeneralProtection> {
    if value & !bits == 0 {
        Ok(())
    } else {
        Err(GeneralProtection)
    }
}
