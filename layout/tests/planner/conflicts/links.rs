//! Shared memory and event channels whose ends don't agree.

use terrane_layout::*;

use super::*;

fn share(role: ShareRole, address: u64) -> SharedMemoryRequest {
    SharedMemoryRequest {
        id: "ring".into(),
        size: MIB,
        role,
        start: None,
        address,
        read_only: false,
        origin: Origin(90),
    }
}

fn channel(port: u32, peer: &str, peer_port: u32) -> EventChannelRequest {
    EventChannelRequest {
        port,
        peer: peer.into(),
        peer_port,
        origin: Origin(91),
    }
}

/// Two domains with these shared ranges and channels.
fn pair(
    shared: [Vec<SharedMemoryRequest>; 2],
    channels: [Vec<EventChannelRequest>; 2],
) -> SystemRequest {
    let named = ["a", "b"].into_iter().zip(shared).zip(channels);
    let domains = named.map(|((name, shared), channels)| {
        let mut guest = sized(256 * MIB);
        guest.name.value = name.into();
        guest.shared_memory = shared;
        guest.event_channels = channels;
        guest
    });
    system(domains.collect())
}

/// What is found besides that neither is built.
fn found(request: &SystemRequest) -> Vec<Conflict> {
    let host = virt(2 * GIB, 2);
    let outcome = plan(&host, request);
    check_invariants(&host, request, &outcome);
    let (unbuilt, others): (Vec<_>, Vec<_>) = outcome
        .conflicts
        .into_iter()
        .partition(|conflict| conflict.code == Code::NotBuiltYet);
    assert!(!unbuilt.is_empty());
    others
}

fn codes_of(request: &SystemRequest) -> Vec<&'static str> {
    found(request).iter().map(|it| it.code.as_str()).collect()
}

fn shared(one: SharedMemoryRequest, other: SharedMemoryRequest) -> SystemRequest {
    pair([vec![one], vec![other]], [vec![], vec![]])
}

use ShareRole::{Borrower, Owner};

#[test]
fn ends_that_agree_are_only_not_built() {
    let good = pair(
        [
            vec![share(Owner, 16 * MIB)],
            vec![share(Borrower, 32 * MIB)],
        ],
        [vec![channel(10, "b", 11)], vec![channel(11, "a", 10)]],
    );
    assert_eq!(codes_of(&good), [""; 0]);
}

#[test]
fn shared_memory_has_one_owner_and_one_size() {
    for roles in [[Owner, Owner], [Borrower, Borrower]] {
        let [one, other] = roles.map(|role| share(role, 16 * MIB));
        let all = found(&shared(one, other));
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].code, Code::SharedMemoryEnds);
        assert_eq!(all[0].sides.len(), 2);
    }
    let mut large = share(Borrower, 16 * MIB);
    large.size = 2 * MIB;
    let all = found(&shared(share(Owner, 16 * MIB), large));
    assert_eq!(all[0].code, Code::SharedMemoryEnds);
    assert_eq!(all[0].help, "size = \"1MiB\"");
    let mut here = share(Owner, 16 * MIB);
    here.start = Some(0x7000_0000);
    let mut there = share(Borrower, 16 * MIB);
    there.start = Some(0x7100_0000);
    assert_eq!(codes_of(&shared(here, there)), ["shared-memory-ends"]);
    let alone = pair([vec![share(Owner, 16 * MIB)], vec![]], [vec![], vec![]]);
    let all = found(&alone);
    assert_eq!(
        (all[0].code, all[0].severity),
        (Code::SharedMemoryEnds, Severity::Warning)
    );
}

#[test]
fn shared_memory_lies_beside_the_guests_ram() {
    let with = |change: &dyn Fn(&mut SharedMemoryRequest)| {
        let mut owner = share(Owner, 16 * MIB);
        change(&mut owner);
        let mut borrower = share(Borrower, 16 * MIB);
        borrower.size = owner.size;
        found(&shared(owner, borrower))
    };
    let over_ram = with(&|it| it.address = GIB + MIB);
    assert_eq!(over_ram[0].code, Code::SharedMemoryRange);
    assert_eq!(over_ram[0].help, "address = 0x50000000");
    for change in [
        &(|it: &mut SharedMemoryRequest| it.address += 1) as &dyn Fn(&mut SharedMemoryRequest),
        &|it| it.address = u64::MAX - 0xfff,
        &|it| it.start = Some(0x1000),
        &|it| it.size = 0,
        &|it| it.size = 5,
    ] {
        let all = with(change);
        assert!(!all.is_empty());
        let codes = all.iter().map(|it| it.code);
        assert!(
            codes
                .into_iter()
                .all(|code| code == Code::SharedMemoryRange),
            "{all:?}"
        );
    }
}

#[test]
fn a_channel_is_named_from_both_ends() {
    let channels = |one: Vec<_>, other: Vec<_>| pair([vec![], vec![]], [one, other]);
    let cases = [
        // No such peer; no such port; a port that leads elsewhere.
        (
            channels(vec![channel(10, "c", 1)], vec![]),
            vec!["event-channel-ends"],
        ),
        (
            channels(vec![channel(10, "b", 11)], vec![]),
            vec!["event-channel-ends"],
        ),
        (
            channels(vec![channel(10, "b", 11)], vec![channel(11, "a", 12)]),
            vec!["event-channel-ends"],
        ),
        (
            channels(vec![channel(0, "b", 11)], vec![channel(11, "a", 0)]),
            vec!["event-channel-port"],
        ),
        (
            channels(vec![channel(1024, "b", 11)], vec![channel(11, "a", 1024)]),
            vec!["event-channel-port"],
        ),
        (
            channels(
                vec![channel(10, "b", 11), channel(10, "b", 11)],
                vec![channel(11, "a", 10)],
            ),
            vec!["event-channel-port"],
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(
            codes_of(&request)[..expected.len()],
            expected,
            "{request:?}"
        );
    }
    // The mend.
    let bad = channels(vec![channel(10, "b", 11)], vec![]);
    let help = &found(&bad)[0].help;
    assert_eq!(
        help,
        "{ port = 11, peer = \"a\", peer-port = 10 } in domain \"b\""
    );
}

#[test]
fn a_channel_has_two_ends() {
    let itself = |peer_port| {
        let more = channel(peer_port, "a", 10);
        let mut ends = vec![channel(10, "a", peer_port)];
        ends.extend((peer_port != 10).then_some(more));
        pair([vec![], vec![]], [ends, vec![]])
    };
    let all = found(&itself(10));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].code, Code::EventChannelEnds);
    assert_eq!(all[0].why, "both ends are one port");
    // From one port of its own to another is no mistake.
    assert_eq!(codes_of(&itself(11)), [""; 0]);
}

/// An item that couldn't be read isn't here, and whoever reads the file has said so.
#[test]
fn ends_that_were_not_understood_are_not_missed() {
    let told = |mut request: SystemRequest, misread| {
        request.domains[1].misread = misread;
        let found = plan(&virt(2 * GIB, 2), &request).conflicts;
        let codes = found.iter().map(|it| it.code.as_str());
        let codes = codes.filter(|code| *code != "not-built-yet");
        codes.collect::<Vec<_>>()
    };
    let unread = Some(Code::KeyMissing);
    for role in [ShareRole::Owner, ShareRole::Borrower] {
        let request = pair([vec![share(role, 0x3000_0000)], vec![]], [vec![], vec![]]);
        assert!(!told(request.clone(), None).is_empty());
        assert_eq!(told(request, unread), [""; 0]);
    }
    let request = pair([vec![], vec![]], [vec![channel(10, "b", 11)], vec![]]);
    assert!(!told(request.clone(), None).is_empty());
    assert_eq!(told(request, unread), [""; 0]);
}
