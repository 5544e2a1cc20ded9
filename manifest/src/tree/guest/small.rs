//! The tree of a domain that has no devices but those passed through to it: made from nothing.
//!
//! The interrupt controller and the virtual UART are at the host's addresses for a direct-mapped domain, at the
//! fixed layout's for any other.
//!
//! Sources: Xen, docs/misc/arm/device-tree/guest.txt and public/arch-arm.h; Linux's bindings for each node.

use alloc::format;

use layout::{DomainPlan, GuestRange};

use super::hypervisor_node::Regions;
use super::parts::{self, CellCounts};
use super::{GuestFrames, GuestGic, gic, vcpu_affinities, vpl011};
use crate::tree::blob::Tree;
use crate::tree::edit;
use crate::tree::host::Host;
use crate::tree::writer::Writer;

/// The controller's phandle unless a partial tree has a node `/gic` with another: the tree refers to it by that (Xen,
/// public/device_tree_defs.h, `GUEST_PHANDLE_GIC`, and docs/misc/arm/passthrough.txt).
const GIC_PHANDLE: u32 = 65000;

/// Cells of an interrupt specifier.
const SPECIFIER: usize = 3;

/// PPIs of secure, non-secure and virtual timer as specifiers, level-triggered and active low, for all CPUs.
const TIMER: [u32; 9] = [1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08];

/// Writes the whole tree.
pub fn write(
    writer: &mut Writer,
    host: &Host,
    domain: &DomainPlan,
    regions: &Regions,
    partial: Option<&Tree<'_>>,
) {
    let phandle = gic_phandle(partial);
    writer.begin("");
    writer.cells("#address-cells", &[2]);
    writer.cells("#size-cells", &[2]);
    writer.strings("compatible", &["xen,xenvm-4.20", "xen,xenvm"]);
    writer.cells("interrupt-parent", &[phandle]);
    writer.node("chosen", |node| {
        parts::chosen(node, domain);
        if let Some((uart, _)) = vpl011(host, domain) {
            node.string("stdout-path", &uart_path(&uart));
        }
    });
    parts::psci(writer);
    parts::memory(writer, domain, CellCounts::TWO);
    cpus(writer, host, domain);
    if let Some(gic) = gic(host, domain) {
        controller(writer, &gic, phandle);
    }
    writer.node("timer", |node| {
        node.strings("compatible", &["arm,armv8-timer"]);
        node.cells("interrupts", &TIMER);
    });
    if let Some((uart, interrupt)) = vpl011(host, domain) {
        virtual_uart(writer, &uart, interrupt);
    }
    parts::hypervisor(writer, regions, CellCounts::TWO, Some((phandle, SPECIFIER)));
    for name in ["passthrough", "aliases"] {
        let node =
            partial.and_then(|partial| partial.root().children().find(|node| node.name() == name));
        if let Some(node) = node {
            edit::copy_for_guest(writer, node);
        }
    }
}

/// The phandle by which a partial tree refers to the guest's interrupt controller.
fn gic_phandle(partial: Option<&Tree<'_>>) -> u32 {
    let gic = partial.and_then(|partial| {
        let mut top = partial.root().children();
        top.find(|node| node.name() == "gic")
    });
    let named = gic.and_then(|gic| gic.u32("phandle"));
    named.filter(|named| *named != 0).unwrap_or(GIC_PHANDLE)
}

fn cpus(writer: &mut Writer, host: &Host, domain: &DomainPlan) {
    writer.node("cpus", |writer| {
        writer.cells("#address-cells", &[2]);
        writer.cells("#size-cells", &[0]);
        for affinity in vcpu_affinities(host, domain) {
            writer.node(&format!("cpu@{affinity:x}"), |node| {
                node.string("device_type", "cpu");
                node.string("compatible", "arm,armv8");
                node.numbers("reg", &[affinity]);
                node.string("enable-method", "psci");
            });
        }
    });
}

fn controller(writer: &mut Writer, gic: &GuestGic, phandle: u32) {
    let name = format!("interrupt-controller@{:x}", gic.distributor.start().raw());
    writer.node(&name, |node| {
        node.cells("phandle", &[phandle]);
        node.cells("#address-cells", &[0]);
        node.cells("#interrupt-cells", &[3]);
        node.flag("interrupt-controller");
        let frames = match &gic.frames {
            GuestFrames::CpuInterface(range) => {
                node.string("compatible", "arm,gic-400");
                core::slice::from_ref(range)
            }
            GuestFrames::Redistributors { regions, stride } => {
                node.string("compatible", "arm,gic-v3");
                let count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
                node.cells("#redistributor-regions", &[count]);
                node.numbers("redistributor-stride", &[*stride]);
                regions
            }
        };
        let all = core::iter::once(&gic.distributor).chain(frames);
        node.bytes("reg", &CellCounts::TWO.reg(all));
    });
}

fn uart_path(uart: &GuestRange) -> alloc::string::String {
    format!("/sbsa-uart@{:x}", uart.start().raw())
}

/// The virtual PL011 is one of the reduced kind that SBSA describes.
fn virtual_uart(writer: &mut Writer, uart: &GuestRange, interrupt: u32) {
    writer.node(uart_path(uart).trim_start_matches('/'), |node| {
        node.string("compatible", "arm,sbsa-uart");
        node.bytes("reg", &CellCounts::TWO.reg([uart]));
        // An SPI, level-triggered and active high.
        node.cells("interrupts", &[0, interrupt.saturating_sub(32), 4]);
        node.cells("current-speed", &[115_200]);
    });
}
