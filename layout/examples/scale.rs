//! How long a large machine takes to plan: `cargo xtask bench --planner`.
//!
//! 10,000 host regions (RAM, reserved memory, devices) and 1,000 domains, half of them
//! direct-mapped, some with named ranges, devices, limits or CPUs of their own; then both doubled.
//! What counts is the time on a CPU, where Linux says it: a busy machine then doesn't matter much.

use std::time::{Duration, Instant};

use terrane_layout::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// So many runs, of which the median counts.
const RUNS: usize = 5;
/// A run is the mean of so many plans: Linux may count a thread's time in ticks of 4 ms.
const PLANS: u32 = 20;

fn bytes(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

/// A host of `regions` and a system of `domains`.
fn machine(regions: u64, domains: u64) -> (HostMap, SystemRequest) {
    let mut host = HostMap {
        boot: vec![BootRange {
            kind: BootKind::Hypervisor,
            range: bytes(GIB + 2 * MIB, MIB / 2),
            origin: Origin::NONE,
        }],
        ..HostMap::default()
    };
    let bank = |start, size| RamBank {
        range: bytes(start, size),
        node: None,
        origin: Origin::NONE,
    };
    host.ram.push(bank(GIB, 6 * GIB));
    let mut at = 1 << 40;
    for region in 0..regions {
        let size = (1 + region * 7919 % 64) * 2 * MIB + region % 3 * 4096;
        match region % 10 {
            8 => host.reserved.push(Reserved {
                range: bytes(at - 4 * MIB, 64 << 10),
                name: format!("reserved{region}"),
                kind: Reservation::NoMap,
                origin: Origin::NONE,
            }),
            9 => host.devices.push(HostDevice {
                path: format!("/device@{region}"),
                ranges: vec![bytes((1 << 20) + region * 0x4000, 0x1000)],
                interrupts: vec![u32::try_from(region).unwrap_or(0)],
                dma: Dma::Possible { mask: u64::MAX },
                ..HostDevice::default()
            }),
            _ => {
                host.ram.push(bank(at, size));
                at += size + (64 << 10);
            }
        }
    }
    host.cpus = (0..=domains)
        .map(|hardware_id| HostCpu {
            hardware_id,
            node: None,
            origin: Origin::NONE,
        })
        .collect();
    let domains = (0..domains).map(|index| domain(&host, index)).collect();
    let request = SystemRequest {
        hypervisor: HypervisorRequest::default(),
        domains,
    };
    (host, request)
}

fn domain(host: &HostMap, index: u64) -> DomainRequest {
    let module = |start: u64, size| ModuleRequest {
        module: bytes(GIB + start * MIB, size),
        origin: Origin::NONE,
    };
    let size = (32 + index * 31 % 160) * MIB;
    let mut domain = DomainRequest {
        name: format!("guest{index}").into(),
        direct_map: Some(index.is_multiple_of(2).into()),
        cpus: 1.into(),
        memory: MemoryRequest::Size(size).into(),
        kernel: Some(KernelRequest {
            module: module(512, 20 * MIB).module,
            memory_size: 22 * MIB,
            alignment: 2 * MIB,
            text_offset: 0,
            bounds: None,
            entry: None,
            origin: Origin::NONE,
        }),
        ramdisk: Some(module(544, 4 * MIB)),
        tree_bytes: 64 << 10,
        ..DomainRequest::default()
    };
    domain.limits.max_grant_frames = 1;
    let at = usize::try_from(index).unwrap_or(0);
    if index.is_multiple_of(5) {
        domain.memory_below = Some(((1 << 40) + (200 + index) * GIB / 4).into());
    }
    if index % 10 == 2 {
        // A named range: the largest piece of RAM that is no other domain's by this rule.
        let banks = host.ram.iter().skip(1 + at * 4);
        let large = banks.take(4).max_by_key(|bank| bank.range.size());
        if let Some(bank) = large.filter(|bank| bank.range.size() > 44 * MIB) {
            let start = bank.range.start().raw().next_multiple_of(2 * MIB);
            domain.memory = MemoryRequest::SumOfStatic.into();
            domain.static_mem = vec![StaticRange {
                start,
                size: 40 * MIB,
                origin: Origin::NONE,
            }];
            domain.memory_below = None;
        }
    }
    if index.is_multiple_of(4)
        && let Some(device) = host.devices.get(at)
    {
        domain.devices = vec![DeviceRequest {
            path: device.path.clone(),
            dma_mask: None,
            origin: Origin::NONE,
        }];
    }
    if index.is_multiple_of(7) {
        domain.affinity = Some(vec![u32::try_from(index).unwrap_or(0)].into());
    }
    domain
}

/// Time that this thread has spent on a CPU.
fn on_cpu() -> Option<Duration> {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = times.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn median(host: &HostMap, request: &SystemRequest) -> Duration {
    let mut runs: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let (start, before) = (Instant::now(), on_cpu());
            for _ in 0..PLANS {
                std::hint::black_box(plan(host, request));
            }
            let all = match (before, on_cpu()) {
                (Some(before), Some(after)) => after.saturating_sub(before),
                _ => start.elapsed(),
            };
            all / PLANS
        })
        .collect();
    runs.sort();
    runs[RUNS / 2]
}

fn main() {
    let mut before: Option<Duration> = None;
    for (regions, domains) in [(10_000, 1_000), (20_000, 2_000)] {
        let (host, request) = machine(regions, domains);
        let outcome = plan(&host, &request);
        let took = median(&host, &request);
        let times = before.map_or_else(String::new, |before| {
            let times = took.as_secs_f64() / before.as_secs_f64();
            format!(", {times:.2} times the half")
        });
        println!(
            "{domains} domains over {regions} host regions: {:.1} ms{times} ({} planned, {} refused)",
            took.as_secs_f64() * 1e3,
            outcome.plan.domains.len(),
            outcome.refused.len()
        );
        before = Some(took);
    }
}
