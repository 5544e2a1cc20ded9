//! Attackers: random hypercalls with wild arguments, and whole random lives of two domains.
//!
//! After each the invariants hold, no other domain's frame has changed, and every call has ended.

use abi::number;
use proptest::prelude::*;
use terrane_machine_fake::{Board, DomainSpec, Guest, HARDWARE, NO_ROLE};

/// Fewer cases under Miri, which is some hundred times slower.
const CASES: u32 = if cfg!(miri) { 3 } else { 256 };

/// A value that means something to somebody, or nothing to anybody.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4u64,
        0..64u64,
        Just(u64::MAX),
        Just(1 << 63),
        Just(0x7ff0),
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
        // Addresses: the hypervisor's, RAM of either domain, its edges, a device, nothing.
        (0x100..0x140u64, 0..4096u64).prop_map(|(frame, offset)| frame << 12 | offset),
        (0x40000..0x40014u64, 0..4096u64).prop_map(|(frame, offset)| frame << 12 | offset),
        Just(0x8_0000 << 12),
        0x100..0x140u64,
        0x40000..0x40014u64,
    ]
}

fn args() -> impl Strategy<Value = [u64; 5]> {
    prop::array::uniform5(value())
}

/// Numbers that do something, more often than others; nothing that ends the domain.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => prop::sample::select(vec![
            number::MEMORY_OP,
            number::EVENT_CHANNEL_OP,
            number::GRANT_TABLE_OP,
            number::VCPU_OP,
            number::HVM_OP,
            number::XEN_VERSION,
            number::CONSOLE_IO,
            number::MULTICALL,
            number::PLATFORM_OP,
        ]),
        1 => 0..number::COUNT,
        1 => any::<u64>(),
    ]
}

#[derive(Clone, Debug)]
enum Deed {
    /// A hypercall with these arguments.
    Call(u64, [u64; 5]),
    /// A hypercall whose buffer is the domain's own first page, filled with these words.
    WellMeant(u64, u64, [u64; 6]),
    /// A word written into memory, at this word of the domain's RAM.
    Write(u64, u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (number(), args()).prop_map(|(number, args)| Deed::Call(number, args)),
        (number(), 0..32u64, prop::array::uniform6(value()))
            .prop_map(|(number, operation, words)| Deed::WellMeant(number, operation, words)),
        (0..512u64 * 16, value()).prop_map(|(place, value)| Deed::Write(place, value)),
    ]
}

fn act(guest: Guest<'_>, deed: &Deed) {
    match deed {
        // Ending the domain is tested elsewhere; here it lives on.
        Deed::Call(number, _) | Deed::WellMeant(number, ..) if *number == number::SCHED_OP => {}
        Deed::Call(number, args) => {
            let _ = guest.call(*number, args);
        }
        Deed::WellMeant(number, operation, words) => {
            let buffer = guest.ram();
            if guest
                .translate(buffer, hypervisor::Direction::ToGuest)
                .is_some()
            {
                guest.put(buffer, words);
                let _ = guest.call(*number, &[*operation, buffer, 1]);
                let _ = guest.call(*number, &[*operation, 0, buffer]);
            }
        }
        Deed::Write(place, value) => {
            let address = guest.ram() + place * 8;
            if guest
                .translate(address, hypervisor::Direction::ToGuest)
                .is_some()
            {
                guest.put(address, value);
            }
        }
    }
}

/// What a domain's RAM holds, whether it is mapped or not.
fn ram(board: &Board, domain: usize) -> Vec<Vec<u64>> {
    let banks = &board.system.domains()[domain].plan().banks;
    let frames = banks
        .iter()
        .flat_map(|bank| (0..bank.frames).map(|index| bank.mfn.offset(index)));
    frames
        .map(|frame| board.machine().memory().contents(frame))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// A domain that nobody granted anything can do what it likes: the other one's memory stays as
    /// it is.
    #[test]
    fn an_attacker_changes_nobody_elses_frames(attacker in 0..2u16, deeds in prop::collection::vec(deed(), 1..24)) {
        let board = Board::two();
        let victim = usize::from(1 - attacker);
        let before = ram(&board, victim);
        let mappings = board.system.domains()[victim].machine().mappings();
        for deed in &deeds {
            act(board.guest(attacker, 0), deed);
            board.check();
        }
        prop_assert_eq!(ram(&board, victim), before);
        // A control domain may give its guest special frames; a guest can't do that to anybody.
        if attacker == 1 {
            prop_assert_eq!(board.system.domains()[victim].machine().mappings(), mappings);
        }
    }

    /// Two domains that both do what they like, grants included: the invariants hold throughout,
    /// and after they ended.
    #[test]
    fn any_two_lives_keep_the_invariants(deeds in prop::collection::vec((0..2u16, deed()), 1..48)) {
        let board = Board::two();
        for (domain, deed) in &deeds {
            act(board.guest(*domain, 0), deed);
            board.check();
        }
        for domain in 0..2 {
            let _ = board.guest(domain, 0).caller.shutdown(hypervisor::Reason::PowerOff);
            board.check();
        }
        prop_assert_eq!(board.machine().power(), terrane_machine_fake::Power::Off);
    }
}

/// Every number, every low operation, each argument wild in turn.
#[test]
fn every_hypercall_takes_garbage() {
    let wild = [
        0,
        1,
        8,
        0x7ff0,
        0x10_0000,
        0x4000_0ff8,
        0xffff_ffff,
        1 << 40,
        1 << 63,
        u64::MAX,
    ];
    // Under Miri only the hypercalls that do something, and few operations of them.
    let (operations, step) = if cfg!(miri) { (2, 6) } else { (34, 1) };
    let numbers = (0..number::COUNT + 2).step_by(step);
    for number in numbers.filter(|number| *number != number::SCHED_OP) {
        let board = Board::two();
        let before = ram(&board, 0);
        let guest = board.guest(1, 0);
        for operation in (0..operations).chain([u64::MAX]) {
            for value in wild {
                let _ = guest.call(number, &[operation, value, value, value, value]);
                let _ = guest.call(
                    number,
                    &[operation, guest.ram() + 0x3000, value, guest.ram(), 0],
                );
                let _ = guest.call(number, &[operation, value, guest.ram() + 0x3000, 1, 0]);
            }
        }
        board.check();
        assert_eq!(ram(&board, 0), before, "hypercall {number}");
    }
}

/// The buffer lies across a page that isn't there, is read-only, or is the shared page.
#[test]
fn buffers_at_the_edges_are_refused_whole() {
    let board = Board::boot(&[
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec::new("guest", NO_ROLE, false),
    ]);
    let guest = board.guest(1, 0);
    let end = guest.ram() + 16 * 4096;
    for number in [number::MEMORY_OP, number::EVENT_CHANNEL_OP, number::HVM_OP] {
        for before in [0, 1, 2, 4, 7] {
            let answer = guest.call(number, &[1, end - before, 0]);
            assert!(
                answer == Ok(-14) || answer == Ok(-22),
                "{number}: {answer:?}"
            );
        }
    }
    assert_eq!(
        guest.call(number::XEN_VERSION, &[abi::version::CAPABILITIES, end - 8]),
        Ok(-14)
    );
    board.check();
}
