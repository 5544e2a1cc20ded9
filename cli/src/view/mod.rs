//! A planned machine as people look at it: the host's addresses and each domain's own, as lists of
//! regions with owner and reason.
//!
//! Everything that shows a plan to people (tables, the bar, pictures, `explain ADDRESS`) reads
//! these lists. Knows no form of output; decides nothing.

mod controller;
mod flat;
pub mod guest;
mod host;
pub mod reach;
pub mod scale;
mod why;

use layout::{HostMap, Owner, Plan, SystemRequest};
use manifest::origin::Origins;

pub use reach::Reach;

/// What a view is made from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The host that it was made for.
    pub host: &'a HostMap,
    /// What was asked for.
    pub request: &'a SystemRequest,
    /// Where each was said.
    pub origins: &'a Origins,
}

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// RAM.
    Ram,
    /// RAM with a kernel in it when its domain starts.
    Kernel,
    /// RAM with a ramdisk in it.
    Ramdisk,
    /// RAM with the domain's device tree, or what stands for one on a PC.
    Description,
    /// Registers of devices.
    Device,
    /// Registers of the interrupt controller; a domain's are of the hypervisor's making.
    Controller,
    /// Registers of an IOMMU.
    Iommu,
    /// Addresses that firmware keeps and that aren't RAM.
    Outside,
}

/// A device, or something else that a region names one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// The first byte.
    pub start: u64,
    /// The byte behind the last.
    pub end: u64,
}

/// Consecutive addresses of one address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// The byte behind the last; more than `start`.
    pub end: u64,
    /// What it is.
    pub kind: Kind,
    /// Whose the frames behind it are; `None` for registers that nobody drives.
    pub owner: Option<Owner>,
    /// A few words for it.
    pub label: String,
    /// Where the addresses lie on the machine, whose own regions lie at `start`; `None` if nothing
    /// lies behind them: the hypervisor emulates these registers.
    pub machine: Option<u64>,
    /// Why it is there: a rule, or a line of the manifest.
    pub why: String,
    /// The devices whose registers these are.
    pub parts: Vec<Part>,
}

impl Region {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.end - self.start
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Whether the hypervisor maps the address with it: devices are mapped in whole pages.
    pub fn maps(&self, address: u64) -> bool {
        let page = |address: u64| address >> layout::FRAME_SHIFT;
        let pages = page(self.start)..=page(self.end.saturating_sub(1));
        self.kind == Kind::Device && pages.contains(&page(address))
    }

    /// The device's name; of several their number.
    pub fn device(&self) -> &str {
        match self.parts.as_slice() {
            [part] => &part.name,
            _ => &self.label,
        }
    }

    /// What it is of a device: reserved memory that a driver asks for counts as one.
    pub fn of_device(&self) -> String {
        let what = match self.device().starts_with("/reserved-memory/") {
            true => "memory",
            false => "registers",
        };
        format!("{what} of {}", self.device())
    }

    /// Whether it is RAM.
    pub fn is_ram(&self) -> bool {
        matches!(
            self.kind,
            Kind::Ram | Kind::Kernel | Kind::Ramdisk | Kind::Description
        )
    }
}

/// The one of these regions, by address and apart, that has the address.
pub fn at(regions: &[Region], address: u64) -> Option<&Region> {
    let behind = regions.partition_point(|region| region.end <= address);
    let there = regions.get(behind)?;
    there.contains(address).then_some(there)
}

/// The same frames in both spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The first byte as the domain sees it.
    pub guest: u64,
    /// The first byte on the machine.
    pub machine: u64,
    /// Bytes.
    pub size: u64,
}

/// What a domain sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Whether its RAM has the machine's addresses.
    pub direct: bool,
    /// Bytes of RAM.
    pub ram: u64,
    /// Its regions, by address; no two overlap.
    pub regions: Vec<Region>,
    /// Where its RAM is on the machine, by the domain's addresses.
    pub banks: Vec<Link>,
}

/// A planned machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The machine in a few words.
    pub machine: String,
    /// Its bytes of RAM.
    pub ram: u64,
    /// Its regions, by address; no two overlap.
    pub host: Vec<Region>,
    /// The domains, in the plan's order.
    pub guests: Vec<Guest>,
    /// What devices can touch.
    pub reach: Reach,
}

impl View {
    /// The view of a plan.
    pub fn of(source: Source<'_>) -> Self {
        let host = host::regions(source);
        let reach = Reach::of(source);
        let guests = source.plan.domains.iter();
        Self {
            machine: machine(source),
            ram: ram(source),
            guests: guests.map(|domain| guest::of(source, domain)).collect(),
            reach,
            host,
        }
    }

    /// The same with the registers of one owner's neighbouring devices as one region: for a
    /// picture.
    pub fn grouped(mut self) -> Self {
        for guest in &mut self.guests {
            guest.regions = flat::grouped(std::mem::take(&mut guest.regions), &self.host);
        }
        self.host = flat::grouped(self.host, &[]);
        self
    }

    /// An owner in words.
    pub fn owner(&self, owner: Option<Owner>) -> String {
        match owner {
            Some(Owner::Domain(index)) => self
                .guests
                .get(index)
                .map_or_else(String::new, |guest| guest.name.clone()),
            other => nobody(other).to_owned(),
        }
    }

    /// The machine's RAM in words.
    pub fn ram_words(&self, region: &Region) -> String {
        match region.owner {
            Some(Owner::Hypervisor) => "the hypervisor's memory".to_owned(),
            Some(Owner::Domain(_)) => format!("RAM of `{}`", self.owner(region.owner)),
            Some(Owner::Kept) => "RAM with modules that are kept for a restart".to_owned(),
            Some(Owner::Reserved) if region.label == nobody(region.owner) => {
                "RAM that is reserved".to_owned()
            }
            Some(Owner::Reserved) => format!("RAM reserved as {}", region.label),
            Some(Owner::Nobody) | None => "RAM that nobody got".to_owned(),
        }
    }
}

/// An owner that isn't a domain, in words.
pub fn nobody(owner: Option<Owner>) -> &'static str {
    match owner {
        Some(Owner::Hypervisor) => "the hypervisor",
        Some(Owner::Kept) => "kept for a restart",
        Some(Owner::Reserved) => "reserved",
        Some(Owner::Nobody) => "nobody's",
        Some(Owner::Domain(_)) | None => "no domain",
    }
}

fn ram(source: Source<'_>) -> u64 {
    let banks = source.host.ram.iter().map(|bank| bank.range.size());
    banks.fold(0, u64::saturating_add)
}

fn machine(source: Source<'_>) -> String {
    let cpus = source.host.cpus.len();
    let plural = if cpus == 1 { "" } else { "s" };
    let architecture = source.plan.architecture.as_str();
    format!(
        "{architecture}, {cpus} CPU{plural}, {} of RAM",
        about(ram(source))
    )
}

/// A name from outside as it is shown: what a terminal or a page would take for an order is spelled
/// out.
pub fn shown(name: &str) -> String {
    let spelled = |letter: char| {
        // Marks that turn the direction of what follows, or join and part letters, are invisible
        // and no control characters; the last two are none of XML's characters.
        let unseen = matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
        letter.is_control() || unseen
    };
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        if spelled(letter) {
            text.extend(letter.escape_unicode());
        } else {
            text.push(letter);
        }
    }
    text
}

/// First and last byte, as /proc/iomem has them.
pub fn span(start: u64, end: u64) -> String {
    format!("{start:#010x}-{:#010x}", end.saturating_sub(1).max(start))
}

/// Bytes in a short form, rounded to tenths of its unit below 100.
pub fn about(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let bytes = u128::from(bytes);
    let unit = (0..UNITS.len() - 1)
        .find(|unit| bytes < 1024 << (10 * unit))
        .unwrap_or(UNITS.len() - 1);
    // Integers, so that every machine rounds alike.
    let one = 1_u128 << (10 * unit);
    let tenths = (bytes * 10 + one / 2) >> (10 * unit);
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if tenths.is_multiple_of(10) || tenths >= 1000 {
        format!("{} {name}", (tenths + 5) / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sizes_are_rounded() {
        let shown = [0, 1023, 1024, 1536, 1_788_866_560, 1 << 40, 999 << 20].map(about);
        assert_eq!(
            shown,
            [
                "0 B", "1023 B", "1 KiB", "1.5 KiB", "1.7 GiB", "1 TiB", "999 MiB"
            ]
        );
    }

    #[test]
    fn a_name_gives_a_terminal_no_orders() {
        assert_eq!(shown("net<b>"), "net<b>");
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        for unseen in ["61c", "200b", "200d", "2060", "feff", "fffe", "ffff"] {
            let letter = u32::from_str_radix(unseen, 16)
                .ok()
                .and_then(char::from_u32);
            assert_eq!(
                shown(&letter.unwrap().to_string()),
                format!("\\u{{{unseen}}}")
            );
        }
    }
}
