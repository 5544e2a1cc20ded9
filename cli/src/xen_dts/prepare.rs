//! What the planner is told of Xen: how much it takes, and what it leaves where the boot loader put it.

use layout::{
    BootKind, DomainRequest, HostMap, MachineAddress, MachineRange, MemoryRequest, Origin,
    Reservation, Reserved, SystemRequest,
};

use crate::hypervisor::Footprint;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Xen's image with its zeroed data, with room to spare: 4.20 of Debian takes 1.1 MiB. It stays where it is loaded.
pub const FOOTPRINT: Footprint = Footprint::Movable {
    bytes: 2 * MIB,
    text_offset: 0,
};

/// Xen's memory grows with the host's, by a record of 56 bytes for each page and some tables: measured with 4.20, 17,252
/// KiB of 1 GiB, 31,590 of 2, 68,452 of 4. A sixtieth is the next even part above it.
const PART_OF_RAM: u64 = 60;
/// What doesn't grow: percpu areas, the heap's lists, the console's ring.
const FIXED: u64 = 8 * MIB;

/// Turns a request to Terrane into one to Xen: no domain is given memory that holds Xen, the host's tree or a module when
/// Xen starts, and what Xen takes is left.
pub fn prepare(map: &mut HostMap, request: &mut SystemRequest) {
    let ram = map.ram.iter().map(|bank| bank.range.size());
    let ram = ram.fold(0, u64::saturating_add);
    let domains = request.domains.iter().map(|domain| pool(domain, ram));
    request.hypervisor.image_bytes = domains.fold(ram / PART_OF_RAM + FIXED, u64::saturating_add);
    for domain in &mut request.domains {
        domain.keep_modules = true;
    }
    // Terrane moves itself and copies the tree; Xen reads both where they are. A range that the manifest names is compared
    // with them by the planner in any case.
    let boot = map.boot.iter();
    let stays = boot.filter(|boot| boot.kind != BootKind::Container && !boot.range.is_empty());
    let named = |range: &MachineRange| {
        let domains = request.domains.iter();
        let mut ranges = domains.flat_map(|domain| &domain.static_mem);
        ranges.any(|named| {
            let named = MachineRange::saturating(MachineAddress::new(named.start), named.size);
            named.overlaps(range)
        })
    };
    let kept: Vec<Reserved> = stays
        .filter(|boot| !named(&boot.range))
        .map(|boot| Reserved {
            range: boot.range,
            name: "what Xen starts from".to_owned(),
            kind: Reservation::Kept,
            origin: Origin::NONE,
        })
        .collect();
    map.reserved.extend(kept);
}

/// What Xen sets aside for a domain's second stage, and for the domain itself (xen/arch/arm/dom0less-build.c,
/// `domain_p2m_pages`: 1 MiB for each vCPU, 4 KiB for each MiB, 512 KiB).
fn pool(domain: &DomainRequest, ram: u64) -> u64 {
    let memory = match domain.memory.value {
        MemoryRequest::Size(bytes) => bytes.min(ram),
        MemoryRequest::Rest => ram,
        MemoryRequest::SumOfStatic => {
            let sizes = domain.static_mem.iter().map(|range| range.size);
            sizes.fold(0, u64::saturating_add).min(ram)
        }
    };
    let cpus = u64::from(domain.cpus.value.min(128));
    cpus * MIB + memory / MIB * 4 * KIB + MIB
}
