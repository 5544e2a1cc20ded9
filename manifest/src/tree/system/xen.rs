//! What Xen's binding lets a domain ask for beyond what becomes part of a request: words and numbers in their ranges, what
//! Terrane can't do, and what excludes each other.
//!
//! Properties that are right and change nothing here are accepted in silence: they bound or size something that Terrane
//! plans by itself.
//!
//! Source: Xen 4.20 to 4.22, docs/misc/arm/device-tree/booting.txt.

use alloc::format;

use layout::{Capabilities, Code, DomainRequest};

use super::HostDescription;
use super::read::{Modules, Reader};
use crate::tree::blob::Node;

/// SPIs of a GIC: the interrupts 32 to 1019.
const MAX_SPIS: u32 = 988;

/// What `xen,enhanced` may say, which without a value means the first.
const ENHANCED: [&str; 4] = ["enabled", "legacy", "no-xenstore", "disabled"];

impl Reader<'_, '_> {
    /// Checks a domain's node.
    pub(super) fn check_xen(&mut self, node: Node<'_, '_>) {
        self.xen_word(node, "xen,enhanced", &ENHANCED);
        self.xen_word(node, "passthrough", &["enabled", "disabled"]);
        self.xen_word(node, "v8r_el1_msa", &["mmu", "mpu"]);
        self.xen_word(node, "xen,sci_type", &["none", "scmi_smc"]);
        self.xen_number(node, "nr_spis", 0, MAX_SPIS);
        self.xen_number(node, "max_maptrack_frames", 0, i32::MAX.unsigned_abs());
        self.xen_number(node, "trap-unmapped-accesses", 0, 1);
        self.xen_number(node, "xen,domain-p2m-mem-mb", 0, u32::MAX);
        if self.xen_number(node, "max_grant_version", 1, 2) == Some(2) {
            self.not_built(node, "max_grant_version", "grant tables are of version 1");
        }
        self.check_excluding(node);
        if node.has("domain-cpupool") {
            let why = "CPUs aren't pooled: each domain has its own";
            self.not_built(node, "domain-cpupool", why);
        }
        if node.string("xen,sci_type") == Some("scmi_smc") {
            self.not_built(node, "xen,sci_type", "a guest reaches no firmware");
        }
        // Without a value it means as much as the hardware has.
        if node.has("sve") && node.u32("sve") != Some(0) {
            self.not_built(node, "sve", "guests have no SVE");
        }
    }

    /// Options that exclude each other, else those of them that Terrane can't do.
    fn check_excluding(&mut self, node: Node<'_, '_>) {
        let is_static = node.has("xen,static-mem");
        let is_direct = node.has("direct-map");
        if node.has("llc-colors") {
            let other = match (is_direct, is_static) {
                (true, _) => Some("direct-map"),
                (false, true) => Some("xen,static-mem"),
                (false, false) => None,
            };
            match other {
                Some(other) => {
                    let why = "colours deal out frames one by one, by their address";
                    let help = format!("leave out llc-colors, or {other}");
                    let code = Code::LlcColorsExclude;
                    self.excluded(node, "llc-colors", other, code, why, &help);
                }
                None => self.not_built(node, "llc-colors", "caches aren't coloured"),
            }
        }
        if node.string("v8r_el1_msa") == Some("mpu") {
            if is_static && is_direct {
                let why = "guests have an MMU, as the hypervisor has";
                self.not_built(node, "v8r_el1_msa", why);
            } else {
                let why = "an MPU translates nothing: such a guest's memory is where it says";
                let help = "add xen,static-mem and direct-map, or leave v8r_el1_msa out";
                let code = Code::MpuNotStatic;
                self.excluded(node, "v8r_el1_msa", "", code, why, help);
            }
        }
    }

    fn excluded(
        &mut self,
        node: Node<'_, '_>,
        name: &str,
        other: &str,
        code: Code,
        why: &str,
        help: &str,
    ) {
        self.wrong(node, name, code, name, why, help);
        if other.is_empty() {
            return;
        }
        let whole = self.origin(node);
        let origin = self.at_name(whole, node, other);
        self.other_side(other, origin);
    }

    fn not_built(&mut self, node: Node<'_, '_>, name: &str, why: &str) {
        let help = format!("leave {name} out");
        self.wrong(node, name, Code::NotBuiltYet, name, why, &help);
    }

    /// A property that is one of these words; without a value it means the first.
    fn xen_word(&mut self, node: Node<'_, '_>, name: &str, words: &[&str]) {
        let Some(word) = node.string(name) else {
            return;
        };
        if !words.contains(&word) {
            self.unknown_word(node, name, word, words);
        }
    }

    /// A cell from `least` to `most`.
    fn xen_number(&mut self, node: Node<'_, '_>, name: &str, least: u32, most: u32) -> Option<u32> {
        let number = self.cell(node, name)?;
        if number < least || number > most {
            let what = format!("{name} = {number}");
            let why = format!("it is a number from {least} to {most}");
            self.wrong(node, name, Code::ValueInvalid, &what, &why, "");
            return None;
        }
        Some(number)
    }

    /// Xen hides devices with `xen,passthrough` from dom0, and gives them to whoever's partial tree has their path. The
    /// trees that a boot loader left are looked at for that alone: Terrane's own never have it.
    pub(super) fn check_passthrough(&mut self, domains: &[DomainRequest]) {
        let HostDescription::Tree(host) = self.host else {
            return;
        };
        if self.modules != Modules::Absolute {
            return;
        }
        for node in host.nodes().filter(|node| node.has("xen,passthrough")) {
            let path = node.path();
            let mut devices = domains.iter().flat_map(|domain| &domain.devices);
            if devices.any(|device| device.path == path) {
                continue;
            }
            let why = match self.has_unread {
                true => "no domain's node names this device, and a partial tree can't be read here",
                false => {
                    "no domain names this device, and what nobody has is the hardware domain's"
                }
            };
            let help = format!("in the domain's node: device {{ terrane,device = \"{path}\"; }};");
            let whole = self.origin(node);
            let origin = self.at_name(whole, node, "xen,passthrough");
            self.problem_with_help(origin, Code::NotBuiltYet, "xen,passthrough", why, &help);
        }
    }

    /// A domain that wants XenStore needs one that serves it.
    pub(super) fn check_xenstore(&mut self, chosen: Node<'_, '_>, domains: &[DomainRequest]) {
        let serves = Capabilities::HARDWARE | Capabilities::XENSTORE;
        if domains
            .iter()
            .any(|domain| domain.capabilities.value.intersects(serves))
        {
            return;
        }
        let nodes = chosen
            .children()
            .filter(|node| node.is_compatible("xen,domain"));
        // Without a domain that has a role there is no classic one, so that the nodes are the domains.
        for (index, node) in nodes.enumerate() {
            let word = node.string("xen,enhanced").unwrap_or_default();
            if node.has("xen,enhanced") && matches!(word, "" | "enabled" | "legacy") {
                let why = "XenStore is served by another domain, and none does";
                let help = "xen,enhanced = \"no-xenstore\", or a dom0";
                self.for_domain(index, |reader| {
                    let what = "xen,enhanced";
                    reader.wrong(node, what, Code::ValueInvalid, what, why, help);
                });
            }
        }
    }
}
