//! Checks of named machine ranges (`static-mem`) against the machine and each other.
//!
//! Nothing is moved here: a range is the domain's as it stands, or there is a conflict.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use super::ground::{
    Ground, as_static, hardware_only, largest_free, modules, nearest_free, registers,
};
use super::index::Index;
use super::report::{Report, host_side, name, side};
use super::sets::{self, SUPERPAGE, align_down, align_up};
use crate::address::{FRAME_SHIFT, FRAME_SIZE, MachineAddress, MachineRange, Mfn, MfnRange};
use crate::conflict::{Code, Side};
use crate::host::{BootKind, Origin};
use crate::request::{DomainRequest, MemoryRequest, StaticRange, SystemRequest};
use crate::size::Size;
use crate::sort::sort_by_key;

/// A range is compared with at most so many others that reach into it, and with so many
/// devices: who repeats a mistake a thousand times needn't read a million conflicts.
const MOST_REPEATS: usize = 8;
/// For so many conflicts a better place is looked for, which takes a look at all free RAM.
const MOST_HELPS: usize = 64;

/// A well-formed range of a domain.
struct Named {
    domain: usize,
    range: MfnRange,
    stated: StaticRange,
}

/// For each domain its ranges, those with no conflict of form or place.
pub(crate) fn check(
    ground: &Ground<'_>,
    request: &SystemRequest,
    report: &mut Report,
) -> Vec<Vec<MfnRange>> {
    let mut named = Vec::new();
    for (index, domain) in request.domains.iter().enumerate() {
        for stated in &domain.static_mem {
            if let Some(range) = form(index, domain, *stated, report) {
                named.push(Named {
                    domain: index,
                    range,
                    stated: *stated,
                });
            }
        }
        check_sum(index, domain, report);
    }
    sort_by_key(&mut named, |one| {
        [one.range.start().raw(), one.range.frames(), 0]
    });
    if named.is_empty() {
        return vec![Vec::new(); request.domains.len()];
    }
    let (vacant, free) = unclaimed(ground, request, &named);
    let touched = |range: MachineRange| range.frames_touched();
    let registers: Vec<_> = registers(ground.host).collect();
    let modules: Vec<_> = modules(request).collect();
    let reserved = ground.host.reserved.iter();
    let check = Check {
        ground,
        request,
        named: &named,
        vacant,
        free,
        contested: contested(&named),
        helps: Cell::new(MOST_HELPS),
        register_index: Index::new(registers.iter().map(|it| touched(it.0))),
        registers,
        reserved_index: Index::new(reserved.clone().map(|it| touched(it.range))),
        kept: sets::intersect(
            &ground.ram,
            &sets::normalise(reserved.map(|it| touched(it.range)).collect()),
        ),
        module_index: Index::new(modules.iter().map(|it| touched(it.2))),
        modules,
    };
    for one in &named {
        check.against_host(one, report);
        check.against_boot(one, report);
        check.against_limit(one, report);
    }
    check.against_each_other(report);
    check.kernel_bases(report);
    let mut owned = vec![Vec::new(); request.domains.len()];
    for one in &named {
        owned[one.domain].push(one.range);
    }
    owned.into_iter().map(sets::normalise).collect()
}

/// RAM on which nothing lies, and what of it no range names.
fn unclaimed(
    ground: &Ground<'_>,
    request: &SystemRequest,
    named: &[Named],
) -> (Vec<MfnRange>, Vec<MfnRange>) {
    let boot = ground.host.boot.iter().map(|boot| boot.range);
    let boot = boot
        .chain(modules(request).map(|it| it.2))
        .map(|range| range.frames_touched());
    let vacant = sets::subtract(&ground.usable, &sets::normalise(boot.collect()));
    let named = sets::normalise(named.iter().map(|one| one.range).collect());
    let free = sets::subtract(&vacant, &named);
    (vacant, free)
}

/// The frames that more than one of the ranges, sorted by start, names.
fn contested(named: &[Named]) -> Vec<MfnRange> {
    let mut reached = Mfn::new(0);
    let shared = named.iter().map(|one| {
        let shared = MfnRange::between(one.range.start(), one.range.end().min(reached));
        reached = reached.max(one.range.end());
        shared
    });
    sets::normalise(shared.collect())
}

pub(crate) fn stated_side(index: usize, domain: &DomainRequest, stated: &StaticRange) -> Side {
    let what = format!(
        "{}, static-mem start {:#x}, size {}",
        name(index, domain),
        stated.start,
        Size(stated.size)
    );
    side(index, what, stated.origin)
}

/// The range as frames, if it is whole frames, some of them, below 2^64.
fn form(
    index: usize,
    domain: &DomainRequest,
    stated: StaticRange,
    report: &mut Report,
) -> Option<MfnRange> {
    let own = stated_side(index, domain, &stated);
    let StaticRange { start, size, .. } = stated;
    if size == 0 {
        let why = String::from("the range is empty");
        let help = String::from("size = \"256MiB\", or leave the range out");
        report.error(Code::MemoryZero, &[index], vec![own], why, help);
        return None;
    }
    let range = MachineRange::new(MachineAddress::new(start), size);
    let misaligned = start % FRAME_SIZE != 0 || size % FRAME_SIZE != 0;
    if misaligned {
        let nearest = align_down(start, FRAME_SIZE);
        let whole = size
            .checked_next_multiple_of(FRAME_SIZE)
            .unwrap_or(size - size % FRAME_SIZE);
        let help = format!("start = {nearest:#x}, size = \"{:#}\"", Size(whole));
        let why = String::from(
            "memory is given out in frames of 4 KiB: start and size must be multiples",
        );
        report.error(
            Code::StaticMisalignedPage,
            &[index],
            vec![own.clone()],
            why,
            help,
        );
    }
    if range.is_none() {
        let why = String::from("the range ends at or above 2^64");
        let help = format!(
            "leave static-mem out and the planner chooses the place: memory = \"{:#}\"",
            Size(size)
        );
        report.error(Code::StaticWraps, &[index], vec![own], why, help);
    }
    range
        .filter(|_| !misaligned)
        .map(|range| range.frames_inside())
}

/// `memory` and `static-mem` must agree.
fn check_sum(index: usize, domain: &DomainRequest, report: &mut Report) {
    let stated = domain.static_mem.iter().map(|range| range.size);
    let sum = stated.fold(0, u64::saturating_add);
    let memory = domain.memory;
    let own = |what: String| {
        side(
            index,
            format!("{}, {what}", name(index, domain)),
            match memory.origin {
                Origin::NONE => domain.name.origin,
                said => said,
            },
        )
    };
    match (memory.value, domain.static_mem.first()) {
        (MemoryRequest::Size(0), _) => {
            let why = String::from("a domain without memory runs nothing");
            let help = String::from("memory = \"256MiB\"");
            report.error(
                Code::MemoryZero,
                &[index],
                vec![own(String::from("memory = 0"))],
                why,
                help,
            );
        }
        (MemoryRequest::SumOfStatic, None) => {
            let why = String::from("neither memory nor static-mem says how much memory it gets");
            let help = String::from("memory = \"256MiB\"");
            report.error(
                Code::MemoryZero,
                &[index],
                vec![own(String::from("no memory"))],
                why,
                help,
            );
        }
        (MemoryRequest::Size(size), None) if size % FRAME_SIZE != 0 => {
            let why = String::from("memory is given out in frames of 4 KiB");
            let whole = size
                .checked_next_multiple_of(FRAME_SIZE)
                .unwrap_or(size - size % FRAME_SIZE);
            let help = format!("memory = \"{:#}\"", Size(whole));
            let what = own(format!("memory of {}", Size(size)));
            report.error(Code::MemoryMisaligned, &[index], vec![what], why, help);
        }
        (MemoryRequest::Size(size), Some(first)) if size != sum => {
            let mut sides = vec![own(format!("memory of {}", Size(size)))];
            sides.extend(
                domain
                    .static_mem
                    .iter()
                    .take(MOST_REPEATS)
                    .map(|range| stated_side(index, domain, range)),
            );
            let why = format!("memory is {} and static-mem is {}", Size(size), Size(sum));
            let help = match domain.static_mem.len() {
                1 => format!(
                    "memory = \"{:#}\", or static-mem = [{{ start = {:#x}, size = \"{:#}\" }}]",
                    Size(sum),
                    first.start,
                    Size(size)
                ),
                _ => format!("memory = \"{:#}\"", Size(sum)),
            };
            report.error(Code::MemorySumMismatch, &[index], sides, why, help);
        }
        (MemoryRequest::Rest, Some(first)) => {
            let sides = vec![
                own(String::from("memory = \"rest\"")),
                stated_side(index, domain, first),
            ];
            let why = String::from(
                "named ranges are all that the domain gets, so it can't have the rest",
            );
            let help = format!("memory = \"{:#}\", or leave out static-mem", Size(sum));
            report.error(Code::MemorySumMismatch, &[index], sides, why, help);
        }
        _ => {}
    }
}

struct Check<'a> {
    ground: &'a Ground<'a>,
    request: &'a SystemRequest,
    /// All ranges, by address.
    named: &'a [Named],
    /// RAM on which nothing lies.
    vacant: Vec<MfnRange>,
    /// RAM on which nothing lies and that no range names.
    free: Vec<MfnRange>,
    /// What more than one range names.
    contested: Vec<MfnRange>,
    /// How many more helps are looked for.
    helps: Cell<usize>,
    /// Everything that has registers.
    registers: Vec<(MachineRange, &'a str, Origin)>,
    register_index: Index,
    reserved_index: Index,
    /// Reserved memory that is RAM.
    kept: Vec<MfnRange>,
    /// Every module, with its domain.
    modules: Vec<(usize, &'static str, MachineRange, Origin)>,
    module_index: Index,
}

impl Check<'_> {
    fn side(&self, one: &Named) -> Side {
        stated_side(one.domain, &self.request.domains[one.domain], &one.stated)
    }

    /// The nearest range of the same size that would be good.
    fn elsewhere(&self, one: &Named) -> String {
        let Some(left) = self.helps.get().checked_sub(1) else {
            return String::from("mend the others first");
        };
        self.helps.set(left);
        // Its own range is free for it, as far as no other reaches into it.
        let own = sets::intersect(&[one.range], &self.vacant);
        let own = sets::subtract(&own, &self.contested);
        let mut free = sets::normalise([self.free.as_slice(), &own].concat());
        if let Some(limit) = self.request.domains[one.domain].memory_below {
            free = sets::below(&free, Mfn::new(limit.value >> FRAME_SHIFT));
        }
        let start = one.range.start().raw();
        if let Some(range) = nearest_free(&free, one.range.frames(), start, SUPERPAGE) {
            return format!("the nearest free range of that size: {}", as_static(&range));
        }
        match largest_free(&free, SUPERPAGE) {
            Some(range) => format!("the largest free range: {}", as_static(&range)),
            None => String::from("no RAM is free: less memory for another domain"),
        }
    }

    /// RAM, all of it, none of it reserved, and no device in it.
    fn against_host(&self, one: &Named, report: &mut Report) {
        let ground = self.ground;
        let over_devices = self.against_registers(one, report);
        let missing = sets::subtract(&[one.range], &ground.ram);
        let missing = sets::subtract(&missing, &sets::normalise(over_devices));
        if let Some(first) = missing.first() {
            let why = if missing.first() == Some(&one.range) {
                String::from("there is no RAM")
            } else {
                format!("there is no RAM at {}", first.bytes())
            };
            let mut sides = vec![self.side(one), ground.ram_side(Some(one.range.bytes()))];
            let (start, end) = (one.range.start().raw(), one.range.end().raw());
            let is_ram = |frame: u64| sets::covers(&ground.ram, &sets::frames(frame, frame + 1));
            let both = is_ram(start) && is_ram(end - 1);
            if both {
                let end = one.range.bytes().end().raw() - 1;
                let end = MachineRange::saturating(MachineAddress::new(end), 1);
                sides.push(ground.ram_side(Some(end)));
            }
            let code = if both {
                Code::StaticAcrossBanks
            } else {
                Code::StaticOutsideRam
            };
            report.error(code, &[one.domain], sides, why, self.elsewhere(one));
        }
        let promised = hardware_only(ground.host.architecture);
        if one.range.overlaps(&promised) {
            let what = format!("the first MiB {}", promised.bytes());
            let why = String::from(
                "the hardware domain has the RAM below 1 MiB without asking, and nobody else can",
            );
            let sides = vec![self.side(one), host_side(what, Origin::NONE)];
            report.error(
                Code::OverlapDomainReserved,
                &[one.domain],
                sides,
                why,
                self.elsewhere(one),
            );
        }
        let reserved = self.reserved_index.touching(&one.range);
        for at in reserved.into_iter().take(MOST_REPEATS) {
            let other = &ground.host.reserved[at];
            let what = format!("reserved memory \"{}\" {}", other.name, other.range);
            let why = String::from("firmware or the manifest keeps that memory for something else");
            let sides = vec![self.side(one), host_side(what, other.origin)];
            report.error(
                Code::OverlapDomainReserved,
                &[one.domain],
                sides,
                why,
                self.elsewhere(one),
            );
        }
    }

    /// No device's registers, all in one finding. Gives back the pages of those that are there.
    fn against_registers(&self, one: &Named, report: &mut Report) -> Vec<MfnRange> {
        // Firmware describes memory that it keeps for a device as registers of its, too.
        let is_memory = |pages: &MfnRange| {
            let part = pages.intersection(&one.range);
            part.is_some_and(|part| sets::covers(&self.kept, &part))
        };
        let touching = self.register_index.touching(&one.range);
        let touching = touching.into_iter().map(|at| &self.registers[at]);
        let mut over = touching
            .filter(|(range, ..)| !is_memory(&range.frames_touched()))
            .peekable();
        if over.peek().is_none() {
            return Vec::new();
        }
        let mut sides = vec![self.side(one)];
        let mut pages = Vec::new();
        for (range, path, origin) in over {
            pages.push(range.frames_touched());
            if pages.len() <= MOST_REPEATS {
                sides.push(host_side(format!("{path}, registers {range}"), *origin));
            }
        }
        let why = match pages.len() {
            1 => String::from("a device's registers aren't memory"),
            several => {
                format!(
                    "a device's registers aren't memory, and {several} ranges of them lie there"
                )
            }
        };
        let help = self.elsewhere(one);
        report.error(Code::OverlapDomainMmio, &[one.domain], sides, why, help);
        pages
    }

    /// Nothing that the boot loader left there.
    fn against_boot(&self, one: &Named, report: &mut Report) {
        for boot in &self.ground.host.boot {
            if !boot.range.frames_touched().overlaps(&one.range) {
                continue;
            }
            let (code, what, why) = match boot.kind {
                BootKind::Hypervisor => (
                    Code::OverlapDomainHypervisor,
                    "the hypervisor",
                    "the hypervisor runs there when memory is given out",
                ),
                BootKind::HostTree => (
                    Code::OverlapDomainHostTree,
                    "the host's device tree",
                    "the boot loader left the host's device tree there",
                ),
                BootKind::Container => (
                    Code::OverlapDomainModule,
                    "the container of all modules",
                    "the boot loader left the domains' modules there",
                ),
            };
            let other = host_side(format!("{what} {}", boot.range), boot.origin);
            let sides = vec![self.side(one), other];
            report.error(
                code,
                &[one.domain],
                sides,
                String::from(why),
                self.elsewhere(one),
            );
        }
        let container = sets::normalise(
            self.ground
                .boot(BootKind::Container)
                .map(|it| it.range.frames_touched())
                .collect(),
        );
        for at in self.module_index.touching(&one.range) {
            let (owner, what, range, origin) = self.modules[at];
            if !sets::covers(&container, &range.frames_touched()) {
                let owner_name = name(owner, &self.request.domains[owner]);
                let other = side(owner, format!("{owner_name}, {what} {range}"), origin);
                let why = String::from("the boot loader left a module there");
                let sides = vec![self.side(one), other];
                let help = self.elsewhere(one);
                report.error(Code::OverlapDomainModule, &[one.domain], sides, why, help);
            }
        }
    }

    fn against_limit(&self, one: &Named, report: &mut Report) {
        let Some(limit) = self.request.domains[one.domain].memory_below else {
            return;
        };
        if one.range.end().address().raw() > limit.value {
            let owner = name(one.domain, &self.request.domains[one.domain]);
            let other = side(
                one.domain,
                format!("{owner}, memory-below = {:#x}", limit.value),
                limit.origin,
            );
            let end = one.range.end().address();
            let why = format!("the range ends at {end}");
            let help = format!("memory-below = {end}, or leave it out");
            report.error(
                Code::StaticAboveLimit,
                &[one.domain],
                vec![self.side(one), other],
                why,
                help,
            );
        }
    }

    /// Ranges are sorted by address, so what reaches into a range began before it.
    fn against_each_other(&self, report: &mut Report) {
        let mut reaching: Vec<&Named> = Vec::new();
        for one in self.named {
            reaching.retain(|other| other.range.overlaps(&one.range));
            for other in reaching.iter().take(MOST_REPEATS) {
                self.overlap(other, one, report);
            }
            reaching.push(one);
            sort_by_key(&mut reaching, |other| [!other.range.end().raw(), 0, 0]);
            reaching.truncate(MOST_REPEATS);
        }
    }

    fn overlap(&self, one: &Named, other: &Named, report: &mut Report) {
        let shared = MachineRange::between(
            one.range.start().max(other.range.start()).address(),
            one.range.end().min(other.range.end()).address(),
        );
        let (first, second) = if one.domain <= other.domain {
            (one, other)
        } else {
            (other, one)
        };
        let both: &[usize] = &[first.domain, second.domain];
        let why = format!("both name {shared}, and a frame has one owner");
        let help = format!("for the second, {}", self.elsewhere(second));
        let sides = vec![self.side(first), self.side(second)];
        report.error(Code::OverlapDomainDomain, both, sides, why, help);
    }

    /// A direct-mapped kernel runs at machine addresses, so one range must begin at its
    /// alignment. A domain that isn't direct-mapped only loses superpages.
    fn kernel_bases(&self, report: &mut Report) {
        let mut named: Vec<Vec<&Named>> = vec![Vec::new(); self.request.domains.len()];
        for one in self.named {
            named[one.domain].push(one);
        }
        for (index, domain) in self.request.domains.iter().enumerate() {
            let align = domain
                .kernel
                .as_ref()
                .map_or(1, |kernel| kernel.alignment)
                .max(FRAME_SIZE);
            let frames = align >> FRAME_SHIFT;
            let own = &named[index];
            let good = |one: &&Named| one.range.start().raw().is_multiple_of(frames);
            if own.is_empty() || own.iter().any(good) {
                continue;
            }
            let direct = domain.identity().is_direct_mapped();
            let bounded = domain.kernel.as_ref().is_some_and(|it| it.bounds.is_some());
            // Whether a range holds such a kernel shows when it is placed.
            if direct && bounded {
                continue;
            }
            for one in own {
                let start = one.range.start().raw();
                let below = align_down(start, frames);
                let above = align_up(start, frames);
                let nearest = if start - below <= above - start {
                    below
                } else {
                    above
                };
                let help = format!(
                    "start = {:#x}, size = \"{:#}\"",
                    nearest.saturating_mul(FRAME_SIZE),
                    Size(one.stated.size)
                );
                let origin = domain
                    .kernel
                    .as_ref()
                    .map_or(one.stated.origin, |kernel| kernel.origin);
                let kernel = format!("{}, kernel aligned to {}", name(index, domain), Size(align));
                let sides = vec![self.side(one), side(index, kernel, origin)];
                if direct {
                    let why = format!(
                        "a direct-mapped kernel begins at a machine address that is a multiple of {}",
                        Size(align)
                    );
                    report.error(Code::StaticMisalignedKernel, &[index], sides, why, help);
                } else {
                    let why = String::from(
                        "the RAM's first and last superpage are taken apart: the guest's begin at other addresses",
                    );
                    report.warning(Code::StaticMisalignedKernel, sides, why, help);
                }
            }
        }
    }
}
