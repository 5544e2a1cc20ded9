//! The time-stamp counter, which is every clock's source: its frequency, by what the CPU says or else by measuring for
//! half a millisecond.

use core::arch::x86_64::_rdtsc;

use super::instructions::{ThisCpu, try_read_msr};
use super::platform::io;
use super::{apic, mmu};
use crate::features::Cpuid;
use crate::time;

/// The counter.
pub fn now() -> u64 {
    // SAFETY: every CPU in long mode has the instruction, and the hypervisor never sets CR4.TSD.
    unsafe { _rdtsc() }
}

/// Who said how fast the counter is. For the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 0x15.
    Crystal,
    /// A parent hypervisor's CPUID leaf 0x40000010.
    Parent,
    /// AMD's P-state 0.
    PState,
    /// Measured against the HPET.
    Hpet,
    /// Measured against ACPI's power management timer.
    PmTimer,
    /// Measured against channel 2 of the 8254.
    Pit,
    /// Nobody: 1 GHz is taken.
    Nobody,
}

/// What runs beside the counter and can be measured against, where the firmware names it.
#[derive(Debug, Clone, Copy, Default)]
pub struct References {
    /// The HPET's registers.
    pub hpet: Option<u64>,
    /// The power management timer's port.
    pub pm_timer: Option<u16>,
}

/// Counts of TSC and APIC timer in a second.
#[derive(Debug, Clone, Copy)]
pub struct Frequencies {
    /// The TSC's.
    pub tsc: u64,
    /// Where that is from.
    pub source: Source,
    /// The APIC timer's, at its own pace.
    pub apic: u64,
}

impl Frequencies {
    /// Finds both. The boot CPU's APIC is set up; its timer isn't in use.
    pub fn find(references: References) -> Self {
        let said = by_cpuid();
        let (tsc, source, apic) = match said {
            Some((tsc, source, apic)) => (tsc, source, apic),
            None => match measure(references) {
                Some(found) => found,
                None => match by_p_state() {
                    Some(tsc) => (tsc, Source::PState, None),
                    None => (time::NANOSECONDS, Source::Nobody, None),
                },
            },
        };
        let apic = apic.unwrap_or_else(|| apic_by_tsc(tsc));
        Self { tsc, source, apic }
    }
}

/// What CPUID says of the TSC, and of the APIC timer.
fn by_cpuid() -> Option<(u64, Source, Option<u64>)> {
    const HYPERVISOR: u32 = 1 << 31;
    const PARENT: u32 = 0x4000_0000;
    if ThisCpu.leaf(0, 0).eax >= 0x15 {
        let leaf = ThisCpu.leaf(0x15, 0);
        if let Some(tsc) = time::by_crystal(leaf.eax, leaf.ebx, leaf.ecx) {
            // The crystal is the APIC timer's clock too (Intel SDM vol. 3A, "APIC Timer").
            return Some((tsc, Source::Crystal, Some(u64::from(leaf.ecx))));
        }
    }
    let parent = ThisCpu.leaf(1, 0).ecx & HYPERVISOR != 0
        && (PARENT + 0x10..PARENT + 0x100).contains(&ThisCpu.leaf(PARENT, 0).eax);
    if parent {
        let leaf = ThisCpu.leaf(PARENT + 0x10, 0);
        if leaf.eax != 0 {
            let apic = (leaf.ebx != 0).then_some(u64::from(leaf.ebx) * 1000);
            return Some((u64::from(leaf.eax) * 1000, Source::Parent, apic));
        }
        return None;
    }
    by_p_state().map(|tsc| (tsc, Source::PState, None))
}

fn by_p_state() -> Option<u64> {
    const P_STATE_0: u32 = 0xc001_0064;
    let family = time::family(ThisCpu.leaf(1, 0).eax);
    time::by_p_state(family, try_read_msr(P_STATE_0)?)
}

/// A counter of known frequency.
#[derive(Clone, Copy)]
enum Reference {
    Hpet { counter: u64, frequency: u64 },
    PmTimer(u16),
    Pit,
}

const PM_TIMER_FREQUENCY: u64 = 3_579_545;
const PIT_FREQUENCY: u64 = 1_193_182;
/// How long is measured: 1/2000 of a second.
const PARTS: u64 = 2000;

impl Reference {
    fn find(references: References) -> Option<Self> {
        let hpet = references.hpet.and_then(hpet);
        let timer = references.pm_timer.map(Self::PmTimer);
        [hpet, timer, Some(Self::Pit)]
            .into_iter()
            .flatten()
            .find(|reference| reference.runs())
    }

    fn frequency(self) -> u64 {
        match self {
            Self::Hpet { frequency, .. } => frequency,
            Self::PmTimer(_) => PM_TIMER_FREQUENCY,
            Self::Pit => PIT_FREQUENCY,
        }
    }

    fn source(self) -> Source {
        match self {
            Self::Hpet { .. } => Source::Hpet,
            Self::PmTimer(_) => Source::PmTimer,
            Self::Pit => Source::Pit,
        }
    }

    /// The counter's lowest bits, upwards.
    fn read(self) -> u64 {
        match self {
            Self::Hpet { counter, .. } => {
                // SAFETY: `hpet` has mapped the page; the counter may be read at any time.
                u64::from(unsafe { (counter as *const u32).read_volatile() })
            }
            Self::PmTimer(port) => u64::from(io::read(port, io::Width::Word)) & self.mask(),
            Self::Pit => {
                // Latch channel 2, then its low and high byte.
                io::write(0x43, io::Width::Byte, 0x80);
                let low = io::read(0x42, io::Width::Byte);
                let high = io::read(0x42, io::Width::Byte);
                self.mask() - u64::from(high << 8 | low)
            }
        }
    }

    const fn mask(self) -> u64 {
        match self {
            Self::Hpet { .. } => 0xffff_ffff,
            // Bits above the 24th aren't there on every chip.
            Self::PmTimer(_) => 0xff_ffff,
            Self::Pit => 0xffff,
        }
    }

    /// Starts it if it must be, and looks whether it counts.
    fn runs(self) -> bool {
        if let Self::Pit = self {
            // Gate of channel 2 on, speaker off; mode 0 from the highest count.
            let gate = io::read(0x61, io::Width::Byte) & 0b1100 | 1;
            io::write(0x61, io::Width::Byte, gate);
            io::write(0x43, io::Width::Byte, 0xb0);
            io::write(0x42, io::Width::Byte, 0xff);
            io::write(0x42, io::Width::Byte, 0xff);
        }
        let first = self.read();
        // An access to a register outside the CPU takes a tenth of a microsecond at the least.
        (0..100).any(|_| self.read() != first)
    }
}

fn hpet(registers: u64) -> Option<Reference> {
    const CAPABILITIES: u64 = 0;
    const CONFIGURATION: u64 = 0x10;
    const COUNTER: u64 = 0xf0;
    const FEMTOSECONDS: u64 = 1_000_000_000_000_000;
    mmu::map_device(registers, 0x1000).ok()?;
    let period_at = (registers + CAPABILITIES + 4) as *const u32;
    // SAFETY: the page is mapped, and reading the capabilities changes nothing.
    let period = u64::from(unsafe { period_at.read_volatile() });
    // The specification's bounds: 0.1 to 100 nanoseconds.
    if !(100_000..=100_000_000).contains(&period) {
        return None;
    }
    let configuration = (registers + CONFIGURATION) as *mut u32;
    // SAFETY: the page is mapped; nobody but the hypervisor uses the HPET.
    unsafe { configuration.write_volatile(1) };
    Some(Reference::Hpet {
        counter: registers + COUNTER,
        frequency: FEMTOSECONDS / period,
    })
}

/// Measures TSC and APIC timer at once.
fn measure(references: References) -> Option<(u64, Source, Option<u64>)> {
    let reference = Reference::find(references)?;
    apic::count_silently();
    let timer = timer_sample();
    let (first, begin) = sample(|| reference.read());
    let wanted = reference.frequency() / PARTS;
    // A counter that stops must not stop the machine.
    let mut patience = 10_000_000_u32;
    let elapsed = |count: u64| count.wrapping_sub(first) & reference.mask();
    while elapsed(reference.read()) < wanted && patience > 0 {
        patience -= 1;
    }
    let (last, end) = sample(|| reference.read());
    let ticks = elapsed(last);
    if patience == 0 || ticks == 0 || end <= begin {
        return None;
    }
    let tsc = time::by_reference(end - begin, reference.frequency(), ticks);
    Some((tsc, reference.source(), Some(since(timer, tsc))))
}

/// The APIC timer's frequency, measured against the TSC.
fn apic_by_tsc(tsc: u64) -> u64 {
    apic::count_silently();
    let timer = timer_sample();
    while now() - timer.1 < tsc / PARTS {
        core::hint::spin_loop();
    }
    since(timer, tsc)
}

/// The APIC timer, upwards, and the TSC.
fn timer_sample() -> (u64, u64) {
    sample(|| u64::from(u32::MAX - apic::count_left()))
}

/// The APIC timer's frequency by how far it came since a sample; stops it.
fn since(begin: (u64, u64), tsc: u64) -> u64 {
    let end = timer_sample();
    apic::count_down(0);
    let counts = end.0.saturating_sub(begin.0);
    time::by_reference(counts, tsc, end.1.saturating_sub(begin.1))
}

/// A counter, and the TSC at that moment: the best of a few tries.
fn sample(read: impl Fn() -> u64) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..5 {
        let before = now();
        let count = read();
        let took = now().saturating_sub(before);
        if took < best.0 {
            best = (took, count, before + took / 2);
        }
    }
    (best.1, best.2)
}
