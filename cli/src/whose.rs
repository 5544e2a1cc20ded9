//! Whose an address is: `terrane explain MANIFEST ADDRESS`.
//!
//! A number says nothing of its space, so both readings are answered: as a machine address, and as
//! an address of each domain's own.

use std::fmt;

use layout::{Owner, Size};
use serde::Serialize;

use crate::view::{Guest, Kind, Region, View, at, span};

/// The version of the answer's schema.
const VERSION: u32 = 1;

/// How many devices are named to people.
const NAMED: usize = 3;

/// The answer; its JSON is docs/json.md, "An address".
#[derive(Debug, Serialize)]
pub struct Answer {
    version: u32,
    #[serde(serialize_with = "hexadecimal")]
    address: u64,
    machine: Machine,
    domains: Vec<Seen>,
}

/// The address as the machine's.
#[derive(Debug, Serialize)]
struct Machine {
    what: String,
    owner: Option<String>,
    range: Option<Range>,
    why: Option<String>,
    #[serde(rename = "seen-by")]
    seen_by: Vec<SeenBy>,
    dma: Vec<Masters>,
}

#[derive(Debug, Serialize)]
struct Range {
    #[serde(serialize_with = "hexadecimal")]
    start: u64,
    size: u64,
}

/// A domain that sees the frame.
#[derive(Debug, Serialize)]
struct SeenBy {
    domain: String,
    #[serde(serialize_with = "hexadecimal")]
    address: u64,
    what: String,
    why: String,
}

/// Devices that may read and write it.
#[derive(Debug, Serialize)]
struct Masters {
    driver: Option<String>,
    devices: Vec<String>,
    #[serde(rename = "in-between")]
    in_between: &'static str,
}

/// The address as a domain's own.
#[derive(Debug, Serialize)]
struct Seen {
    domain: String,
    what: Option<String>,
    #[serde(serialize_with = "maybe_hexadecimal")]
    machine: Option<u64>,
    why: Option<String>,
}

/// What lies at this address.
pub fn explain(address: u64, view: &View) -> Answer {
    Answer {
        version: VERSION,
        address,
        machine: machine(address, view),
        domains: view
            .guests
            .iter()
            .map(|guest| seen(address, guest))
            .collect(),
    }
}

fn machine(address: u64, view: &View) -> Machine {
    let seen_by = view.guests.iter().flat_map(|guest| seen_by(address, guest));
    let Some(region) = at(&view.host, address) else {
        return Machine {
            what: "nothing that the host's description names".to_owned(),
            owner: None,
            range: None,
            why: None,
            seen_by: seen_by.collect(),
            dma: Vec::new(),
        };
    };
    let reaching = view.reach.touching(address, address.saturating_add(1));
    let dma = reaching.filter(|_| region.is_ram()).map(|group| Masters {
        driver: group
            .domain
            .map(|domain| view.owner(Some(Owner::Domain(domain)))),
        devices: group.devices.clone(),
        in_between: group.isolation.as_str(),
    });
    Machine {
        what: what(region, view),
        owner: region.owner.map(|owner| view.owner(Some(owner))),
        range: Some(Range {
            start: region.start,
            size: region.size(),
        }),
        why: Some(region.why.clone()).filter(|why| !why.is_empty()),
        seen_by: seen_by.collect(),
        dma: dma.collect(),
    }
}

/// Where a domain sees a machine address; nothing lies behind registers that are emulated.
fn seen_by(address: u64, guest: &Guest) -> Vec<SeenBy> {
    let exact = guest.regions.iter().filter_map(|seen| {
        let into = address.checked_sub(seen.machine?)?;
        (into < seen.size()).then(|| (seen.start + into, seen, what_is_seen(seen)))
    });
    let mut found: Vec<(u64, &Region, String)> = exact.collect();
    if found.is_empty() {
        let near = beside(address, guest).into_iter();
        found.extend(near.map(|(region, what)| (address, region, what)));
    }
    let found = found.into_iter().map(|(address, region, what)| SeenBy {
        domain: guest.name.clone(),
        address,
        what,
        why: region.why.clone(),
    });
    found.collect()
}

fn seen(address: u64, guest: &Guest) -> Seen {
    let region = at(&guest.regions, address);
    let exact = region.map(|region| {
        let machine = region.machine;
        let machine = machine.map(|machine| machine + (address - region.start));
        (region, what_is_seen(region), machine)
    });
    let found = exact.or_else(|| {
        let (region, what) = beside(address, guest)?;
        Some((region, what, Some(address)))
    });
    let (region, what, machine) = match found {
        Some((region, what, machine)) => (Some(region), Some(what), machine),
        None => (None, None, None),
    };
    Seen {
        domain: guest.name.clone(),
        what,
        machine,
        why: region.map(|region| region.why.clone()),
    }
}

/// The device that the domain has in this page: pages are mapped whole, at the host's addresses.
fn beside(address: u64, guest: &Guest) -> Option<(&Region, String)> {
    let region = guest.regions.iter().find(|region| region.maps(address))?;
    let what = format!(
        "in the same page as {}, which `{}` has",
        region.device(),
        guest.name
    );
    Some((region, what))
}

fn what(region: &Region, view: &View) -> String {
    match (region.kind, region.owner) {
        (Kind::Ram, _) => view.ram_words(region),
        (Kind::Device, Some(Owner::Domain(_))) => {
            format!("{}, of `{}`", region.of_device(), view.owner(region.owner))
        }
        (Kind::Device, Some(Owner::Hypervisor)) => {
            format!("{}, the hypervisor's console", region.of_device())
        }
        (Kind::Device, _) => format!("{}, which no domain has", region.of_device()),
        (Kind::Controller, _) => "registers of the interrupt controller".to_owned(),
        (Kind::Iommu, _) => format!("registers of the IOMMU {}", region.label),
        (Kind::Outside, _) => format!("reserved, and not RAM: {}", region.label),
        (Kind::Kernel | Kind::Ramdisk | Kind::Description, _) => region.label.clone(),
    }
}

fn what_is_seen(region: &Region) -> String {
    match region.kind {
        Kind::Ram => "RAM".to_owned(),
        Kind::Kernel | Kind::Ramdisk | Kind::Description => {
            format!("RAM, where its {} lies when it starts", region.label)
        }
        Kind::Device => region.of_device(),
        _ => format!("registers of the {}", region.label),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        let machine = &self.machine;
        writeln!(f, "Machine address {address:#x}: {}.", machine.what)?;
        if let Some(range) = &machine.range {
            let (start, bytes) = (range.start, range.size);
            let span = span(start, start.saturating_add(bytes));
            writeln!(f, "  Part of {span}, {}.", Size(bytes))?;
        }
        if let Some(why) = &machine.why {
            writeln!(f, "  Why: {why}.")?;
        }
        for seen in &machine.seen_by {
            let (domain, at, what) = (&seen.domain, seen.address, &seen.what);
            let why = &seen.why;
            writeln!(f, "  `{domain}` sees it at {at:#x}: {what}. Why: {why}.")?;
        }
        if machine.range.is_some() && machine.seen_by.is_empty() {
            writeln!(f, "  No domain sees it.")?;
        }
        for group in &machine.dma {
            let driver = match &group.driver {
                Some(domain) => format!("of `{domain}`"),
                None => "that no domain drives".to_owned(),
            };
            let count = group.devices.len();
            let plural = if count == 1 { "" } else { "s" };
            let (named, between) = (named(&group.devices), group.in_between);
            writeln!(
                f,
                "  DMA: {count} device{plural} {driver} may read and write it, with {between} in between ({named})."
            )?;
        }
        for seen in &self.domains {
            let domain = &seen.domain;
            write!(f, "`{domain}` at its own address {address:#x}: ")?;
            match &seen.what {
                Some(what) => {
                    let place = match seen.machine {
                        Some(machine) if machine == address => {
                            "at the same machine address".to_owned()
                        }
                        Some(machine) => format!("at machine address {machine:#x}"),
                        None => "emulated: no machine address".to_owned(),
                    };
                    let why = seen.why.as_deref().unwrap_or_default();
                    writeln!(f, "{what}, {place}. Why: {why}.")?;
                }
                None => writeln!(f, "none of its RAM or devices.")?,
            }
        }
        Ok(())
    }
}

fn named(devices: &[String]) -> String {
    match devices.get(NAMED..) {
        Some(rest @ [_, ..]) => {
            let first = devices.get(..NAMED).unwrap_or_default().join(", ");
            format!("{first} and {} more", rest.len())
        }
        _ => devices.join(", "),
    }
}

fn hexadecimal<S: serde::Serializer>(address: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{address:#x}"))
}

fn maybe_hexadecimal<S: serde::Serializer>(
    address: &Option<u64>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => hexadecimal(address, to),
        None => to.serialize_none(),
    }
}
