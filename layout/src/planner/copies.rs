//! The order in which modules are moved, so that none is overwritten before it is read.

use alloc::vec;
use alloc::vec::Vec;

use super::ground::modules;
use super::sets;
use crate::address::{MachineRange, MfnRange};
use crate::plan::{Copy, DomainPlan, Item, Placement};
use crate::request::SystemRequest;
use crate::sort::sort_by_key;

/// The copies that these domains need, in the order of the domains.
pub(crate) fn needed(domains: &[DomainPlan]) -> Vec<Copy> {
    let mut copies = Vec::new();
    for (domain, plan) in domains.iter().enumerate() {
        let items = core::iter::once((Item::Kernel, &plan.kernel))
            .chain(plan.ramdisk.iter().map(|disk| (Item::Ramdisk, disk)));
        for (item, placement) in items {
            if placement.in_place || placement.source.is_empty() {
                continue;
            }
            let destination = destination(plan, placement);
            copies.push(Copy {
                domain,
                item,
                source: placement.source,
                destination,
            });
        }
    }
    copies
}

fn destination(plan: &DomainPlan, placement: &Placement) -> Vec<MachineRange> {
    let file = crate::GuestRange::saturating(placement.address, placement.source.size());
    plan.machine_ranges(file).unwrap_or_default()
}

/// Frames in which something lies or is put when all copies are made: modules and trees.
pub(crate) fn written(domains: &[DomainPlan]) -> Vec<MfnRange> {
    let mut frames = Vec::new();
    for plan in domains {
        let modules = core::iter::once(&plan.kernel).chain(&plan.ramdisk);
        let ranges = modules.map(Placement::range).chain([plan.tree]);
        let pieces = ranges
            .filter_map(|range| plan.machine_ranges(range))
            .flatten();
        frames.extend(pieces.map(|piece| piece.frames_touched()));
    }
    sets::normalise(frames)
}

/// Frames with bytes of modules when all copies are made. Not those of a kernel's unfilled data,
/// and not the trees', which are written later: what lay there before is still there.
fn filled(domains: &[DomainPlan]) -> Vec<MfnRange> {
    let files = domains.iter().flat_map(|plan| {
        let modules = core::iter::once(&plan.kernel).chain(&plan.ramdisk);
        modules.flat_map(|placement| destination(plan, placement))
    });
    sets::normalise(files.map(|piece| piece.frames_touched()).collect())
}

/// What remains of a domain's modules in the RAM of another one when all copies are made: it
/// may hold secrets.
pub(crate) fn left_behind(
    request: &SystemRequest,
    domains: &[DomainPlan],
    copies: &[Copy],
) -> Vec<MachineRange> {
    let banks = domains.iter().flat_map(|plan| {
        plan.banks
            .iter()
            .map(move |bank| (bank.machine(), plan.index))
    });
    let mut banks: Vec<(MfnRange, usize)> = banks.collect();
    sort_by_key(&mut banks, |(bank, _)| [bank.start().raw(), 0, 0]);
    // A copy to somewhere else than its domain's RAM was put aside.
    let sources = modules(request).map(|(owner, _, range, _)| (owner, range.frames_touched()));
    let passing = copies.iter().flat_map(|copy| {
        let owner = domains[copy.domain].index;
        copy.destination
            .iter()
            .map(move |piece| (owner, piece.frames_touched()))
    });
    let mut left = Vec::new();
    for (owner, range) in sources.chain(passing) {
        let first = banks.partition_point(|(bank, _)| bank.end() <= range.start());
        let near = banks[first..]
            .iter()
            .take_while(|(bank, _)| bank.start() < range.end());
        let foreign = near.filter(|(_, index)| *index != owner);
        left.extend(foreign.filter_map(|(bank, _)| bank.intersection(&range)));
    }
    let left = sets::subtract(&sets::normalise(left), &filled(domains));
    left.iter().map(MfnRange::bytes).collect()
}

/// Brings copies into a safe order. Where they go round in a circle, one is first put aside
/// in `scratch`, machine ranges in which nothing lies and nothing goes. If there is no room for
/// that, the index of a copy that can't be made.
pub(crate) fn order(copies: Vec<Copy>, scratch: &[MfnRange]) -> Result<Vec<Copy>, usize> {
    let mut waiting = Waiting::new(&copies);
    let mut pending: Vec<Option<Copy>> = copies.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(pending.len());
    let mut aside = scratch.to_vec();
    while waiting.left > 0 {
        while let Some(next) = waiting.ready.pop() {
            ordered.extend(pending[next].take());
            waiting.done(next);
        }
        let Some(stuck) = waiting.smallest_in_the_way(&pending) else {
            break;
        };
        let Some(copy) = pending[stuck].as_mut() else {
            break;
        };
        let place = put_aside(&mut aside, copy.source.size()).ok_or(stuck)?;
        ordered.push(Copy {
            destination: vec![place],
            ..copy.clone()
        });
        copy.source = place;
        waiting.read(stuck);
    }
    Ok(ordered)
}

fn put_aside(aside: &mut Vec<MfnRange>, size: u64) -> Option<MachineRange> {
    let extent = *aside.iter().find(|extent| extent.bytes().size() >= size)?;
    let place = sets::bytes(extent.start().address().raw(), size);
    *aside = sets::subtract(aside, &[place.frames_touched()]);
    Some(place)
}

/// Which copies wait for which others to have read their source.
struct Waiting {
    /// For each copy those that overwrite its source.
    overwriters: Vec<Vec<usize>>,
    /// For each copy how many sources that it overwrites are unread.
    unread: Vec<usize>,
    /// Copies that can be made now, the next one last.
    ready: Vec<usize>,
    left: usize,
}

impl Waiting {
    fn new(copies: &[Copy]) -> Self {
        let mut overwriters = vec![Vec::new(); copies.len()];
        let mut unread = vec![0; copies.len()];
        // Destinations are disjoint, so those that overlap a source are neighbours.
        let mut targets: Vec<(MachineRange, usize)> = Vec::new();
        for (at, copy) in copies.iter().enumerate() {
            targets.extend(copy.destination.iter().map(|piece| (*piece, at)));
        }
        sort_by_key(&mut targets, |(piece, _)| [piece.start().raw(), 0, 0]);
        for (reader, copy) in copies.iter().enumerate() {
            let first = targets.partition_point(|(piece, _)| piece.end() <= copy.source.start());
            let near = targets[first..].iter();
            let near = near.take_while(|(piece, _)| piece.start() < copy.source.end());
            for (_, writer) in near {
                let writer = *writer;
                // Within one run of bytes a copy may overlap itself.
                let itself = writer == reader && copy.destination.len() == 1;
                if !itself && !overwriters[reader].contains(&writer) {
                    overwriters[reader].push(writer);
                    unread[writer] += 1;
                }
            }
        }
        let ready = (0..copies.len())
            .rev()
            .filter(|at| unread[*at] == 0)
            .collect();
        Self {
            overwriters,
            unread,
            ready,
            left: copies.len(),
        }
    }

    /// The copy with the least to put aside, of those that somebody waits for. Putting another
    /// one aside would help nobody.
    fn smallest_in_the_way(&self, pending: &[Option<Copy>]) -> Option<usize> {
        let waited_for = (0..pending.len()).filter(|at| !self.overwriters[*at].is_empty());
        let sizes = waited_for.filter_map(|at| Some((pending[at].as_ref()?.source.size(), at)));
        sizes.min().map(|(_, at)| at)
    }

    /// The copy was made: it is read, and needn't be looked at again.
    fn done(&mut self, copy: usize) {
        self.left -= 1;
        self.read(copy);
    }

    /// The copy's source was read: nobody waits for it any longer.
    fn read(&mut self, copy: usize) {
        for writer in core::mem::take(&mut self.overwriters[copy]) {
            self.unread[writer] -= 1;
            if self.unread[writer] == 0 {
                self.ready.push(writer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(domain: usize, source: (u64, u64), destination: &[(u64, u64)]) -> Copy {
        let range = |(start, size): (u64, u64)| sets::bytes(start, size);
        Copy {
            domain,
            item: Item::Kernel,
            source: range(source),
            destination: destination.iter().map(|piece| range(*piece)).collect(),
        }
    }

    fn domains(copies: &[Copy]) -> Vec<usize> {
        copies.iter().map(|copy| copy.domain).collect()
    }

    #[test]
    fn a_source_is_read_before_it_is_overwritten() {
        let copies = vec![
            copy(0, (0x1000, 0x1000), &[(0x2000, 0x1000)]),
            copy(1, (0x2800, 0x1000), &[(0x5000, 0x1000)]),
        ];
        assert_eq!(domains(&order(copies, &[]).unwrap()), [1, 0]);
    }

    #[test]
    fn a_circle_needs_a_place_aside() {
        let copies = vec![
            copy(0, (0x1000, 0x1000), &[(0x2000, 0x1000)]),
            copy(1, (0x2000, 0x1000), &[(0x1000, 0x1000)]),
        ];
        assert_eq!(order(copies.clone(), &[]), Err(0));
        let ordered = order(copies, &[sets::frames(8, 9)]).unwrap();
        assert_eq!(domains(&ordered), [0, 1, 0]);
        assert_eq!(ordered[0].destination, [sets::bytes(0x8000, 0x1000)]);
        assert_eq!(ordered[2].source, sets::bytes(0x8000, 0x1000));
    }

    #[test]
    fn who_only_waits_is_not_put_aside() {
        // The first waits for the circle of the other two.
        let copies = vec![
            copy(0, (0x9000, 0x1000), &[(0x1000, 0x1000)]),
            copy(1, (0x1000, 0x2000), &[(0x4000, 0x2000)]),
            copy(2, (0x4000, 0x1000), &[(0x2000, 0x1000)]),
        ];
        let ordered = order(copies, &[sets::frames(0x10, 0x11)]).unwrap();
        assert_eq!(domains(&ordered), [2, 1, 2, 0]);
    }

    #[test]
    fn one_run_may_overlap_itself_and_two_may_not() {
        let one = vec![copy(0, (0x1000, 0x2000), &[(0x2000, 0x2000)])];
        assert_eq!(order(one, &[]).unwrap().len(), 1);
        let two = vec![copy(
            0,
            (0x1000, 0x2000),
            &[(0x2000, 0x1000), (0x9000, 0x1000)],
        )];
        assert_eq!(order(two.clone(), &[]), Err(0));
        assert_eq!(order(two, &[sets::frames(0x10, 0x12)]).unwrap().len(), 2);
    }
}
