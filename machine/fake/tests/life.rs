//! How domains end, and what follows.

use abi::{number, sched};
use hypervisor::{Next, Reason, Start, StartError, StrayAction};
use layout::{GuestAddress, OnStop, OnStrayAccess, Policies};
use terrane_machine_fake::{
    Board, DomainSpec, Guest, HARDWARE, NO_ROLE, Power, Stopped, VcpuState,
};

fn with(policies: Policies, cpus: u32) -> Board {
    Board::boot(&[DomainSpec {
        policies,
        cpus,
        ..DomainSpec::new("control", HARDWARE, true)
    }])
}

fn shutdown(guest: Guest<'_>, reason: u32) -> Result<i64, Stopped> {
    guest.put(guest.ram(), &sched::Shutdown { reason });
    guest.call(number::SCHED_OP, &[sched::SHUTDOWN, guest.ram()])
}

fn start_second(guest: Guest<'_>) -> Result<(), StartError> {
    guest.caller.vcpu_on(
        1,
        Start {
            entry: GuestAddress::new(0x1000),
            argument: 7,
        },
    )
}

#[test]
fn the_last_domain_powers_the_machine_off() {
    let board = Board::two();
    assert_eq!(
        shutdown(board.guest(1, 0), sched::REASON_POWEROFF),
        Err(Stopped)
    );
    assert_eq!(board.machine().power(), Power::On);
    assert_eq!(
        shutdown(board.guest(0, 0), sched::REASON_POWEROFF),
        Err(Stopped)
    );
    assert_eq!(board.machine().power(), Power::Off);
    let console = board.machine().take_console();
    let lines: Vec<&str> = console.lines().collect();
    let expected = [
        "(terrane) guest: powered off",
        "(terrane) control: powered off",
        "(terrane) all domains have stopped",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn every_reason_has_its_policy() {
    let reboots = Policies {
        on_reboot: OnStop::RebootMachine,
        on_crash: OnStop::HaltMachine,
        ..Policies::default()
    };
    for (reason, power, line) in [
        (sched::REASON_REBOOT, Power::Reset, "rebooted"),
        (sched::REASON_SOFT_RESET, Power::Reset, "rebooted"),
        (
            sched::REASON_CRASH,
            Power::Off,
            "crashed: the guest says so",
        ),
        (
            sched::REASON_WATCHDOG,
            Power::Off,
            "crashed: the guest's watchdog",
        ),
    ] {
        let board = with(reboots, 1);
        assert_eq!(shutdown(board.guest(0, 0), reason), Err(Stopped));
        assert_eq!(board.machine().power(), power);
        assert_eq!(
            board.machine().take_console(),
            format!("(terrane) control: {line}\r\n")
        );
    }
}

#[test]
fn suspend_and_unknown_reasons_are_refused() {
    let board = Board::one(1);
    assert_eq!(shutdown(board.guest(0, 0), sched::REASON_SUSPEND), Ok(-95));
    assert_eq!(shutdown(board.guest(0, 0), 6), Ok(-22));
    assert_eq!(board.machine().power(), Power::On);
}

#[test]
fn the_domain_ends_when_its_last_vcpu_has_left() {
    let board = with(Policies::default(), 2);
    let (first, second) = (board.guest(0, 0), board.guest(0, 1));
    start_second(first).unwrap();
    assert_eq!(shutdown(first, sched::REASON_POWEROFF), Err(Stopped));
    assert_eq!(second.caller.vcpu.machine().take_kicks(), 1);
    assert_eq!(board.machine().take_console(), "");
    assert_eq!(start_second(first), Err(StartError::Ending));
    assert_eq!(second.caller.kicked(), Next::Park);
    assert!(
        board
            .machine()
            .take_console()
            .contains("control: powered off")
    );
    assert_eq!(board.machine().power(), Power::Off);
}

#[test]
fn a_kick_means_nothing_to_a_domain_that_goes_on() {
    let board = Board::one(1);
    assert_eq!(board.guest(0, 0).caller.kicked(), Next::Resume);
}

#[test]
fn vcpus_start_and_stop() {
    let board = with(Policies::default(), 2);
    let (first, second) = (board.guest(0, 0), board.guest(0, 1));
    assert_eq!(first.caller.vcpu_is_on(1), Some(false));
    start_second(first).unwrap();
    assert_eq!(start_second(first), Err(StartError::AlreadyOn));
    assert_eq!(
        first.caller.vcpu_on(
            2,
            Start {
                entry: GuestAddress::new(0),
                argument: 0
            }
        ),
        Err(StartError::NoSuchVcpu)
    );
    let started = Start {
        entry: GuestAddress::new(0x1000),
        argument: 7,
    };
    assert_eq!(second.state(), VcpuState::Running(started));
    assert_eq!(second.caller.vcpu_off(), Next::Park);
    assert_eq!(first.caller.vcpu_is_on(1), Some(false));
    assert_eq!(first.caller.vcpu_is_on(2), None);
    assert_eq!(board.machine().power(), Power::On);
    assert_eq!(first.caller.vcpu_off(), Next::Park);
    assert_eq!(board.machine().power(), Power::Off);
}

#[test]
fn a_restart_builds_the_same_domain_again() {
    let board = with(
        Policies {
            on_reboot: OnStop::Restart,
            ..Policies::default()
        },
        2,
    );
    let guest = board.guest(0, 0);
    let before = guest.caller.domain.machine().mappings();
    let kernel = guest.caller.domain.plan().kernel.address.raw();
    let original: [u8; 64] = guest.get(kernel);
    guest.put(kernel, b"overwritten");
    give_away_a_page(guest);
    assert_ne!(guest.caller.domain.machine().mappings(), before);

    assert_eq!(shutdown(guest, sched::REASON_REBOOT), Err(Stopped));
    assert_eq!(
        guest
            .caller
            .vcpu
            .machine()
            .starts
            .load(std::sync::atomic::Ordering::SeqCst),
        2
    );
    assert_ne!(guest.state(), VcpuState::Parked, "stopped, then started");
    assert_eq!(guest.caller.domain.machine().mappings(), before);
    assert_eq!(guest.get::<[u8; 64]>(kernel), original);
    assert_eq!(board.machine().power(), Power::On);
    assert_eq!(
        board.machine().take_console(),
        "(terrane) control: rebooted\r\n(terrane) control: restarting\r\n"
    );
    board.check();
}

fn give_away_a_page(guest: Guest<'_>) {
    let request = abi::memory::Reservation {
        extents: guest.ram() + 1024,
        count: 1,
        order: 0,
        flags: 0,
        domain: abi::DomainId::SELF,
        reserved: [0; 3],
    };
    guest.put(guest.ram() + 1024, &((guest.ram() >> 12) + 7));
    let operation = abi::memory::DECREASE_RESERVATION;
    assert_eq!(
        guest
            .call_with(number::MEMORY_OP, &[operation], guest.ram(), request)
            .0,
        1
    );
}

#[test]
fn a_stray_access_names_the_owner() {
    let board = Board::two();
    let guest = board.guest(1, 0);
    let (hypervisor, control) = (0x100_000, board.guest(0, 0).ram());
    for address in [hypervisor, control, 0x8000_0000, 0x7000_0000] {
        assert_eq!(
            guest.caller.stray_access(GuestAddress::new(address), true),
            StrayAction::Fault
        );
    }
    let console = board.machine().take_console();
    for what in [
        "0x100000, not in its layout (on the machine: the hypervisor's)",
        "RAM of control",
        "a device of control",
        "nobody's",
    ] {
        assert!(console.contains(what), "{what}: {console}");
    }
    for _ in 0..100 {
        assert_eq!(
            guest.caller.stray_access(GuestAddress::new(0), false),
            StrayAction::Fault
        );
    }
    let console = board.machine().take_console();
    assert_eq!(console.lines().count(), 12);
    assert!(
        console.ends_with("; further ones aren't logged\r\n"),
        "{console}"
    );
}

#[test]
fn a_stray_access_may_stop_the_domain_or_mean_nothing() {
    let policies = |on_stray_access| Policies {
        on_stray_access,
        ..Policies::default()
    };
    let board = Board::boot(&[
        DomainSpec {
            policies: policies(OnStrayAccess::Ignore),
            ..DomainSpec::new("control", HARDWARE, true)
        },
        DomainSpec {
            policies: policies(OnStrayAccess::Stop),
            ..DomainSpec::new("guest", NO_ROLE, false)
        },
    ]);
    let address = GuestAddress::new(0x1234_5678);
    assert_eq!(
        board.guest(0, 0).caller.stray_access(address, false),
        StrayAction::Ignore
    );
    assert_eq!(
        board.guest(1, 0).caller.stray_access(address, true),
        StrayAction::Park
    );
    let console = board.machine().take_console();
    assert!(
        console.contains("(terrane) guest: crashed: stray write to 0x12345678"),
        "{console}"
    );
}

#[test]
fn a_crash_of_the_machine_crates_finding_is_told() {
    let board = Board::one(1);
    assert_eq!(
        board
            .guest(0, 0)
            .caller
            .crash(format_args!("triple {}", "fault")),
        Next::Park
    );
    assert!(
        board
            .machine()
            .take_console()
            .contains("control: crashed: triple fault")
    );
    let long = Reason::crash(format_args!("{:200}", "x")).to_string();
    assert_eq!(long.len(), "crashed: ".len() + hypervisor::CAUSE_LENGTH);
}
