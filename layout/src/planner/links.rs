//! Shared memory and event channels between domains: whether their ends agree.
//!
//! Neither is built yet, so a domain that asks for one is refused in any case; what is wrong with
//! it is said all the same.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::ground::Ground;
use super::guest;
use super::report::{Report, name, side};
use super::sets;
use crate::address::{FRAME_SHIFT, FRAME_SIZE, GuestAddress, GuestRange, MachineAddress};
use crate::address::{MachineRange, MfnRange};
use crate::conflict::{Code, Side};
use crate::request::{
    DomainRequest, EventChannelRequest, MemoryRequest, ShareRole, SharedMemoryRequest,
    SystemRequest,
};
use crate::size::Size;
use crate::sort::sort_by_key;

/// So many ends are named in one conflict.
const MOST_NAMED: usize = 8;

/// One end of a shared range.
type End<'a> = (usize, &'a SharedMemoryRequest);

/// `statics` are the domains' ranges of static memory that are good.
pub(crate) fn check(
    ground: &Ground<'_>,
    request: &SystemRequest,
    statics: &[Vec<MfnRange>],
    report: &mut Report,
) {
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shares: Vec<Vec<End<'_>>> = Vec::new();
    for (index, domain) in request.domains.iter().enumerate() {
        for end in &domain.shared_memory {
            let at = *ids.entry(&end.id).or_insert(shares.len());
            match shares.get_mut(at) {
                Some(ends) => ends.push((index, end)),
                None => shares.push(vec![(index, end)]),
            }
            check_range(ground, request, index, end, statics, report);
        }
        check_apart(index, domain, report);
        not_built(index, domain, report);
    }
    for (id, at) in ids {
        check_ends(request, id, &shares[at], report);
    }
    check_channels(request, report);
}

fn not_built(index: usize, domain: &DomainRequest, report: &mut Report) {
    let shared = domain.shared_memory.first();
    let channel = domain.event_channels.first();
    let asked = [
        (shared.map(|it| it.origin), "shared-memory"),
        (channel.map(|it| it.origin), "event-channels"),
    ];
    for (origin, key) in asked {
        if let Some(origin) = origin {
            let own = side(index, format!("{}, {key}", name(index, domain)), origin);
            let why = format!("Terrane checks `{key}`, but has none yet");
            let help = format!("leave {key} out");
            report.error(Code::NotBuiltYet, &[index], vec![own], why, help);
        }
    }
}

fn end_side(request: &SystemRequest, (index, end): End<'_>) -> Side {
    let role = match end.role {
        ShareRole::Owner => "owner",
        ShareRole::Borrower => "borrower",
    };
    let label = name(index, &request.domains[index]);
    let mut what = format!(
        "{label}, shared-memory \"{}\", {role}, size {}, address {:#x}",
        end.id,
        Size(end.size),
        end.address
    );
    if let Some(start) = end.start {
        what.push_str(&format!(", start {start:#x}"));
    }
    side(index, what, end.origin)
}

/// One range by itself: form, machine memory, guest memory.
fn check_range(
    ground: &Ground<'_>,
    request: &SystemRequest,
    index: usize,
    end: &SharedMemoryRequest,
    statics: &[Vec<MfnRange>],
    report: &mut Report,
) {
    let domain = &request.domains[index];
    let mut problem = |why: String, help: String, other: Option<Side>| {
        let sides = core::iter::once(end_side(request, (index, end))).chain(other);
        report.error(
            Code::SharedMemoryRange,
            &[index],
            sides.collect(),
            why,
            help,
        );
    };
    if end.size == 0 || !end.size.is_multiple_of(FRAME_SIZE) {
        let size = end.size.max(1).checked_next_multiple_of(FRAME_SIZE);
        let why = String::from("memory is shared in frames of 4 KiB, one at least");
        let help = format!("size = \"{:#}\"", Size(size.unwrap_or(FRAME_SIZE)));
        problem(why, help, None);
        return;
    }
    for (key, value) in [("address", Some(end.address)), ("start", end.start)] {
        let Some(value) = value else { continue };
        if !value.is_multiple_of(FRAME_SIZE) {
            let why = format!("{key} is inside a frame of 4 KiB");
            let help = format!("{key} = {:#x}", sets::align_down(value, FRAME_SIZE));
            problem(why, help, None);
        }
        if value.checked_add(end.size).is_none() {
            let why = format!("the range from {key} on ends at or above 2^64");
            let most = sets::align_down(u64::MAX - end.size, FRAME_SIZE);
            problem(why, format!("{key} = {most:#x} or less"), None);
        }
    }
    if let Some(start) = end.start {
        let machine = MachineRange::saturating(MachineAddress::new(start), end.size);
        if domain.identity().is_direct_mapped() && start != end.address {
            let why = String::from("a direct-mapped domain sees all memory at machine addresses");
            problem(why, format!("address = {start:#x}"), None);
        }
        if !sets::covers(&ground.usable, &machine.frames_touched()) {
            let why = String::from("the range isn't RAM that a domain could have");
            let help = String::from("leave out start, or name RAM that nothing lies in");
            problem(why, help, Some(ground.ram_side(Some(machine))));
        }
        let taken = statics.iter().enumerate();
        let owner = taken
            .filter(|(_, ranges)| !sets::intersect(ranges, &[machine.frames_touched()]).is_empty());
        for (owner, _) in owner.take(1) {
            let other = &request.domains[owner];
            let origin = other
                .static_mem
                .first()
                .map_or(other.name.origin, |it| it.origin);
            let what = format!("{}, static-mem", name(owner, other));
            let why = String::from("shared memory is nobody's static memory");
            let help = String::from("leave out start");
            problem(why, help, Some(side(owner, what, origin)));
        }
    }
    let seen = GuestRange::saturating(GuestAddress::new(end.address), end.size);
    let ram = guest_ram(ground, domain, &statics[index]);
    if let Some(ram) = ram.iter().find(|ram| ram.overlaps(&seen)) {
        let what = format!("{}, its RAM {ram}", name(index, domain));
        let why = String::from("the domain's RAM is there");
        let help = format!("address = {}", ram.end());
        problem(why, help, Some(side(index, what, domain.memory.origin)));
    }
}

/// The guest's RAM, as far as it is known before anything is placed.
fn guest_ram(ground: &Ground<'_>, domain: &DomainRequest, statics: &[MfnRange]) -> Vec<GuestRange> {
    let identity = domain.identity();
    if identity.is_direct_mapped() {
        let same = |range: &MfnRange| {
            let bytes = range.bytes();
            GuestRange::saturating(GuestAddress::new(bytes.start().raw()), bytes.size())
        };
        return statics.iter().map(same).collect();
    }
    let mut left = match domain.memory.value {
        MemoryRequest::Size(size) => size >> FRAME_SHIFT,
        MemoryRequest::SumOfStatic => sets::total(statics),
        MemoryRequest::Rest => return Vec::new(),
    };
    let places = guest::places(ground.host.architecture, &identity, &ground.usable);
    let mut ram = Vec::new();
    for place in places {
        let frames = place.frames().min(left);
        left -= frames;
        let end = place.start().offset(frames);
        let part = GuestRange::between(place.start().address(), end.address());
        if !part.is_empty() {
            ram.push(part);
        }
    }
    ram
}

/// Two shared ranges of one domain at one guest address.
fn check_apart(index: usize, domain: &DomainRequest, report: &mut Report) {
    let range = |end: &SharedMemoryRequest| {
        GuestRange::saturating(GuestAddress::new(end.address), end.size)
    };
    for (at, end) in domain.shared_memory.iter().enumerate() {
        let mut before = domain.shared_memory[..at].iter();
        if let Some(first) = before.find(|first| range(first).overlaps(&range(end))) {
            let one = |end: &SharedMemoryRequest| {
                let what = format!(
                    "{}, shared-memory \"{}\" at {}",
                    name(index, domain),
                    end.id,
                    range(end)
                );
                side(index, what, end.origin)
            };
            let why = String::from("a guest address shows one thing");
            let help = format!("address = {} for the second", range(first).end());
            let sides = vec![one(first), one(end)];
            report.error(Code::SharedMemoryRange, &[index], sides, why, help);
        }
    }
}

/// Whether those who share a range agree on it.
fn check_ends(request: &SystemRequest, id: &str, ends: &[End<'_>], report: &mut Report) {
    // Of a domain that wasn't understood an end may be missing here that its file has.
    let complete = request.domains.iter().all(|it| it.misread.is_none());
    let mut domains: Vec<usize> = ends.iter().map(|(index, _)| *index).collect();
    domains.dedup();
    let mut problem = |named: &[End<'_>], why: String, help: String| {
        let sides = named.iter().take(MOST_NAMED);
        let sides = sides.map(|end| end_side(request, *end)).collect();
        report.error(Code::SharedMemoryEnds, &domains, sides, why, help);
    };
    let owners: Vec<End<'_>> = ends
        .iter()
        .filter(|(_, end)| end.role == ShareRole::Owner)
        .copied()
        .collect();
    match owners.as_slice() {
        [] if !complete => {}
        [] => {
            let why = format!("nobody owns \"{id}\": its memory would be nobody's");
            problem(ends, why, String::from("role = \"owner\" for one of them"));
        }
        [_] => {}
        several => {
            let why = format!("\"{id}\" has {} owners, and a frame has one", several.len());
            problem(
                several,
                why,
                String::from("role = \"borrower\" for all but one"),
            );
        }
    }
    let reference = owners.first().or(ends.first()).copied();
    let Some((_, first)) = reference else { return };
    for other in ends {
        let named = [reference.unwrap_or(*other), *other];
        if other.1.size != first.size {
            let why = format!("the ends of \"{id}\" differ in size");
            problem(&named, why, format!("size = \"{:#}\"", Size(first.size)));
        }
        if let (Some(one), Some(another)) = (first.start, other.1.start)
            && one != another
        {
            let why = format!("the ends of \"{id}\" name different machine memory");
            problem(&named, why, format!("start = {one:#x}"));
        }
    }
    for (at, (index, end)) in ends.iter().enumerate() {
        if let Some(first) = ends[..at].iter().find(|(other, _)| other == index) {
            let why = format!("one domain names \"{id}\" twice");
            problem(&[*first, (*index, end)], why, String::from("another id"));
        }
    }
    if let ([only], true) = (ends, complete) {
        let why = format!("nobody else names \"{id}\"");
        let help = String::from("the same id in another domain");
        report.warning(
            Code::SharedMemoryEnds,
            vec![end_side(request, *only)],
            why,
            help,
        );
    }
}

fn channel_side(request: &SystemRequest, index: usize, end: &EventChannelRequest) -> Side {
    let what = format!(
        "{}, event channel port {} to \"{}\" port {}",
        name(index, &request.domains[index]),
        end.port,
        end.peer,
        end.peer_port
    );
    side(index, what, end.origin)
}

fn check_channels(request: &SystemRequest, report: &mut Report) {
    for (index, domain) in request.domains.iter().enumerate() {
        let most = domain.limits.max_event_channels;
        for end in &domain.event_channels {
            let own = channel_side(request, index, end);
            if end.port == 0 || end.port > most {
                let why = format!("the domain's ports are 1 to {most}");
                let help = match end.port {
                    0 => String::from("port = 1"),
                    port => format!("max-event-channels = {port}, or a lower port"),
                };
                let sides = vec![own.clone()];
                report.error(Code::EventChannelPort, &[index], sides, why, help);
            }
            check_peer(request, index, end, own, report);
        }
        let mut order: Vec<usize> = (0..domain.event_channels.len()).collect();
        sort_by_key(&mut order, |at| {
            [u64::from(domain.event_channels[*at].port), 0, 0]
        });
        for pair in order.windows(2) {
            let [first, again] = [pair[0], pair[1]].map(|at| &domain.event_channels[at]);
            if first.port == again.port {
                let sides = [first, again].map(|end| channel_side(request, index, end));
                let why = format!("port {} has two ends", first.port);
                let help = String::from("another port for one of them");
                report.error(Code::EventChannelPort, &[index], sides.into(), why, help);
            }
        }
    }
}

/// The peer must be there, and its port must name this one.
fn check_peer(
    request: &SystemRequest,
    index: usize,
    end: &EventChannelRequest,
    own: Side,
    report: &mut Report,
) {
    let domain = &request.domains[index];
    let mut domains = request.domains.iter();
    let Some(peer) = domains.position(|other| other.name.value == end.peer) else {
        let why = format!("there is no domain \"{}\"", end.peer);
        let others = request.domains.iter().enumerate();
        let mut others = others.filter(|(other, _)| *other != index);
        let help = others.next().map_or_else(String::new, |(_, other)| {
            format!("peer = \"{}\"", other.name.value)
        });
        report.error(Code::EventChannelEnds, &[index], vec![own], why, help);
        return;
    };
    if peer == index && end.peer_port == end.port {
        let why = String::from("both ends are one port");
        let help = String::from("the port of another domain, or leave this one out");
        report.error(Code::EventChannelEnds, &[index], vec![own], why, help);
        return;
    }
    let back = request.domains[peer]
        .event_channels
        .iter()
        .find(|back| back.port == end.peer_port);
    let names_us =
        |back: &EventChannelRequest| back.peer == domain.name.value && back.peer_port == end.port;
    let mend = format!(
        "{{ port = {}, peer = \"{}\", peer-port = {} }} in domain \"{}\"",
        end.peer_port, domain.name.value, end.port, end.peer
    );
    match back {
        None if request.domains[peer].misread.is_some() => {}
        None => {
            let what = format!(
                "domain \"{}\", which has no port {}",
                end.peer, end.peer_port
            );
            let other = side(peer, what, request.domains[peer].name.origin);
            let why = String::from("the other end isn't there");
            let both = [index, peer];
            report.error(Code::EventChannelEnds, &both, vec![own, other], why, mend);
        }
        // Two ends that name each other wrongly are told once, at the first.
        Some(back) if names_us(back) || (peer < index && back.peer == domain.name.value) => {}
        Some(back) => {
            let other = channel_side(request, peer, back);
            let why = String::from("the other end leads elsewhere");
            let both = [index, peer];
            report.error(Code::EventChannelEnds, &both, vec![own, other], why, mend);
        }
    }
}
