//! Domains and their modules.

use layout::{
    Capabilities, Limits, MachineRange, MemoryRequest, OnStop, OnStrayAccess, Origin, Policies,
    Size,
};

use super::source::Source;
use super::{Overlay, Planned, own_banks};

const MIB: u64 = 1 << 20;

/// The longest name of a node that Xen keeps (xen/include/xen/bootfdt.h, `DT_MAX_NAME`, less the end).
const NAME: usize = 40;

impl<'a> Overlay<'a> {
    /// The hardware domain as modules right under `/chosen`.
    pub(super) fn classic_domain(&mut self, chosen: &mut Source, domain: Planned<'a>) {
        let request = domain.request;
        let at = self.said_at(request.name.origin);
        chosen.comment(&format!("{}, as dom0{at}", domain.plan.name));
        chosen.strings("xen,dom0-bootargs", &[&domain.plan.command_line]);
        if request.memory.value == MemoryRequest::Rest {
            let why = "it takes a size; dom0_mem is half of the plan's, since it wants few and large pieces";
            self.no_word(
                chosen,
                domain,
                request.memory.origin,
                "memory = \"rest\"",
                why,
            );
        }
        if !domain.plan.identity.is_direct_mapped() {
            let origin = request
                .direct_map
                .map_or(Origin::NONE, |direct| direct.origin);
            let why = "it maps dom0 1:1 in any case";
            self.no_word(chosen, domain, origin, "direct-map = false", why);
        } else if let Some(range) = request.static_mem.first() {
            let why = "it chooses dom0's place itself";
            self.no_word(chosen, domain, range.origin, "static-mem", why);
        }
        if !domain
            .plan
            .identity
            .capabilities
            .contains(Capabilities::all())
        {
            let why = "dom0 has every role";
            self.no_word(
                chosen,
                domain,
                request.capabilities.origin,
                "capabilities",
                why,
            );
        }
        self.common(chosen, domain, true);
        self.modules(chosen, domain, false);
    }

    /// MiB of `dom0_mem`. Xen maps dom0 1:1 in pieces of powers of two; with 4.20, of 512 MiB in QEMU 128 can be had, of
    /// 1 GiB 640, of 2 GiB 1600.
    pub(super) fn classic_memory(&self, domain: Planned<'_>) -> u64 {
        const STEP: u64 = 64;
        let bytes = own_banks(domain.plan).map(layout::Bank::bytes).sum::<u64>();
        match domain.request.memory.value {
            MemoryRequest::Rest => (bytes / MIB / 2 / STEP * STEP).max(STEP),
            MemoryRequest::Size(_) | MemoryRequest::SumOfStatic => bytes / MIB,
        }
    }

    /// A domain as `xen,domain`.
    pub(super) fn domain(&mut self, chosen: &mut Source, domain: Planned<'a>) {
        let (plan, request) = (domain.plan, domain.request);
        let at = self.said_at(request.name.origin);
        chosen.comment(&format!("{}{at}", plan.name));
        chosen.node(&node_name(domain), |node| {
            node.strings("compatible", &["xen,domain"]);
            node.cells("#address-cells", &[2]);
            node.cells("#size-cells", &[2]);
            self.capabilities(node, domain);
            node.cells(
                "cpus",
                &[u32::try_from(plan.cpus.len()).unwrap_or(u32::MAX)],
            );
            self.memory(node, domain);
            if plan.vpl011 {
                node.flag("vpl011");
            }
            if !plan.identity.is_hardware() {
                node.comment(
                    "Event channels and grants, as Terrane has them; nobody serves a XenStore.",
                );
                node.strings("xen,enhanced", &["no-xenstore"]);
            }
            if plan.limits.max_grant_frames != Limits::default().max_grant_frames {
                node.cells("max_grant_frames", &[plan.limits.max_grant_frames]);
            }
            self.common(node, domain, false);
            self.devices(node, domain);
            self.affinity(node, domain);
            self.modules(node, domain, true);
        });
    }

    fn capabilities(&mut self, node: &mut Source, domain: Planned<'a>) {
        let held = domain.plan.identity.capabilities;
        if held.is_empty() {
            return;
        }
        if self.version.has_capabilities() {
            node.cells("capabilities", &[held.bits()]);
        } else {
            let why = "only dom0 has a role";
            let origin = domain.request.capabilities.origin;
            self.no_word(node, domain, origin, "capabilities", why);
        }
    }

    fn memory(&mut self, node: &mut Source, domain: Planned<'a>) {
        let request = domain.request;
        let bytes = own_banks(domain.plan).map(layout::Bank::bytes).sum::<u64>();
        let at = self.said_at(request.memory.origin);
        node.comment(&format!("{}{at}", Size(bytes)));
        node.numbers("memory", &[bytes >> 10]);
        if let Some(ranges) = self.static_ranges(domain) {
            let chosen = if request.static_mem.is_empty() {
                "the planner's choice"
            } else {
                "as named"
            };
            let at = request
                .static_mem
                .first()
                .map_or_else(String::new, |range| self.said_at(range.origin));
            node.comment(&format!("Where it lies, {chosen}{at}"));
            let numbers: Vec<u64> = ranges
                .iter()
                .flat_map(|range| [range.start().raw(), range.size()])
                .collect();
            node.numbers("xen,static-mem", &numbers);
            if domain.plan.identity.is_direct_mapped() {
                node.flag("direct-map");
            }
        } else if let Some(below) = request.memory_below {
            let what = format!("memory-below = {:#x}", below.value);
            let why = "it chooses the place of memory that isn't static";
            self.no_word(node, domain, below.origin, &what, why);
        }
    }

    /// What any domain may ask for and Xen can't be told.
    fn common(&mut self, node: &mut Source, domain: Planned<'a>, classic: bool) {
        let request = domain.request;
        let affinity = request
            .affinity
            .as_ref()
            .filter(|_| !self.version.has_capabilities());
        if let Some(affinity) = affinity {
            let why = "its scheduler chooses CPUs";
            self.no_word(node, domain, affinity.origin, "affinity", why);
        }
        if domain.plan.limits.max_event_channels != Limits::default().max_event_channels {
            let what = format!(
                "max-event-channels = {}",
                domain.plan.limits.max_event_channels
            );
            let why = if classic {
                "dom0 has as many as there are"
            } else {
                "a guest has 1023"
            };
            self.no_word(node, domain, Origin::NONE, &what, why);
        }
        self.policies(node, domain, classic);
    }

    fn policies(&mut self, node: &mut Source, domain: Planned<'a>, classic: bool) {
        let Policies {
            on_stray_access,
            on_poweroff,
            on_reboot,
            on_crash,
        } = domain.plan.policies;
        match on_stray_access {
            OnStrayAccess::Fault => {}
            OnStrayAccess::Ignore if self.version.has_capabilities() && !classic => {
                node.cells("trap-unmapped-accesses", &[0]);
            }
            OnStrayAccess::Ignore | OnStrayAccess::Stop => {
                let why = "a stray access is a fault there";
                self.no_word(node, domain, Origin::NONE, "on-stray-access", why);
            }
        }
        // Xen's own way: dom0's end is the machine's, a guest's is its own.
        let usual = if classic {
            [
                OnStop::HaltMachine,
                OnStop::RebootMachine,
                OnStop::RebootMachine,
            ]
        } else {
            [OnStop::Stop; 3]
        };
        let asked = [
            ("on-poweroff", on_poweroff),
            ("on-reboot", on_reboot),
            ("on-crash", on_crash),
        ];
        for ((what, asked), usual) in asked.into_iter().zip(usual) {
            // The default is nobody's wish.
            if asked != usual && asked != OnStop::Stop {
                let why = "a guest's end is its own there, and dom0's the machine's";
                self.no_word(node, domain, Origin::NONE, what, why);
            }
        }
    }

    /// Xen passes devices through by a partial tree, which names them again.
    fn devices(&mut self, node: &mut Source, domain: Planned<'a>) {
        if domain.plan.partial_tree.is_some() {
            return;
        }
        for device in &domain.request.devices {
            let what = format!("devices: {}", device.path);
            let why = "it passes a device through only by a partial tree: name one by `dtb`";
            self.no_word(node, domain, device.origin, &what, why);
        }
    }

    fn affinity(&mut self, node: &mut Source, domain: Planned<'a>) {
        if !self.version.has_capabilities() {
            return;
        }
        for (vcpu, cpu) in (0_u32..).zip(&domain.plan.cpus) {
            node.node(&format!("vcpu{vcpu}"), |node| {
                node.strings("compatible", &["xen,vcpu"]);
                node.cells("id", &[vcpu]);
                node.strings("hard-affinity", &[&cpu.to_string()]);
            });
        }
    }

    fn modules(&mut self, node: &mut Source, domain: Planned<'a>, with_bootargs: bool) {
        let plan = domain.plan;
        let kernel = plan.kernel.source;
        let file = domain.files.and_then(|files| files.kernel.as_ref());
        if let Some(file) = file {
            let at = self.said_at(file.origin);
            let path = &file.value;
            let packed = std::fs::metadata(path).is_ok_and(|data| data.len() != kernel.size());
            if packed {
                let why = "load what is in it: this is the unpacked kernel's size";
                self.no_word(
                    node,
                    domain,
                    file.origin,
                    &format!("{} is packed", path.display()),
                    why,
                );
            }
            node.comment(&format!("{}{at}", path.display()));
        }
        module(node, "multiboot,kernel", kernel, |node| {
            if with_bootargs {
                node.strings("bootargs", &[&plan.command_line]);
            }
        });
        let ramdisk = plan.ramdisk.as_ref().map(|ramdisk| ramdisk.source);
        let files = domain.files;
        let others = [
            (
                "multiboot,ramdisk",
                ramdisk,
                files.and_then(|files| files.ramdisk.as_ref()),
            ),
            (
                "multiboot,device-tree",
                plan.partial_tree,
                files.and_then(|files| files.partial_tree.as_ref()),
            ),
        ];
        for (kind, range, file) in others {
            let Some(range) = range else { continue };
            if let Some(file) = file {
                let at = self.said_at(file.origin);
                node.comment(&format!("{}{at}", file.value.display()));
            }
            module(node, kind, range, |_| {});
        }
    }
}

fn module(node: &mut Source, kind: &str, range: MachineRange, more: impl FnOnce(&mut Source)) {
    let (start, size) = (range.start().raw(), range.size());
    node.node(&format!("module@{start:x}"), |node| {
        node.strings("compatible", &[kind, "multiboot,module"]);
        node.numbers("reg", &[start, size]);
        more(node);
    });
}

fn node_name(domain: Planned<'_>) -> String {
    let name = &domain.plan.name;
    if name.len() <= NAME {
        name.clone()
    } else {
        format!("domain{}", domain.plan.index)
    }
}
