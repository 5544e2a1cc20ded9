//! Console, versions, time, and the calls that only answer.

use abi::{DomainId, console, number, platform, vcpu, version};
use hypervisor::Next;
use terrane_machine_fake::{Board, Guest};

fn say(guest: Guest<'_>, text: &str) {
    guest.put(guest.ram(), text.as_bytes());
    assert_eq!(
        guest.call(
            number::CONSOLE_IO,
            &[console::WRITE, text.len() as u64, guest.ram()]
        ),
        Ok(0)
    );
}

fn read_input(guest: Guest<'_>, count: u64) -> String {
    let read = guest
        .call(number::CONSOLE_IO, &[console::READ, count, guest.ram()])
        .unwrap();
    let bytes: [u8; 64] = guest.get(guest.ram());
    String::from_utf8_lossy(&bytes[..usize::try_from(read).unwrap()]).into_owned()
}

#[test]
fn the_focus_speaks_as_it_is_and_others_in_lines() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    say(control, "login: ");
    say(guest, "half");
    say(guest, " a line\nand");
    say(control, "root\n");
    assert_eq!(
        board.machine().take_console(),
        "login: \r\n(guest) half a line\r\nroot\r\n"
    );
}

#[test]
fn a_long_text_is_written_in_batches() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let text = "x".repeat(1000);
    guest.put(guest.ram(), text.as_bytes());
    let mut args = [console::WRITE, 1000, guest.ram(), 0, 0];
    assert_eq!(guest.step(number::CONSOLE_IO, &mut args), Next::Again);
    say(guest, &text);
    assert!(board.machine().take_console().ends_with(&text));
}

#[test]
fn an_unfinished_line_is_told_when_its_domain_ends() {
    let board = Board::two();
    let guest = board.guest(1, 0);
    say(guest, "Kernel panic");
    let _ = guest.caller.shutdown(hypervisor::Reason::PowerOff);
    let console = board.machine().take_console();
    assert_eq!(
        console,
        "(guest) Kernel panic\r\n(terrane) guest: powered off\r\n"
    );
}

#[test]
fn input_goes_to_the_focus() {
    let board = Board::two();
    for byte in b"ls\n" {
        board.system.console_input(*byte);
    }
    assert_eq!(read_input(board.guest(1, 0), 64), "");
    assert_eq!(read_input(board.guest(0, 0), 2), "ls");
    assert_eq!(read_input(board.guest(0, 0), 64), "\n");
}

#[test]
fn ctrl_a_three_times_moves_the_focus_and_less_is_input() {
    let board = Board::two();
    for byte in *b"\x01\x01x\x01\x01\x01y" {
        board.system.console_input(byte);
    }
    assert_eq!(read_input(board.guest(0, 0), 64), "\u{1}\u{1}x");
    assert_eq!(read_input(board.guest(1, 0), 64), "y");
    assert!(
        board
            .machine()
            .take_console()
            .contains("(terrane) console: guest")
    );
    say(board.guest(1, 0), "now raw");
    assert_eq!(board.machine().take_console(), "now raw");
}

#[test]
fn input_that_nobody_reads_is_bounded() {
    let board = Board::one(1);
    for _ in 0..300 {
        board.system.console_input(b'z');
    }
    let total: usize = (0..10)
        .map(|_| read_input(board.guest(0, 0), 64).len())
        .sum();
    assert_eq!(total, 256);
}

#[test]
fn versions_are_answered() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let ask = |operation| {
        guest
            .call(number::XEN_VERSION, &[operation, guest.ram()])
            .unwrap()
    };
    assert_eq!(
        guest.call(number::XEN_VERSION, &[version::VERSION]),
        Ok(0x4_0014)
    );
    assert_eq!(
        guest.call(number::XEN_VERSION, &[version::PAGESIZE, 0]),
        Ok(4096)
    );
    assert_eq!(ask(version::PAGESIZE), -22);
    assert_eq!(ask(version::EXTRAVERSION), 0);
    let extra: [u8; 16] = guest.get(guest.ram());
    assert!(extra.ends_with(&[0]) && extra.starts_with(b"."));
    assert_eq!(ask(version::CAPABILITIES), 0);
    let capabilities: [u8; 1024] = guest.get(guest.ram());
    assert!(capabilities.starts_with(b"xen-3.0-fake \0"));
    for operation in [
        version::CHANGESET,
        version::COMMANDLINE,
        version::COMPILE_INFO,
        version::PLATFORM_PARAMETERS,
    ] {
        assert_eq!(ask(operation), 0);
    }
    assert_eq!(ask(version::GUEST_HANDLE), 0);
    assert_eq!(ask(version::BUILD_ID), -19);
    assert_eq!(ask(99), -38);
    let index = version::FeatureInfo { index: 1, word: 0 };
    assert_eq!(
        guest
            .call_with(
                number::XEN_VERSION,
                &[version::GET_FEATURES],
                guest.ram(),
                index
            )
            .0,
        -22
    );
    let room = version::VariableBuffer { length: 3 };
    let capabilities2 = [version::CAPABILITIES2];
    assert_eq!(
        guest
            .call_with(number::XEN_VERSION, &capabilities2, guest.ram(), room)
            .0,
        -105
    );
    assert_eq!(
        guest.call(number::XEN_VERSION, &[version::CAPABILITIES2, 0]),
        Ok(13)
    );
}

#[test]
fn the_clock_is_set_by_the_hardware_domain_and_seen_by_all() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    let time = platform::SetTime64 {
        seconds: 1_700_000_000,
        nanoseconds: 5,
        reserved: 0,
        system_time: 0,
    };
    let head = platform::Head {
        command: platform::SETTIME64,
        interface_version: platform::INTERFACE_VERSION,
    };
    for (speaker, expected) in [(control, 0), (guest, -1)] {
        speaker.put(speaker.ram(), &head);
        speaker.put(speaker.ram() + 8, &time);
        assert_eq!(
            speaker.call(number::PLATFORM_OP, &[speaker.ram()]),
            Ok(expected)
        );
    }
    let page = (guest.ram() >> 12) + 15;
    let request = abi::memory::AddToPhysmap {
        domain: DomainId::SELF,
        size: 0,
        space: 0,
        index: 0,
        gpfn: page,
    };
    guest.call_with(
        number::MEMORY_OP,
        &[abi::memory::ADD_TO_PHYSMAP],
        guest.ram(),
        request,
    );
    let clock: [u32; 4] = guest.get((page << 12) + 1072);
    assert_eq!(clock[0] % 2, 0);
    assert_eq!(clock[1..], [1_700_000_000, 5, 0]);
}

#[test]
fn timers_arrive_as_an_event() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let bind = abi::event_channel::BindVirq {
        virq: 0,
        vcpu: 0,
        port: 0,
    };
    guest.call_with(
        number::EVENT_CHANNEL_OP,
        &[abi::event_channel::BIND_VIRQ],
        guest.ram(),
        bind,
    );
    let machine = guest.caller.vcpu.machine();
    let set = |operation, buffer| {
        guest
            .call(number::VCPU_OP, &[operation, 0, buffer])
            .unwrap()
    };
    guest.put(
        guest.ram(),
        &vcpu::SetSingleshotTimer {
            deadline: 500,
            flags: 0,
            reserved: 0,
        },
    );
    assert_eq!(set(vcpu::SET_SINGLESHOT_TIMER, guest.ram()), 0);
    assert_eq!(*machine.timer.lock().unwrap(), Some(500));
    machine.take_upcalls();
    board.machine().advance(500);
    guest.caller.timer_expired();
    assert_eq!(machine.take_upcalls(), 1);
    assert_eq!(*machine.timer.lock().unwrap(), None);

    guest.put(
        guest.ram(),
        &vcpu::SetSingleshotTimer {
            deadline: 1,
            flags: vcpu::TIMER_FUTURE,
            reserved: 0,
        },
    );
    assert_eq!(set(vcpu::SET_SINGLESHOT_TIMER, guest.ram()), -62);
    guest.put(guest.ram(), &vcpu::SetPeriodicTimer { period: 10 });
    assert_eq!(set(vcpu::SET_PERIODIC_TIMER, guest.ram()), -22);
    guest.put(guest.ram(), &vcpu::SetPeriodicTimer { period: 1_000_000 });
    assert_eq!(set(vcpu::SET_PERIODIC_TIMER, guest.ram()), 0);
    assert_eq!(*machine.timer.lock().unwrap(), Some(1_000_500));
    assert_eq!(set(vcpu::STOP_PERIODIC_TIMER, 0), 0);
    assert_eq!(*machine.timer.lock().unwrap(), None);
}

#[test]
fn waiting_ends_when_there_is_something() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let request = abi::event_channel::AllocUnbound {
        domain: DomainId::SELF,
        remote: DomainId::SELF,
        port: 0,
    };
    let alloc = [abi::event_channel::ALLOC_UNBOUND];
    let far = guest
        .call_with(number::EVENT_CHANNEL_OP, &alloc, guest.ram(), request)
        .1
        .port;
    guest.put(guest.ram() + 64, &[far]);
    let poll = abi::sched::Poll {
        ports: guest.ram() + 64,
        count: 1,
        reserved: 0,
        timeout: 77,
    };
    guest.put(guest.ram(), &poll);
    let mut args = [abi::sched::POLL, guest.ram(), 0, 0, 0];
    assert_eq!(
        guest.step(number::SCHED_OP, &mut args),
        Next::WaitUntil(Some(77))
    );

    let bind = abi::event_channel::BindInterdomain {
        remote: DomainId::SELF,
        reserved: 0,
        remote_port: far,
        port: 0,
    };
    let near = guest
        .call_with(number::EVENT_CHANNEL_OP, &[0], guest.ram() + 128, bind)
        .1
        .port;
    guest.call_with(
        number::EVENT_CHANNEL_OP,
        &[4],
        guest.ram() + 128,
        abi::event_channel::Port { port: near },
    );
    assert_eq!(
        guest.caller.vcpu.machine().take_kicks(),
        1,
        "a poller is woken even if the port is masked"
    );
    let mut args = [abi::sched::POLL, guest.ram(), 0, 0, 0];
    assert_eq!(guest.step(number::SCHED_OP, &mut args), Next::Advance);
    let mut args = [abi::sched::BLOCK, 0, 0, 0, 0];
    assert_eq!(
        guest.step(number::SCHED_OP, &mut args),
        Next::Advance,
        "an upcall is pending"
    );
}

#[test]
fn what_is_absent_or_refused_is_said_once() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    for _ in 0..3 {
        assert_eq!(guest.call(number::DOMCTL, &[]), Ok(-1));
        assert_eq!(control.call(number::DOMCTL, &[]), Ok(-38));
        assert_eq!(guest.call(3, &[]), Ok(-38));
        assert_eq!(guest.call(u64::MAX, &[]), Ok(-38));
    }
    assert_eq!(board.machine().take_console().lines().count(), 4);
}

#[test]
fn several_calls_in_one() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let entry = |number, args| abi::multicall::Entry {
        number,
        result: 99,
        args,
        unused: 0,
    };
    let list: Vec<_> = (0..20)
        .map(|index| match index % 3 {
            0 => entry(number::XEN_VERSION, [version::VERSION, 0, 0, 0, 0]),
            1 => entry(number::MULTICALL, [0; 5]),
            _ => entry(77, [0; 5]),
        })
        .collect();
    guest.put(guest.ram(), &list[..]);
    assert_eq!(guest.call(number::MULTICALL, &[guest.ram(), 20]), Ok(0));
    for index in 0..20 {
        let done: abi::multicall::Entry = guest.get(guest.ram() + index * 64);
        let expected = [0x4_0014, -22, -38][usize::try_from(index % 3).unwrap()];
        assert_eq!(done.result.cast_signed(), expected);
    }
}

#[test]
fn vcpu_registrations() {
    let board = Board::one(1);
    let guest = board.guest(0, 0);
    let register = |operation, address: u64| {
        guest.put(guest.ram(), &vcpu::RegisterArea { address });
        guest
            .call(number::VCPU_OP, &[operation, 0, guest.ram()])
            .unwrap()
    };
    let area = guest.ram() + 0x2000;
    guest.put(area, &[0xffu8; 48]);
    assert_eq!(register(vcpu::REGISTER_RUNSTATE_MEMORY_AREA, area), 0);
    assert_eq!(guest.get::<vcpu::RunstateInfo>(area).state, vcpu::RUNNING);
    assert_eq!(guest.get::<vcpu::RunstateInfo>(area).time, [0; 4]);
    assert_eq!(register(vcpu::REGISTER_RUNSTATE_PHYS_AREA, area), 0);
    assert_eq!(register(vcpu::REGISTER_RUNSTATE_PHYS_AREA, area + 4060), -6);
    assert_eq!(register(vcpu::REGISTER_RUNSTATE_PHYS_AREA, 0), -22);
    assert_eq!(register(vcpu::REGISTER_RUNSTATE_MEMORY_AREA, 0), -14);
    assert_eq!(guest.call(number::VCPU_OP, &[vcpu::IS_UP, 0]), Ok(1));
    assert_eq!(guest.call(number::VCPU_OP, &[vcpu::UP, 0]), Ok(-95));
    assert_eq!(guest.call(number::VCPU_OP, &[vcpu::IS_UP, 1]), Ok(-2));
    assert_eq!(
        guest.call(number::VCPU_OP, &[vcpu::IS_UP, u64::MAX]),
        Ok(-2)
    );
}

#[test]
fn parameters() {
    let board = Board::two();
    let (control, guest) = (board.guest(0, 0), board.guest(1, 0));
    let param = |guest: Guest<'_>, operation, domain, index| {
        let request = abi::hvm::Param {
            domain: DomainId(domain),
            reserved: 0,
            index,
            value: 9,
        };
        let (result, answer) = guest.call_with(number::HVM_OP, &[operation], guest.ram(), request);
        (result, answer.value)
    };
    let own = DomainId::SELF.0;
    assert_eq!(
        param(
            guest,
            abi::hvm::GET_PARAM,
            own,
            abi::hvm::PARAM_STORE_EVTCHN
        ),
        (0, 0)
    );
    assert_eq!(
        param(
            guest,
            abi::hvm::SET_PARAM,
            own,
            abi::hvm::PARAM_STORE_EVTCHN
        )
        .0,
        -1
    );
    assert_eq!(param(guest, abi::hvm::GET_PARAM, own, 38).0, -22);
    assert_eq!(param(guest, abi::hvm::GET_PARAM, own, u32::MAX).0, -22);
    assert_eq!(
        param(guest, abi::hvm::GET_PARAM, 0, abi::hvm::PARAM_STORE_PFN).0,
        -1
    );
    assert_eq!(
        param(control, abi::hvm::GET_PARAM, 1, abi::hvm::PARAM_STORE_PFN),
        (0, 0)
    );
    assert_eq!(
        param(
            guest,
            abi::hvm::SET_PARAM,
            own,
            abi::hvm::PARAM_CALLBACK_IRQ
        )
        .0,
        -1
    );
    assert_eq!(
        control.call(number::PHYSDEV_OP, &[abi::physdev::PCI_DEVICE_ADD]),
        Ok(0)
    );
    assert_eq!(
        guest.call(number::PHYSDEV_OP, &[abi::physdev::PCI_DEVICE_ADD]),
        Ok(-1)
    );
    assert_eq!(guest.call(number::VM_ASSIST, &[0, 5]), Ok(0));
    assert_eq!(guest.call(number::VM_ASSIST, &[0, 4]), Ok(-22));
}
