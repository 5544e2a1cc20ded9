//! One domain's node, and the modules under it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{
    Capabilities, Code, DeviceRequest, DomainRequest, KernelRequest, Limits, Located, MachineRange,
    MemoryRequest, ModuleRequest, OnStop, OnStrayAccess, Origin, Policies, StaticRange,
};

use super::read::Reader;
use super::{Module, Role, property};
use crate::tree::blob::{Cells, Node};

/// The modules that stand under one node.
#[derive(Default)]
pub(super) struct FoundModules {
    pub(super) kernel: Option<KernelRequest>,
    pub(super) ramdisk: Option<ModuleRequest>,
    pub(super) partial_tree: Option<ModuleRequest>,
    pub(super) command_line: Option<String>,
}

impl Reader<'_, '_> {
    pub(super) fn domain(&mut self, chosen: Node<'_, '_>, node: Node<'_, '_>) -> DomainRequest {
        let known: [&[&str]; 3] = [
            &property::OF_ALL,
            &property::OF_DOMAIN,
            &property::XEN_OF_DOMAIN,
        ];
        self.check_names(node, &known, false);
        self.check_xen(node);
        let origin = self.origin(node);
        let name = node
            .string(property::NAME)
            .unwrap_or(node.name())
            .to_owned();
        let modules = self.modules_of(node);
        let policies = self.policies(node);
        let (shared_memory, event_channels) = self.links(node);
        let mut domain = DomainRequest {
            name: Located::new(name, origin),
            kind: self
                .optional_choice(node, property::KIND)
                .map(|kind| Located::new(kind, self.at_value(origin, node, property::KIND))),
            capabilities: Located::new(
                self.capabilities(node),
                self.at_value(origin, node, "capabilities"),
            ),
            direct_map: self.direct_map(node).map(|direct| {
                let name = match node.has("direct-map") {
                    true => "direct-map",
                    false => property::DIRECT_MAP,
                };
                Located::new(direct, self.at_name(origin, node, name))
            }),
            cpus: Located::new(self.cpus(node), self.at_value(origin, node, "cpus")),
            affinity: self.affinity(node).map(|cpus| {
                let origin = self.at_value(origin, node, property::AFFINITY);
                Located::new(cpus, origin)
            }),
            memory: Located::new(self.memory(node), self.memory_origin(origin, node)),
            static_mem: self.static_memory(chosen, node, origin),
            memory_below: self.number(node, property::MEMORY_BELOW).map(|below| {
                let origin = self.at_value(origin, node, property::MEMORY_BELOW);
                Located::new(below, origin)
            }),
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
            shared_memory,
            event_channels,
            // Once everything is read.
            misread: None,
        };
        domain.tree_bytes = self.host.budget(&domain);
        self.partial_tree(&mut domain);
        domain
    }

    fn capabilities(&mut self, node: Node<'_, '_>) -> Capabilities {
        let bits = self.cell(node, "capabilities").unwrap_or(0);
        Capabilities::from_bits(bits).unwrap_or_else(|| {
            let what = format!("capabilities = {bits:#x}");
            let why = "only 1 control, 2 hardware, 4 xenstore are known";
            let known = Capabilities::from_bits_truncate(bits).bits();
            let help = format!("capabilities = <{known:#x}>;");
            self.wrong(node, "capabilities", Code::ValueInvalid, &what, why, &help);
            Capabilities::from_bits_truncate(bits)
        })
    }

    fn direct_map(&mut self, node: Node<'_, '_>) -> Option<bool> {
        match node.string(property::DIRECT_MAP) {
            _ if node.has("direct-map") => Some(true),
            Some("yes") => Some(true),
            Some("no") => Some(false),
            Some(_) => {
                let name = property::DIRECT_MAP;
                let why = "it is neither \"yes\" nor \"no\"";
                let help = "terrane,direct-map = \"yes\"; or \"no\"";
                self.wrong(node, name, Code::ValueInvalid, name, why, help);
                None
            }
            None => None,
        }
    }

    fn cpus(&mut self, node: Node<'_, '_>) -> u32 {
        if !node.has("cpus") {
            let origin = self.origin(node);
            let (what, why) = ("a domain without cpus", "Xen's binding asks for it");
            self.problem_with_help(origin, Code::KeyMissing, what, why, "cpus = <1>;");
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
                    let why = "a vCPU is pinned to one CPU";
                    self.wrong(vcpu, "hard-affinity", Code::NotBuiltYet, &what, why, "");
                }
            }
        }
        (!pinned.is_empty()).then(|| pinned.into_iter().map(|(_, cpu)| cpu).collect())
    }

    fn memory(&mut self, node: Node<'_, '_>) -> MemoryRequest {
        if let Some(word) = node.string(property::MEMORY) {
            if word != "rest" {
                let what = format!("{} = \"{word}\"", property::MEMORY);
                let why = "the only word is \"rest\"";
                self.wrong(node, property::MEMORY, Code::ValueInvalid, &what, why, "");
            }
            return MemoryRequest::Rest;
        }
        if let Some(bytes) = self.number(node, property::MEMORY_BYTES) {
            return MemoryRequest::Size(bytes);
        }
        // Xen takes nothing but two cells.
        if let Some(kib) = node.u32("memory") {
            let help = format!("memory = <0 {kib:#x}>;");
            let why = "it is not a 64-bit number of two cells";
            self.wrong(node, "memory", Code::WrongType, "one cell", why, &help);
            return MemoryRequest::Size(u64::from(kib) * 1024);
        }
        match self.number(node, "memory") {
            // More than 2^64 bytes is too much in any case.
            Some(kib) => MemoryRequest::Size(kib.saturating_mul(1024)),
            None => MemoryRequest::SumOfStatic,
        }
    }

    fn memory_origin(&mut self, whole: Origin, node: Node<'_, '_>) -> Origin {
        let names = [property::MEMORY, property::MEMORY_BYTES, "memory"];
        match names.into_iter().find(|name| node.has(name)) {
            Some(name) => self.at_value(whole, node, name),
            None => whole,
        }
    }

    /// `xen,static-mem`, by the cells of the node above the domain's.
    fn static_memory(
        &mut self,
        chosen: Node<'_, '_>,
        node: Node<'_, '_>,
        whole: Origin,
    ) -> Vec<StaticRange> {
        const NAME: &str = "xen,static-mem";
        let (address_cells, size_cells) = chosen.child_cells();
        self.check_static_cells(node, address_cells, size_cells);
        let Some(value) = node.value(NAME) else {
            return Vec::new();
        };
        let mut cells = Cells::new(value);
        let mut ranges = Vec::new();
        let length = (address_cells + size_cells).saturating_mul(4);
        while !cells.is_empty() {
            let start_byte = length.saturating_mul(ranges.len());
            let range = cells
                .next_number(address_cells)
                .zip(cells.next_number(size_cells));
            let Some((start, size)) = range.filter(|_| address_cells > 0 && size_cells > 0) else {
                let origin = self.part(whole, node, NAME, start_byte..value.len());
                let why = "it is not a list of addresses and sizes by the cells of /chosen";
                let help = format!(
                    "{address_cells} cells of address and {size_cells} of size for each range"
                );
                self.problem_with_help(origin, Code::WrongType, NAME, why, &help);
                break;
            };
            let bytes = start_byte..start_byte.saturating_add(length);
            let origin = self.part(whole, node, NAME, bytes);
            ranges.push(StaticRange {
                start,
                size,
                origin,
            });
        }
        ranges
    }

    /// Xen before 4.17 had words of its own for these cells.
    fn check_static_cells(&mut self, node: Node<'_, '_>, address: usize, size: usize) {
        let named = [
            ("#xen,static-mem-address-cells", address),
            ("#xen,static-mem-size-cells", size),
        ];
        for (name, counted) in named {
            let own = self.cell(node, name);
            if own.is_some_and(|own| usize::try_from(own) != Ok(counted)) {
                let what = format!("{name} = {}", own.unwrap_or(0));
                let why = format!("xen,static-mem is read by the {counted} of /chosen");
                let help = "give /chosen that number, or leave it out";
                self.wrong(node, name, Code::ValueInvalid, &what, &why, help);
            }
        }
    }

    fn devices(&mut self, node: Node<'_, '_>) -> Vec<DeviceRequest> {
        let mut devices = Vec::new();
        for child in node.children() {
            let Some(path) = child.string(property::DEVICE) else {
                continue;
            };
            let known = [
                property::DEVICE,
                property::DMA_MASK,
                property::MANIFEST_LINE,
            ];
            self.check_names(child, &[&property::OF_ALL, &known], false);
            let dma_mask = self.number(child, property::DMA_MASK);
            devices.push(DeviceRequest {
                path: path.to_owned(),
                dma_mask,
                origin: {
                    let whole = self.origin(child);
                    self.at_value(whole, child, property::DEVICE)
                },
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
            } else if is("xen,xsm-policy") || is("multiboot,microcode") {
                let why = "it isn't used: there is no XSM, and firmware loads microcode";
                self.warning(
                    node,
                    "compatible",
                    Code::NotBuiltYet,
                    why,
                    "take the module out",
                );
                continue;
            } else if is_module {
                Kind::Other
            } else {
                continue;
            };
            if kind == Kind::Other {
                without_kind += 1;
                // A guess doesn't replace what was said.
                kind = match without_kind {
                    1 if found.kernel.is_none() => Kind::Kernel,
                    2 if found.ramdisk.is_none() => Kind::Ramdisk,
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
        let known: [&[&str]; 3] = [
            &property::OF_ALL,
            &property::OF_MODULE,
            &property::XEN_OF_MODULE,
        ];
        self.check_names(node, &known, false);
        if node.has("xen,uefi-binary") && !node.has("reg") {
            let (what, why) = (
                "a module by a file's name",
                "nothing loads it: Xen's UEFI stub would",
            );
            let help = "have the boot loader put it into memory, and name the place by reg";
            self.wrong(node, "xen,uefi-binary", Code::NotBuiltYet, what, why, help);
            return;
        }
        let (address_cells, size_cells) = parent.child_cells();
        let value = node.value("reg").unwrap_or_default();
        let mut cells = Cells::new(value);
        let reg = cells
            .next_number(address_cells)
            .zip(cells.next_number(size_cells))
            .filter(|_| cells.is_empty());
        let Some(module) = reg.and_then(|(start, size)| self.module_range(start, size)) else {
            let why = "its reg is not one address and size, or passes 2^64";
            let help = format!(
                "{address_cells} cells of address and {size_cells} of size, by the node above"
            );
            let what = "a module without a place";
            self.wrong(node, "reg", Code::TreeInvalid, what, why, &help);
            return;
        };
        let origin = self.origin(node);
        let origin = self.at_value(origin, node, "reg");
        self.note(kind, module, (address_cells, size_cells), origin);
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

impl Reader<'_, '_> {
    /// Notes a module of the domain that is being read.
    fn note(&mut self, kind: Kind, range: MachineRange, cells: (usize, usize), origin: Origin) {
        let role = match kind {
            Kind::Kernel => Role::Kernel,
            Kind::Ramdisk => Role::Ramdisk,
            Kind::Tree => Role::PartialTree,
            Kind::Other => return,
        };
        self.found.push(Module {
            domain: self.current,
            role,
            range,
            cells,
            origin,
        });
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
