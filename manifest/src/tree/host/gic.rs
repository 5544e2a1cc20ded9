//! The interrupt controller: GICv2 with its v2m frames, GICv3 with redistributors and ITS.
//!
//! Source: Linux, Documentation/devicetree/bindings/interrupt-controller/arm,gic.yaml and arm,gic-v3.yaml.

use alloc::string::String;
use alloc::vec::Vec;

use layout::{Controller, ControllerKind, MachineRange, Origin, Severity};

use super::Reader;
use super::interrupts::{Lines, Numbering, Ways};
use crate::tree::blob::Node;

/// Bytes of a GICv3 redistributor without `redistributor-stride`: two frames of 64 KiB (GIC architecture
/// specification IHI 0069, section 12.10).
const REDISTRIBUTOR_BYTES: u64 = 0x2_0000;

/// A GICv2 distributor knows eight CPU interfaces (IHI 0048, section 4.3.12).
const V2_CPUS: u32 = 8;

/// The register frames of each version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GicVersion {
    /// GICv2.
    V2 {
        /// GICC.
        cpu_interface: MachineRange,
        /// GICH; `None` on a GIC without virtualisation extensions.
        hypervisor_interface: Option<MachineRange>,
        /// GICV.
        virtual_interface: Option<MachineRange>,
    },
    /// GICv3 or v4.
    V3 {
        /// The regions of redistributors, in the tree's order.
        redistributors: Vec<MachineRange>,
        /// Bytes of each redistributor.
        stride: u64,
        /// The ITSs.
        its: Vec<MachineRange>,
    },
}

/// A frame that turns PCI's message-signalled interrupts into SPIs on GICv2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V2mFrame {
    /// Its registers.
    pub registers: MachineRange,
    /// First INTID and count, if the tree overrides what the frame's MSI_TYPER says.
    pub interrupts: Option<(u32, u32)>,
}

/// The GIC that interrupts of devices end at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gic {
    /// Its node, by [`Node::index`].
    pub node: usize,
    /// Its path.
    pub path: String,
    /// The distributor.
    pub distributor: MachineRange,
    /// The other frames.
    pub version: GicVersion,
    /// v2m frames.
    pub v2m: Vec<V2mFrame>,
    /// The maintenance interrupt's INTID.
    pub maintenance: Option<u32>,
    /// Who says so.
    pub origin: Origin,
}

impl Gic {
    /// How many CPUs its layout covers.
    #[must_use]
    pub fn max_cpus(&self) -> u32 {
        match &self.version {
            GicVersion::V2 { .. } => V2_CPUS,
            GicVersion::V3 {
                redistributors,
                stride,
                ..
            } => {
                let covered: u64 = redistributors
                    .iter()
                    .map(|region| region.size() / stride)
                    .sum();
                u32::try_from(covered).unwrap_or(u32::MAX)
            }
        }
    }

    /// How it numbers interrupts.
    #[must_use]
    pub(crate) fn lines(&self) -> Lines {
        Lines {
            node: self.node,
            numbering: Numbering::Gic,
        }
    }

    /// The planner's view. A v2m frame is not in it: it is a device that the hardware domain has.
    #[must_use]
    pub fn controller(&self) -> Controller {
        let mut ranges = alloc::vec![self.distributor];
        let mut translators = Vec::new();
        match &self.version {
            GicVersion::V2 {
                cpu_interface,
                hypervisor_interface,
                virtual_interface,
            } => {
                ranges.push(*cpu_interface);
                ranges.extend(*hypervisor_interface);
                ranges.extend(*virtual_interface);
            }
            GicVersion::V3 {
                redistributors,
                its,
                ..
            } => {
                ranges.extend(redistributors);
                ranges.extend(its);
                translators.clone_from(its);
            }
        }
        Controller {
            kind: match self.version {
                GicVersion::V2 { .. } => ControllerKind::GicV2,
                GicVersion::V3 { .. } => ControllerKind::GicV3,
            },
            ranges,
            its: translators,
            max_cpus: self.max_cpus(),
            origin: self.origin,
        }
    }
}

const V2_COMPATIBLE: [&str; 6] = [
    "arm,gic-400",
    "arm,cortex-a15-gic",
    "arm,cortex-a7-gic",
    "brcm,brahma-b15-gic",
    "qcom,msm-8660-qgic",
    "qcom,msm-qgic2",
];

const V3_COMPATIBLE: [&str; 2] = ["arm,gic-v3", "qcom,msm8996-gic-v3"];

/// Finds the first GICv2 or v3 and reads it.
pub fn read(reader: &mut Reader<'_, '_, '_>) -> Option<Gic> {
    let tree = reader.tree;
    let is_one_of = |node: Node<'_, '_>, names: &[&str]| {
        node.strings("compatible").any(|name| names.contains(&name))
    };
    let node = tree.nodes().find(|&node| {
        node.is_enabled() && (is_one_of(node, &V3_COMPATIBLE) || is_one_of(node, &V2_COMPATIBLE))
    })?;
    let frames = reader.registers(node);
    let version = if is_one_of(node, &V3_COMPATIBLE) {
        read_v3(reader, node, &frames)
    } else {
        read_v2(&frames)
    };
    let Some((&distributor, version)) = frames.first().zip(version) else {
        let why = "reg lacks frames that its version must have";
        reader.problem(
            node,
            Severity::Error,
            "an interrupt controller that can't be used",
            why,
        );
        return None;
    };
    let v2m = read_v2m(reader, node);
    let origin = reader.origin(node);
    let mut gic = Gic {
        node: node.index(),
        path: node.path(),
        distributor,
        version,
        v2m,
        maintenance: None,
        origin,
    };
    let lines = Ways::new(gic.lines()).all(node).lines;
    gic.maintenance = lines.first().map(|line| line.number);
    Some(gic)
}

/// `reg`: GICD, GICC, and with virtualisation GICH, GICV.
fn read_v2(frames: &[MachineRange]) -> Option<GicVersion> {
    Some(GicVersion::V2 {
        cpu_interface: *frames.get(1)?,
        hypervisor_interface: frames.get(2).copied(),
        virtual_interface: frames.get(3).copied(),
    })
}

/// `reg`: GICD, `#redistributor-regions` regions (one by default), then optionally GICC, GICH, GICV.
fn read_v3(
    reader: &mut Reader<'_, '_, '_>,
    node: Node<'_, '_>,
    frames: &[MachineRange],
) -> Option<GicVersion> {
    let regions = node.u32("#redistributor-regions").unwrap_or(1) as usize;
    let redistributors = frames.get(1..regions.checked_add(1)?)?.to_vec();
    let stride = node
        .u64("redistributor-stride")
        .unwrap_or(REDISTRIBUTOR_BYTES);
    if redistributors.is_empty() || stride < REDISTRIBUTOR_BYTES {
        return None;
    }
    let mut its = Vec::new();
    for child in node.children() {
        if child.is_compatible("arm,gic-v3-its") && child.is_enabled() {
            its.extend(reader.registers(child).first());
        }
    }
    Some(GicVersion::V3 {
        redistributors,
        stride,
        its,
    })
}

fn read_v2m(reader: &mut Reader<'_, '_, '_>, node: Node<'_, '_>) -> Vec<V2mFrame> {
    let mut frames = Vec::new();
    for child in node.children() {
        if !child.is_compatible("arm,gic-v2m-frame") || !child.is_enabled() {
            continue;
        }
        let interrupts = child
            .u32("arm,msi-base-spi")
            .zip(child.u32("arm,msi-num-spis"));
        let registers = reader.registers(child);
        frames.extend(registers.first().map(|&registers| V2mFrame {
            registers,
            interrupts,
        }));
    }
    frames
}
