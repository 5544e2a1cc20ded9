//! What each device's DMA can touch, and whose memory that is: the security statement of a machine
//! on which nothing confines DMA.
//!
//! It reads a plan and decides nothing; placement asks [`of_device`] before there is a plan. The
//! hypervisor drives no IOMMU and leaves each in bypass, so an IOMMU before a device changes
//! nothing here but [`DeviceReach::isolation`]. Memory alone is counted: what a device could do to
//! another device's registers isn't.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::address::{FRAME_SHIFT, MachineAddress, MachineRange, MfnRange};
use crate::fixed;
use crate::host::{Architecture, Dma, HostDevice, HostMap};
use crate::plan::{Owned, Owner, Plan};
use crate::planner::sets;
use crate::request::SystemRequest;
use crate::size::Size;

/// What stands between a device and memory.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug, Hash)]
pub enum Isolation {
    /// Nothing.
    None,
    /// An IOMMU that only the device's own driver can use: a hostile driver leaves it open.
    Private,
    /// An IOMMU that could translate for a guest, and that is left in bypass.
    Bypassed,
}

impl Isolation {
    /// In a few words, for a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Private => "its driver's own IOMMU",
            Self::Bypassed => "an IOMMU in bypass",
        }
    }
}

/// The memory of one owner that DMA can touch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reached {
    /// Whose it is.
    pub owner: Owner,
    /// Bytes.
    pub bytes: u64,
    /// Where, by address.
    pub ranges: Vec<MfnRange>,
}

/// Devices with one reach share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReachClass {
    /// The machine addresses that DMA can touch, by address and apart; RAM or not.
    pub machine: Vec<MachineRange>,
    /// The RAM in them by owner, in the order of [`Owner`].
    pub reached: Vec<Reached>,
}

/// A device that does DMA.
#[derive(Clone, core::marker::Copy, PartialEq, Eq, Debug)]
pub struct DeviceReach {
    /// The device, by its index in [`HostMap::devices`].
    pub device: usize,
    /// The domain that drives it, by its place in [`Plan::domains`]; `None`: nobody in the plan, or
    /// the hypervisor.
    pub domain: Option<usize>,
    /// What stands before it.
    pub isolation: Isolation,
    /// Its reach, by index in [`Reach::classes`].
    pub class: usize,
}

/// A domain that drives at least one device that does DMA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainReach {
    /// The domain, by its place in [`Plan::domains`].
    pub domain: usize,
    /// Its devices that do DMA, by index in [`Reach::devices`].
    pub devices: Vec<usize>,
    /// What all of them can touch together.
    pub reach: ReachClass,
}

/// What DMA can touch on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// Each device that does DMA, in the host map's order.
    pub devices: Vec<DeviceReach>,
    /// What they refer to.
    pub classes: Vec<ReachClass>,
    /// Each domain that drives one, in the plan's order.
    pub domains: Vec<DomainReach>,
}

/// The machine addresses that a device's DMA can touch, by address and apart; `None` if it does no
/// DMA, and an empty list if it does some that touches nothing: its mask may end before its bus
/// shows memory. `mask` is the highest bus address, if somebody knows better than the host map.
pub fn of_device(device: &HostDevice, mask: Option<u64>) -> Option<Vec<MachineRange>> {
    let mask = match (mask, device.dma) {
        (Some(mask), _) | (None, Dma::Possible { mask }) => mask,
        (None, Dma::None) => return None,
    };
    if device.dma_windows.is_empty() {
        let all = MachineRange::saturating(MachineAddress::new(0), mask.saturating_add(1));
        return Some(vec![all]);
    }
    let windows = device.dma_windows.iter().filter_map(|window| {
        let most = mask.checked_sub(window.bus)?.saturating_add(1);
        let size = window.machine.size().min(most);
        Some(MachineRange::saturating(window.machine.start(), size))
    });
    Some(sets::normalise_bytes(windows.collect()))
}

/// What DMA can touch if the machine runs as planned. `plan` must be of this host and request.
pub fn of_plan(host: &HostMap, request: &SystemRequest, plan: &Plan) -> Reach {
    let owners = plan.owners();
    let mut drivers: Vec<Option<usize>> = vec![None; host.devices.len()];
    for (place, domain) in plan.domains.iter().enumerate() {
        for device in &domain.devices {
            drivers[*device] = Some(place);
        }
    }
    let mut reach = Reach {
        devices: Vec::new(),
        classes: Vec::new(),
        domains: Vec::new(),
    };
    for (index, device) in host.devices.iter().enumerate() {
        let domain = drivers[index];
        let driver = domain.and_then(|place| request.domains.get(plan.domains[place].index));
        let asked = driver.and_then(|domain| domain.dma_mask(&device.path));
        let Some(machine) = of_device(device, asked) else {
            continue;
        };
        let known = reach.classes.iter().position(|it| it.machine == machine);
        let class = known.unwrap_or_else(|| {
            reach.classes.push(class(machine, &owners));
            reach.classes.len() - 1
        });
        reach.devices.push(DeviceReach {
            device: index,
            domain,
            isolation: isolation(device),
            class,
        });
    }
    for place in 0..plan.domains.len() {
        let own = reach.devices.iter().enumerate();
        let own = own.filter(|(_, device)| device.domain == Some(place));
        let devices: Vec<usize> = own.map(|(at, _)| at).collect();
        let mut classes: Vec<usize> = devices.iter().map(|at| reach.devices[*at].class).collect();
        classes.sort_unstable();
        classes.dedup();
        let together = match classes.as_slice() {
            [] => continue,
            [only] => reach.classes[*only].clone(),
            several => {
                let machine = several.iter().flat_map(|at| &reach.classes[*at].machine);
                class(sets::normalise_bytes(machine.copied().collect()), &owners)
            }
        };
        reach.domains.push(DomainReach {
            domain: place,
            devices,
            reach: together,
        });
    }
    reach
}

fn isolation(device: &HostDevice) -> Isolation {
    if device.behind_iommu {
        Isolation::Bypassed
    } else if device.private_iommu {
        Isolation::Private
    } else {
        Isolation::None
    }
}

fn class(machine: Vec<MachineRange>, owners: &[Owned]) -> ReachClass {
    let frames = machine.iter().map(MachineRange::frames_touched);
    let frames = sets::normalise(frames.collect());
    let mut reached: Vec<Reached> = Vec::new();
    for owned in owners {
        for part in sets::intersect(&[owned.frames], &frames) {
            let known = reached.binary_search_by_key(&owned.owner, |it| it.owner);
            let at = known.unwrap_or_else(|at| {
                reached.insert(
                    at,
                    Reached {
                        owner: owned.owner,
                        bytes: 0,
                        ranges: Vec::new(),
                    },
                );
                at
            });
            reached[at].bytes += part.frames() << FRAME_SHIFT;
            reached[at].ranges.push(part);
        }
    }
    ReachClass { machine, reached }
}

impl ReachClass {
    /// Bytes of this owner's memory.
    pub fn bytes_of(&self, owner: Owner) -> u64 {
        let found = self.reached.iter().find(|reached| reached.owner == owner);
        found.map_or(0, |reached| reached.bytes)
    }

    /// Whether its writes can be interrupts of any vector, for any CPU: a PC's are, and nothing remaps them, since each
    /// IOMMU is left in bypass.
    fn raises_vectors(&self, architecture: Architecture) -> bool {
        let start = MachineAddress::new(fixed::LOCAL_APIC);
        let messages = MachineRange::saturating(start, fixed::MESSAGE_BYTES);
        let mut machine = self.machine.iter();
        architecture == Architecture::X86_64 && machine.any(|range| range.overlaps(&messages))
    }
}

impl DomainReach {
    /// What of it isn't the domain's own memory.
    pub fn others(&self) -> impl Iterator<Item = &Reached> {
        let own = Owner::Domain(self.domain);
        let reached = self.reach.reached.iter();
        reached.filter(move |reached| reached.owner != own)
    }

    /// Whether whoever runs in the domain could take the machine: by DMA into the hypervisor.
    pub fn reaches_hypervisor(&self) -> bool {
        self.reach.bytes_of(Owner::Hypervisor) > 0
    }

    /// Whether all others trust the domain: it could overwrite what isn't its own, or interrupt them.
    fn is_trusted(&self, plan: &Plan) -> bool {
        self.others().next().is_some() || self.reach.raises_vectors(plan.architecture)
    }

    /// One line: what a hostile device of this domain, or its driver, could overwrite.
    pub fn statement(&self, plan: &Plan) -> String {
        let vectors = match self.reach.raises_vectors(plan.architecture) {
            true => ", and raise any interrupt vector on any CPU",
            false => "",
        };
        format!("its devices {}{vectors}", self.overwrites(plan))
    }

    fn overwrites(&self, plan: &Plan) -> String {
        let mut others: Vec<String> = self.others().map(|one| words(one, plan)).collect();
        let last = others.pop();
        let list = match (others.is_empty(), last) {
            (_, None) if self.reach.reached.is_empty() => {
                return String::from("reach no memory");
            }
            (_, None) => return String::from("reach its own memory alone"),
            (true, Some(last)) => last,
            (false, Some(last)) => format!("{} and {last}", others.join(", ")),
        };
        format!("could overwrite {list}")
    }
}

fn words(reached: &Reached, plan: &Plan) -> String {
    let size = Size(reached.bytes);
    match reached.owner {
        Owner::Hypervisor => format!("the hypervisor ({size})"),
        Owner::Domain(place) => {
            let name = plan.domains.get(place).map_or("", |it| it.name.as_str());
            format!("domain \"{name}\" ({size})")
        }
        Owner::Kept => format!("modules kept for a restart ({size})"),
        Owner::Reserved => format!("reserved memory ({size})"),
        Owner::Nobody => format!("memory that nobody has ({size})"),
    }
}

impl Reach {
    /// The domains, by place in [`Plan::domains`], that could overwrite what isn't theirs, or on a PC interrupt everybody:
    /// all others trust them.
    pub fn trusted(&self, plan: &Plan) -> Vec<usize> {
        let beyond = self.domains.iter().filter(|it| it.is_trusted(plan));
        beyond.map(|domain| domain.domain).collect()
    }

    /// One line for the whole machine: who must be trusted because of DMA.
    pub fn statement(&self, plan: &Plan) -> String {
        let trusted = self.trusted(plan);
        if trusted.is_empty() {
            return String::from("no domain drives a device whose DMA reaches memory of others");
        }
        let over = self.domains.iter().filter(|it| it.reaches_hypervisor());
        let names = |places: &mut dyn Iterator<Item = usize>| {
            let names = places.map(|place| format!("\"{}\"", plan.domains[place].name));
            names.collect::<Vec<_>>().join(", ")
        };
        let all = names(&mut trusted.iter().copied());
        let hypervisor = names(&mut over.map(|it| it.domain));
        let mut line = format!(
            "nothing confines DMA: what drives devices can overwrite what isn't its own, so \
             everybody trusts {all}"
        );
        if !hypervisor.is_empty() && hypervisor != all {
            line.push_str(&format!("; the hypervisor is in reach of {hypervisor}"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::DmaWindow;

    fn bytes(start: u64, size: u64) -> MachineRange {
        sets::bytes(start, size)
    }

    fn master(mask: u64, windows: &[(u64, u64, u64)]) -> HostDevice {
        let window = |(bus, start, size): &(u64, u64, u64)| DmaWindow {
            bus: *bus,
            machine: bytes(*start, *size),
        };
        HostDevice {
            dma: Dma::Possible { mask },
            dma_windows: windows.iter().map(window).collect(),
            ..HostDevice::default()
        }
    }

    /// Of a device that does DMA.
    fn reach(device: &HostDevice, mask: Option<u64>) -> Vec<MachineRange> {
        of_device(device, mask).unwrap()
    }

    #[test]
    fn a_mask_counts_bus_addresses() {
        // As the Raspberry Pi 4 has it: the first GiB, seen from 3 GiB on.
        let pi = master(u64::from(u32::MAX), &[(3 << 30, 0, 1 << 30)]);
        assert_eq!(reach(&pi, None), [bytes(0, 1 << 30)]);
        assert_eq!(reach(&pi, Some((3 << 30) + 0xfff)), [bytes(0, 0x1000)]);
        // It does DMA, though nothing is there.
        assert_eq!(reach(&pi, Some(0xfff)), []);
    }

    #[test]
    fn without_windows_the_mask_is_all() {
        let old = master(0x3fff_ffff, &[]);
        assert_eq!(reach(&old, None), [bytes(0, 1 << 30)]);
        assert_eq!(reach(&master(u64::MAX, &[]), None), [bytes(0, u64::MAX)]);
        assert_eq!(of_device(&HostDevice::default(), None), None);
        assert_eq!(
            reach(&HostDevice::default(), Some(0xffff)),
            [bytes(0, 1 << 16)]
        );
    }

    #[test]
    fn windows_that_touch_are_one() {
        let device = master(u64::MAX, &[(0, 0x2000, 0x1000), (0x8000, 0x1000, 0x1000)]);
        assert_eq!(reach(&device, None), [bytes(0x1000, 0x2000)]);
    }
}
