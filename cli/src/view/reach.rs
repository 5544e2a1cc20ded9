//! What devices can touch by themselves, in words: without an IOMMU that confines them, the security
//! statement of the system. What it says is `layout`'s; here it gets names.

use layout::Owner;
use layout::reach::{Isolation, of_plan};

use super::{Source, shown};

/// Devices that touch the same memory for the same domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masters {
    /// Who drives them, by its place in the plan; `None` for nobody.
    pub domain: Option<usize>,
    /// What stands between them and memory.
    pub isolation: Isolation,
    /// Their paths.
    pub devices: Vec<String>,
    /// What they touch: first byte, the byte behind the last; by address.
    pub ranges: Vec<(u64, u64)>,
    /// The RAM in it, with its owners.
    pub touched: Vec<Touched>,
}

/// RAM of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Whose.
    pub owner: Owner,
    /// How much.
    pub bytes: u64,
    /// Where: first byte, the byte behind the last; by address.
    pub ranges: Vec<(u64, u64)>,
}

/// What all devices touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The devices, in groups.
    pub masters: Vec<Masters>,
    /// Who must be trusted because of it, in one sentence.
    pub headline: String,
    /// For each domain that drives any: its name, and what a hostile device or driver of it could
    /// overwrite.
    pub statements: Vec<(String, String)>,
}

impl Reach {
    /// What the devices of a plan touch.
    pub fn of(source: Source<'_>) -> Self {
        let Source {
            plan,
            host,
            request,
            ..
        } = source;
        let reach = of_plan(host, request, plan);
        let mut masters: Vec<Masters> = Vec::new();
        let mut groups: Vec<(Option<usize>, usize, Isolation)> = Vec::new();
        for device in &reach.devices {
            let described = host.devices.get(device.device);
            let path = described.map_or_else(String::new, |device| shown(&device.path));
            let group = (device.domain, device.class, device.isolation);
            let known = groups.iter().position(|known| *known == group);
            if let Some(known) = known.and_then(|known| masters.get_mut(known)) {
                known.devices.push(path);
                continue;
            }
            let Some(class) = reach.classes.get(device.class) else {
                continue;
            };
            groups.push(group);
            let machine = class.machine.iter();
            let reached = class.reached.iter();
            masters.push(Masters {
                domain: device.domain,
                isolation: device.isolation,
                devices: vec![path],
                ranges: machine
                    .map(|one| (one.start().raw(), one.end().raw()))
                    .collect(),
                touched: reached.map(touched).collect(),
            });
        }
        let statements = reach.domains.iter().map(|domain| {
            let name = plan.domains.get(domain.domain);
            let name = name.map_or_else(String::new, |domain| shown(&domain.name));
            (name, shown(&domain.statement(plan)))
        });
        Self {
            statements: statements.collect(),
            headline: shown(&reach.statement(plan)),
            masters,
        }
    }

    /// The groups that touch any of these machine addresses.
    pub fn touching(&self, start: u64, end: u64) -> impl Iterator<Item = &Masters> {
        self.masters.iter().filter(move |group| {
            let mut ranges = group.ranges.iter();
            ranges.any(|(from, to)| *from < end && start < *to)
        })
    }
}

fn touched(reached: &layout::reach::Reached) -> Touched {
    let ranges = reached.ranges.iter().map(layout::MfnRange::bytes);
    Touched {
        owner: reached.owner,
        bytes: reached.bytes,
        ranges: ranges
            .map(|bytes| (bytes.start().raw(), bytes.end().raw()))
            .collect(),
    }
}
