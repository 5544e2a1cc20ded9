//! The device tree that a domain gets.
//!
//! The hardware domain's is the host's own tree with what the hypervisor keeps taken out
//! ([`hardware`]); any other domain's is small and made from nothing ([`small`]). Both end with the node that makes
//! Linux see Xen ([`hypervisor_node`]). The same input gives the same bytes.

mod hardware;
mod hypervisor_node;
mod parts;
mod small;

use alloc::vec::Vec;

use layout::{DomainPlan, DomainRequest, GuestRange, Plan};

use super::blob::Tree;
use super::host::{GicVersion, Host};
use super::writer::{TooLarge, Writer};

/// What a guest's tree has beside the host's nodes and its own command line, in bytes, generously.
const OWN_BYTES: u64 = 8 << 10;

/// Bytes of one CPU's node, generously.
const CPU_BYTES: u64 = 256;

/// The bytes to set aside for a domain's tree, a multiple of 4 KiB: on workstation and machine the same, so that the
/// plan is.
#[must_use]
pub fn budget(host: &Tree<'_>, domain: &DomainRequest) -> u64 {
    let from_host = if domain.identity().is_hardware() {
        host.used_bytes() as u64
    } else {
        0
    };
    let partial = domain
        .partial_tree
        .as_ref()
        .map_or(0, |partial| partial.module.size());
    let cpus = u64::from(domain.cpus.value).saturating_mul(CPU_BYTES);
    [from_host, partial, domain.command_line.len() as u64, cpus]
        .iter()
        .fold(OWN_BYTES, |sum, &bytes| sum.saturating_add(bytes))
        .checked_next_multiple_of(4096)
        .unwrap_or(u64::MAX)
}

/// A domain's tree and what it promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestTree {
    /// The blob.
    pub bytes: Vec<u8>,
    /// Where the guest maps its grant table: unused addresses, region 0 of the hypervisor node.
    pub grant_table: GuestRange,
    /// Unused addresses for foreign mappings: the other regions.
    pub extended: Vec<GuestRange>,
}

/// Builds the tree of the domain at `index` of the plan. `tree` is the host's, `host` what was read from it,
/// `partial` the domain's partial tree if it has one.
///
/// # Errors
/// The tree would take more than the plan sets aside for it.
pub fn build(
    tree: &Tree<'_>,
    host: &Host,
    plan: &Plan,
    domain: &DomainPlan,
    partial: Option<&Tree<'_>>,
) -> Result<GuestTree, TooLarge> {
    let regions = hypervisor_node::regions(tree, host, plan, domain);
    let mut writer = Writer::new();
    if domain.identity.is_hardware() {
        hardware::write(&mut writer, tree, host, domain, &regions);
    } else {
        small::write(&mut writer, host, domain, &regions, partial);
    }
    let limit = usize::try_from(domain.tree.size()).unwrap_or(usize::MAX);
    let bytes = writer.finish(&[], limit)?;
    Ok(GuestTree {
        bytes,
        grant_table: regions.grant_table,
        extended: regions.extended,
    })
}

/// The MPIDR affinity of each vCPU. With the host's layout it is that of the CPU that the vCPU is pinned to, since
/// the guest finds that CPU's redistributor; vCPUs that share a CPU are numbered through the host's CPUs instead.
/// The fixed layout counts sixteen to a cluster, as Xen does.
#[must_use]
pub fn vcpu_affinities(host: &Host, domain: &DomainPlan) -> Vec<u64> {
    let vcpus = domain.cpus.len() as u64;
    if !domain.identity.uses_host_layout() {
        return (0..vcpus)
            .map(|vcpu| (vcpu >> 4) << 8 | (vcpu & 15))
            .collect();
    }
    let id_of = |cpu: usize| host.map.cpus.get(cpu).map(|cpu| cpu.hardware_id);
    let pinned: Vec<u64> = domain
        .cpus
        .iter()
        .filter_map(|&cpu| id_of(cpu as usize))
        .collect();
    let is_shared = (1..pinned.len()).any(|place| pinned[..place].contains(&pinned[place]));
    if is_shared {
        (0..domain.cpus.len()).filter_map(id_of).collect()
    } else {
        pinned
    }
}

/// Addresses of the fixed layout (Xen, public/arch-arm.h, `GUEST_*`), in bytes.
pub mod fixed {
    /// The interrupt controller's distributor.
    pub const GICD: u64 = 0x0300_1000;
    /// GICv2's distributor.
    pub const GICD_V2_BYTES: u64 = 0x1000;
    /// GICv3's distributor.
    pub const GICD_V3_BYTES: u64 = 0x1_0000;
    /// GICv2's CPU interface.
    pub const GICC: u64 = 0x0300_2000;
    /// GICv2's CPU interface.
    pub const GICC_BYTES: u64 = 0x2000;
    /// GICv3's redistributors.
    pub const GICR: u64 = 0x0302_0000;
    /// 128 redistributors.
    pub const GICR_BYTES: u64 = 0x0100_0000;
    /// The virtual UART.
    pub const VPL011: u64 = 0x2200_0000;
    /// The virtual UART, at whichever address.
    pub const VPL011_BYTES: u64 = 0x1000;
    /// The virtual UART's interrupt.
    pub const VPL011_INTID: u32 = 32;
    /// Room for the grant table.
    pub const GRANT_TABLE: u64 = 0x3800_0000;
    /// Room for the grant table.
    pub const GRANT_TABLE_BYTES: u64 = 0x0100_0000;
    /// From here on there is RAM, in two stretches.
    pub const RAM: [(u64, u64); 2] = [(0x4000_0000, 0xc000_0000), (0x2_0000_0000, 0xfe_0000_0000)];
}

/// Where a domain without the host's interrupt controller node finds its controller: guest addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestGic {
    /// The distributor.
    pub distributor: GuestRange,
    /// GICv3: regions of redistributors and the bytes of each; GICv2: the CPU interface.
    pub frames: GuestFrames,
}

/// The controller's other frames as the guest sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFrames {
    /// GICv2.
    CpuInterface(GuestRange),
    /// GICv3.
    Redistributors {
        /// The regions.
        regions: Vec<GuestRange>,
        /// Bytes of each redistributor.
        stride: u64,
    },
}

/// Where a domain finds its interrupt controller: at the host's addresses or at the fixed layout's. `None` on a host
/// without one.
#[must_use]
pub fn gic(host: &Host, domain: &DomainPlan) -> Option<GuestGic> {
    let gic = host.gic.as_ref()?;
    // A device keeps its address in the host's layout, direct-mapped RAM or not.
    let same = |range: &layout::MachineRange| parts::guest_range(range.start().raw(), range.size());
    let host_layout = domain.identity.uses_host_layout();
    Some(match &gic.version {
        GicVersion::V2 { cpu_interface, .. } if host_layout => GuestGic {
            distributor: same(&gic.distributor),
            frames: GuestFrames::CpuInterface(same(cpu_interface)),
        },
        GicVersion::V2 { .. } => GuestGic {
            distributor: parts::guest_range(fixed::GICD, fixed::GICD_V2_BYTES),
            frames: GuestFrames::CpuInterface(parts::guest_range(fixed::GICC, fixed::GICC_BYTES)),
        },
        GicVersion::V3 {
            redistributors,
            stride,
            ..
        } if host_layout => GuestGic {
            distributor: same(&gic.distributor),
            frames: GuestFrames::Redistributors {
                regions: redistributors.iter().map(same).collect(),
                stride: *stride,
            },
        },
        GicVersion::V3 { .. } => GuestGic {
            distributor: parts::guest_range(fixed::GICD, fixed::GICD_V3_BYTES),
            frames: GuestFrames::Redistributors {
                regions: alloc::vec![parts::guest_range(fixed::GICR, fixed::GICR_BYTES)],
                stride: 0x2_0000,
            },
        },
    })
}

/// The virtual PL011 of a domain that has one: its registers and its interrupt. A direct-mapped domain finds it
/// where the host has its UART.
#[must_use]
pub fn vpl011(host: &Host, domain: &DomainPlan) -> Option<(GuestRange, u32)> {
    if !domain.vpl011 {
        return None;
    }
    let of_host = host
        .console
        .as_ref()
        .filter(|_| domain.identity.uses_host_layout());
    let at_host = of_host.and_then(|uart| Some((uart.registers.start().raw(), uart.interrupt?)));
    let (address, interrupt) = at_host.unwrap_or((fixed::VPL011, fixed::VPL011_INTID));
    Some((parts::guest_range(address, fixed::VPL011_BYTES), interrupt))
}
