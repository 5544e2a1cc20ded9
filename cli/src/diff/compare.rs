//! What differs between two plans.

use std::collections::BTreeMap;

use layout::Size;
use serde::Serialize;

use super::document::{Bank, Device, Document, Domain, Placement, Range};
use crate::view::{shown, span};

/// What became of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Only the second plan has it.
    Added,
    /// Only the first plan has it.
    Removed,
    /// It lies elsewhere.
    Moved,
    /// It has the same start and is larger.
    Grown,
    /// It has the same start and is smaller.
    Shrunk,
    /// Its value is another.
    Changed,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Whose it is: a domain's name; null for the machine and the hypervisor.
    pub domain: Option<String>,
    /// What differs.
    pub what: String,
    /// How.
    pub change: How,
    /// What it was; null if it is new.
    pub before: Option<String>,
    /// What it is; null if it is gone.
    pub after: Option<String>,
}

/// RAM that changes its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handed {
    /// The first byte.
    pub start: String,
    /// Bytes.
    pub size: u64,
    /// Whose it was.
    pub before: String,
    /// Whose it is.
    pub after: String,
    /// For people.
    #[serde(skip)]
    pub span: String,
}

/// Everything that differs, in a fixed order: the machine, the domains of the first plan, the new
/// ones.
pub fn changes(before: &Document, after: &Document) -> Vec<Change> {
    let mut found = Found(Vec::new());
    found.value(
        None,
        "architecture",
        &before.architecture,
        &after.architecture,
    );
    let (one, other) = (&before.hypervisor, &after.hypervisor);
    found.range("hypervisor", one.region, other.region);
    found.value(None, "on-conflict", &one.on_conflict, &other.on_conflict);
    found.value(None, "scrub", &one.scrub, &other.scrub);
    let prints = |plan: &Document| plan.hypervisor.print_plan.to_string();
    found.value(None, "print-plan", &prints(before), &prints(after));
    found.owners("device", &devices(before), &devices(after));
    found.lines("registers", &registers(before), &registers(after));
    found.lines("interrupts", &interrupts(before), &interrupts(after));
    found.owners("CPU", &cpus(before), &cpus(after));
    for domain in &before.domains {
        match find(after, &domain.name) {
            Some(same) => found.domain(domain, same),
            None => found.push(
                Some(&domain.name),
                "domain",
                How::Removed,
                Some(summary(domain)),
                None,
            ),
        }
    }
    for domain in &after.domains {
        if find(before, &domain.name).is_none() {
            let new = Some(summary(domain));
            found.push(Some(&domain.name), "domain", How::Added, None, new);
        }
    }
    found.0
}

fn find<'a>(plan: &'a Document, name: &str) -> Option<&'a Domain> {
    plan.domains.iter().find(|domain| domain.name == name)
}

struct Found(Vec<Change>);

impl Found {
    fn push(
        &mut self,
        domain: Option<&str>,
        what: &str,
        change: How,
        before: Option<String>,
        after: Option<String>,
    ) {
        self.0.push(Change {
            domain: domain.map(str::to_owned),
            what: what.to_owned(),
            change,
            before,
            after,
        });
    }

    fn value(&mut self, domain: Option<&str>, what: &str, before: &str, after: &str) {
        if before != after {
            let (before, after) = (before.to_owned(), after.to_owned());
            self.push(domain, what, How::Changed, Some(before), Some(after));
        }
    }

    fn range(&mut self, what: &str, before: Range, after: Range) {
        if let Some(how) = moved((before.start, before.size), (after.start, after.size)) {
            let text =
                |range: Range| format!("{}, {}", span(range.start, range.end()), Size(range.size));
            self.push(None, what, how, Some(text(before)), Some(text(after)));
        }
    }

    fn domain(&mut self, before: &Domain, after: &Domain) {
        let name = Some(before.name.as_str());
        self.value(name, "ID", &before.id.to_string(), &after.id.to_string());
        self.value(name, "kind", &before.kind, &after.kind);
        let roles = |domain: &Domain| domain.capabilities.join(",");
        self.value(name, "capabilities", &roles(before), &roles(after));
        let direct = |domain: &Domain| domain.direct_map.to_string();
        self.value(name, "direct-map", &direct(before), &direct(after));
        let cpus = |domain: &Domain| {
            let list: Vec<String> = domain.cpus.iter().map(u32::to_string).collect();
            list.join(",")
        };
        self.value(name, "CPUs", &cpus(before), &cpus(after));
        self.value(name, "memory", &total(before), &total(after));
        self.banks(&before.name, &before.memory, &after.memory);
        self.placement(name, "kernel", before.kernel, after.kernel);
        self.placement(name, "ramdisk", before.ramdisk, after.ramdisk);
        self.placement(name, "device-tree", before.device_tree, after.device_tree);
        self.value(name, "cmdline", &before.cmdline, &after.cmdline);
        let keys: std::collections::BTreeSet<&String> =
            before.rest.keys().chain(after.rest.keys()).collect();
        for key in keys {
            // What follows from what was said above, or from where the boot loader puts things.
            if ["host-layout", "pool", "tables", "partial-tree"].contains(&key.as_str()) {
                continue;
            }
            let text = |domain: &Domain| {
                let value = domain.rest.get(key);
                value.map_or_else(String::new, |value| match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
            };
            self.value(name, key, &text(before), &text(after));
        }
    }

    fn placement(
        &mut self,
        domain: Option<&str>,
        what: &str,
        before: Option<Placement>,
        after: Option<Placement>,
    ) {
        let text = |placement: Placement| {
            let (start, bytes) = (placement.address, placement.size);
            format!(
                "{}, {}",
                span(start, start.saturating_add(bytes)),
                Size(bytes)
            )
        };
        match (before, after) {
            (Some(one), Some(other)) => {
                let how = moved((one.address, one.size), (other.address, other.size));
                if let Some(how) = how {
                    self.push(domain, what, how, Some(text(one)), Some(text(other)));
                }
            }
            (Some(one), None) => self.push(domain, what, How::Removed, Some(text(one)), None),
            (None, Some(other)) => self.push(domain, what, How::Added, None, Some(text(other))),
            (None, None) => {}
        }
    }

    /// RAM: what begins at one address in either space is the same piece.
    fn banks(&mut self, domain: &str, before: &[Bank], after: &[Bank]) {
        let mut left: Vec<Bank> = after.to_vec();
        let mut gone = Vec::new();
        for bank in before {
            let exact = left.iter().position(|other| other == bank);
            let alike =
                |other: &Bank| other.machine == bank.machine || other.address == bank.address;
            match exact.or_else(|| left.iter().position(alike)) {
                Some(index) => {
                    let other = left.remove(index);
                    self.bank(domain, bank, &other);
                }
                None => gone.push(*bank),
            }
        }
        if let ([one], [other]) = (gone.as_slice(), left.as_slice()) {
            self.bank(domain, one, other);
            return;
        }
        for bank in gone {
            self.push(Some(domain), "RAM", How::Removed, Some(piece(&bank)), None);
        }
        for bank in left {
            self.push(Some(domain), "RAM", How::Added, None, Some(piece(&bank)));
        }
    }

    fn bank(&mut self, domain: &str, before: &Bank, after: &Bank) {
        let stays = (before.machine, before.address) == (after.machine, after.address);
        let how = match before.size.cmp(&after.size) {
            std::cmp::Ordering::Equal if before == after => return,
            std::cmp::Ordering::Equal if stays => How::Changed,
            std::cmp::Ordering::Less if stays => How::Grown,
            std::cmp::Ordering::Greater if stays => How::Shrunk,
            _ => How::Moved,
        };
        let (before, after) = (Some(piece(before)), Some(piece(after)));
        self.push(Some(domain), "RAM", how, before, after);
    }

    /// What the machine has of a device that both plans give to a domain.
    fn lines(&mut self, what: &str, before: &Owners, after: &Owners) {
        for (path, one) in before {
            if let Some(other) = after.get(path) {
                self.value(None, &format!("{what} of {}", shown(path)), one, other);
            }
        }
    }

    fn owners(&mut self, what: &str, before: &Owners, after: &Owners) {
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let (one, other) = (before.get(key).cloned(), after.get(key).cloned());
            let how = match (&one, &other) {
                (Some(one), Some(other)) if one == other => continue,
                (Some(_), Some(_)) => How::Changed,
                (Some(_), None) => How::Removed,
                (None, _) => How::Added,
            };
            self.push(None, &format!("{what} {}", shown(key)), how, one, other);
        }
    }
}

fn moved(before: (u64, u64), after: (u64, u64)) -> Option<How> {
    match (before.0 == after.0, before.1.cmp(&after.1)) {
        (true, std::cmp::Ordering::Equal) => None,
        (true, std::cmp::Ordering::Less) => Some(How::Grown),
        (true, std::cmp::Ordering::Greater) => Some(How::Shrunk),
        (false, _) => Some(How::Moved),
    }
}

fn total(domain: &Domain) -> String {
    let banks = domain.memory.iter().map(|bank| bank.size);
    Size(banks.fold(0, u64::saturating_add)).to_string()
}

fn summary(domain: &Domain) -> String {
    let direct = if domain.direct_map {
        "direct-mapped"
    } else {
        "not direct-mapped"
    };
    format!("{}, {direct}", total(domain))
}

fn piece(bank: &Bank) -> String {
    let machine = span(bank.machine, bank.machine.saturating_add(bank.size));
    let seen = if bank.address == bank.machine {
        "seen at the same address".to_owned()
    } else {
        format!("seen at {:#x}", bank.address)
    };
    let reserved = if bank.reserved { ", reserved" } else { "" };
    format!("{machine}, {}, {seen}{reserved}", Size(bank.size))
}

/// What is said of each thing, most of all who drives it, by the thing's name.
type Owners = BTreeMap<String, String>;

fn devices(plan: &Document) -> Owners {
    let domains = plan.domains.iter();
    domains
        .flat_map(|domain| {
            let devices = domain.devices.iter();
            devices.map(|device| {
                let reach = match device.dma.as_deref() {
                    None => "no DMA".to_owned(),
                    Some("0xffffffffffffffff") => "DMA".to_owned(),
                    Some(mask) => format!("DMA up to {mask}"),
                };
                (
                    device.path.clone(),
                    format!("{}, {reach}", owner(&domain.name)),
                )
            })
        })
        .collect()
}

fn registers(plan: &Document) -> Owners {
    of_devices(plan, |device| {
        let ranges = device.ranges.iter();
        let spans = ranges.map(|range| span(range.start, range.end()));
        spans.collect::<Vec<_>>().join(", ")
    })
}

fn interrupts(plan: &Document) -> Owners {
    of_devices(plan, |device| {
        let numbers = device.interrupts.iter().map(u32::to_string);
        numbers.collect::<Vec<_>>().join(", ")
    })
}

fn of_devices(plan: &Document, what: impl Fn(&Device) -> String) -> Owners {
    let devices = plan.domains.iter().flat_map(|domain| &domain.devices);
    devices
        .map(|device| (device.path.clone(), what(device)))
        .collect()
}

fn cpus(plan: &Document) -> Owners {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for domain in &plan.domains {
        for cpu in &domain.cpus {
            let sharing = owners.entry(cpu.to_string()).or_default();
            let name = owner(&domain.name);
            if !sharing.contains(&name) {
                sharing.push(name);
            }
        }
    }
    let joined = owners.into_iter();
    joined.map(|(cpu, names)| (cpu, names.join(", "))).collect()
}

fn owner(name: &str) -> String {
    format!("`{}`", shown(name))
}

/// RAM that has another owner in the second plan.
pub fn handed(before: &Document, after: &Document) -> Vec<Handed> {
    let (one, other) = (owners(before), owners(after));
    let mut borders: Vec<u64> = one
        .iter()
        .chain(&other)
        .flat_map(|(range, _)| [range.start, range.end()])
        .collect();
    borders.sort_unstable();
    borders.dedup();
    let mut found: Vec<(u64, u64, &str, &str)> = Vec::new();
    for (start, end) in borders.iter().zip(borders.iter().skip(1)) {
        let (was, is) = (owner_at(&one, *start), owner_at(&other, *start));
        if was == is {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.1 == *start && (last.2, last.3) == (was, is) => last.1 = *end,
            _ => found.push((*start, *end, was, is)),
        }
    }
    let handed = found.into_iter().map(|(start, end, was, is)| Handed {
        start: format!("{start:#x}"),
        size: end - start,
        before: was.to_owned(),
        after: is.to_owned(),
        span: span(start, end),
    });
    handed.collect()
}

/// RAM with its owners in words, by address.
fn owners(plan: &Document) -> Vec<(Range, String)> {
    let mut owners = vec![(plan.hypervisor.region, "the hypervisor".to_owned())];
    for domain in &plan.domains {
        owners.extend(domain.memory.iter().map(|bank| {
            let range = Range {
                start: bank.machine,
                size: bank.size,
            };
            (range, owner(&domain.name))
        }));
    }
    for (ranges, name) in [
        (&plan.kept, "kept for a restart"),
        (&plan.reserved, "reserved"),
        (&plan.unowned, "nobody"),
    ] {
        owners.extend(ranges.iter().map(|range| (*range, name.to_owned())));
    }
    owners.sort_by_key(|(range, _)| range.start);
    owners
}

fn owner_at(owners: &[(Range, String)], address: u64) -> &str {
    let behind = owners.partition_point(|(range, _)| range.end() <= address);
    let here = owners
        .get(behind)
        .filter(|(range, _)| range.start <= address);
    here.map_or("no RAM", |(_, name)| name)
}
