//! Everything else with registers or interrupts of its own: devices and IOMMUs.
//!
//! Whether a device does DMA is not written in a tree. So every device may, unless its `compatible` is in a short
//! list of those that are known not to: a device that is wrongly thought to do DMA costs an override, one that is
//! wrongly thought harmless costs the isolation.

use alloc::vec::Vec;

use layout::{Dma, HostDevice, Iommu, Severity};

use super::gic::Gic;
use super::{Reader, address, interrupts};
use crate::tree::blob::{Cells, Node};

/// Devices that only answer their registers. Each of them has no bus-master port in its reference manual.
const WITHOUT_DMA: [&str; 23] = [
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
    "syscon",
    "syscon-poweroff",
    "syscon-reboot",
    "simple-mfd",
];

/// IOMMUs whose node says so otherwise than by `#iommu-cells`.
const IOMMUS: [&str; 6] = [
    "arm,smmu-v1",
    "arm,smmu-v2",
    "arm,smmu-v3",
    "arm,mmu-400",
    "arm,mmu-401",
    "arm,mmu-500",
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

/// Whether the node is an IOMMU.
pub fn is_iommu(node: Node<'_, '_>) -> bool {
    node.has("#iommu-cells")
        || node
            .strings("compatible")
            .any(|name| IOMMUS.contains(&name))
}

/// Each device with its node's index, and the IOMMUs. The interrupt controller, memory and CPUs are none of
/// them; neither is what has no registers that a CPU reaches and no shared interrupt.
pub fn read(
    reader: &mut Reader<'_, '_, '_>,
    gic: Option<&Gic>,
) -> (Vec<(usize, HostDevice)>, Vec<Iommu>) {
    let (mut devices, mut iommus) = (Vec::new(), Vec::new());
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
            gic.is_some_and(|gic| gic.node == node.index()) || node.is_compatible("arm,gic-v3-its");
        let is_memory = node.string("device_type") == Some("memory");
        if is_controller || is_memory || !node.has("compatible") {
            continue;
        }
        if is_iommu(node) {
            let ranges = reader.registers(node);
            let origin = reader.origin(node);
            iommus.push(Iommu {
                path: node.path(),
                ranges,
                usable: true,
                origin,
            });
        } else if let Some(device) = device(reader, node, gic) {
            devices.push((node.index(), device));
        }
    }
    (devices, iommus)
}

fn device(
    reader: &mut Reader<'_, '_, '_>,
    node: Node<'_, '_>,
    gic: Option<&Gic>,
) -> Option<HostDevice> {
    let mut ranges = reader.registers(node);
    let is_bridge = address::is_pci(node) && !node.parent().is_some_and(address::is_pci);
    if is_bridge {
        match address::pci_windows(node) {
            Ok(windows) => ranges.extend(windows),
            Err(why) => reader.problem(
                node,
                Severity::Warning,
                "a PCI host bridge without windows",
                why,
            ),
        }
    }
    ranges.retain(|range| !range.is_empty());
    let mut interrupts = gic
        .map(|gic| interrupts::shared(node, gic))
        .unwrap_or_default();
    if let Some(frame) = gic.and_then(|gic| {
        let frame = |frame: &&super::V2mFrame| ranges.first() == Some(&frame.registers);
        gic.v2m.iter().find(frame)?.interrupts
    }) {
        interrupts.extend(frame.0..frame.0.saturating_add(frame.1.min(1020)));
    }
    if ranges.is_empty() && interrupts.is_empty() {
        return None;
    }
    let origin = reader.origin(node);
    Some(HostDevice {
        path: node.path(),
        dma: dma(node, &ranges),
        dma_windows: Vec::new(),
        coherent: false,
        group: None,
        behind_iommu: is_behind_iommu(node),
        private_iommu: false,
        ranges,
        interrupts,
        origin,
    })
}

fn dma(node: Node<'_, '_>, ranges: &[layout::MachineRange]) -> Dma {
    // What has no registers (keys, regulators, a bus of them) can't be told an address.
    if ranges.is_empty()
        || node
            .strings("compatible")
            .any(|name| WITHOUT_DMA.contains(&name))
    {
        return Dma::None;
    }
    Dma::Possible {
        mask: address::dma_mask(node),
    }
}

/// Whether an enabled IOMMU stands before it: `iommus` names one, or `iommu-map` of a PCI host bridge.
fn is_behind_iommu(node: Node<'_, '_>) -> bool {
    let names_enabled = |phandle: Option<u32>| {
        phandle
            .and_then(|phandle| node.tree().by_phandle(phandle))
            .is_some_and(Node::is_enabled)
    };
    let first = node
        .value("iommus")
        .and_then(|value| Cells::new(value).next_u32());
    let mapped = node.value("iommu-map").and_then(|value| {
        let mut cells = Cells::new(value);
        cells.skip(1)?;
        cells.next_u32()
    });
    names_enabled(first) || names_enabled(mapped)
}
