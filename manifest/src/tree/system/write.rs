//! Writes the system tree.

use alloc::format;
use alloc::vec::Vec;

use layout::{
    DomainRequest, Limits, MachineRange, MemoryRequest, Origin, Policies, Reserved, SystemRequest,
};

use super::words::Word;
use super::{VERSION, moved, property};
use crate::origin::{LineColumn, Origins, Position};
use crate::tree::blob::MAX_BYTES;
use crate::tree::writer::{TooLarge, Writer};

/// Characters of a plan's digest: SHA-256 in hexadecimal.
pub const DIGEST_LENGTH: usize = 64;

/// Writes the tree of a container that starts at `container`: modules stand in it by their distance from there.
/// Without a digest its place is filled, so that the tree's length doesn't depend on it. `reserved` is what the
/// manifest keeps of the host's memory beside what the host's own tree does.
///
/// # Errors
/// The tree would take more than 2 MiB.
pub fn write(
    request: &SystemRequest,
    reserved: &[Reserved],
    container: u64,
    digest: Option<&str>,
    origins: &Origins,
) -> Result<Vec<u8>, TooLarge> {
    let mut writer = Writer::new();
    let system = SystemWriter { container, origins };
    writer.node("", |root| {
        root.cells("#address-cells", &[2]);
        root.cells("#size-cells", &[2]);
        root.node("chosen", |chosen| {
            system.chosen(chosen, request, digest);
            for (index, reserved) in reserved.iter().enumerate() {
                chosen.node(&format!("reserved{index}"), |node| {
                    node.string(property::RESERVED, &reserved.name);
                    let range = &reserved.range;
                    node.numbers("reg", &[range.start().raw(), range.size()]);
                    system.line(node, reserved.origin);
                });
            }
        });
    });
    writer.finish(&[], MAX_BYTES)
}

struct SystemWriter<'a> {
    container: u64,
    origins: &'a Origins,
}

impl SystemWriter<'_> {
    fn chosen(&self, chosen: &mut Writer, request: &SystemRequest, digest: Option<&str>) {
        let hypervisor = &request.hypervisor;
        chosen.cells("#address-cells", &[2]);
        chosen.cells("#size-cells", &[2]);
        chosen.cells(property::VERSION, &[VERSION]);
        chosen.flag(property::MODULES_RELATIVE);
        let filled = format!(
            "{:0<DIGEST_LENGTH$.DIGEST_LENGTH$}",
            digest.unwrap_or_default()
        );
        chosen.string(property::PLAN_DIGEST, &filled);
        chosen.string(property::ON_CONFLICT, hypervisor.on_conflict.word());
        chosen.string(property::SCRUB, hypervisor.scrub.word());
        if hypervisor.print_plan {
            chosen.flag(property::PRINT_PLAN);
        }
        if let Some(console) = &hypervisor.console {
            chosen.string(property::CONSOLE, &console.value);
        }
        for (index, domain) in request.domains.iter().enumerate() {
            chosen.node(&format!("domain{index}"), |node| self.domain(node, domain));
        }
    }

    fn line(&self, node: &mut Writer, origin: Origin) {
        let at = match self.origins.get(origin) {
            Some(Position::Text { start, .. }) => Some(*start),
            Some(Position::Node { manifest, .. }) => *manifest,
            _ => None,
        };
        if let Some(LineColumn { line, column }) = at {
            node.cells(property::MANIFEST_LINE, &[line, column]);
        }
    }

    fn domain(&self, node: &mut Writer, domain: &DomainRequest) {
        node.string("compatible", "xen,domain");
        node.cells("#address-cells", &[2]);
        node.cells("#size-cells", &[2]);
        node.string(property::NAME, &domain.name.value);
        self.line(node, domain.name.origin);
        if let Some(kind) = &domain.kind {
            node.string(property::KIND, kind.value.word());
        }
        if !domain.capabilities.value.is_empty() {
            node.cells("capabilities", &[domain.capabilities.value.bits()]);
        }
        match domain.direct_map.map(|direct| direct.value) {
            Some(true) => node.flag("direct-map"),
            // Xen's binding can't say this of a hardware domain.
            Some(false) => node.string(property::DIRECT_MAP, "no"),
            None => {}
        }
        node.cells("cpus", &[domain.cpus.value]);
        if let Some(affinity) = &domain.affinity {
            node.cells(property::AFFINITY, &affinity.value);
        }
        memory(node, domain);
        if domain.allow_dma_without_iommu {
            node.flag(property::ALLOW_DMA);
        }
        if domain.vpl011 {
            node.flag("vpl011");
        }
        limits(node, &domain.limits);
        policies(node, &domain.policies);
        self.children(node, domain);
    }

    fn children(&self, node: &mut Writer, domain: &DomainRequest) {
        if let Some(kernel) = &domain.kernel {
            self.module(
                node,
                "multiboot,kernel",
                kernel.module,
                kernel.origin,
                |node| {
                    node.string("bootargs", &domain.command_line);
                    super::kernel::write(node, kernel);
                },
            );
        }
        if let Some(ramdisk) = &domain.ramdisk {
            self.module(
                node,
                "multiboot,ramdisk",
                ramdisk.module,
                ramdisk.origin,
                |_| {},
            );
        }
        if let Some(tree) = &domain.partial_tree {
            self.module(
                node,
                "multiboot,device-tree",
                tree.module,
                tree.origin,
                |_| {},
            );
        }
        for (index, shared) in domain.shared_memory.iter().enumerate() {
            node.node(&format!("shared{index}"), |node| {
                super::links::write_shared(node, shared);
                self.line(node, shared.origin);
            });
        }
        for (index, channel) in domain.event_channels.iter().enumerate() {
            node.node(&format!("channel{index}"), |node| {
                super::links::write_channel(node, channel);
                self.line(node, channel.origin);
            });
        }
        for (index, device) in domain.devices.iter().enumerate() {
            node.node(&format!("device{index}"), |node| {
                node.string(property::DEVICE, &device.path);
                self.line(node, device.origin);
                if let Some(mask) = device.dma_mask {
                    node.numbers(property::DMA_MASK, &[mask]);
                }
            });
        }
    }

    fn module(
        &self,
        node: &mut Writer,
        kind: &str,
        module: MachineRange,
        origin: Origin,
        more: impl FnOnce(&mut Writer),
    ) {
        // A module before the container can't be said; its reader then finds it outside.
        let relative = moved(module, |start| start.checked_sub(self.container));
        let (start, size) =
            relative.map_or((u64::MAX, 0), |range| (range.start().raw(), range.size()));
        // Eight digits reach every place in a container, so that the tree's length depends on none.
        node.node(&format!("module@{start:08x}"), |node| {
            node.strings("compatible", &[kind, "multiboot,module"]);
            node.numbers("reg", &[start, size]);
            self.line(node, origin);
            more(node);
        });
    }
}

fn memory(node: &mut Writer, domain: &DomainRequest) {
    match domain.memory.value {
        MemoryRequest::Size(bytes) => {
            node.numbers("memory", &[bytes.div_ceil(1024)]);
            // The binding counts in KiB; a request that isn't a whole number of them is refused later, as asked.
            if bytes % 1024 != 0 {
                node.numbers(property::MEMORY_BYTES, &[bytes]);
            }
        }
        MemoryRequest::Rest => node.string(property::MEMORY, "rest"),
        MemoryRequest::SumOfStatic => {}
    }
    if !domain.static_mem.is_empty() {
        let ranges = domain
            .static_mem
            .iter()
            .flat_map(|range| [range.start, range.size]);
        node.numbers("xen,static-mem", &ranges.collect::<Vec<u64>>());
    }
    if let Some(below) = &domain.memory_below {
        node.numbers(property::MEMORY_BELOW, &[below.value]);
    }
}

fn limits(node: &mut Writer, limits: &Limits) {
    let default = Limits::default();
    if limits.max_grant_frames != default.max_grant_frames {
        node.cells("max_grant_frames", &[limits.max_grant_frames]);
    }
    if limits.max_event_channels != default.max_event_channels {
        node.cells(property::MAX_EVENT_CHANNELS, &[limits.max_event_channels]);
    }
}

fn policies(node: &mut Writer, policies: &Policies) {
    fn choice<W: Word + Default>(node: &mut Writer, name: &str, choice: W) {
        if choice != W::default() {
            node.string(name, choice.word());
        }
    }
    choice(node, property::ON_STRAY_ACCESS, policies.on_stray_access);
    choice(node, property::ON_POWEROFF, policies.on_poweroff);
    choice(node, property::ON_REBOOT, policies.on_reboot);
    choice(node, property::ON_CRASH, policies.on_crash);
}
