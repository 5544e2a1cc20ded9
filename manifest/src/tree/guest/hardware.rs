//! The hardware domain's tree: the host's, with what the hypervisor keeps taken out and what it gives put in.
//!
//! Left out: the hypervisor's UART, IOMMUs with every property that names them, devices of other domains, memory,
//! PSCI, performance monitors and firmware that is called by `smc`. CPUs are those that the domain's vCPUs are
//! pinned to. Everything else stays as it is: interrupt controller, timer, buses, reserved memory.

use alloc::vec::Vec;

use layout::DomainPlan;

use super::hypervisor_node::Regions;
use super::parts::{self, CellCounts};
use super::vcpu_affinities;
use crate::tree::blob::{Node, Tree};
use crate::tree::host::{self, GicVersion, Host};
use crate::tree::writer::Writer;

/// Nodes that a guest has no use for, by `compatible`: other hypervisors' and Terrane's own replacement, firmware
/// behind `smc`, the memory-mapped timer (Xen hides it too), performance monitors.
const HIDDEN: [&str; 8] = [
    "arm,psci",
    "arm,psci-0.2",
    "arm,psci-1.0",
    "xen,xen",
    "linaro,optee-tz",
    "arm,scmi-smc",
    "arm,armv7-timer-mem",
    "numa-distance-map-v1",
];

/// Properties that name an IOMMU, or NUMA nodes that memory and CPUs no longer tell.
const HIDDEN_PROPERTIES: [&str; 4] = ["iommus", "iommu-map", "iommu-map-mask", "numa-node-id"];

/// What of the host's `/chosen` is for an operating system.
const KEPT_OF_CHOSEN: [&str; 3] = ["rng-seed", "kaslr-seed", "linux,pci-probe-only"];

/// What of a CPU's node holds for a vCPU.
const KEPT_OF_CPU: [&str; 5] = [
    "device_type",
    "compatible",
    "reg",
    "phandle",
    "capacity-dmips-mhz",
];

/// Writes the whole tree.
pub fn write(
    writer: &mut Writer,
    tree: &Tree<'_>,
    host: &Host,
    domain: &DomainPlan,
    regions: &Regions,
) {
    let filter = Filter {
        host,
        domain,
        hidden: hidden_nodes(tree, host, domain),
    };
    let root = tree.root();
    let cells = CellCounts::at_root_of(domain, tree);
    writer.begin("");
    filter.properties(writer, root);
    writer.node("chosen", |node| {
        parts::chosen(node, domain);
        let chosen = tree.find("/chosen");
        for property in chosen.iter().flat_map(|chosen| chosen.properties()) {
            if KEPT_OF_CHOSEN.contains(&property.name) {
                node.bytes(property.name, property.value);
            }
        }
    });
    parts::psci(writer);
    parts::memory(writer, domain, cells);
    let gic = host.gic.as_ref().and_then(|gic| tree.node(gic.node));
    let gic = gic.and_then(|gic| {
        // A GIC's specifier has three cells, four where it names a partition of CPUs.
        let cells = gic
            .u32("#interrupt-cells")
            .filter(|cells| (3..=4).contains(cells))?;
        Some((gic.u32("phandle")?, cells as usize))
    });
    parts::hypervisor(writer, regions, cells, gic);
    for child in root.children() {
        match child.name() {
            "chosen" | "hypervisor" => {}
            "cpus" => filter.cpus(writer, child),
            "aliases" => filter.aliases(writer, child),
            _ => filter.node(writer, child),
        }
    }
}

/// For each node whether it, and with it all below, is left out.
fn hidden_nodes(tree: &Tree<'_>, host: &Host, domain: &DomainPlan) -> Vec<bool> {
    let mut hidden: Vec<bool> = tree.nodes().map(is_hidden).collect();
    for (device, &node) in host.device_nodes.iter().enumerate() {
        if let Some(hidden) = hidden.get_mut(node)
            && !domain.devices.contains(&device)
        {
            *hidden = true;
        }
    }
    let console = host
        .console
        .as_ref()
        .and_then(|console| hidden.get_mut(console.node));
    if let Some(console) = console {
        *console = true;
    }
    hidden
}

fn is_hidden(node: Node<'_, '_>) -> bool {
    // What isn't named there the guest would use for anything.
    let is_region = |parent: Node<'_, '_>| parent.name() == "reserved-memory";
    if node.parent().is_some_and(is_region) {
        return false;
    }
    let is_monitor = |name: &str| name.ends_with("-pmu") || name.contains("-pmuv3");
    host::is_iommu(node)
        || node.string("device_type") == Some("memory")
        || node
            .strings("compatible")
            .any(|name| HIDDEN.contains(&name) || is_monitor(name))
}

struct Filter<'f> {
    host: &'f Host,
    domain: &'f DomainPlan,
    hidden: Vec<bool>,
}

impl Filter<'_> {
    fn is_hidden(&self, node: Node<'_, '_>) -> bool {
        self.hidden.get(node.index()).copied().unwrap_or(true)
    }

    fn properties(&self, writer: &mut Writer, node: Node<'_, '_>) {
        for property in node
            .properties()
            .iter()
            .filter(|p| !HIDDEN_PROPERTIES.contains(&p.name))
        {
            writer.bytes(property.name, property.value);
        }
    }

    fn node(&self, writer: &mut Writer, node: Node<'_, '_>) {
        if self.is_hidden(node) {
            return;
        }
        writer.begin(node.name());
        match &self.host.gic {
            Some(gic) if gic.node == node.index() => controller(writer, node, &gic.version),
            _ => self.properties(writer, node),
        }
        node.children().for_each(|child| self.node(writer, child));
        writer.end();
    }

    /// The CPUs in the order of the vCPUs: Linux numbers them so, and takes that number for the vCPU's.
    fn cpus(&self, writer: &mut Writer, cpus: Node<'_, '_>) {
        writer.begin(cpus.name());
        self.properties(writer, cpus);
        for affinity in vcpu_affinities(self.host, self.domain) {
            let is_it = |node: &Node<'_, '_>| {
                node.string("device_type") == Some("cpu") && node.u64("reg") == Some(affinity)
            };
            let Some(cpu) = cpus.children().find(is_it) else {
                continue;
            };
            writer.node(cpu.name(), |node| {
                for property in cpu
                    .properties()
                    .iter()
                    .filter(|p| KEPT_OF_CPU.contains(&p.name))
                {
                    node.bytes(property.name, property.value);
                }
                node.string("enable-method", "psci");
            });
        }
        writer.end();
    }

    /// Aliases of what is left.
    fn aliases(&self, writer: &mut Writer, aliases: Node<'_, '_>) {
        let tree = aliases.tree();
        writer.node(aliases.name(), |writer| {
            for property in aliases.properties() {
                let target = aliases
                    .string(property.name)
                    .and_then(|path| tree.find(path));
                if target.is_some_and(|target| self.is_reachable(target)) {
                    writer.bytes(property.name, property.value);
                }
            }
        });
    }

    fn is_reachable(&self, node: Node<'_, '_>) -> bool {
        let mut at = Some(node);
        while let Some(here) = at {
            if self.is_hidden(here) {
                return false;
            }
            at = here.parent();
        }
        true
    }
}

/// The interrupt controller without what only a hypervisor uses: the maintenance interrupt, and the frames behind
/// those that a guest's driver maps.
fn controller(writer: &mut Writer, node: Node<'_, '_>, version: &GicVersion) {
    let frames = match version {
        GicVersion::V2 { .. } => 2,
        GicVersion::V3 { redistributors, .. } => 1 + redistributors.len(),
    };
    let (address, size) = node.parent().map_or((2, 2), Node::child_cells);
    let reg_bytes = frames * (address + size) * 4;
    for property in node.properties() {
        let value = match property.name {
            "interrupts" | "interrupts-extended" => continue,
            "reg" => property.value.get(..reg_bytes).unwrap_or(property.value),
            _ => property.value,
        };
        writer.bytes(property.name, value);
    }
}
