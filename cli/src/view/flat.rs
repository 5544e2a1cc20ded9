//! Lists of regions in which no two overlap.
//!
//! Descriptions of machines name windows and what lies in them: the smaller one is what a person
//! looks for.

use std::collections::BTreeSet;

use super::{Kind, Region};

/// Registers this near to each other, with nothing between them, are shown as one.
const NEAR: u64 = 64 << 10;

/// The regions by address, each only where no smaller one lies.
pub fn flatten(regions: Vec<Region>) -> Vec<Region> {
    let mut edges: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * regions.len());
    for (index, region) in regions.iter().enumerate() {
        if region.start < region.end {
            edges.push((region.start, true, index));
            edges.push((region.end, false, index));
        }
    }
    edges.sort_unstable();
    let mut open: BTreeSet<(u64, usize)> = BTreeSet::new();
    let mut flat: Vec<(usize, Region)> = Vec::new();
    let mut from = 0;
    for (at, begins, index) in edges {
        if let Some((_, top)) = open.first().copied()
            && from < at
            && let Some(region) = regions.get(top)
        {
            extend(&mut flat, top, region, from, at);
        }
        from = at;
        let Some(region) = regions.get(index) else {
            continue;
        };
        if begins {
            open.insert((region.size(), index));
        } else {
            open.remove(&(region.size(), index));
        }
    }
    flat.into_iter().map(|(_, region)| region).collect()
}

fn extend(flat: &mut Vec<(usize, Region)>, index: usize, region: &Region, from: u64, to: u64) {
    match flat.last_mut() {
        Some((last, before)) if *last == index && before.end == from => before.end = to,
        _ => flat.push((
            index,
            Region {
                start: from,
                end: to,
                machine: region
                    .machine
                    .map(|machine| machine + (from - region.start)),
                ..region.clone()
            },
        )),
    }
}

/// Registers of one owner's neighbouring devices as one region each. `machine` has, by address,
/// what a gap may hide: what lies there and is somebody else's keeps its neighbours apart.
pub fn grouped(regions: Vec<Region>, machine: &[Region]) -> Vec<Region> {
    let mut groups: Vec<Region> = Vec::with_capacity(regions.len());
    for region in regions {
        match groups.last_mut() {
            Some(last) if joins(last, &region, machine) => {
                last.end = region.end;
                let known = |part| !last.parts.contains(part);
                let new: Vec<_> = region
                    .parts
                    .iter()
                    .filter(|part| known(part))
                    .cloned()
                    .collect();
                last.parts.extend(new);
                let names: BTreeSet<&str> =
                    last.parts.iter().map(|part| part.name.as_str()).collect();
                if names.len() > 1 {
                    last.label = format!("{} devices", names.len());
                }
                if last.why != region.why {
                    last.why = "each for a reason of its own".to_owned();
                }
            }
            _ => groups.push(region),
        }
    }
    groups
}

fn joins(last: &Region, next: &Region, machine: &[Region]) -> bool {
    let both = |kind| last.kind == kind && next.kind == kind;
    let near = both(Kind::Device) && last.owner == next.owner && next.start - last.end < NEAR;
    let behind = machine.partition_point(|region| region.end <= last.end);
    let between = machine.get(behind..).unwrap_or_default().iter();
    let mut between = between.take_while(|region| region.start < next.start);
    near && between.all(|region| region.owner == last.owner && !region.is_ram())
}

#[cfg(test)]
mod tests {
    use layout::Owner;

    use super::*;
    use crate::view::Part;

    fn region(start: u64, end: u64, label: &str) -> Region {
        Region {
            start,
            end,
            kind: Kind::Device,
            owner: None,
            label: label.to_owned(),
            machine: Some(start),
            why: String::new(),
            parts: vec![Part {
                name: label.to_owned(),
                start,
                end,
            }],
        }
    }

    fn spans(regions: &[Region]) -> Vec<(u64, u64, &str)> {
        let span = |region: &'_ Region| (region.start, region.end);
        regions
            .iter()
            .map(|region| (span(region).0, span(region).1, region.label.as_str()))
            .collect()
    }

    #[test]
    fn what_lies_in_a_window_cuts_it() {
        let flat = flatten(vec![
            region(0, 100, "window"),
            region(10, 20, "a"),
            region(15, 40, "b"),
            region(200, 200, "empty"),
        ]);
        assert_eq!(
            spans(&flat),
            [
                (0, 10, "window"),
                (10, 20, "a"),
                (20, 40, "b"),
                (40, 100, "window")
            ]
        );
    }

    #[test]
    fn neighbours_are_one_and_others_stay_apart() {
        let far = 40 + NEAR;
        let apart = vec![
            region(0, 10, "a"),
            region(30, 40, "b"),
            region(far, far + 1, "c"),
        ];
        let groups = grouped(apart, &[]);
        assert_eq!(spans(&groups), [(0, 40, "2 devices"), (far, far + 1, "c")]);
    }

    #[test]
    fn what_is_anothers_keeps_neighbours_apart() {
        let own = || vec![region(0, 10, "a"), region(30, 40, "b")];
        let between = |other: Region| {
            let [a, b] = [region(0, 10, "a"), region(30, 40, "b")];
            spans(&grouped(own(), &[a, other, b])).len()
        };
        let owned = |owner| Region {
            owner,
            ..region(10, 30, "between")
        };
        assert_eq!(between(owned(None)), 1);
        assert_eq!(between(owned(Some(Owner::Domain(1)))), 2);
        assert_eq!(between(owned(Some(Owner::Hypervisor))), 2);
        let ram = Region {
            kind: Kind::Ram,
            ..owned(None)
        };
        assert_eq!(between(ram), 2);
    }

    #[test]
    fn the_last_address_is_no_trouble() {
        let flat = flatten(vec![region(u64::MAX - 1, u64::MAX, "top")]);
        assert_eq!(spans(&flat), [(u64::MAX - 1, u64::MAX, "top")]);
    }
}
