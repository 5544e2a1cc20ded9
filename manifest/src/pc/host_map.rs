//! From a PC's description to the planner's terms.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{
    Architecture, BootKind, BootRange, Code, Conflict, Controller, ControllerKind, Dma, HostCpu,
    HostDevice, HostMap, Iommu, MachineAddress, MachineRange, Origin, RamBank, Reservation,
    Reserved, Severity, Side,
};

use super::{Description, Function, MemoryKind, MemoryNode, groups};
use crate::origin::{Origins, Position};

const PAGE: u64 = 4096;
/// Where memory-mapped devices begin: video memory, below 1 MiB.
const LOWEST_DEVICE: u64 = 0xa_0000;
const FOUR_GIB: u64 = 1 << 32;

/// What the boot loader placed in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootFacts {
    /// The hypervisor's image with its zeroed data, as it runs.
    pub hypervisor: MachineRange,
    /// The container, if there is one.
    pub container: Option<MachineRange>,
}

/// What a description says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What the planner needs.
    pub map: HostMap,
    /// The path of the console's UART, which is one of `map.devices`.
    pub console: Option<String>,
    /// What is wrong or strange. An error here leaves something out of the map.
    pub problems: Vec<Conflict>,
}

/// How a manifest names the UART at this port.
#[must_use]
pub fn console_name(port: u16) -> String {
    match port {
        0x3f8 => "com1".to_owned(),
        0x2f8 => "com2".to_owned(),
        0x3e8 => "com3".to_owned(),
        0x2e8 => "com4".to_owned(),
        other => format!("uart@{other:x}"),
    }
}

/// The machine in the planner's terms. Devices are the console's UART ("com1"), for each PCI segment its host bridge
/// with all of its windows that no function has ("pci:0000"), and each function ("pci:0000:00:02.0").
#[must_use]
pub fn host_map(pc: &Description, boot: &BootFacts, origins: &mut Origins) -> Host {
    let mut reader = Reader {
        origins,
        problems: Vec::new(),
    };
    let (ram, reserved) = reader.memory(pc);
    let map = HostMap {
        architecture: Architecture::X86_64,
        ram,
        reserved,
        devices: reader.devices(pc),
        controller: reader.controller(pc),
        cpus: reader.cpus(pc),
        iommus: reader.iommus(pc),
        boot: reader.boot(boot),
        // The x86 image doesn't move itself.
    };
    Host {
        map,
        console: pc.console.map(console_name),
        problems: reader.problems,
    }
}

struct Reader<'o> {
    origins: &'o mut Origins,
    problems: Vec<Conflict>,
}

impl Reader<'_> {
    fn origin(&mut self, what: String) -> Origin {
        self.origins.add(Position::Firmware { what })
    }

    fn memory(&mut self, pc: &Description) -> (Vec<RamBank>, Vec<Reserved>) {
        let (mut ram, mut reserved) = (Vec::new(), Vec::new());
        let mut nodes = pc.memory_nodes.clone();
        nodes.sort_by_key(|node| node.range.start());
        for (number, entry) in pc.memory.iter().enumerate() {
            let origin = self.origin(format!("memory map, entry {number}"));
            let range = entry.range;
            if entry.kind == MemoryKind::Ram {
                let pieces = by_node(range, &nodes).into_iter();
                ram.extend(pieces.map(|(range, node)| RamBank {
                    range,
                    node,
                    origin,
                }));
            } else {
                reserved.push(Reserved {
                    range,
                    name: entry.kind.name().to_owned(),
                    kind: Reservation::Kept,
                    origin,
                });
            }
        }
        (ram, reserved)
    }

    fn cpus(&mut self, pc: &Description) -> Vec<HostCpu> {
        let mut cpus: Vec<HostCpu> = Vec::new();
        for apic_id in &pc.cpus {
            let hardware_id = u64::from(*apic_id);
            let origin = self.origin(format!("CPU with local APIC ID {apic_id}"));
            if cpus.iter().any(|cpu| cpu.hardware_id == hardware_id) {
                let why = "another CPU has the same local APIC ID";
                self.problems.push(Conflict {
                    code: Code::HostInvalid,
                    severity: Severity::Warning,
                    sides: alloc::vec![Side {
                        what: format!("a CPU with local APIC ID {apic_id}"),
                        origin,
                        domain: None,
                    }],
                    why: why.to_owned(),
                    help: String::new(),
                });
                continue;
            }
            let node = pc.cpu_nodes.iter().find(|node| node.cpu == *apic_id);
            cpus.push(HostCpu {
                hardware_id,
                node: node.map(|node| node.node),
                origin,
            });
        }
        cpus
    }

    fn controller(&mut self, pc: &Description) -> Controller {
        let chips = pc.io_apics.iter().map(|chip| chip.address);
        let pages = core::iter::once(pc.local_apic).chain(chips);
        Controller {
            kind: ControllerKind::IoApic,
            ranges: pages.map(|start| range(start, PAGE)).collect(),
            origin: self.origin("local APIC and IO-APICs".to_owned()),
            ..Controller::default()
        }
    }

    fn iommus(&mut self, pc: &Description) -> Vec<Iommu> {
        let iommus = pc.iommus.iter();
        iommus
            .map(|iommu| Iommu {
                path: iommu.path.clone(),
                ranges: alloc::vec![iommu.range],
                // Both kinds translate for guests by tables of the hypervisor's own.
                usable: true,
                origin: self.origin(iommu.path.clone()),
            })
            .collect()
    }

    fn devices(&mut self, pc: &Description) -> Vec<HostDevice> {
        let mut devices = Vec::new();
        if let Some(port) = pc.console {
            devices.push(self.device(console_name(port), Vec::new(), Dma::None));
        }
        let mut segments: Vec<u16> = pc.functions.iter().map(|it| it.address.segment).collect();
        segments.extend(pc.ecam.iter().map(|ecam| ecam.segment));
        segments.sort_unstable();
        segments.dedup();
        // Which of several host bridges decodes a hole is written in ACPI's bytecode: the first has them all.
        let mut windows = windows(pc);
        for segment in segments {
            let own = pc.ecam.iter().filter(|ecam| ecam.segment == segment);
            let mut ranges: Vec<MachineRange> = own.map(super::Ecam::range).collect();
            ranges.append(&mut windows);
            devices.push(self.device(format!("pci:{segment:04x}"), ranges, Dma::None));
        }
        for (function, group) in pc.functions.iter().zip(groups::of(pc)) {
            let path = format!("pci:{}", function.address);
            devices.push(HostDevice {
                behind_iommu: function.behind_iommu,
                group,
                ..self.device(path, function.bars.clone(), dma(function))
            });
        }
        devices
    }

    fn device(&mut self, path: String, ranges: Vec<MachineRange>, dma: Dma) -> HostDevice {
        HostDevice {
            origin: self.origin(path.clone()),
            path,
            ranges,
            dma,
            // A PC's caches watch the bus.
            coherent: true,
            ..HostDevice::default()
        }
    }

    fn boot(&mut self, boot: &BootFacts) -> Vec<BootRange> {
        let hypervisor = (BootKind::Hypervisor, boot.hypervisor, "the hypervisor");
        let container = boot.container;
        let container = container.map(|range| (BootKind::Container, range, "the container"));
        let present = core::iter::once(hypervisor).chain(container);
        present
            .map(|(kind, range, what)| BootRange {
                kind,
                range,
                origin: self.origins.add(Position::Boot { what }),
            })
            .collect()
    }
}

/// A range of RAM in pieces of one node each; `nodes` by address. Where two overlap the first one's word holds.
fn by_node(range: MachineRange, nodes: &[MemoryNode]) -> Vec<(MachineRange, Option<u32>)> {
    let (mut at, end) = (range.start().raw(), range.end().raw());
    let mut pieces = Vec::new();
    for node in nodes {
        let (start, stop) = (node.range.start().raw(), node.range.end().raw().min(end));
        if stop <= at || start >= end {
            continue;
        }
        if at < start {
            pieces.push((between(at, start), None));
            at = start;
        }
        pieces.push((between(at, stop), Some(node.node)));
        at = stop;
    }
    if at < end || pieces.is_empty() {
        pieces.push((between(at, end), None));
    }
    pieces
}

/// Any function may do DMA that its class doesn't rule out: host bridges and PCI bridges have no data of their own.
/// An ISA bridge holds the PC's DMA controller, which has 24 address bits (Intel 8237A with page registers).
fn dma(function: &Function) -> Dma {
    match function.class >> 8 {
        0x0600 | 0x0604 => Dma::None,
        0x0601 => Dma::Possible { mask: 0xff_ffff },
        _ => Dma::Possible { mask: u64::MAX },
    }
}

/// The holes below 4 GiB in which only PCI answers: what no entry of the memory map names, less everything whose place
/// is known. BARs above 4 GiB are their functions' own.
fn windows(pc: &Description) -> Vec<MachineRange> {
    let pages = pc.io_apics.iter().map(|chip| chip.address);
    let pages = pages.chain([pc.local_apic]).map(|start| range(start, PAGE));
    let memory = pc.memory.iter().map(|entry| entry.range);
    let known = memory
        .chain(pages)
        .chain(pc.ecam.iter().map(super::Ecam::range))
        .chain(pc.iommus.iter().map(|iommu| iommu.range))
        .chain(pc.functions.iter().flat_map(|it| it.bars.iter().copied()));
    let mut known: Vec<MachineRange> = known
        .filter(|range| !range.is_empty())
        .map(|range| range.frames_touched().bytes())
        .collect();
    known.sort_unstable_by_key(MachineRange::start);
    let mut windows = Vec::new();
    let mut at = LOWEST_DEVICE;
    for range in known {
        if at < range.start().raw().min(FOUR_GIB) {
            windows.push(between(at, range.start().raw().min(FOUR_GIB)));
        }
        at = at.max(range.end().raw());
    }
    if at < FOUR_GIB {
        windows.push(between(at, FOUR_GIB));
    }
    windows
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

fn between(start: u64, end: u64) -> MachineRange {
    MachineRange::between(MachineAddress::new(start), MachineAddress::new(end))
}
