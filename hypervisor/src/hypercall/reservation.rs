//! Pages given back and taken again: `decrease_reservation` and `populate_physmap`.
//!
//! A page of RAM has one frame for the domain's whole life, its *home*. What is given back leaves
//! stage 2 and stays reserved for the domain; populating maps the home again. For a direct-mapped
//! domain the home is the frame with the page's own number, so a device may go on using that
//! address; for the others it is the frame that the plan put there. A page outside the planned RAM
//! has no home and can't be populated.
//!
//! Both operations answer with the number of extents done; the first one that can't be ends the
//! call.

use abi::memory::{CONTINUATION_SHIFT, DECREASE_RESERVATION, OPERATION_MASK, Reservation};
use abi::{Errno, Handle};
use layout::{Gfn, GfnRange, MfnRange};

use super::{Args, Flow};
use crate::caller::Caller;
use crate::domain::Domain;
use crate::machine::{Access, Machine};
use crate::ownership::Owner;
use crate::system::System;

/// The largest extent: 2 MiB, as Xen lets a guest ask.
const LARGEST_ORDER: u32 = 9;
/// Pages of one batch.
const BATCH_PAGES: u64 = 1 << LARGEST_ORDER;

impl<M: Machine> Caller<'_, M> {
    pub(super) fn change_reservation(&self, args: &Args) -> Flow {
        let operation = args[0] & OPERATION_MASK;
        let done = args[0] >> CONTINUATION_SHIFT;
        let request: Reservation = match self.read(args[1]) {
            Ok(request) => request,
            Err(error) => return Flow::Done(Err(error)),
        };
        let domain = match self.managed(request.domain) {
            Ok(domain) => domain,
            Err(error) => return Flow::Done(Err(error)),
        };
        if request.order > LARGEST_ORDER || done > request.count {
            return Flow::Done(Ok(done.min(request.count)));
        }
        if request.count > u64::MAX >> CONTINUATION_SHIFT {
            return Flow::Done(Err(Errno::Einval));
        }
        let batch_end = request.count.min(done + (BATCH_PAGES >> request.order));
        let mut batch = done..batch_end;
        let stopped = batch.find(|&index| {
            let extent = self.extent(request.extents, index, request.order);
            let changed = extent.and_then(|extent| match operation {
                DECREASE_RESERVATION => self.system.give_back(domain, extent),
                _ => self.system.populate(domain, extent),
            });
            changed.is_none()
        });
        // What CPUs still reach by old translations until here is memory of the domain's own.
        self.system.machine.settle(&domain.machine);
        let done = stopped.unwrap_or(batch_end);
        if stopped.is_some() || done == request.count {
            return Flow::Done(Ok(done));
        }
        let mut again = *args;
        again[0] = operation | done << CONTINUATION_SHIFT;
        Flow::Again(again)
    }

    /// Extent `index` of the guest's list.
    fn extent(&self, list: Handle, index: u64, order: u32) -> Option<GfnRange> {
        let page: u64 = self.read_entry(list, index).ok()?;
        GfnRange::new(Gfn::new(page), 1 << order)
    }
}

impl<M: Machine> System<M> {
    /// Takes pages out of stage 2, if each of them has its home mapped; the caller settles. If the tables are used up
    /// the pages stay where they are and count as given back: a guest that gives memory back
    /// doesn't expect to be refused (Linux takes that for a bug).
    fn give_back(&self, domain: &Domain<M>, pages: GfnRange) -> Option<()> {
        let mut given_back = domain.given_back.lock();
        if !each(pages).all(|page| self.is_home(domain, page)) {
            return None;
        }
        let frames = pages.frames();
        if self.machine.unmap(&domain.machine, pages).is_ok() {
            given_back.absent = given_back.absent.saturating_add(frames);
            return Some(());
        }
        let left = given_back.left.checked_add(frames)?;
        if left + given_back.absent > domain.plan.frames() {
            return None;
        }
        given_back.left = left;
        Some(())
    }

    /// Maps the home of each page, if none of them has it mapped already. Something else that the
    /// guest put there, such as its shared page, gives way.
    fn populate(&self, domain: &Domain<M>, pages: GfnRange) -> Option<()> {
        let mut given_back = domain.given_back.lock();
        let mut banks = domain.plan.banks.iter();
        let bank = banks.find(|bank| bank.guest().covers(&pages))?;
        let first = bank.mfn.offset(pages.start().raw() - bank.gfn.raw());
        let frames = MfnRange::new(first, pages.frames())?;
        let claim = self.ownership.claim(frames, Owner::Domain(domain.index))?;
        let at_home = each(pages)
            .filter(|page| self.is_home(domain, *page))
            .count() as u64;
        if at_home == pages.frames() {
            // They may be among those that were left.
            given_back.left = given_back.left.checked_sub(at_home)?;
            return Some(());
        }
        if at_home != 0 {
            return None;
        }
        self.machine
            .map(&domain.machine, pages.start(), &claim, Access::Ram)
            .ok()?;
        given_back.absent = given_back.absent.saturating_sub(pages.frames());
        Some(())
    }

    /// Whether a page of RAM has its own frame mapped.
    pub(super) fn is_home(&self, domain: &Domain<M>, page: Gfn) -> bool {
        let mapped = self
            .machine
            .lookup(&domain.machine, page)
            .map(|mapping| mapping.mfn);
        mapped.is_some() && mapped == domain.home(page)
    }
}

fn each(pages: GfnRange) -> impl Iterator<Item = Gfn> {
    (0..pages.frames()).map(move |index| pages.start().offset(index))
}
