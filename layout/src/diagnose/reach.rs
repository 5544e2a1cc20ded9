//! What helps a domain whose device reaches too little of its RAM.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{Case, MOST_NAMED, MOST_REPLANS, places};
use crate::address::{FRAME_SHIFT, MfnRange};
use crate::conflict::{Code, Conflict};
use crate::planner::ground::{Ground, as_static, largest_free};
use crate::planner::report::{Report, name};
use crate::planner::sets::{self, SUPERPAGE};
use crate::planner::{devices, dma};
use crate::request::{DomainRequest, MemoryRequest, StaticRange};

/// The domain of a device that it names and that doesn't reach all of its RAM, if that is what a
/// conflict is about: both sides are the domain's.
pub(super) fn short(conflict: &Conflict) -> Option<usize> {
    let [device, ram] = conflict.sides.as_slice() else {
        return None;
    };
    let about = conflict.code == Code::DmaMask && device.domain == ram.domain;
    device.domain.filter(|_| about)
}

impl Case<'_> {
    /// What would bring the domain's RAM into reach: of the domain itself, then of the others.
    pub(super) fn changes_for_reach(&self) -> Vec<String> {
        let mut budget = MOST_REPLANS;
        let reach = self.reach();
        let at = self.index;
        let own = [
            self.smaller(at, &mut budget),
            self.inside(&reach, &mut budget),
            self.below(&reach, &mut budget),
        ];
        let mut changes: Vec<String> = own.into_iter().flatten().collect();
        let everybody = 0..self.request.domains.len();
        let others = everybody.filter(|other| *other != at).take(MOST_NAMED);
        changes.extend(others.filter_map(|other| {
            let change = self.moved(other, &reach, &mut budget);
            let change = change.or_else(|| self.smaller(other, &mut budget))?;
            let whose = name(other, &self.request.domains[other]);
            Some(format!("{change} for {whose}"))
        }));
        changes
    }

    /// The RAM that the domain's devices reach.
    fn reach(&self) -> Vec<MfnRange> {
        let ground = Ground::new(self.host);
        let mut unread = Report::new(self.request);
        let assigned = devices::assign(self.host, self.request, &mut unread);
        let mut reaches = dma::reaches(&ground, self.request, &assigned);
        let own = reaches.swap_remove(self.index);
        own.map_or_else(Vec::new, |reach| reach.to_vec())
    }

    /// One range in reach instead of the static ranges: of their size and nearest to the first, or
    /// the largest there is.
    fn inside(&self, reach: &[MfnRange], budget: &mut usize) -> Option<String> {
        let named = &self.request.domains[self.index].static_mem;
        let size = named.iter().map(|range| range.size);
        let one = StaticRange {
            size: size.fold(0, u64::saturating_add),
            ..*named.first()?
        };
        let free = sets::intersect(&self.unnamed(|index, _| index != self.index), reach);
        let same = places(&free, &one).into_iter();
        let same = same.map(|start| StaticRange { start, ..one });
        let largest = largest_free(&free, SUPERPAGE).map(|range| StaticRange {
            start: range.start().address().raw(),
            size: range.frames() << FRAME_SHIFT,
            ..one
        });
        let smaller = largest.filter(|largest| largest.size < one.size);
        let found = same.chain(smaller).find(|range| {
            let change = |it: &mut DomainRequest| it.static_mem = vec![*range];
            self.helps(self.index, budget, change)
        })?;
        let range = sets::bytes(found.start, found.size).frames_inside();
        Some(format!("static-mem = [{}]", as_static(&range)))
    }

    /// `memory-below` for who takes the rest, which has no size to give up.
    fn below(&self, reach: &[MfnRange], budget: &mut usize) -> Option<String> {
        let domain = &self.request.domains[self.index];
        let limit = reach.last()?.end().address().raw();
        let is_rest = domain.memory.value == MemoryRequest::Rest;
        let lower = domain.memory_below.is_none_or(|now| limit < now.value);
        let change = |it: &mut DomainRequest| it.memory_below = Some(limit.into());
        let helps = is_rest && lower && self.helps(self.index, budget, change);
        helps.then(|| format!("memory-below = {limit:#x}"))
    }
}
