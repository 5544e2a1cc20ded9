//! Event channels, as a guest sees them.

use abi::event_channel as ev;
use abi::{DomainId, number};
use terrane_machine_fake::{Board, DomainSpec, Guest, HARDWARE};

/// Where the tests put the shared page: the domain's last page.
const SHARED_PAGE: u64 = 15;

fn shared_page(guest: Guest<'_>) -> u64 {
    guest.ram() + SHARED_PAGE * 4096
}

fn map_shared_page(guest: Guest<'_>) {
    let request = abi::memory::AddToPhysmap {
        domain: DomainId::SELF,
        size: 0,
        space: abi::memory::SPACE_SHARED_INFO,
        index: 0,
        gpfn: shared_page(guest) >> 12,
    };
    let (result, _) = guest.call_with(
        number::MEMORY_OP,
        &[abi::memory::ADD_TO_PHYSMAP],
        guest.ram(),
        request,
    );
    assert_eq!(result, 0);
}

fn op<T>(guest: Guest<'_>, operation: u64, request: T) -> (i64, T)
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    guest.call_with(number::EVENT_CHANNEL_OP, &[operation], guest.ram(), request)
}

fn alloc_unbound(guest: Guest<'_>, remote: u16) -> u32 {
    let request = ev::AllocUnbound {
        domain: DomainId::SELF,
        remote: DomainId(remote),
        port: 0,
    };
    let (result, answer) = op(guest, ev::ALLOC_UNBOUND, request);
    assert_eq!(result, 0);
    answer.port
}

fn bind(guest: Guest<'_>, remote: u16, remote_port: u32) -> (i64, u32) {
    let request = ev::BindInterdomain {
        remote: DomainId(remote),
        reserved: 0,
        remote_port,
        port: 0,
    };
    let (result, answer) = op(guest, ev::BIND_INTERDOMAIN, request);
    (result, answer.port)
}

fn port(guest: Guest<'_>, operation: u64, port: u32) -> i64 {
    op(guest, operation, ev::Port { port }).0
}

fn pending(guest: Guest<'_>, port: u32) -> bool {
    guest.word(shared_page(guest) + 48 + u64::from(port) / 64 * 8) >> (port % 64) & 1 == 1
}

fn set_mask(guest: Guest<'_>, value: u64) {
    guest.set_word(shared_page(guest) + 560, value);
}

/// What a kernel's upcall does: takes the pending word and clears what it found.
fn take_upcall(guest: Guest<'_>) -> u64 {
    let base = shared_page(guest);
    guest.set_word(base, guest.word(base) & !0xff);
    guest.set_word(base + 8, 0);
    let ports = guest.word(base + 48);
    guest.set_word(base + 48, 0);
    ports
}

#[test]
fn a_notification_sets_the_bits_and_raises_one_upcall() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    map_shared_page(control);
    map_shared_page(guest);
    let far = alloc_unbound(guest, 0);
    let (result, near) = bind(control, 1, far);
    assert_eq!(result, 0);
    guest.caller.vcpu.machine().take_upcalls();

    assert_eq!(port(control, ev::SEND, near), 0);
    assert_eq!(port(control, ev::SEND, near), 0);
    assert!(pending(guest, far));
    assert_eq!(guest.caller.vcpu.machine().take_upcalls(), 1);
    assert_eq!(guest.word(shared_page(guest)) & 0xff, 1);
    assert_eq!(guest.word(shared_page(guest) + 8), 1);

    assert_eq!(take_upcall(guest), 1 << far);
    assert_eq!(port(control, ev::SEND, near), 0);
    assert_eq!(guest.caller.vcpu.machine().take_upcalls(), 1);
}

#[test]
fn binding_makes_up_for_what_was_sent_before() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    map_shared_page(control);
    let far = alloc_unbound(guest, 0);
    assert_eq!(port(guest, ev::SEND, far), 0);
    let (_, near) = bind(control, 1, far);
    assert!(pending(control, near));
}

#[test]
fn a_masked_port_waits_for_unmask() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    map_shared_page(guest);
    let far = alloc_unbound(guest, 0);
    let (_, near) = bind(control, 1, far);
    take_upcall(guest);
    guest.caller.vcpu.machine().take_upcalls();
    set_mask(guest, 1 << far);
    assert_eq!(port(control, ev::SEND, near), 0);
    assert!(pending(guest, far));
    assert_eq!(guest.caller.vcpu.machine().take_upcalls(), 0);
    assert_eq!(port(guest, ev::UNMASK, far), 0);
    assert_eq!(guest.caller.vcpu.machine().take_upcalls(), 1);
    assert_eq!(guest.word(shared_page(guest) + 560), 0);
}

#[test]
fn only_the_named_domain_binds() {
    let board = Board::boot(&[
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec::new("a", terrane_machine_fake::NO_ROLE, false),
        DomainSpec::new("b", terrane_machine_fake::NO_ROLE, false),
    ]);
    let far = alloc_unbound(board.guest(1, 0), 0);
    assert_eq!(bind(board.guest(2, 0), 1, far).0, -22);
    assert_eq!(bind(board.guest(0, 0), 1, far).0, 0);
    assert_eq!(bind(board.guest(0, 0), 1, far).0, -22, "it is bound");
    assert_eq!(bind(board.guest(0, 0), 7, far).0, -3, "no such domain");
    assert_eq!(bind(board.guest(0, 0), 1, 4000).0, -22, "no such port");
}

#[test]
fn only_control_allocates_for_others() {
    let board = Board::two();
    let request = |domain| ev::AllocUnbound {
        domain: DomainId(domain),
        remote: DomainId::SELF,
        port: 0,
    };
    assert_eq!(op(board.guest(0, 0), ev::ALLOC_UNBOUND, request(1)).0, 0);
    assert_eq!(op(board.guest(1, 0), ev::ALLOC_UNBOUND, request(0)).0, -1);
}

#[test]
fn closing_one_end_unbinds_the_other() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    let far = alloc_unbound(guest, 0);
    let (_, near) = bind(control, 1, far);
    assert_eq!(port(control, ev::CLOSE, near), 0);
    assert_eq!(port(control, ev::CLOSE, near), -22);
    let status = |guest: Guest<'_>, port| {
        let request = ev::Status {
            domain: DomainId::SELF,
            reserved: 0,
            port,
            status: 99,
            vcpu: 0,
            detail: 99,
            remote_port: 0,
        };
        op(guest, ev::STATUS, request).1
    };
    assert_eq!(status(guest, far).status, ev::STATUS_UNBOUND);
    assert_eq!(status(guest, far).detail, 0);
    assert_eq!(status(control, near).status, ev::STATUS_CLOSED);
    assert_eq!(bind(control, 1, far).0, 0, "the same domain may come back");
}

#[test]
fn a_link_of_a_domain_with_itself_works() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    map_shared_page(guest);
    let far = alloc_unbound(guest, DomainId::SELF.0);
    let (result, near) = bind(guest, DomainId::SELF.0, far);
    assert_eq!(result, 0);
    take_upcall(guest);
    assert_eq!(port(guest, ev::SEND, near), 0);
    assert!(pending(guest, far) && !pending(guest, near));
    assert_eq!(port(guest, ev::CLOSE, near), 0);
    assert_eq!(port(guest, ev::CLOSE, far), 0);
}

#[test]
fn virtual_interrupts_are_bound_once() {
    let board = Board::one(2);
    let guest = board.guest(0, 0);
    let bind = |virq, vcpu| {
        op(
            guest,
            ev::BIND_VIRQ,
            ev::BindVirq {
                virq,
                vcpu,
                port: 0,
            },
        )
        .0
    };
    assert_eq!(bind(ev::VIRQ_TIMER, 0), 0);
    assert_eq!(bind(ev::VIRQ_TIMER, 1), 0, "each vCPU has its own");
    assert_eq!(bind(ev::VIRQ_TIMER, 0), -17);
    assert_eq!(
        bind(ev::VIRQ_CONSOLE, 1),
        -22,
        "there is one for the domain"
    );
    assert_eq!(bind(ev::VIRQ_TIMER, 2), -2);
    assert_eq!(bind(24, 0), -22);
}

#[test]
fn an_ipi_reaches_its_vcpu() {
    let board = Board::one(2);
    let guest = board.guest(0, 0);
    map_shared_page(guest);
    register_info(guest, 1, 14, 64);
    let (result, answer) = op(guest, ev::BIND_IPI, ev::BindIpi { vcpu: 1, port: 0 });
    assert_eq!(result, 0);
    let other = board.guest(0, 1);
    // A new vcpu_info starts with everything pending once.
    assert_eq!(other.caller.vcpu.machine().take_upcalls(), 1);
    let info = guest.ram() + 14 * 4096 + 64;
    assert_eq!(guest.word(info + 8), u64::MAX);
    guest.set_word(info, 0);
    guest.set_word(info + 8, 0);
    assert_eq!(port(guest, ev::SEND, answer.port), 0);
    assert_eq!(other.caller.vcpu.machine().take_upcalls(), 1);
    assert_eq!(guest.word(info) & 0xff, 1);
    assert_eq!(guest.word(info + 8), 1);
    assert_eq!(port(guest, ev::BIND_VCPU, 0), -22);
}

fn register_info(guest: Guest<'_>, vcpu: u64, page: u64, offset: u32) -> i64 {
    let request = abi::vcpu::RegisterInfo {
        gfn: (guest.ram() >> 12) + page,
        offset,
        reserved: 0,
    };
    guest.put(guest.ram(), &request);
    guest
        .call(
            number::VCPU_OP,
            &[abi::vcpu::REGISTER_VCPU_INFO, vcpu, guest.ram()],
        )
        .unwrap()
}

#[test]
fn vcpu_info_must_fit_its_page_and_is_registered_once() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    map_shared_page(guest);
    assert_eq!(
        register_info(guest, 0, 14, 4096 - 40),
        -6,
        "it crosses the page"
    );
    assert_eq!(register_info(guest, 0, 14, 4), -6, "it is misaligned");
    assert_eq!(
        register_info(guest, 0, 15, 0),
        -22,
        "the shared page isn't RAM of the guest"
    );
    assert_eq!(register_info(guest, 0, 99, 0), -22, "no such page");
    assert_eq!(register_info(guest, 7, 14, 0), -2, "no such vCPU");
    assert_eq!(register_info(guest, 0, 14, 0), 0);
    assert_eq!(register_info(guest, 0, 14, 0), -16);
}

#[test]
fn what_lies_where_vcpu_info_goes_does_not_hide_the_upcall() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let info = guest.ram() + 14 * 4096;
    guest.set_word(info, 1);
    guest.caller.vcpu.machine().take_upcalls();
    assert_eq!(register_info(guest, 0, 14, 0), 0);
    assert_eq!(guest.caller.vcpu.machine().take_upcalls(), 1);
    assert_eq!(guest.word(info), 1);
    assert_eq!(guest.word(info + 8), u64::MAX);
}

#[test]
fn a_link_notifies_vcpu_0_whoever_bound_it() {
    let board = Board::one(2);
    let (first, second) = (board.guest(0, 0), board.guest(0, 1));
    let far = alloc_unbound(first, DomainId::SELF.0);
    let (result, near) = bind(second, DomainId::SELF.0, far);
    assert_eq!(result, 0);
    for port in [far, near] {
        let request = ev::Status {
            domain: DomainId::SELF,
            reserved: 0,
            port,
            status: 0,
            vcpu: 99,
            detail: 0,
            remote_port: 0,
        };
        let (result, answer) = op(first, ev::STATUS, request);
        assert_eq!((result, answer.status), (0, ev::STATUS_INTERDOMAIN));
        assert_eq!(answer.vcpu, 0);
    }
}

/// One domain allocates and closes a port as fast as it can, another binds to it and closes its
/// end: a close never fails, and no end of a link outlives the other.
#[test]
fn both_ends_may_be_closed_at_once() {
    const ROUNDS: u32 = if cfg!(miri) { 20 } else { 20_000 };
    let board = Board::two();
    std::thread::scope(|scope| {
        let closer = scope.spawn(|| {
            for _ in 0..ROUNDS {
                let own = alloc_unbound(board.guest(1, 0), 0);
                assert_eq!(port(board.guest(1, 0), ev::CLOSE, own), 0);
            }
        });
        while !closer.is_finished() {
            let (result, near) = bind(board.guest(0, 0), 1, 1);
            if result == 0 {
                assert_eq!(port(board.guest(0, 0), ev::CLOSE, near), 0);
            }
        }
    });
    for index in 0..2 {
        let guest = board.guest(index, 0);
        for port in 1..128 {
            let request = ev::Status {
                domain: DomainId::SELF,
                reserved: 0,
                port,
                status: 99,
                vcpu: 0,
                detail: 0,
                remote_port: 0,
            };
            let (_, answer) = op(guest, ev::STATUS, request);
            assert_eq!(answer.status, ev::STATUS_CLOSED, "{port} of {index}");
        }
    }
}

#[test]
fn ports_end_at_the_planned_limit() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    for expected in 1..128 {
        assert_eq!(alloc_unbound(guest, 0), expected);
    }
    let request = ev::AllocUnbound {
        domain: DomainId::SELF,
        remote: DomainId(0),
        port: 0,
    };
    assert_eq!(op(guest, ev::ALLOC_UNBOUND, request).0, -28);
    assert_eq!(
        op(
            guest,
            ev::RESET,
            ev::Reset {
                domain: DomainId::SELF
            }
        )
        .0,
        0
    );
    assert_eq!(alloc_unbound(guest, 0), 1);
}

#[test]
fn the_fifo_form_is_absent() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    for operation in [
        ev::INIT_CONTROL,
        ev::EXPAND_ARRAY,
        ev::SET_PRIORITY,
        ev::BIND_PIRQ,
        99,
    ] {
        assert_eq!(
            guest.call(number::EVENT_CHANNEL_OP, &[operation, guest.ram()]),
            Ok(-38)
        );
    }
}

#[test]
fn a_port_that_cannot_be_told_is_taken_back() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    // The structure lies across the end of the guest's RAM: it can't be read, so nothing is
    // allocated.
    let last = guest.ram() + 16 * 4096 - 4;
    assert_eq!(
        guest.call(number::EVENT_CHANNEL_OP, &[ev::ALLOC_UNBOUND, last]),
        Ok(-14)
    );
    assert_eq!(alloc_unbound(guest, 0), 1);
}
