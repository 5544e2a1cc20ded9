//! On small machines a plan is found whenever there is one.
//!
//! The oracle knows nothing of the planner: RAM is a string of 1 MiB cells, and every way to
//! put down what must lie in one piece is tried. Regions, holes, sizes and limits are whole
//! cells, so if there is any plan there is one on cells.

use proptest::prelude::*;
use std::collections::HashSet;
use terrane_layout::*;

use crate::common::*;

const CELL: u64 = MIB;
const FIRST: u64 = 0x4000_0000;
/// Where the modules lie: RAM that nobody may have, far from the rest.
const MODULES: u64 = 0x100_0000_0000;

#[derive(Clone, Debug)]
struct Machine {
    /// Cells between regions and cells of each region.
    regions: Vec<(u64, u64)>,
    /// Reserved cells: the number of the cell, and how many.
    holes: Vec<(u64, u64)>,
    /// The cell in which the host's tree lies.
    tree: Option<u64>,
    /// The cell in which the hypervisor was loaded.
    loaded: Option<u64>,
}

#[derive(Clone, Debug)]
struct Guest {
    direct: bool,
    /// Cells, or the rest.
    memory: Option<u64>,
    kernel: u64,
    align: u64,
    offset: bool,
    ramdisk: u64,
    below: Option<u64>,
}

impl Machine {
    /// The cells of RAM by their number from [`FIRST`] on.
    fn cells(&self) -> Vec<u64> {
        let mut at = 0;
        let mut cells = Vec::new();
        for (gap, count) in &self.regions {
            at += gap;
            cells.extend(at..at + count);
            at += count;
        }
        cells
    }

    fn free(&self) -> Vec<u64> {
        let hole = |cell: &u64| {
            self.holes
                .iter()
                .any(|(at, count)| (*at..at + count).contains(cell))
        };
        self.cells()
            .into_iter()
            .filter(|cell| !hole(cell))
            .collect()
    }

    fn host(&self) -> HostMap {
        let mut host = virt(0, 4);
        host.boot.clear();
        host.ram.clear();
        host.devices.truncate(1);
        let mut at = FIRST;
        for (gap, count) in &self.regions {
            at += gap * CELL;
            host.ram.push(RamBank {
                node: None,
                range: bytes(at, count * CELL),
                origin: Origin(1),
            });
            at += count * CELL;
        }
        let modules = bytes(MODULES, GIB);
        host.ram.push(RamBank {
            node: None,
            range: modules,
            origin: Origin(1),
        });
        let reserved = |range| Reserved {
            range,
            name: "test".into(),
            kind: Reservation::NoMap,
            origin: Origin(2),
        };
        host.reserved.push(reserved(modules));
        for (at, count) in &self.holes {
            host.reserved
                .push(reserved(bytes(FIRST + at * CELL, count * CELL)));
        }
        let boot = |kind, cell: &u64| BootRange {
            kind,
            range: bytes(FIRST + cell * CELL, 512 * KIB),
            origin: Origin(3),
        };
        host.boot
            .extend(self.tree.iter().map(|cell| boot(BootKind::HostTree, cell)));
        host.boot.extend(
            self.loaded
                .iter()
                .map(|cell| boot(BootKind::Hypervisor, cell)),
        );
        host
    }
}

impl Guest {
    fn request(&self, index: u64) -> DomainRequest {
        let at = MODULES + index * 64 * MIB;
        DomainRequest {
            name: Located::new(format!("guest{index}"), Origin(10)),
            direct_map: Some(self.direct.into()),
            cpus: 1.into(),
            memory: self
                .memory
                .map_or(MemoryRequest::Rest, |m| MemoryRequest::Size(m * CELL))
                .into(),
            memory_below: self.below.map(|cell| (FIRST + cell * CELL).into()),
            kernel: Some(KernelRequest {
                module: bytes(at, CELL / 2),
                memory_size: self.kernel * CELL,
                alignment: self.align * CELL,
                text_offset: if self.offset { CELL } else { 0 },
                bounds: None,
                entry: None,
                origin: Origin(11),
            }),
            ramdisk: (self.ramdisk > 0).then(|| ModuleRequest {
                module: bytes(at + 32 * MIB, self.ramdisk * CELL),
                origin: Origin(12),
            }),
            tree_bytes: CELL,
            ..DomainRequest::default()
        }
    }

    /// Cells of what it can't do without.
    fn least(&self) -> u64 {
        self.kernel + self.ramdisk + 1
    }
}

/// Whether there is any way to share out the cells.
fn possible(machine: &Machine, guests: &[Guest], request: &SystemRequest) -> bool {
    let free = machine.free();
    let bit = |cell: u64| {
        free.iter()
            .position(|known| *known == cell)
            .map(|at| 1_u64 << at)
    };
    // The bits of `count` cells from one on, if all are free.
    let run = |start: u64, count: u64| {
        (start..start + count).try_fold(0_u64, |bits, cell| Some(bits | bit(cell)?))
    };
    let host = machine.host();
    let region = need::hypervisor_bytes(&host, request) / CELL;
    let home_fits = |start: u64| {
        let covers = |cell: u64| (start..start + region).contains(&cell);
        // The image lies in one cell: a region has all of it or nothing.
        machine.tree.is_none_or(|cell| !covers(cell))
    };
    let top = free.last().map_or(0, |last| last + 1);
    let mut items: Vec<Vec<u64>> = Vec::new();
    let home = (0..top).step_by(2).filter(|start| home_fits(*start));
    items.push(home.filter_map(|start| run(start, region)).collect());
    for guest in guests.iter().filter(|guest| guest.direct) {
        let end = guest.below.unwrap_or(top);
        let fits = |start: &u64, count: u64| start + count <= end;
        let base = if guest.offset { 1 } else { 0 };
        let first = FIRST / CELL;
        let kernel = (0..top)
            .filter(|start| (first + start + guest.align - base).is_multiple_of(guest.align));
        let kernel = kernel.filter(|start| fits(start, guest.kernel));
        items.push(
            kernel
                .filter_map(|start| run(start, guest.kernel))
                .collect(),
        );
        for count in [guest.ramdisk, 1] {
            let places = (0..top).filter(|start| fits(start, count));
            if count > 0 {
                items.push(places.filter_map(|start| run(start, count)).collect());
            }
        }
    }
    let enough = |taken: u64| {
        let mut limits: Vec<u64> = guests
            .iter()
            .map(|guest| guest.below.unwrap_or(top))
            .collect();
        limits.push(top);
        limits.iter().all(|limit| {
            let below = free.iter().enumerate();
            let below = below
                .filter(|(at, cell)| *cell < limit && taken >> at & 1 == 0)
                .count() as u64;
            let bound = guests
                .iter()
                .filter(|guest| guest.below.unwrap_or(top) <= *limit);
            let wanted: u64 = bound
                .map(|guest| {
                    let all = guest.memory.unwrap_or(guest.least());
                    all - if guest.direct { guest.least() } else { 0 }
                })
                .sum();
            wanted <= below
        })
    };
    let whole = guests
        .iter()
        .all(|guest| guest.memory.is_none_or(|memory| memory >= guest.least()));
    whole && try_all(&items, 0, 0, &enough, &mut HashSet::new())
}

fn try_all(
    items: &[Vec<u64>],
    at: usize,
    taken: u64,
    enough: &impl Fn(u64) -> bool,
    seen: &mut HashSet<(usize, u64)>,
) -> bool {
    if !seen.insert((at, taken)) {
        return false;
    }
    let Some(places) = items.get(at) else {
        return enough(taken);
    };
    let free = places.iter().filter(|place| taken & **place == 0);
    free.into_iter()
        .any(|place| try_all(items, at + 1, taken | place, enough, seen))
}

fn machines() -> impl Strategy<Value = Machine> {
    let regions = prop::collection::vec((0_u64..4, 4_u64..=24), 1..=3);
    let holes = prop::collection::vec((0_u64..36, 1_u64..3), 0..=2);
    (
        regions,
        holes,
        prop::option::of(0_u64..32),
        prop::option::of(0_u64..32),
    )
        .prop_map(|(mut regions, holes, tree, loaded)| {
            // 16 superpages are 32 cells.
            let mut left = 32;
            for (_, count) in &mut regions {
                *count = (*count).min(left);
                left -= *count;
            }
            regions.retain(|(_, count)| *count > 0);
            let mut machine = Machine {
                regions,
                holes,
                tree,
                loaded,
            };
            let cells = machine.free();
            let real = |cell: Option<u64>| cell.filter(|cell| cells.contains(cell));
            machine.tree = real(tree);
            machine.loaded = real(loaded).filter(|cell| Some(*cell) != machine.tree);
            machine
        })
}

fn guests() -> impl Strategy<Value = Vec<Guest>> {
    let guest = (
        prop::bool::weighted(0.8),
        0_u64..5,
        1_u64..6,
        prop::sample::select(vec![1_u64, 2, 2, 4]),
        prop::bool::weighted(0.2),
        0_u64..3,
        prop::option::weighted(0.3, 4_u64..36),
    );
    let guest = guest.prop_map(
        |(direct, more, kernel, align, offset, ramdisk, below)| Guest {
            direct,
            memory: Some(kernel + ramdisk + 1 + more),
            kernel,
            align,
            offset: offset && align > 1,
            ramdisk,
            below,
        },
    );
    (
        prop::collection::vec(guest, 1..=3),
        prop::option::of(0_usize..3),
    )
        .prop_map(|(mut all, rest)| {
            if let Some(guest) = rest.and_then(|at| all.get_mut(at)) {
                guest.memory = None;
            }
            all
        })
}

fn request(guests: &[Guest]) -> SystemRequest {
    let domains = guests
        .iter()
        .zip(0..)
        .map(|(guest, index)| guest.request(index))
        .collect();
    let mut request = system(domains);
    request.hypervisor.image_bytes = 512 * KIB;
    request
}

fn agree(machine: &Machine, guests: &[Guest]) -> Result<bool, TestCaseError> {
    let host = machine.host();
    let domains = guests
        .iter()
        .zip(0..)
        .map(|(guest, index)| guest.request(index))
        .collect();
    let mut request = system(domains);
    request.hypervisor.image_bytes = 512 * KIB;
    let outcome = plan(&host, &request);
    check_invariants(&host, &request, &outcome);
    let found = outcome.refused.is_empty();
    let possible = possible(machine, guests, &request);
    prop_assert_eq!(
        found,
        possible,
        "planner {:?}, oracle {}",
        codes(&outcome),
        possible
    );
    Ok(possible)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]

    #[test]
    fn a_plan_is_found_if_there_is_one(machine in machines(), guests in guests()) {
        agree(&machine, &guests)?;
    }
}

/// Cases that a simpler planner gets wrong.
#[test]
fn tight_machines() {
    let guest = |memory, kernel, below| Guest {
        direct: true,
        memory: Some(memory),
        kernel,
        align: 2,
        offset: false,
        ramdisk: 0,
        below,
    };
    let machine = |regions: &[(u64, u64)]| Machine {
        regions: regions.to_vec(),
        holes: vec![],
        tree: None,
        loaded: None,
    };
    let region = |banks: usize, guests: &[Guest]| {
        let apart = vec![(1, 1); banks];
        need::hypervisor_bytes(&machine(&apart).host(), &request(guests)) / CELL
    };
    // The domain with the limit needs what is low; the other's kernel must make way.
    let low_is_scarce = [guest(4, 2, Some(6)), guest(9, 8, None)];
    let cells = region(1, &low_is_scarce) + 13;
    assert!(agree(&machine(&[(0, cells)]), &low_is_scarce).unwrap());
    // Each domain fits into one region only.
    let three = [guest(5, 4, None), guest(7, 6, None), guest(3, 2, None)];
    let home = region(4, &three);
    assert!(agree(&machine(&[(0, home), (2, 5), (1, 7), (1, 3)]), &three).unwrap());
    // The hypervisor's room begins half a superpage too late.
    let odd = machine(&[(1, home), (1, 5), (1, 7), (1, 3)]);
    assert!(!agree(&odd, &three).unwrap());
}
