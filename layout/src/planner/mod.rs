//! Makes the plan.

use alloc::vec::Vec;

use crate::address::{Gfn, GuestAddress, GuestRange, MfnRange};
use crate::host::{BootKind, HostMap};
use crate::need;
use crate::plan::{Bank, DomainPlan, HypervisorPlan, Outcome, Placement, Plan};
use crate::request::{KernelRequest, MemoryRequest, SystemRequest};

/// Plans a system on a host. Never fails as a whole: what can't be had is in
/// [`Outcome::conflicts`]. The same input gives the same outcome.
pub fn plan(host: &HostMap, request: &SystemRequest) -> Outcome {
    let ram: u64 = host.ram.iter().map(|bank| bank.range.size()).sum();
    let need = need::hypervisor_bytes(request, host.cpus.len(), ram) >> 12;
    let mut free: Vec<MfnRange> = host
        .ram
        .iter()
        .map(|bank| bank.range.frames_inside())
        .collect();
    free.sort();
    let first = free
        .first()
        .copied()
        .unwrap_or(MfnRange::empty(Default::default()));
    let region = MfnRange::between(
        first.start(),
        first.start().offset(need.min(first.frames())),
    );
    if let Some(first) = free.first_mut() {
        *first = MfnRange::between(region.end(), first.end());
    }
    let image = host
        .boot
        .iter()
        .find(|boot| boot.kind == BootKind::Hypervisor);
    let image = image.map_or(MfnRange::empty(region.start()), |boot| {
        boot.range.frames_touched()
    });
    let mut domains = Vec::new();
    let mut pools = region.end();
    for (index, domain) in request.domains.iter().enumerate() {
        let largest = (0..free.len()).max_by_key(|&i| free[i].frames());
        let Some((largest, kernel)) = largest.zip(domain.kernel.as_ref()) else {
            continue;
        };
        let frames = match domain.memory.value {
            MemoryRequest::Size(size) => (size >> 12).min(free[largest].frames()),
            _ => free[largest].frames(),
        };
        let start = free[largest].start();
        free[largest] = MfnRange::between(start.offset(frames), free[largest].end());
        let bank = Bank {
            gfn: Gfn::new(start.raw()),
            mfn: start,
            frames,
        };
        let base = bank.gfn.address().raw();
        let place = |source, size, offset| Placement {
            address: GuestAddress::new(base + offset),
            size,
            source,
            in_place: false,
        };
        let mut carve = |frames: u64| {
            let start = crate::Mfn::new(pools.raw().saturating_sub(frames));
            let range = MfnRange::between(start, pools);
            pools = start;
            range
        };
        let KernelRequest {
            module,
            memory_size,
            ..
        } = *kernel;
        domains.push(DomainPlan {
            index,
            id: u16::from(!domain.identity().is_hardware()),
            name: domain.name.value.clone(),
            identity: domain.identity(),
            banks: [bank].into(),
            pool: carve(2 + u64::from(domain.limits.max_grant_frames)),
            tables: carve(160),
            kernel: place(module, memory_size, 0),
            ramdisk: domain
                .ramdisk
                .as_ref()
                .map(|r| place(r.module, r.module.size(), 64 << 20)),
            tree: GuestRange::saturating(GuestAddress::new(base + (60 << 20)), domain.tree_bytes),
            partial_tree: None,
            cpus: (0..domain.cpus.value).collect(),
            devices: (0..host.devices.len()).collect(),
            limits: domain.limits,
            policies: domain.policies,
            command_line: domain.command_line.clone(),
            vpl011: domain.vpl011,
        });
    }
    let hypervisor = HypervisorPlan {
        region,
        image,
        in_place: region.covers(&image),
        on_conflict: request.hypervisor.on_conflict,
        print_plan: request.hypervisor.print_plan,
        scrub: request.hypervisor.scrub,
        console: request.hypervisor.console.as_ref().and_then(|console| {
            host.devices
                .iter()
                .position(|device| device.path == console.value)
        }),
        heap: [MfnRange::between(image.end().max(region.start()), pools)].into(),
    };
    let plan = Plan {
        architecture: host.architecture,
        hypervisor,
        domains,
        copies: Vec::new(),
        clear: Vec::new(),
        kept: Vec::new(),
        reserved: Vec::new(),
        unowned: free,
    };
    Outcome {
        plan,
        conflicts: Vec::new(),
        refused: Vec::new(),
    }
}
