//! The clock that hypervisor and guests share: nanoseconds as a linear function of the TSC, in the form of Xen's
//! `struct vcpu_time_info` (public/xen.h); and the arithmetic of the TSC's frequency.
//!
//! Not here: reading the TSC, and the clocks that it is measured against.
#![allow(
    clippy::cast_possible_truncation,
    reason = "products of 128 bits are shifted or bounded before they are narrowed"
)]

/// Nanoseconds in a second.
pub const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds are `((tsc - base) shifted left by shift, negative: right) * multiplier / 2^32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The TSC at nanosecond 0.
    pub base: u64,
    /// `tsc_to_system_mul`, its highest bit set.
    pub multiplier: u32,
    /// `tsc_shift`.
    pub shift: i8,
    /// The TSC's frequency in Hz, not zero.
    pub frequency: u64,
}

impl Clock {
    /// A clock that is 0 when the TSC is `base`, on a CPU whose TSC counts `frequency` times in a second, 1 MHz to
    /// 2^40 (less or more is taken for these).
    #[must_use]
    pub const fn new(base: u64, frequency: u64) -> Self {
        const LEAST: u64 = 1_000_000;
        const MOST: u64 = 1 << 40;
        let frequency = match frequency {
            0..LEAST => LEAST,
            LEAST..MOST => frequency,
            _ => MOST,
        };
        // The multiplier in [2^31, 2^32): NANOSECONDS * 2^(32 - shift) / frequency.
        let mut shift: i8 = 0;
        let mut scaled = frequency;
        while scaled >= 2 * NANOSECONDS {
            scaled >>= 1;
            shift -= 1;
        }
        while scaled <= NANOSECONDS {
            scaled <<= 1;
            shift += 1;
        }
        let numerator = (NANOSECONDS as u128) << (32 + 16);
        let denominator = if shift < 0 {
            (frequency as u128) << (16 - (-shift) as u32)
        } else {
            (frequency as u128) << (16 + shift as u32)
        };
        let multiplier = numerator / denominator;
        Self {
            base,
            multiplier: if multiplier > u32::MAX as u128 {
                u32::MAX
            } else {
                multiplier as u32
            },
            shift,
            frequency,
        }
    }

    /// Nanoseconds at a TSC value, as a guest computes them; 0 before the clock began.
    #[must_use]
    pub const fn nanoseconds(&self, tsc: u64) -> u64 {
        let delta = tsc.saturating_sub(self.base);
        let scaled = if self.shift < 0 {
            delta >> -self.shift
        } else {
            delta << self.shift
        };
        ((scaled as u128 * self.multiplier as u128) >> 32) as u64
    }

    /// The first TSC value at which [`Self::nanoseconds`] gives `time` or more; all ones if it never does.
    #[must_use]
    pub fn tsc_at(&self, time: u64) -> u64 {
        let scaled = (u128::from(time) << 32).div_ceil(u128::from(self.multiplier));
        let delta = if self.shift < 0 {
            scaled << -self.shift
        } else {
            scaled.div_ceil(1 << self.shift)
        };
        u64::try_from(delta)
            .ok()
            .and_then(|delta| self.base.checked_add(delta))
            .unwrap_or(u64::MAX)
    }

    /// The TSC's frequency in kHz, rounded.
    #[must_use]
    pub fn khz(&self) -> u32 {
        u32::try_from((self.frequency + 500) / 1000).unwrap_or(u32::MAX)
    }
}

/// The TSC's frequency in Hz by CPUID leaf 0x15: crystal frequency in Hz (ECX) times EBX / EAX. `None` if one of them is
/// not given (Intel SDM vol. 2A, CPUID; AMD CPUs don't have the leaf).
#[must_use]
pub fn by_crystal(eax: u32, ebx: u32, ecx: u32) -> Option<u64> {
    if eax == 0 || ebx == 0 || ecx == 0 {
        return None;
    }
    Some(u64::from(ecx) * u64::from(ebx) / u64::from(eax))
}

/// The frequency of P-state 0 in Hz by MSR C001_0064, at which the TSC of AMD's families 17h and 19h counts (processor
/// programming references, "Core::X86::Msr::PStateDef"): 200 MHz * CpuFid / CpuDfsId. `None` if the P-state isn't enabled,
/// or for other families.
#[must_use]
pub fn by_p_state(family: u32, definition: u64) -> Option<u64> {
    const ENABLED: u64 = 1 << 63;
    if definition & ENABLED == 0 {
        return None;
    }
    match family {
        0x17 | 0x19 => {
            let (multiple, divisor) = (definition & 0xff, definition >> 8 & 0x3f);
            (multiple != 0 && divisor != 0).then(|| 200_000_000 * multiple / divisor)
        }
        // Family 1Ah: 5 MHz steps in twelve bits.
        0x1a => {
            let multiple = definition & 0xfff;
            (multiple != 0).then_some(5_000_000 * multiple)
        }
        _ => None,
    }
}

/// The CPU family by CPUID leaf 1 EAX (APM vol. 3, appendix E.3.2).
#[must_use]
pub const fn family(eax: u32) -> u32 {
    let base = eax >> 8 & 0xf;
    if base == 0xf {
        base + (eax >> 20 & 0xff)
    } else {
        base
    }
}

/// The frequency of a counter of which `counts` went by while a clock of `reference` Hz counted `ticks`, not zero.
#[must_use]
pub fn by_reference(counts: u64, reference: u64, ticks: u64) -> u64 {
    let frequency = u128::from(counts) * u128::from(reference) / u128::from(ticks.max(1));
    u64::try_from(frequency).unwrap_or(u64::MAX)
}

/// The time of the CMOS clock (MC146818): seconds, minutes, hours, day, month, year of the century.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cmos {
    /// Registers 0, 2, 4, 7, 8, 9 as they are.
    pub registers: [u8; 6],
    /// The century register, where the FADT names one.
    pub century: Option<u8>,
    /// Register B: bit 2 for binary numbers, bit 1 for 24 hours.
    pub mode: u8,
}

impl Cmos {
    /// Seconds since 1970; `None` if the registers hold no date. Without a century the year is 1970 to 2069.
    #[must_use]
    pub fn seconds(self) -> Option<u64> {
        const BINARY: u8 = 1 << 2;
        const DAY: u8 = 1 << 1;
        const AFTERNOON: u8 = 1 << 7;
        let number = |value: u8| {
            if self.mode & BINARY != 0 {
                u64::from(value)
            } else {
                u64::from(value >> 4) * 10 + u64::from(value & 0xf)
            }
        };
        let [second, minute, hour, day, month, year] = self.registers;
        let hours = if self.mode & DAY != 0 {
            number(hour)
        } else {
            let half = if hour & AFTERNOON != 0 { 12 } else { 0 };
            number(hour & !AFTERNOON) % 12 + half
        };
        let year = match self.century.map(number) {
            Some(century @ 19..=21) => century * 100 + number(year),
            _ if number(year) < 70 => 2000 + number(year),
            _ => 1900 + number(year),
        };
        let (second, minute, day, month) =
            (number(second), number(minute), number(day), number(month));
        let plausible = second < 61
            && minute < 60
            && hours < 24
            && (1..=31).contains(&day)
            && (1..=12).contains(&month)
            && year >= 1970;
        plausible.then(|| ((days(year, month, day) * 24 + hours) * 60 + minute) * 60 + second)
    }
}

/// Days since 1970 of a date in the Gregorian calendar.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March, so that the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719468 days from 1 March of year 0 to 1970.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_frequencies() {
        let clock = Clock::new(100, 1_000_000_000);
        assert_eq!((clock.multiplier, clock.shift), (1 << 31, 1));
        assert_eq!(clock.nanoseconds(100), 0);
        assert_eq!(clock.nanoseconds(1100), 1000);
        assert_eq!(clock.nanoseconds(5), 0);
        let clock = Clock::new(0, 2_500_000_000);
        assert_eq!((clock.multiplier, clock.shift), (0xcccc_cccc, -1));
        assert_eq!(clock.khz(), 2_500_000);
        assert_eq!(Clock::new(0, u64::MAX), Clock::new(0, 1 << 40));
        // The least frequency that is taken.
        assert_eq!(Clock::new(0, 0).nanoseconds(1), 1000);
    }

    #[test]
    fn frequencies_that_the_cpu_names() {
        assert_eq!(by_crystal(2, 216, 24_000_000), Some(2_592_000_000));
        assert_eq!(by_crystal(2, 216, 0), None);
        assert_eq!(
            by_p_state(0x17, 1 << 63 | 8 << 8 | 0x64),
            Some(2_500_000_000)
        );
        assert_eq!(by_p_state(0x17, 8 << 8 | 0x64), None);
        assert_eq!(by_p_state(0x1a, 1 << 63 | 500), Some(2_500_000_000));
        assert_eq!(by_p_state(0x15, 1 << 63 | 8 << 8 | 0x64), None);
        assert_eq!(family(0x0080_0f12), 0x17);
        assert_eq!(family(0x0000_0663), 6);
        assert_eq!(by_reference(1_000_000, 3_579_545, 3_580), 999_872_905);
    }

    #[test]
    fn the_cmos_clock_in_its_four_forms() {
        let expected = Some(1_735_689_599); // 2024-12-31 23:59:59
        let bcd = Cmos {
            registers: [0x59, 0x59, 0x23, 0x31, 0x12, 0x24],
            century: None,
            mode: 1 << 1,
        };
        assert_eq!(bcd.seconds(), expected);
        let halves = Cmos {
            registers: [0x59, 0x59, 0x91, 0x31, 0x12, 0x24],
            century: Some(0x20),
            mode: 0,
        };
        assert_eq!(halves.seconds(), expected);
        let binary = Cmos {
            registers: [59, 59, 23, 31, 12, 24],
            century: Some(20),
            mode: 1 << 2 | 1 << 1,
        };
        assert_eq!(binary.seconds(), expected);
        let midnight = Cmos {
            registers: [0, 0, 12, 1, 1, 70],
            century: None,
            mode: 1 << 2,
        };
        assert_eq!(midnight.seconds(), Some(0));
        let ones = Cmos {
            registers: [0xff; 6],
            century: None,
            mode: 0xff,
        };
        assert_eq!(ones.seconds(), None);
    }

    proptest! {
        /// The multiplier is as precise as 32 bits can be, and the time is within that of the exact one.
        #[test]
        fn close_to_exact(frequency in 1_000_000_u64..10_000_000_000, seconds in 0_u64..100_000_000) {
            let clock = Clock::new(0, frequency);
            prop_assert!(clock.multiplier >= 1 << 31);
            let time = clock.nanoseconds(frequency.saturating_mul(seconds));
            let exact = seconds * NANOSECONDS;
            prop_assert!(time.abs_diff(exact) <= (exact >> 30) + 1100, "{time} {exact}");
        }

        /// The TSC of a time is the first that shows it.
        #[test]
        fn a_time_has_its_first_tsc(frequency in 1_000_000_u64..10_000_000_000, base in 0_u64..1 << 50, time in 0_u64..1 << 55) {
            let clock = Clock::new(base, frequency);
            let tsc = clock.tsc_at(time);
            prop_assert!(clock.nanoseconds(tsc) >= time);
            if tsc > base {
                prop_assert!(clock.nanoseconds(tsc - 1) < time);
            }
        }
    }
}
