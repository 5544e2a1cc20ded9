//! Everything else with registers or interrupts of its own: devices and IOMMUs.
//!
//! Whether a device does DMA is not written in a tree. So every device may, unless its `compatible` is in a short
//! list of those that are known not to: a device that is wrongly thought to do DMA costs an override, one that is
//! wrongly thought harmless costs the isolation.

use alloc::vec::Vec;

use layout::{Architecture, Dma, HostDevice, Iommu, MachineRange, Severity};

use super::controller::Found;
use super::interrupts::{Ways, shared};
use super::{Reader, V2mFrame, address, dma};
use crate::tree::blob::{Cells, Node};

/// Devices that only answer their registers. Each of them has no bus-master port in its reference manual.
const WITHOUT_DMA: [&str; 21] = [
    "arm,pl010",
    "arm,pl011",
    "arm,pl031",
    "arm,pl050",
    "arm,pl061",
    "arm,sbsa-uart",
    "arm,sbsa-gwdt",
    "arm,sp804",
    "arm,sp805",
    "arm,gic-v2m-frame",
    "arm,armv7-timer-mem",
    "cfi-flash",
    "google,goldfish-rtc",
    "ns16550",
    "ns16550a",
    "snps,dw-apb-uart",
    "snps,dw-apb-gpio",
    "snps,dw-wdt",
    "sifive,uart0",
    "syscon-poweroff",
    "syscon-reboot",
];

/// What a tree says beside a node's own name of registers that other drivers write too. Bus masters have them as well
/// (MediaTek's Wi-Fi offload, "mediatek,mt7986-wed", "syscon"), so the name beside them decides.
const SHARED_REGISTERS: [&str; 2] = ["syscon", "simple-mfd"];

/// How names of blocks end that are registers only: makers' words for system control, configuration, fuses and clocks.
const CONTROL_BLOCKS: [&str; 13] = [
    "syscon",
    "sysctrl",
    "sysreg",
    "grf",
    "cfg",
    "-qos",
    "-tcsr",
    "-gpr",
    "-efuse",
    "-ocotp",
    "-blk-ctrl",
    "-topckgen",
    "-apmixedsys",
];

/// What only a bus master has.
const OF_MASTERS: [&str; 4] = ["dma-coherent", "iommu-map", "iommus", "memory-region"];

/// Buses that need no driver, or only one for clocks and power.
const BUSES: [&str; 2] = ["simple-bus", "simple-pm-bus"];

/// The most entries of a bus's `reg` that are told apart. Real ones have one.
const MOST_OF_BUS: usize = 8;

/// Timers and software interrupts of RISC-V's machine mode, which is the firmware's: it lets nobody else at their registers
/// (RISC-V ACLINT specification 1.0, chapters 2 and 3; Linux, Documentation/devicetree/bindings/timer/: sifive,clint.yaml,
/// thead,c900-aclint-mtimer.yaml; interrupt-controller/: thead,c900-aclint-mswi.yaml).
const OF_THE_FIRMWARE: [&str; 8] = [
    "riscv,clint0",
    "sifive,clint0",
    "sifive,clint2",
    "thead,c900-clint",
    "riscv,aclint-mtimer",
    "riscv,aclint-mswi",
    "thead,c900-aclint-mtimer",
    "thead,c900-aclint-mswi",
];

/// Parts of the tree that describe no device.
const NO_DEVICES: [&str; 7] = [
    "cpus",
    "chosen",
    "aliases",
    "reserved-memory",
    "hypervisor",
    "firmware",
    "__symbols__",
];

/// Each device with its node's index, and the IOMMUs. The interrupt controller, memory, CPUs and what the
/// firmware keeps are none of them; neither is what has no registers that a CPU reaches and no shared interrupt.
pub fn read(
    reader: &mut Reader<'_, '_, '_>,
    architecture: Architecture,
    controller: &Found,
    regions: &[(usize, HostDevice)],
) -> (Vec<(usize, HostDevice)>, Vec<Iommu>) {
    let (mut devices, mut iommus) = (Vec::new(), Vec::new());
    let mut bridges = Bridges::default();
    let mut ways = controller.lines.map(Ways::new);
    let mut skipped: Option<Node<'_, '_>> = None;
    for node in reader.tree.nodes() {
        if skipped.is_some_and(|above| above.contains(node)) {
            continue;
        }
        let below_root = node.parent().is_some_and(|parent| parent.index() == 0);
        if !node.is_enabled() || (below_root && NO_DEVICES.contains(&node.name())) {
            skipped = Some(node);
            continue;
        }
        let is_controller =
            controller.nodes.contains(&node.index()) || node.is_compatible("arm,gic-v3-its");
        let is_memory = node.string("device_type") == Some("memory");
        let mut names = node.strings("compatible");
        let is_firmwares = names.any(|name| OF_THE_FIRMWARE.contains(&name));
        if is_controller || is_memory || is_firmwares || !node.has("compatible") {
            continue;
        }
        if dma::is_iommu(node) {
            let ranges = reader.registers(node);
            let origin = reader.origin(node);
            iommus.push(Iommu {
                path: node.path(),
                ranges,
                usable: dma::is_usable(node),
                origin,
            });
        } else {
            let is_bridge = is_host_bridge(node);
            let ways = ways.as_mut();
            if let Some(mut device) = device(reader, node, ways, architecture, controller) {
                if !regions.is_empty() {
                    device.regions = memory_regions(node, regions);
                }
                bridges.join(node, is_bridge, &mut device, &mut devices);
                devices.push((node.index(), device));
            }
        }
    }
    if ways.is_some_and(|ways| ways.is_cut()) {
        let what = "the ways of its devices' interrupts";
        let why = "they take more steps, through maps and controllers, than any machine's: they aren't known";
        reader.problem(reader.tree.root(), Severity::Error, what, why);
    }
    (devices, iommus)
}

/// Groups what the tree lists below a PCI host bridge with it: functions are told apart by none of what it says.
#[derive(Default)]
struct Bridges<'t, 'a> {
    /// The bridge that was seen last, and its place among the devices.
    last: Option<(Node<'t, 'a>, usize)>,
    groups: u32,
}

impl<'t, 'a> Bridges<'t, 'a> {
    fn join(
        &mut self,
        node: Node<'t, 'a>,
        is_bridge: bool,
        device: &mut HostDevice,
        devices: &mut [(usize, HostDevice)],
    ) {
        let below = self.last.filter(|(bridge, _)| bridge.contains(node));
        if let Some((_, bridge)) = below.and_then(|(_, place)| devices.get_mut(place)) {
            device.group = bridge.group.or_else(|| {
                self.groups += 1;
                self.groups.checked_sub(1)
            });
            bridge.group = device.group;
        } else if is_bridge {
            self.last = Some((node, devices.len()));
        }
    }
}

fn is_host_bridge(node: Node<'_, '_>) -> bool {
    address::is_pci(node) && !node.parent().is_some_and(address::is_pci)
}

fn device<'t, 'a>(
    reader: &mut Reader<'_, '_, '_>,
    node: Node<'t, 'a>,
    ways: Option<&mut Ways<'t, 'a>>,
    architecture: Architecture,
    controller: &Found,
) -> Option<HostDevice> {
    let is_bridge = is_host_bridge(node);
    let mut ranges = reader.registers(node);
    leave_to_children(node, &mut ranges);
    if is_bridge {
        let windows = address::pci_windows(node);
        ranges.extend(reader.reached(node, windows, "a PCI host bridge without windows"));
    }
    ranges.retain(|range| !range.is_empty());
    let found = ways.map(|ways| ways.all(node)).unwrap_or_default();
    let numbering = controller.lines.map(|lines| lines.numbering);
    let mut interrupts = numbering.map_or_else(Vec::new, |it| shared(&found.lines, it));
    if let Some(frame) = controller.gic.as_ref().and_then(|gic| {
        let frame = |frame: &&V2mFrame| ranges.first() == Some(&frame.registers);
        gic.v2m.iter().find(frame)?.interrupts
    }) {
        interrupts.extend(frame.0..frame.0.saturating_add(frame.1.min(1020)));
    }
    if ranges.is_empty() && interrupts.is_empty() {
        return None;
    }
    let origin = reader.origin(node);
    let mut device = HostDevice {
        path: node.path(),
        interrupts,
        other_controller: found.other.map(Node::path),
        origin,
        ..HostDevice::default()
    };
    if does_dma(node, &ranges) {
        let translation = dma::translation(node);
        device.dma = Dma::Possible { mask: u64::MAX };
        device.dma_windows = dma::windows(node, is_bridge);
        device.coherent = dma::is_coherent(node, architecture);
        device.behind_iommu = translation.usable;
        device.private_iommu = translation.private;
    }
    device.ranges = ranges;
    Some(device)
}

/// The numbers of these regions, which are their phandles, that a node's driver uses.
///
/// Source: dt-schema, reserved-memory/reserved-memory.yaml, "memory-region".
fn memory_regions(node: Node<'_, '_>, regions: &[(usize, HostDevice)]) -> Vec<u32> {
    let mut cells = Cells::new(node.value("memory-region").unwrap_or_default());
    let named = core::iter::from_fn(|| cells.next_u32());
    let is_known = |number: &u32| {
        let region = node.tree().by_phandle(*number).map(Node::index);
        let place = region.map(|region| regions.binary_search_by_key(&region, |(at, _)| *at));
        matches!(place, Some(Ok(_)))
    };
    named.filter(is_known).collect()
}

/// Takes out of a bus's registers the entries of `reg` that only tell where its children's are, as those of i.MX8M's AIPS
/// and Amlogic's buses do: no driver maps them. A child's first entry counts, since further ones may go through another
/// window, and most children do, since trees have slips (i.MX8MP lists a mailbox on the wrong bus). A bus whose children
/// lie elsewhere has registers of its own.
fn leave_to_children(node: Node<'_, '_>, ranges: &mut Vec<MachineRange>) {
    let is_bus = node.has("ranges") && node.strings("compatible").any(|name| BUSES.contains(&name));
    if !is_bus || ranges.len() > MOST_OF_BUS {
        return;
    }
    let (mut holds, mut inside, mut outside) = ([false; MOST_OF_BUS], 0_usize, 0_usize);
    for child in node.children() {
        let reached = address::registers(child).unwrap_or_default();
        let Some(first) = reached.ranges.first().filter(|range| !range.is_empty()) else {
            continue;
        };
        let place = ranges.iter().position(|range| range.covers(first));
        match place.and_then(|place| holds.get_mut(place)) {
            Some(holds) => {
                *holds = true;
                inside += 1;
            }
            None => outside += 1,
        }
    }
    if inside > outside {
        let mut holds = holds.into_iter();
        ranges.retain(|_| holds.next() != Some(true));
    }
}

fn does_dma(node: Node<'_, '_>, ranges: &[MachineRange]) -> bool {
    // What has no registers (keys, regulators, a bus of them) can't be told an address.
    !ranges.is_empty() && (OF_MASTERS.iter().any(|name| node.has(name)) || !is_harmless(node))
}

/// Whether a node's names are those of something that does no DMA.
fn is_harmless(node: Node<'_, '_>) -> bool {
    let names = || node.strings("compatible");
    let is_shared = |name: &str| SHARED_REGISTERS.contains(&name);
    names().any(|name| WITHOUT_DMA.contains(&name))
        || names().any(is_shared) && names().all(|name| is_shared(name) || is_control_block(name))
}

fn is_control_block(name: &str) -> bool {
    // MediaTek tells the always-on half of a block apart, Qualcomm's older trees have the word in front.
    let mut halves = ["_ao", "-ao", "-nao"].iter();
    let name = halves
        .find_map(|half| name.strip_suffix(half))
        .unwrap_or(name);
    name.starts_with("qcom,tcsr-") || CONTROL_BLOCKS.iter().any(|end| name.ends_with(end))
}
