//! What a domain finds at its own addresses of the hypervisor's making: its interrupt controller,
//! and the console that Xen calls vpl011.

use layout::fixed;
use layout::{ControllerKind, DomainPlan, MachineRange};

use super::{Kind, Region, Source};

/// The regions, with no owner yet.
pub fn seen(source: Source<'_>, domain: &DomainPlan) -> Vec<Region> {
    let host_layout = domain.identity.uses_host_layout();
    let mut seen = match (source.host.controller.kind, host_layout) {
        (ControllerKind::IoApic, _) => apics(source, domain),
        (_, true) => with_host_layout(source, domain),
        (_, false) => with_fixed_layout(source),
    };
    if domain.vpl011 {
        seen.push(vpl011(source, host_layout));
    }
    seen
}

/// A PC's: each domain has local APICs, the hardware domain the host's IO-APICs too.
fn apics(source: Source<'_>, domain: &DomainPlan) -> Vec<Region> {
    const LOCAL: &str = "each vCPU has a local APIC, of the hypervisor's making";
    const INPUT: &str = "the hardware domain finds IO-APICs where the host has them";
    let local = (fixed::LOCAL_APIC, fixed::LOCAL_APIC_BYTES);
    let named = |label: &str, region| Region {
        label: label.to_owned(),
        ..region
    };
    let mut seen = vec![named("local APIC", emulated(local, LOCAL))];
    let ranges = source.host.controller.ranges.iter().map(at);
    let chips = ranges.filter(|(start, _)| domain.identity.is_hardware() && *start != local.0);
    seen.extend(chips.map(|chip| named("IO-APIC", emulated(chip, INPUT))));
    seen
}

fn at(range: &MachineRange) -> (u64, u64) {
    (range.start().raw(), range.size())
}

fn with_host_layout(source: Source<'_>, domain: &DomainPlan) -> Vec<Region> {
    const WHY: &str = "with the host's layout a domain finds its controller where the host has it";
    let controller = &source.host.controller;
    // The hypervisor translates messages by the domain's own tables, which the hardware reads at their addresses.
    let identity = &domain.identity;
    let own = usize::from(identity.is_hardware() && identity.is_direct_mapped());
    let hidden = controller.its.get(own..).unwrap_or_default();
    match (controller.kind, controller.ranges.as_slice()) {
        // The rest of them, the hypervisor's and the virtual interface, are no domain's.
        (ControllerKind::GicV2, [distributor, cpu, ..]) => {
            vec![
                emulated(at(distributor), WHY),
                cpu_interface(source, at(cpu)),
            ]
        }
        (_, ranges) => ranges
            .iter()
            .filter(|range| !hidden.contains(range))
            .map(|range| emulated(at(range), WHY))
            .collect(),
    }
}

fn with_fixed_layout(source: Source<'_>) -> Vec<Region> {
    const WHY: &str = "the fixed layout of guests has the controller there";
    match source.host.controller.kind {
        ControllerKind::GicV2 => vec![
            emulated((fixed::GICD, fixed::GICD_V2_BYTES), WHY),
            cpu_interface(source, (fixed::GICC, fixed::GICC_BYTES)),
        ],
        ControllerKind::GicV3 => vec![
            emulated((fixed::GICD, fixed::GICD_V3_BYTES), WHY),
            emulated((fixed::GICR, fixed::GICR_BYTES), WHY),
        ],
        _ => Vec::new(),
    }
}

/// GICv2's CPU interface, the only part of a controller that a domain has: the hardware's virtual
/// one, if the host describes it.
fn cpu_interface(source: Source<'_>, place: (u64, u64)) -> Region {
    let virtual_interface = source.host.controller.ranges.get(3);
    Region {
        machine: virtual_interface.map(|range| range.start().raw()),
        ..emulated(
            place,
            "the hardware's virtual CPU interface stands for the controller's own",
        )
    }
}

fn vpl011(source: Source<'_>, host_layout: bool) -> Region {
    let console = source.plan.hypervisor.console.filter(|_| host_layout);
    let device = console.and_then(|index| source.host.devices.get(index));
    let uart = device.filter(|device| !device.interrupts.is_empty());
    let (start, why) = match uart.and_then(|device| device.ranges.first()) {
        Some(range) => (
            range.start().raw(),
            "`vpl011`, with the host's layout at the host's console",
        ),
        None => (fixed::VPL011, "`vpl011`, where the fixed layout has it"),
    };
    Region {
        label: "virtual PL011".to_owned(),
        ..emulated((start, fixed::VPL011_BYTES), why)
    }
}

fn emulated((start, size): (u64, u64), why: &str) -> Region {
    Region {
        start,
        end: start.saturating_add(size),
        kind: Kind::Controller,
        owner: None,
        label: "interrupt controller".to_owned(),
        machine: None,
        why: why.to_owned(),
        parts: Vec::new(),
    }
}
