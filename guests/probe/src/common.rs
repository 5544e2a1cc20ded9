//! What the probe does on every architecture: the test of memory, the verdict, the end.

use core::fmt;

use rt::exception::{read32, read64, write32, write64};
use rt::range::Range;
use rt::xen::{self, Shutdown};
use rt::{arguments, call, cpu, memory, say};

/// What a test found wrong.
#[derive(Debug)]
pub enum Wrong {
    /// Memory that doesn't keep what is written to it, or aborts.
    Memory(u64),
    /// An interrupt of this number that didn't come within its time.
    NoInterrupt(u32),
    /// What the guest was started with lacks this.
    Missing(&'static str),
    /// A hypercall gave this error.
    Hypercall(&'static str, i64),
    /// Another CPU, by its place in the list: what went wrong there.
    Cpu(usize, &'static str, i64),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(address) => write!(f, "RAM at {address:#x} doesn't keep its contents"),
            Self::NoInterrupt(number) => write!(f, "interrupt {number} didn't come"),
            Self::Missing(what) => write!(f, "there is no {what}"),
            Self::Hypercall(what, error) => write!(f, "{what} gave {error}"),
            Self::Cpu(place, what, value) => write!(f, "cpu {place}: {what} ({value})"),
        }
    }
}

const MIB2: u64 = 1 << 21;
/// How long an interrupt or another CPU may take, in milliseconds of the guest's clock.
pub const PATIENCE: u64 = 2000;

/// Writes its own address to the first and last word of every superpage of RAM, then reads all back. Keeps off `reserved`
/// and the guest's own.
pub fn memory(ram: &[Range], reserved: &[Range]) -> Result<(), Wrong> {
    if ram.is_empty() {
        return Err(Wrong::Missing("RAM"));
    }
    let mut words = 0u64;
    for address in words_of(ram, reserved) {
        write64(address, address).map_err(|_| Wrong::Memory(address))?;
        words += 1;
    }
    for address in words_of(ram, reserved) {
        if read64(address) != Ok(address) {
            return Err(Wrong::Memory(address));
        }
    }
    say!("memory-words={words}");
    Ok(())
}

/// The addresses that [`memory`] tests.
fn words_of<'a>(ram: &'a [Range], reserved: &'a [Range]) -> impl Iterator<Item = u64> + 'a {
    let words = ram.iter().flat_map(|bank| {
        let blocks = bank.size.div_ceil(MIB2);
        (0..blocks).flat_map(move |block| {
            let first = bank.start + block * MIB2;
            let last = (first + MIB2).min(bank.end()).saturating_sub(8);
            [first, last]
        })
    });
    words.filter(|address| {
        let word = Range {
            start: *address,
            size: 8,
        };
        let reserved = reserved.iter().any(|range| range.contains(*address));
        !reserved && !memory::is_own(word)
    })
}

/// What the hypervisor says of its interface.
pub fn report_interface() {
    let version = xen::version();
    say!("xen-version={}.{}", version >> 16, version & 0xffff);
    match xen::features(0) {
        Ok(word) => say!("features={word:#x}"),
        Err(error) => say!("features=error {}", error.0),
    }
    match xen::grant_frames() {
        Ok((now, most)) => say!("grant-frames={now} of {most}"),
        Err(error) => say!("grant-frames=error {}", error.0),
    }
}

/// Says what came of the tests.
pub fn verdict(outcomes: &[(&str, Result<(), Wrong>)]) {
    let mut good = true;
    for (what, outcome) in outcomes {
        if let Err(why) = outcome {
            good = false;
            say!("probe: fail {what}: {why}");
        }
    }
    if good {
        say!("probe: pass");
    }
}

/// Ends by the boot argument `end`, by firmware's "off" without one.
pub fn end(words: &str) {
    match arguments::value(words, "end") {
        None | Some("off") => {}
        Some("reset") => call::reset(),
        Some("shutdown-off") => refused(xen::shutdown(Shutdown::PowerOff)),
        Some("shutdown-reboot") => refused(xen::shutdown(Shutdown::Reboot)),
        Some("crash" | "shutdown-crash") => refused(xen::shutdown(Shutdown::Crash)),
        Some("hang") => {
            say!("probe: hanging");
            cpu::stop();
        }
        Some("stray") => stray(arguments::number(words, "stray").unwrap_or(NOBODYS)),
        Some(other) => say!("probe: fail end: no such end {other}"),
    }
}

fn refused(error: xen::Error) {
    say!("probe: fail end: shutdown refused with {}", error.0);
}

/// An address at which no machine of the tests has anything, below the 512 GiB that the guest maps.
const NOBODYS: u64 = 0x70_0000_0000;

/// Reads and writes an address that nobody gave the domain, and says what came of it.
fn stray(address: u64) {
    match read32(address) {
        Err(fault) => say!("stray-read=fault {fault}"),
        Ok(value) => say!("stray-read={value:#x}"),
    }
    match write32(address, 0) {
        Err(fault) => say!("stray-write=fault {fault}"),
        Ok(()) => say!("stray-write=ignored"),
    }
}
