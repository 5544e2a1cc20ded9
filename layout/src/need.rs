//! How much memory the hypervisor takes for itself, by a formula that is the same on the
//! workstation and on the machine. It bounds what any guest can make the hypervisor hold:
//! everything that grows with a guest's requests lives in that domain's pool and tables.

use alloc::vec::Vec;

use crate::address::{FRAME_SHIFT, FRAME_SIZE};
use crate::host::{Architecture, BootKind, HostMap, Reservation};
use crate::planner::ground::registers;
use crate::planner::place::MOST_EXTENTS;
use crate::planner::sets::{SUPERPAGE, normalise_bytes};
use crate::request::{DomainRequest, Limits, MemoryRequest, SystemRequest};
use crate::sort::sort_by_key;

const KIB: u64 = 1 << 10;

/// The region is made of superpages: a remainder would split the one that it ends in.
const REGION_UNIT: u64 = 2 << 20;
/// Lists, ownership extents, the plan itself, message buffers.
const CORE: u64 = 512 * KIB;
/// A CPU's stack and what the machine crate keeps for it.
const EACH_CPU: u64 = 64 * KIB;
/// The interrupt controller's shadow state: an ITS command queue and LPI bitmaps.
const CONTROLLER: u64 = 256 * KIB;
/// A domain's fixed records, and its inter-domain event-channel state.
const EACH_DOMAIN: u64 = 64 * KIB;
/// A record of an event-channel port.
const EACH_PORT: u64 = 16;
/// Second-stage tables for the balloon and for grant mappings, which split superpages.
const SPLIT_TABLES: u64 = 96;
/// The greatest legal number of grant frames; above it a request is refused, and mustn't make
/// the others pay.
pub(crate) const MOST_GRANT_FRAMES: u32 = 256;
/// The greatest legal event-channel port: the two-level ABI has 4096 (public/event_channel.h,
/// `EVTCHN_2L_NR_CHANNELS`).
pub(crate) const MOST_PORTS: u32 = 4095;
/// The largest device tree that Linux maps (Documentation/arch/arm64/booting.rst).
pub(crate) const MOST_TREE_BYTES: u64 = 2 << 20;
/// The root of a second stage: up to 16 concatenated tables on Arm (Arm ARM, D8.2.2).
const ROOT_TABLES: u64 = 16;
/// RAM extents that a domain's tables provide for, besides those that it names.
const EXTENTS: u64 = 8;
/// Who takes the rest gets what the host's pieces of RAM leave, and some pieces more that others cut
/// off, at most [`MOST_EXTENTS`].
const CUTS: u64 = 4;
/// Tables at the two edges of an extent, on the two levels below the root.
const TABLES_AT_EDGES: u64 = 4;

/// On x86 a CPU may lack pages of 1 GiB: a table for each GiB of RAM, for each of the four below
/// 4 GiB, and for as many above in which devices are.
const PC_TABLES: u64 = 4 + 28;

/// Bytes of the hypervisor's whole region for this system on this host, a multiple of 2 MiB.
pub fn hypervisor_bytes(host: &HostMap, request: &SystemRequest) -> u64 {
    let cpus = request
        .domains
        .iter()
        .fold(0_u64, |sum, domain| sum + u64::from(domain.cpus.value));
    let host_cpus = u64::try_from(host.cpus.len()).unwrap_or(u64::MAX);
    let cpus = cpus.clamp(1, host_cpus.max(1));
    let banks = normalise_bytes(host.ram.iter().map(|bank| bank.range).collect());
    let own_tables = (ROOT_TABLES + TABLES_AT_EDGES * count(banks.len()) + device_tables(host))
        .saturating_mul(FRAME_SIZE);
    let fixed = CORE + CONTROLLER + cpus * EACH_CPU;
    let domains = request
        .domains
        .iter()
        .map(|domain| domain_bytes(host, domain));
    // The image may cut the region in two. With as much to spare as the largest pool, each pool
    // fits into the larger part that is left.
    let spare = request.domains.iter().map(|domain| {
        pool_frames(&domain.limits)
            .max(table_frames(host, domain))
            .saturating_mul(FRAME_SIZE)
    });
    let spare = spare.max().unwrap_or(0);
    let trees = request.hypervisor.tree_bytes;
    let parts = [image_bytes(host, request), trees, own_tables, fixed, spare];
    let bytes = parts
        .into_iter()
        .chain(domains)
        .fold(0, u64::saturating_add);
    bytes
        .checked_next_multiple_of(REGION_UNIT)
        .unwrap_or(u64::MAX - (REGION_UNIT - 1))
}

/// Bytes of the hypervisor's image in memory, its zeroed data included.
pub fn image_bytes(host: &HostMap, request: &SystemRequest) -> u64 {
    let loaded = host
        .boot
        .iter()
        .find(|boot| boot.kind == BootKind::Hypervisor);
    let loaded = loaded.map_or(0, |boot| boot.range.size());
    request.hypervisor.image_bytes.max(loaded)
}

/// Frames of a domain's [`pool`](crate::DomainPlan::pool): shared info, a console ring, and
/// the grant table.
pub fn pool_frames(limits: &Limits) -> u64 {
    2 + u64::from(limits.max_grant_frames.min(MOST_GRANT_FRAMES))
}

/// Frames of a domain's [`tables`](crate::DomainPlan::tables).
pub fn table_frames(host: &HostMap, domain: &DomainRequest) -> u64 {
    let identity = domain.identity();
    let named = count(domain.static_mem.len());
    // The hardware domain has these beside its own extents.
    let kernels = host.reserved.iter();
    let kernels = kernels.filter(|reserved| reserved.kind == Reservation::Kernel);
    let kernels = if identity.is_hardware() {
        count(kernels.count())
    } else {
        0
    };
    let pieces = match domain.memory.value {
        // What finds no single piece is spread over as many as the host has.
        MemoryRequest::Rest | MemoryRequest::Size(_) => {
            let pieces = CUTS + count(host.ram.len()) + count(host.reserved.len());
            pieces.clamp(EXTENTS, count(MOST_EXTENTS) + kernels)
        }
        MemoryRequest::SumOfStatic => EXTENTS + kernels,
    };
    let extents = pieces.saturating_add(named).saturating_mul(TABLES_AT_EDGES);
    // Of a range whose ends aren't superpages' the guest has the whole superpages first, and the ends
    // joined behind them, which takes a table or two of 4 KiB leaves.
    let odd = if identity.is_direct_mapped() {
        0
    } else {
        2 * named
    };
    let devices = if identity.is_hardware() {
        device_tables(host)
    } else {
        count(domain.devices.len()) * TABLES_AT_EDGES
    };
    let pages = match host.architecture {
        Architecture::X86_64 => PC_TABLES + (at_most_ram(host, wanted_bytes(domain)) >> 30),
        Architecture::Aarch64 | Architecture::Riscv64 => 0,
    };
    [ROOT_TABLES, SPLIT_TABLES, extents, odd, devices, pages]
        .into_iter()
        .fold(0, u64::saturating_add)
}

/// Bytes of RAM that a domain asks for.
fn wanted_bytes(domain: &DomainRequest) -> u64 {
    match domain.memory.value {
        MemoryRequest::Size(size) => size,
        MemoryRequest::Rest => u64::MAX,
        MemoryRequest::SumOfStatic => {
            let named = domain.static_mem.iter().map(|range| range.size);
            named.fold(0, u64::saturating_add)
        }
    }
}

/// The same number of bytes, or all of the RAM if that is less: who asks for more is refused, and
/// mustn't make the others pay. RAM is only counted for what is large: it may have many banks.
fn at_most_ram(host: &HostMap, bytes: u64) -> u64 {
    const LARGE: u64 = 64 << 30;
    if bytes <= LARGE {
        return bytes;
    }
    let banks = host.ram.iter().map(|bank| bank.range.size());
    bytes.min(banks.fold(0, u64::saturating_add))
}

/// Bytes that a domain costs.
fn domain_bytes(host: &HostMap, domain: &DomainRequest) -> u64 {
    let frames = pool_frames(&domain.limits).saturating_add(table_frames(host, domain));
    let ports = (u64::from(domain.limits.max_event_channels.min(MOST_PORTS)) + 1) * EACH_PORT;
    let tree = domain.tree_bytes.min(MOST_TREE_BYTES);
    (frames.saturating_mul(1 << FRAME_SHIFT))
        .saturating_add(EACH_DOMAIN + ports)
        .saturating_add(tree)
}

/// Tables for mapping all devices: two levels for each 2 MiB in which one begins or ends.
fn device_tables(host: &HostMap) -> u64 {
    let ranges = registers(host).map(|(range, ..)| range.frames_touched());
    let ranges = ranges.filter(|frames| !frames.is_empty());
    let edges = ranges.flat_map(|frames| [frames.start().raw(), frames.end().raw() - 1]);
    let mut superpages: Vec<u64> = edges.map(|frame| frame / SUPERPAGE).collect();
    sort_by_key(&mut superpages, |superpage| [*superpage, 0, 0]);
    superpages.dedup();
    count(superpages.len()).saturating_mul(2)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
