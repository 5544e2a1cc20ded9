//! One domain's node, and the modules under it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{
    Capabilities, Code, DeviceRequest, DomainRequest, KernelRequest, Limits, Located,
    MemoryRequest, ModuleRequest, OnStop, OnStrayAccess, Policies, StaticRange,
};

use super::property;
use super::read::Reader;
use crate::tree::blob::{Cells, Node};

/// The modules that stand under one node.
#[derive(Default)]
pub(super) struct FoundModules {
    pub(super) kernel: Option<KernelRequest>,
    pub(super) ramdisk: Option<ModuleRequest>,
    pub(super) partial_tree: Option<ModuleRequest>,
    pub(super) command_line: Option<String>,
}

/// Properties of Xen's binding that ask for something that isn't there.
const NOT_BUILT: [&str; 5] = [
    "llc-colors",
    "domain-cpupool",
    "sve",
    "xen,sci_type",
    "v8r_el1_msa",
];

impl Reader<'_, '_> {
    pub(super) fn domain(&mut self, chosen: Node<'_, '_>, node: Node<'_, '_>) -> DomainRequest {
        self.check_names(node, &property::OF_DOMAIN);
        for name in NOT_BUILT {
            if node.has(name) {
                self.problem(node, Code::NotBuiltYet, name, "Terrane can't do this yet");
            }
        }
        let origin = self.origin(node);
        let name = node
            .string(property::NAME)
            .unwrap_or(node.name())
            .to_owned();
        let modules = self.modules_of(node);
        let policies = self.policies(node);
        let mut domain = DomainRequest {
            name: Located::new(name, origin),
            kind: self
                .optional_choice(node, property::KIND)
                .map(|kind| Located::new(kind, origin)),
            capabilities: Located::new(self.capabilities(node), origin),
            direct_map: self
                .direct_map(node)
                .map(|direct| Located::new(direct, origin)),
            cpus: Located::new(self.cpus(node), origin),
            affinity: self.affinity(node).map(|cpus| Located::new(cpus, origin)),
            memory: Located::new(self.memory(node), origin),
            static_mem: self.static_memory(chosen, node),
            memory_below: self
                .number(node, property::MEMORY_BELOW)
                .map(|below| Located::new(below, origin)),
            kernel: modules.kernel,
            ramdisk: modules.ramdisk,
            partial_tree: modules.partial_tree,
            tree_bytes: 0,
            command_line: modules.command_line.unwrap_or_default(),
            devices: self.devices(node),
            allow_dma_without_iommu: node.has(property::ALLOW_DMA),
            keep_modules: keeps_modules(&policies),
            limits: self.limits(node),
            policies,
            vpl011: node.has("vpl011"),
            shared_memory: Vec::new(),
            event_channels: Vec::new(),
            // Once everything is read.
            misread: None,
        };
        domain.tree_bytes = self.host.budget(&domain);
        domain
    }

    fn capabilities(&mut self, node: Node<'_, '_>) -> Capabilities {
        let bits = self.cell(node, "capabilities").unwrap_or(0);
        Capabilities::from_bits(bits).unwrap_or_else(|| {
            let what = format!("capabilities = {bits:#x}");
            self.problem(
                node,
                Code::ValueInvalid,
                &what,
                "only 1 control, 2 hardware, 4 xenstore are known",
            );
            Capabilities::from_bits_truncate(bits)
        })
    }

    fn direct_map(&mut self, node: Node<'_, '_>) -> Option<bool> {
        match node.string(property::DIRECT_MAP) {
            _ if node.has("direct-map") => Some(true),
            Some("yes") => Some(true),
            Some("no") => Some(false),
            Some(_) => {
                self.problem(
                    node,
                    Code::ValueInvalid,
                    property::DIRECT_MAP,
                    "it is neither \"yes\" nor \"no\"",
                );
                None
            }
            None => None,
        }
    }

    fn cpus(&mut self, node: Node<'_, '_>) -> u32 {
        if !node.has("cpus") {
            self.problem(
                node,
                Code::KeyMissing,
                "a domain without cpus",
                "Xen's binding asks for it",
            );
        }
        self.cell(node, "cpus").unwrap_or(1)
    }

    /// `terrane,affinity`, or one CPU by `hard-affinity` of each `xen,vcpu` node.
    fn affinity(&mut self, node: Node<'_, '_>) -> Option<Vec<u32>> {
        if let Some(value) = node.value(property::AFFINITY) {
            let mut cells = Cells::new(value);
            return Some(core::iter::from_fn(|| cells.next_u32()).collect());
        }
        let mut pinned: Vec<(u32, u32)> = Vec::new();
        for vcpu in node
            .children()
            .filter(|child| child.is_compatible("xen,vcpu"))
        {
            let Some(wanted) = vcpu.string("hard-affinity") else {
                continue;
            };
            match self.cell(vcpu, "id").zip(wanted.parse().ok()) {
                Some((id, cpu)) => {
                    let place = pinned.partition_point(|&(other, _)| other <= id);
                    pinned.insert(place, (id, cpu));
                }
                None => {
                    let what = format!("hard-affinity = \"{wanted}\"");
                    self.problem(
                        vcpu,
                        Code::NotBuiltYet,
                        &what,
                        "a vCPU is pinned to one CPU",
                    );
                }
            }
        }
        (!pinned.is_empty()).then(|| pinned.into_iter().map(|(_, cpu)| cpu).collect())
    }

    fn memory(&mut self, node: Node<'_, '_>) -> MemoryRequest {
        if let Some(word) = node.string(property::MEMORY) {
            if word != "rest" {
                let what = format!("{} = \"{word}\"", property::MEMORY);
                self.problem(node, Code::ValueInvalid, &what, "the only word is \"rest\"");
            }
            return MemoryRequest::Rest;
        }
        if let Some(bytes) = self.number(node, property::MEMORY_BYTES) {
            return MemoryRequest::Size(bytes);
        }
        match self.number(node, "memory") {
            // More than 2^64 bytes is too much in any case.
            Some(kib) => MemoryRequest::Size(kib.saturating_mul(1024)),
            None => MemoryRequest::SumOfStatic,
        }
    }

    /// `xen,static-mem`, by the cells of the node above the domain's.
    fn static_memory(&mut self, chosen: Node<'_, '_>, node: Node<'_, '_>) -> Vec<StaticRange> {
        let Some(value) = node.value("xen,static-mem") else {
            return Vec::new();
        };
        let (address_cells, size_cells) = chosen.child_cells();
        let origin = self.origin(node);
        let mut cells = Cells::new(value);
        let mut ranges = Vec::new();
        while !cells.is_empty() {
            let range = cells
                .next_number(address_cells)
                .zip(cells.next_number(size_cells));
            let Some((start, size)) = range.filter(|_| address_cells > 0 && size_cells > 0) else {
                let why = "it is not a list of addresses and sizes by the cells of /chosen";
                self.problem(node, Code::WrongType, "xen,static-mem", why);
                break;
            };
            ranges.push(StaticRange {
                start,
                size,
                origin,
            });
        }
        ranges
    }

    fn devices(&mut self, node: Node<'_, '_>) -> Vec<DeviceRequest> {
        let mut devices = Vec::new();
        for child in node.children() {
            let Some(path) = child.string(property::DEVICE) else {
                continue;
            };
            self.check_names(
                child,
                &[
                    property::DEVICE,
                    property::DMA_MASK,
                    property::MANIFEST_LINE,
                ],
            );
            let dma_mask = self.number(child, property::DMA_MASK);
            devices.push(DeviceRequest {
                path: path.to_owned(),
                dma_mask,
                origin: self.origin(child),
            });
        }
        devices
    }

    fn limits(&mut self, node: Node<'_, '_>) -> Limits {
        let default = Limits::default();
        Limits {
            max_event_channels: self
                .cell(node, property::MAX_EVENT_CHANNELS)
                .unwrap_or(default.max_event_channels),
            max_grant_frames: self
                .cell(node, "max_grant_frames")
                .unwrap_or(default.max_grant_frames),
        }
    }

    fn policies(&mut self, node: Node<'_, '_>) -> Policies {
        // Xen's word for it, which Terrane's overrides.
        let unmapped = match self.cell(node, "trap-unmapped-accesses") {
            Some(0) => OnStrayAccess::Ignore,
            _ => OnStrayAccess::Fault,
        };
        Policies {
            on_stray_access: self
                .optional_choice(node, property::ON_STRAY_ACCESS)
                .unwrap_or(unmapped),
            on_poweroff: self.choice(node, property::ON_POWEROFF),
            on_reboot: self.choice(node, property::ON_REBOOT),
            on_crash: self.choice(node, property::ON_CRASH),
        }
    }

    /// The modules under a domain's node, or under `/chosen` itself. The first without a kind is a kernel, the
    /// second a ramdisk, as Xen takes them.
    pub(super) fn modules_of(&mut self, parent: Node<'_, '_>) -> FoundModules {
        let mut found = FoundModules::default();
        let mut without_kind = 0;
        for node in parent.children() {
            let is = |name: &str| node.is_compatible(name);
            let is_module = is("multiboot,module") || is("xen,multiboot-module");
            let mut kind = if is("multiboot,kernel") || is("xen,linux-zimage") {
                Kind::Kernel
            } else if is("multiboot,ramdisk") || is("xen,linux-initrd") {
                Kind::Ramdisk
            } else if is("multiboot,device-tree") {
                Kind::Tree
            } else if is_module {
                Kind::Other
            } else {
                continue;
            };
            if kind == Kind::Other {
                without_kind += 1;
                kind = match without_kind {
                    1 => Kind::Kernel,
                    2 => Kind::Ramdisk,
                    _ => Kind::Other,
                };
            }
            self.module(parent, node, kind, &mut found);
        }
        found
    }

    fn module(
        &mut self,
        parent: Node<'_, '_>,
        node: Node<'_, '_>,
        kind: Kind,
        found: &mut FoundModules,
    ) {
        self.check_names(node, &property::OF_MODULE);
        let (address_cells, size_cells) = parent.child_cells();
        let mut cells = Cells::new(node.value("reg").unwrap_or_default());
        let reg = cells
            .next_number(address_cells)
            .zip(cells.next_number(size_cells));
        let Some(module) = reg.and_then(|(start, size)| self.module_range(start, size)) else {
            let why = "its reg is not one address and size, or passes 2^64";
            self.problem(node, Code::TreeInvalid, "a module without a place", why);
            return;
        };
        let origin = self.origin(node);
        match kind {
            Kind::Kernel => {
                if let Some(kernel) = self.kernel(node, module, origin) {
                    found.kernel = Some(kernel);
                }
                found.command_line = node.string("bootargs").map(ToOwned::to_owned);
            }
            Kind::Ramdisk => found.ramdisk = Some(ModuleRequest { module, origin }),
            Kind::Tree => found.partial_tree = Some(ModuleRequest { module, origin }),
            Kind::Other => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Kernel,
    Ramdisk,
    Tree,
    Other,
}

/// Whether a domain's modules are needed again after its start.
pub(crate) fn keeps_modules(policies: &Policies) -> bool {
    [policies.on_poweroff, policies.on_reboot, policies.on_crash].contains(&OnStop::Restart)
}
