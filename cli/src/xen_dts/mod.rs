//! `plan --format dts`: the plan as Xen's users write it, an overlay for the host's device tree in the dom0less binding.
//!
//! Addresses are the plan's; which words a version of Xen has for them is [`XenVersion`]'s to say. What Xen has no word
//! for stands in the file as a comment and among the findings. Nothing is planned here but Xen's own needs, which the
//! planner is told beforehand ([`prepare`]).
//!
//! Source: Xen 4.20.4 and 4.21.0, docs/misc/arm/device-tree/booting.txt and docs/misc/arm/passthrough.txt.

mod domain;
mod limits;
mod prepare;
mod source;

use std::fmt;
use std::str::FromStr;

use layout::{
    Architecture, Bank, DomainPlan, DomainRequest, HostMap, MachineAddress, MachineRange, Origin,
    Plan, Scrub,
};
use manifest::image::IMAGE_ALIGNMENT;
use manifest::toml::DomainFiles;

use crate::diagnostics::{Diagnostic, Severity, Side};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::system::{Said, System};

pub use prepare::{FOOTPRINT, prepare};
use source::Source;

/// A version of Xen, 4.20 or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct XenVersion {
    major: u32,
    minor: u32,
}

impl XenVersion {
    /// The one whose words are written unless another is asked for.
    pub const DEFAULT: Self = Self {
        major: 4,
        minor: 20,
    };

    /// Whether it has `capabilities`, `hard-affinity` and `trap-unmapped-accesses`; before, the hardware domain is what
    /// stands right under `/chosen`.
    fn has_capabilities(self) -> bool {
        self > Self::DEFAULT
    }
}

impl FromStr for XenVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.');
        let numbers =
            parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let version = numbers.map(|(major, minor)| Self { major, minor });
        version
            .filter(|version| *version >= Self::DEFAULT)
            .ok_or_else(|| {
                format!(
                    "not a version such as {}, the earliest that is written for",
                    Self::DEFAULT
                )
            })
    }
}

impl fmt::Display for XenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Refuses a host that the binding isn't for.
///
/// # Errors
/// It isn't an Arm machine.
pub fn check_host(architecture: Architecture, findings: &mut Findings) -> Result<(), Exit> {
    if architecture == Architecture::Aarch64 {
        return Ok(());
    }
    let name = architecture.as_str();
    let message =
        format!("Xen's dom0less device tree describes Arm machines, and this host is {name}");
    let found =
        Diagnostic::error("xen-host", message).with_help("plan it by --format text or json");
    Err(findings.give_up(found, Exit::Conflicts))
}

/// The overlay's source; `None` if Xen would stop at it. What Xen can't do as planned is among the findings.
pub fn write(system: &System, version: XenVersion, findings: &mut Findings) -> Option<String> {
    let mut writer = Overlay {
        plan: &system.outcome.plan,
        host: &system.map,
        said: system.said(),
        version,
        findings,
        is_refused: false,
    };
    writer.check_limits();
    let text = writer.write(system);
    (!writer.is_refused).then_some(text)
}

/// A domain of the plan with what the manifest says of it.
#[derive(Clone, Copy)]
struct Planned<'a> {
    plan: &'a DomainPlan,
    request: &'a DomainRequest,
    files: Option<&'a DomainFiles>,
}

struct Overlay<'a> {
    plan: &'a Plan,
    host: &'a HostMap,
    said: Said<'a>,
    version: XenVersion,
    findings: &'a mut Findings,
    /// Something is beyond what Xen has room for.
    is_refused: bool,
}

impl<'a> Overlay<'a> {
    fn write(&mut self, system: &System) -> String {
        let mut source = Source::default();
        source.plain("/dts-v1/;");
        source.plain("/plugin/;");
        source.plain("");
        self.head(&mut source, system.places.hypervisor);
        source.plain("");
        source.node("&{/}", |root| {
            root.node("chosen", |chosen| self.chosen(chosen))
        });
        self.passed_through(&mut source);
        source.into_text()
    }

    fn head(&self, source: &mut Source, image: MachineRange) {
        let version = self.version;
        for line in [
            format!("Written by `terrane plan --format dts --xen {version}`: an overlay for the host's device tree."),
            "To apply it: dtc -q -@ -O dtb -o xen.dtbo FILE; fdtoverlay -i host.dtb -o xen.dtb xen.dtbo".to_owned(),
            "or U-Boot's `fdt apply`.".to_owned(),
            format!("Load Xen at {} and each file where its module says; what Xen needs is left free.", image.start()),
        ] {
            source.comment(&line);
        }
        if self
            .planned()
            .any(|domain| self.static_ranges(domain).is_some())
        {
            source.comment(
                "xen,static-mem needs a Xen built with CONFIG_STATIC_MEMORY; Debian's isn't.",
            );
        }
        if !self.version.has_capabilities() {
            source.comment(
                "Terrane gives each vCPU a CPU of its own; this Xen lets its scheduler choose.",
            );
        }
    }

    fn planned(&self) -> impl Iterator<Item = Planned<'a>> + use<'a> {
        let said = self.said;
        self.plan.domains.iter().filter_map(|plan| {
            Some(Planned {
                plan,
                request: said.request.domains.get(plan.index)?,
                files: said.files.get(plan.index),
            })
        })
    }

    fn chosen(&mut self, chosen: &mut Source) {
        chosen.cells("#address-cells", &[2]);
        chosen.cells("#size-cells", &[2]);
        let classic = self.classic();
        if self.plan.domains.len() > 1 {
            chosen.comment(
                "Applying an overlay turns the order of its nodes round: the last is Xen's first.",
            );
        }
        let options = self.options(classic);
        chosen.strings("xen,xen-bootargs", &[&options]);
        if let Some(domain) = classic {
            chosen.plain("");
            self.classic_domain(chosen, domain);
        }
        // An overlay's nodes are added each before the others: the last one here becomes domain 1.
        let planned: Vec<Planned<'_>> = self.planned().collect();
        for domain in planned.into_iter().rev() {
            if classic.is_none_or(|classic| classic.plan.index != domain.plan.index) {
                chosen.plain("");
                self.domain(chosen, domain);
            }
        }
    }

    /// The hardware domain, if this Xen takes it from `/chosen` itself.
    fn classic(&self) -> Option<Planned<'a>> {
        let hardware = self
            .planned()
            .find(|domain| domain.plan.identity.is_hardware());
        hardware.filter(|_| !self.version.has_capabilities())
    }

    /// Xen's command line.
    fn options(&mut self, classic: Option<Planned<'a>>) -> String {
        let mut options = Vec::new();
        let console = self.plan.hypervisor.console;
        if let Some(console) = console.and_then(|index| self.host.devices.get(index)) {
            options.push(format!("console=dtuart dtuart={}", console.path));
        }
        if let Some(domain) = classic {
            options.push(format!("dom0_mem={}M", self.classic_memory(domain)));
            options.push(format!("dom0_max_vcpus={}", domain.plan.cpus.len()));
        }
        if self.plan.hypervisor.scrub == Scrub::Reused {
            options.push("bootscrub=0".to_owned());
        }
        options.join(" ")
    }

    /// Devices of guests: Xen keeps them from the hardware domain only if their nodes say so.
    fn passed_through(&mut self, source: &mut Source) {
        for domain in self
            .planned()
            .filter(|domain| !domain.plan.identity.is_hardware())
        {
            for index in &domain.plan.devices {
                let Some(device) = self.host.devices.get(*index) else {
                    continue;
                };
                source.plain("");
                source.comment(&format!(
                    "For {}: not the hardware domain's.",
                    domain.plan.name
                ));
                source.node(&format!("&{{{}}}", device.path), |node| {
                    node.flag("xen,passthrough")
                });
            }
        }
    }

    /// The machine ranges that Xen must be told, if it must: it maps a domain 1:1 only in memory that is named.
    fn static_ranges(&self, domain: Planned<'_>) -> Option<Vec<MachineRange>> {
        let classic = domain.plan.identity.is_hardware() && !self.version.has_capabilities();
        let named = !domain.request.static_mem.is_empty();
        let wanted = !classic && (domain.plan.identity.is_direct_mapped() || named);
        wanted.then(|| {
            let banks = own_banks(domain.plan).map(|bank| bank.machine().bytes());
            let banks: Vec<MachineRange> = banks.collect();
            // Others see theirs one after the other from the guest layout's start.
            if domain.plan.identity.is_direct_mapped() {
                kernel_first(banks)
            } else {
                banks
            }
        })
    }

    /// Says what this Xen can't do, in the file and to the user.
    fn no_word(
        &mut self,
        source: &mut Source,
        domain: Planned<'_>,
        origin: Origin,
        what: &str,
        why: &str,
    ) {
        source.comment(&format!("Not said to Xen: {what}; {why}"));
        self.warn(domain, origin, what, why);
    }

    fn warn(&mut self, domain: Planned<'_>, origin: Origin, what: &str, why: &str) {
        let origins = self.said.origins;
        let place = self.findings.place(origin, origins);
        let place = place.or_else(|| self.findings.place(domain.request.name.origin, origins));
        let version = self.version;
        self.findings.add(Diagnostic {
            code: "xen-no-word".to_owned(),
            severity: Severity::Warning,
            message: format!(
                "Xen {version} can't be told this of `{}`: {why}",
                domain.plan.name
            ),
            sides: vec![Side {
                what: what.to_owned(),
                place,
            }],
            help: None,
        });
    }

    /// Where the manifest says it, for a comment.
    fn said_at(&self, origin: Origin) -> String {
        let place = self.said.origins.describe(origin);
        place.map_or_else(String::new, |place| format!(" ({place})"))
    }
}

/// A domain's RAM without what the host's tree reserves: Xen gives its hardware domain that by itself.
fn own_banks(domain: &DomainPlan) -> impl Iterator<Item = &Bank> {
    domain.banks.iter().filter(|bank| !bank.reserved)
}

/// Xen puts kernel, ramdisk and tree into the first range, the kernel at its start. So the largest one comes first, from
/// its first multiple of 2 MiB on; what lies before that is a range of its own.
fn kernel_first(mut ranges: Vec<MachineRange>) -> Vec<MachineRange> {
    ranges.sort_by_key(MachineRange::start);
    let aligned = |range: &MachineRange| {
        let start = range
            .start()
            .raw()
            .checked_next_multiple_of(IMAGE_ALIGNMENT);
        start.map_or(0, |start| range.end().raw().saturating_sub(start))
    };
    // Of equal ones the lowest.
    let largest = ranges
        .iter()
        .rev()
        .max_by_key(|range| aligned(range))
        .copied();
    let Some((largest, size)) = largest.map(|range| (range, aligned(&range))) else {
        return ranges;
    };
    let head = largest.size() - size;
    let at = |start: u64, size: u64| MachineRange::saturating(MachineAddress::new(start), size);
    let first = at(largest.start().raw() + head, size);
    let before = at(largest.start().raw(), head);
    let others = ranges.iter().filter(|range| **range != largest).copied();
    let others = others.chain([before]).filter(|range| !range.is_empty());
    let mut others: Vec<MachineRange> = others.collect();
    others.sort_by_key(MachineRange::start);
    [first]
        .into_iter()
        .filter(|range| !range.is_empty())
        .chain(others)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_for_the_kernel_comes_first_and_aligned() {
        let range = |(start, size)| MachineRange::new(MachineAddress::new(start), size).unwrap();
        let ordered = |ranges: &[(u64, u64)]| -> Vec<(u64, u64)> {
            let ranges = kernel_first(ranges.iter().copied().map(range).collect());
            ranges
                .iter()
                .map(|range| (range.start().raw(), range.size()))
                .collect()
        };
        let (small, large) = ((0x4000_1000, 0x1000), (0x4010_1000, 0x80_0000));
        let expected = [(0x4020_0000, 0x70_1000), small, (0x4010_1000, 0xf_f000)];
        assert_eq!(ordered(&[large, small]), expected);
        assert_eq!(
            ordered(&[(0x4020_0000, 0x20_0000)]),
            [(0x4020_0000, 0x20_0000)]
        );
        assert_eq!(ordered(&[small]), [small]);
        assert_eq!(ordered(&[]), []);
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let version = |text: &str| text.parse::<XenVersion>();
        assert_eq!(version("4.20"), Ok(XenVersion::DEFAULT));
        assert!(!version("4.20").unwrap().has_capabilities());
        assert!(version("4.21").unwrap().has_capabilities());
        assert!(version("5.0").unwrap().has_capabilities());
        for bad in ["", "4", "4.19", "4.x", "-4.21", "4.21.0"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
