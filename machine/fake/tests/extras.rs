//! What only some architectures have, x86 before all: memory maps, a clock in shared memory, vCPUs
//! started by hypercall, upcalls by a vector of the guest's choice.

use abi::event_channel::{self, BindIpi, Port};
use abi::hvm::{self, Param, UpcallVector};
use abi::hvm_vcpu::{Context, MODE_32, MODE_64};
use abi::memory::{MapEntry, MemoryMap};
use abi::physdev::{self, SetupGsi};
use abi::platform::{self, PhysicalCpu};
use abi::shared_info::{Layout, TimeInfo};
use abi::vcpu::{self, RegisterArea, RegisterInfo};
use abi::{DomainId, memory, number};
use hypervisor::Next;
use layout::FRAME_SIZE;
use terrane_machine_fake::{
    Board, CLOCK, DomainSpec, Guest, HARDWARE, NO_ROLE, Stopped, VcpuState,
};

const ENOENT: i64 = -2;
const EFAULT: i64 = -14;
const EPERM: i64 = -1;
const EEXIST: i64 = -17;
const ENODEV: i64 = -19;
const EINVAL: i64 = -22;
const ENOSYS: i64 = -38;
const EOPNOTSUPP: i64 = -95;

fn one(cpus: u32) -> Board {
    Board::with_extras(&[DomainSpec {
        cpus,
        ..DomainSpec::new("control", HARDWARE, true)
    }])
}

fn two() -> Board {
    Board::with_extras(&[
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec::new("guest", NO_ROLE, false),
    ])
}

/// A frame of the guest's RAM that nothing else uses, as an address.
fn page(guest: Guest<'_>, index: u64) -> u64 {
    guest.ram() + index * FRAME_SIZE
}

mod memory_maps {
    use super::*;

    fn ask(guest: Guest<'_>, operation: u64, count: u32, buffer: u64) -> (i64, u32) {
        let request = MemoryMap {
            count,
            reserved: 0,
            buffer,
        };
        let (result, answer) =
            guest.call_with(number::MEMORY_OP, &[operation], guest.ram(), request);
        (result, answer.count)
    }

    #[test]
    fn a_domain_reads_its_own() {
        let board = two();
        let guest = board.guest(1, 0);
        let buffer = page(guest, 3);
        assert_eq!(ask(guest, memory::MEMORY_MAP, 128, buffer), (0, 1));
        let entry: MapEntry = guest.get(buffer);
        assert_eq!({ entry.address }, guest.ram());
        assert_eq!({ entry.size }, 16 * FRAME_SIZE);
        assert_eq!({ entry.kind }, 1);
    }

    #[test]
    fn without_a_buffer_the_number_is_told() {
        let board = one(1);
        let control = board.guest(0, 0);
        assert_eq!(ask(control, memory::MACHINE_MEMORY_MAP, 0, 0), (0, 2));
        assert_eq!(ask(control, memory::MEMORY_MAP, 7, 0), (0, 1));
    }

    #[test]
    fn too_little_room_writes_nothing() {
        let board = one(1);
        let control = board.guest(0, 0);
        let buffer = page(control, 3);
        control.put(buffer, &[0x55_u8; 40]);
        assert_eq!(
            ask(control, memory::MACHINE_MEMORY_MAP, 1, buffer),
            (EINVAL, 1)
        );
        assert_eq!(control.get::<[u8; 40]>(buffer), [0x55; 40]);
        assert_eq!(ask(control, memory::MACHINE_MEMORY_MAP, 2, buffer), (0, 2));
        let entries: [MapEntry; 2] = control.get(buffer);
        assert_eq!({ entries[0].kind }, 2);
        assert_eq!({ entries[1].address }, { entries[0].size });
    }

    #[test]
    fn the_machines_is_for_the_hardware_domain() {
        let board = two();
        let guest = board.guest(1, 0);
        assert_eq!(ask(guest, memory::MACHINE_MEMORY_MAP, 0, 0), (EPERM, 0));
    }

    #[test]
    fn a_bad_buffer_is_a_fault() {
        let board = one(1);
        let guest = board.guest(0, 0);
        assert_eq!(ask(guest, memory::MEMORY_MAP, 9, 0xdead_0000).0, EFAULT);
        assert_eq!(
            guest.call(number::MEMORY_OP, &[memory::MEMORY_MAP, 0xdead_0000]),
            Ok(EFAULT)
        );
    }

    #[test]
    fn other_architectures_have_none() {
        let board = Board::one(1);
        let guest = board.guest(0, 0);
        for operation in [memory::MEMORY_MAP, memory::MACHINE_MEMORY_MAP] {
            assert_eq!(ask(guest, operation, 128, page(guest, 3)).0, ENOSYS);
        }
    }
}

mod clock {
    use super::*;

    fn register(guest: Guest<'_>, operation: u64, address: u64) -> i64 {
        let area = RegisterArea { address };
        guest
            .call_with(number::VCPU_OP, &[operation, 0], guest.ram(), area)
            .0
    }

    fn is_clock(time: TimeInfo) -> bool {
        time.version != 0
            && time.version.is_multiple_of(2)
            && time.tsc_to_system_mul == CLOCK.tsc_to_system_mul
            && time.tsc_shift == CLOCK.tsc_shift
            && time.flags == CLOCK.flags
    }

    #[test]
    fn it_is_in_the_shared_page_before_the_guest_begins() {
        let board = one(1);
        let guest = board.guest(0, 0);
        let at = page(guest, 4);
        let request = memory::AddToPhysmap {
            domain: DomainId::SELF,
            size: 0,
            space: memory::SPACE_SHARED_INFO,
            index: 0,
            gpfn: at / FRAME_SIZE,
        };
        let (result, _) = guest.call_with(
            number::MEMORY_OP,
            &[memory::ADD_TO_PHYSMAP],
            guest.ram(),
            request,
        );
        assert_eq!(result, 0);
        assert!(is_clock(guest.get(at + Layout::ARM.vcpu_time)));
    }

    #[test]
    fn it_follows_a_registered_vcpu_info() {
        let board = one(2);
        let guest = board.guest(0, 1);
        let at = page(guest, 4) + 0x100;
        // What lay there before isn't a record under way.
        guest.put(at + Layout::ARM.vcpu_time, &[0xff_u8; 32]);
        let request = RegisterInfo {
            gfn: at / FRAME_SIZE,
            offset: 0x100,
            reserved: 0,
        };
        let (result, _) = guest.call_with(
            number::VCPU_OP,
            &[vcpu::REGISTER_VCPU_INFO, 1],
            guest.ram(),
            request,
        );
        assert_eq!(result, 0);
        let time: TimeInfo = guest.get(at + Layout::ARM.vcpu_time);
        assert!(time.version.is_multiple_of(2) && time.reserved == 0);
        assert_eq!(time.tsc_to_system_mul, CLOCK.tsc_to_system_mul);
    }

    #[test]
    fn a_guest_may_have_it_where_it_wants() {
        let board = one(1);
        let guest = board.guest(0, 0);
        // By virtual address also across two pages.
        let across = page(guest, 5) - 16;
        assert_eq!(register(guest, vcpu::REGISTER_TIME_MEMORY_AREA, across), 0);
        assert!(is_clock(guest.get(across)));
        assert_eq!(register(guest, vcpu::REGISTER_TIME_MEMORY_AREA, 0), 0);
        let at = page(guest, 6) + 8;
        assert_eq!(register(guest, vcpu::REGISTER_TIME_PHYS_AREA, at), 0);
        assert!(is_clock(guest.get(at)));
        for bad in [across, at + 1, 0xdead_0000] {
            assert!(register(guest, vcpu::REGISTER_TIME_PHYS_AREA, bad) < 0);
        }
        assert_eq!(
            register(guest, vcpu::REGISTER_TIME_MEMORY_AREA, 0xdead_0000),
            EFAULT
        );
    }

    #[test]
    fn other_architectures_have_none() {
        let board = Board::one(1);
        let guest = board.guest(0, 0);
        for operation in [
            vcpu::REGISTER_TIME_MEMORY_AREA,
            vcpu::REGISTER_TIME_PHYS_AREA,
        ] {
            assert_eq!(register(guest, operation, page(guest, 4)), ENOSYS);
        }
    }
}

mod vcpus {
    use super::*;

    fn context(mode: u32) -> Context {
        Context {
            mode,
            reserved: 0,
            registers: [7; 15],
        }
    }

    fn initialise(guest: Guest<'_>, vcpu: u64, mode: u32) -> i64 {
        let arguments = [vcpu::INITIALISE, vcpu];
        guest
            .call_with(number::VCPU_OP, &arguments, guest.ram(), context(mode))
            .0
    }

    fn power(guest: Guest<'_>, operation: u64, vcpu: u64) -> Result<i64, Stopped> {
        guest.call(number::VCPU_OP, &[operation, vcpu, 0])
    }

    #[test]
    fn one_starts_with_the_registers_that_it_was_given() {
        let board = one(2);
        let (first, second) = (board.guest(0, 0), board.guest(0, 1));
        assert_eq!(power(first, vcpu::UP, 1), Ok(EINVAL));
        assert_eq!(initialise(first, 1, MODE_32), EINVAL);
        assert_eq!(power(first, vcpu::UP, 1), Ok(EINVAL));
        assert_eq!(initialise(first, 1, MODE_64), 0);
        assert_eq!(initialise(first, 1, MODE_64), EEXIST);
        assert_eq!(second.state(), VcpuState::Parked);
        assert_eq!(power(first, vcpu::IS_UP, 1), Ok(0));
        assert_eq!(power(first, vcpu::UP, 1), Ok(0));
        assert_eq!(second.state(), VcpuState::RunningFrom(context(MODE_64)));
        assert_eq!(power(first, vcpu::IS_UP, 1), Ok(1));
        // It runs: nothing happens to it.
        assert_eq!(power(first, vcpu::UP, 1), Ok(0));
        assert_eq!(initialise(first, 1, MODE_64), EEXIST);
        assert_eq!(initialise(first, 0, MODE_64), EEXIST);
        assert_eq!(initialise(first, 2, MODE_64), ENOENT);
        assert_eq!(power(first, vcpu::UP, 2), Ok(ENOENT));
    }

    #[test]
    fn one_stops_itself_and_no_other() {
        let board = one(2);
        let (first, second) = (board.guest(0, 0), board.guest(0, 1));
        initialise(first, 1, MODE_64);
        assert_eq!(power(first, vcpu::UP, 1), Ok(0));
        assert_eq!(power(first, vcpu::DOWN, 1), Ok(EOPNOTSUPP));
        assert_eq!(power(second, vcpu::DOWN, 1), Err(Stopped));
        assert_eq!(second.state(), VcpuState::Parked);
        assert_eq!(power(first, vcpu::IS_UP, 1), Ok(0));
        // Its registers are gone.
        assert_eq!(power(first, vcpu::UP, 1), Ok(EINVAL));
        assert_eq!(initialise(first, 1, MODE_64), 0);
        assert_eq!(power(first, vcpu::UP, 1), Ok(0));
        // The last one ends the domain.
        assert_eq!(power(second, vcpu::DOWN, 1), Err(Stopped));
        assert_eq!(power(first, vcpu::DOWN, 0), Err(Stopped));
        assert!(
            board
                .machine()
                .take_console()
                .contains("control: powered off")
        );
    }

    #[test]
    fn other_architectures_refuse() {
        let board = Board::one(2);
        let guest = board.guest(0, 0);
        assert_eq!(initialise(guest, 1, MODE_64), ENOSYS);
        for operation in [vcpu::UP, vcpu::DOWN] {
            assert_eq!(power(guest, operation, 1), Ok(EOPNOTSUPP));
        }
    }
}

mod upcalls {
    use super::*;

    /// Sends an event to itself.
    fn event(guest: Guest<'_>) {
        let request = BindIpi { vcpu: 0, port: 0 };
        let operation = [event_channel::BIND_IPI];
        let (result, bound) =
            guest.call_with(number::EVENT_CHANNEL_OP, &operation, guest.ram(), request);
        assert_eq!(result, 0);
        let send = Port { port: bound.port };
        let operation = [event_channel::SEND];
        let (result, _) = guest.call_with(number::EVENT_CHANNEL_OP, &operation, guest.ram(), send);
        assert_eq!(result, 0);
    }

    fn choose(guest: Guest<'_>, vcpu: u32, vector: u8) -> i64 {
        let request = UpcallVector {
            vcpu,
            vector,
            reserved: [0; 3],
        };
        guest
            .call_with(
                number::HVM_OP,
                &[hvm::SET_UPCALL_VECTOR],
                guest.ram(),
                request,
            )
            .0
    }

    #[test]
    fn one_that_came_before_the_vector_is_delivered_after_it() {
        let board = one(1);
        let guest = board.guest(0, 0);
        let machine = guest.caller.vcpu.machine();
        assert_eq!(choose(guest, 0, 0xf3), 0);
        assert_eq!(machine.take_upcalls(), 0);
        event(guest);
        assert_eq!(machine.take_upcalls(), 1);
        assert_eq!(choose(guest, 0, 0x31), 0);
        assert_eq!(machine.take_upcalls(), 1);
        assert_eq!(
            machine.vector.load(std::sync::atomic::Ordering::SeqCst),
            0x31
        );
    }

    #[test]
    fn or_after_the_domains_way_for_them() {
        let board = one(1);
        let guest = board.guest(0, 0);
        event(guest);
        let machine = guest.caller.vcpu.machine();
        machine.take_upcalls();
        let request = Param {
            domain: DomainId::SELF,
            reserved: 0,
            index: hvm::PARAM_CALLBACK_IRQ,
            value: 2 << 56 | 0xf3,
        };
        let (result, _) = guest.call_with(number::HVM_OP, &[hvm::SET_PARAM], guest.ram(), request);
        assert_eq!(result, 0);
        assert_eq!(machine.take_upcalls(), 1);
        let request = Param {
            value: 0,
            ..request
        };
        let (result, answer) =
            guest.call_with(number::HVM_OP, &[hvm::GET_PARAM], guest.ram(), request);
        assert_eq!((result, answer.value), (0, 2 << 56 | 0xf3));
    }

    #[test]
    fn exceptions_are_no_vectors() {
        let board = one(1);
        let guest = board.guest(0, 0);
        assert_eq!(choose(guest, 0, 15), EINVAL);
        assert_eq!(choose(guest, 1, 0x31), ENOENT);
    }
}

mod machine {
    use super::*;

    fn set_up(guest: Guest<'_>, gsi: u32) -> i64 {
        let request = SetupGsi {
            gsi,
            triggering: 1,
            polarity: 0,
            reserved: [0; 2],
        };
        guest
            .call_with(
                number::PHYSDEV_OP,
                &[physdev::SETUP_GSI],
                guest.ram(),
                request,
            )
            .0
    }

    #[test]
    fn the_hardware_domain_sets_up_lines() {
        let board = two();
        assert_eq!(set_up(board.guest(0, 0), 16), 0);
        assert_eq!(set_up(board.guest(0, 0), 24), ENOSYS);
        assert_eq!(set_up(board.guest(1, 0), 16), ENOSYS);
        assert_eq!(board.machine().take_lines(), [(16, true, false)]);
        assert_eq!(set_up(Board::one(1).guest(0, 0), 16), ENOSYS);
    }

    fn platform<T>(guest: Guest<'_>, command: u32, body: T) -> (i64, T)
    where
        T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
    {
        let head = platform::Head {
            command,
            interface_version: platform::INTERFACE_VERSION,
        };
        guest.put(guest.ram(), &head);
        guest.put(guest.ram() + 8, &body);
        let result = guest
            .call(number::PLATFORM_OP, &[guest.ram()])
            .expect("the vCPU goes on");
        (result, guest.get(guest.ram() + 8))
    }

    #[test]
    fn its_cpus_can_be_asked_for() {
        let board = two();
        let ask = |guest, cpu| {
            let request = PhysicalCpu {
                cpu,
                max_present: 0,
                flags: 0,
                apic_id: 0,
                acpi_id: 0,
            };
            platform(guest, platform::GET_CPUINFO, request)
        };
        let control = board.guest(0, 0);
        let (result, cpu) = ask(control, 1);
        assert_eq!(result, 0);
        assert_eq!((cpu.max_present, cpu.flags), (1, platform::CPU_ONLINE));
        assert_eq!((cpu.apic_id, cpu.acpi_id), (2, 2));
        let (result, cpu) = ask(control, 2);
        assert_eq!(
            (result, cpu.max_present, cpu.flags),
            (0, 1, platform::CPU_INVALID)
        );
        assert_eq!(ask(board.guest(1, 0), 0).0, EPERM);
        assert_eq!(ask(Board::one(1).guest(0, 0), 0).0, ENOSYS);
    }

    #[test]
    fn there_is_no_screen() {
        let board = one(1);
        let (result, _) = platform(board.guest(0, 0), platform::GET_CONSOLE, 0_u64);
        assert_eq!(result, ENODEV);
    }

    #[test]
    fn unfinished_calls_are_entered_again_as_everywhere() {
        let board = one(1);
        let guest = board.guest(0, 0);
        let mut args = [abi::console::WRITE, 1000, guest.ram(), 0, 0];
        assert_eq!(guest.step(number::CONSOLE_IO, &mut args), Next::Again);
    }
}
