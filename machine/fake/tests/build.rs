//! Domains are built exactly as planned.

use hypervisor::{Access, BuildError, DomainIndex, Next, Owner, Reason};
use layout::{Bank, Gfn, GuestAddress, MachineRange, Mfn, MfnRange, Plan, Scrub};
use terrane_machine_fake::{Board, DEVICES, DomainSpec, HARDWARE, NO_ROLE, Power, VcpuState};

fn two_with(change: impl FnOnce(&mut Plan)) -> Board {
    let specs = [
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec::new("guest", NO_ROLE, false),
    ];
    Board::boot_planned(&specs, Scrub::Reused, change).unwrap()
}

/// The frame of a domain's RAM at an index.
fn frame(plan: &Plan, domain: usize, index: u64) -> MfnRange {
    let start = plan.domains[domain].banks[0].mfn.offset(index);
    MfnRange::new(start, 1).unwrap()
}

#[test]
fn every_frame_of_a_direct_mapped_domain_is_behind_its_own_number() {
    let board = Board::one(1);
    let domain = &board.system.domains()[0];
    let ram = domain
        .machine()
        .mappings()
        .into_iter()
        .filter(|(_, mapping)| mapping.access == Access::Ram);
    let mut frames = 0;
    for (page, mapping) in ram {
        assert_eq!(page.raw(), mapping.mfn.raw());
        frames += 1;
    }
    assert_eq!(frames, domain.plan().frames());
    board.check();
}

#[test]
fn a_domain_has_its_ram_and_its_devices_and_nothing_else() {
    let board = Board::two();
    for domain in board.system.domains() {
        let devices = domain
            .machine()
            .mappings()
            .into_iter()
            .filter(|(_, mapping)| mapping.access == Access::Device);
        assert_eq!(devices.count(), 1);
        assert_eq!(
            domain.machine().mappings().len() as u64,
            domain.plan().frames() + 1
        );
    }
    board.check();
}

#[test]
fn the_kernel_and_the_tree_lie_where_the_plan_says() {
    let board = Board::two();
    for index in 0..2 {
        let guest = board.guest(index, 0);
        let plan = guest.caller.domain.plan();
        let source = board
            .machine()
            .memory()
            .bytes(plan.kernel.source.frames_touched());
        let placed: [u8; 1024] = guest.get(plan.kernel.address.raw());
        assert_eq!(placed[..], source[..1024]);
        let expected = format!("tree of {}", plan.name);
        let tree: [u8; 64] = guest.get(plan.tree.start().raw());
        assert_eq!(&tree[..expected.len()], expected.as_bytes());
    }
}

#[test]
fn the_first_vcpu_starts_at_the_kernel_with_the_tree() {
    let board = Board::one(2);
    let plan = board.system.domains()[0].plan();
    let VcpuState::Running(start) = board.guest(0, 0).state() else {
        panic!("it runs")
    };
    assert_eq!(start.entry, plan.kernel.address);
    assert_eq!(GuestAddress::new(start.argument), plan.tree.start());
    assert_eq!(board.guest(0, 1).state(), VcpuState::Parked);
}

#[test]
fn nothing_is_cleared_that_nobody_has_used() {
    let board = Board::two();
    let pools_only = board.machine().take_cleared().into_iter().all(|frames| {
        let owner = board
            .system
            .ownership()
            .find(frames.start())
            .map(|holding| holding.owner);
        matches!(owner, Some(Owner::Pool(_)))
    });
    assert!(pools_only);
}

#[test]
fn scrub_all_clears_everything_but_the_modules() {
    let specs = [DomainSpec::new("control", HARDWARE, true)];
    let board = Board::boot_with(&specs, Scrub::All).unwrap();
    let guest = board.guest(0, 0);
    let plan = guest.caller.domain.plan();
    let kernel: [u64; 2] = guest.get(plan.kernel.address.raw());
    assert_ne!(kernel, [0; 2]);
    assert_eq!(guest.get::<u64>(guest.ram()), 0);
    assert_eq!(guest.get::<u64>(guest.ram() + 15 * 4096), 0);
}

#[test]
fn a_domain_that_cannot_be_built_is_refused_and_the_others_start() {
    let mut large = DomainSpec::new("large", NO_ROLE, false);
    large.tree_bytes = 4097;
    let board = Board::boot(&[DomainSpec::new("control", HARDWARE, true), large]);
    let console = board.machine().take_console();
    assert!(
        console.contains("(terrane) large: refused: build-failed: "),
        "{console}"
    );
    assert_eq!(board.guest(1, 0).state(), VcpuState::Parked);
    assert_ne!(board.guest(0, 0).state(), VcpuState::Parked);
    assert_eq!(board.machine().power(), Power::On);
}

#[test]
fn a_refused_domain_has_ended_and_the_last_one_powers_off() {
    let mut large = DomainSpec::new("large", NO_ROLE, false);
    large.tree_bytes = 4097;
    let board = Board::boot(&[large, DomainSpec::new("control", HARDWARE, true)]);
    assert_eq!(board.guest(0, 0).caller.domain.machine().mappings(), []);
    assert_eq!(board.machine().power(), Power::On);
    let next = board.guest(1, 0).caller.shutdown(Reason::PowerOff);
    assert_eq!(next, Next::Park);
    assert_eq!(board.machine().power(), Power::Off);
}

#[test]
fn a_domain_whose_module_cannot_be_placed_is_refused() {
    let board = two_with(|plan| {
        plan.copies[1].destination = vec![plan.hypervisor.region.bytes()];
    });
    let console = board.machine().take_console();
    assert!(
        console.contains("(terrane) guest: refused: build-failed: "),
        "{console}"
    );
    assert_eq!(board.guest(1, 0).state(), VcpuState::Parked);
    assert_ne!(board.guest(0, 0).state(), VcpuState::Parked);
}

#[test]
fn a_module_may_be_put_aside_in_memory_of_nobody_and_of_others() {
    let mut aside = Mfn::default();
    let board = two_with(|plan| {
        let places = [plan.unowned[0], frame(plan, 0, 9)];
        let straight = plan.copies[1].clone();
        for place in places {
            let last = plan.copies.last_mut().unwrap();
            let source = MachineRange::saturating(place.bytes().start(), straight.source.size());
            let destination = core::mem::replace(&mut last.destination, vec![source]);
            plan.copies.push(layout::Copy {
                source,
                destination,
                ..straight.clone()
            });
        }
        plan.clear = vec![places[1].bytes()];
        aside = places[1].start();
    });
    let guest = board.guest(1, 0);
    let kernel = guest.caller.domain.plan().kernel.clone();
    let source = board
        .machine()
        .memory()
        .bytes(kernel.source.frames_touched());
    let placed: [u8; 1024] = guest.get(kernel.address.raw());
    assert_eq!(placed[..], source[..1024]);
    assert_ne!(guest.state(), VcpuState::Parked);
    assert_eq!(board.machine().memory().contents(aside), vec![0; 512]);
}

#[test]
fn what_lay_behind_a_module_in_its_last_frame_is_cleared() {
    let board = two_with(|_| ());
    for index in 0..2 {
        let guest = board.guest(index, 0);
        let kernel = guest.caller.domain.plan().kernel.address.raw();
        assert_eq!(guest.get::<[u8; 3072]>(kernel + 1024), [0; 3072]);
        assert_ne!(
            guest.get::<u64>(kernel + 2 * 4096),
            0,
            "the next frame is left alone"
        );
    }
}

#[test]
fn a_plan_that_clears_the_hypervisors_memory_is_not_carried_out() {
    let specs = [DomainSpec::new("control", HARDWARE, true)];
    let result = Board::boot_planned(&specs, Scrub::Reused, |plan| {
        plan.clear = vec![plan.hypervisor.region.bytes()];
    });
    assert!(matches!(result.err(), Some(BuildError::NotOwned(_))));
}

#[test]
fn reserved_ram_of_a_device_is_its_drivers_memory() {
    let frame = |index| Mfn::new(DEVICES + index);
    let specs = [
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec::new("guest", NO_ROLE, true),
    ];
    // The first domain's device lies inside reserved RAM, the second's beside it.
    let board = Board::boot_planned(&specs, Scrub::Reused, |plan| {
        plan.reserved = vec![
            MfnRange::between(Mfn::new(DEVICES - 2), frame(1)),
            MfnRange::between(frame(2), frame(4)),
        ];
    })
    .unwrap();
    let owner = |mfn| board.system.ownership().find(mfn).unwrap().owner;
    assert_eq!(owner(Mfn::new(DEVICES - 1)), Owner::Reserved);
    assert_eq!(owner(frame(0)), Owner::DeviceMemory(DomainIndex(0)));
    assert_eq!(owner(frame(1)), Owner::Device(DomainIndex(1)));
    assert_eq!(owner(frame(3)), Owner::Reserved);
    let access = |domain: usize, mfn: Mfn| {
        let mappings = board.system.domains()[domain].machine().mappings();
        let found = mappings.iter().find(|(_, mapping)| mapping.mfn == mfn);
        found.map(|(_, mapping)| mapping.access)
    };
    assert_eq!(access(0, frame(0)), Some(Access::RamData));
    assert_eq!(access(1, frame(1)), Some(Access::Device));
    assert_eq!(access(1, frame(0)), None);
    board.check();
}

/// As a region of `/reserved-memory` without `no-map` is: also a device, if a driver asks for it.
#[test]
fn reserved_ram_of_the_hardware_domain_is_ram_and_keeps_its_content() {
    let specs = [DomainSpec::new("control", HARDWARE, true)];
    let board = Board::boot_planned(&specs, Scrub::All, |plan| {
        plan.domains[0].banks.push(Bank {
            gfn: Gfn::new(DEVICES),
            mfn: Mfn::new(DEVICES),
            frames: 2,
            reserved: true,
        });
    })
    .unwrap();
    let guest = board.guest(0, 0);
    for frame in [Mfn::new(DEVICES), Mfn::new(DEVICES + 1)] {
        let owner = board.system.ownership().find(frame).unwrap().owner;
        assert_eq!(owner, Owner::Domain(DomainIndex(0)));
        let mappings = board.system.domains()[0].machine().mappings();
        let found = mappings.iter().find(|(_, mapping)| mapping.mfn == frame);
        assert_eq!(found.unwrap().1.access, Access::Ram);
        assert_ne!(guest.get::<u64>(frame.address().raw()), 0);
    }
    assert_eq!(guest.get::<u64>(guest.ram()), 0);
    board.check();
}

/// A region of which a neighbour without mapping, a device too, takes a page.
#[test]
fn a_region_may_be_ram_of_its_domain_in_part() {
    let frame = |index| Mfn::new(DEVICES + index);
    let mut control = DomainSpec::new("control", HARDWARE, true);
    control.device_frames = 3;
    let specs = [control, DomainSpec::new("guest", NO_ROLE, false)];
    let board = Board::boot_planned(&specs, Scrub::Reused, |plan| {
        plan.domains[0].devices = vec![0, 1];
        plan.domains[1].devices.clear();
        plan.domains[0].banks.push(Bank {
            gfn: Gfn::new(DEVICES),
            mfn: frame(0),
            frames: 1,
            reserved: true,
        });
        plan.reserved = vec![MfnRange::between(frame(1), frame(2))];
    })
    .unwrap();
    let control = &board.system.domains()[0];
    let expected = [
        (Owner::Domain(DomainIndex(0)), Access::Ram),
        (Owner::DeviceMemory(DomainIndex(0)), Access::RamData),
        (Owner::Device(DomainIndex(0)), Access::Device),
    ];
    for (mfn, expected) in (0..).map(frame).zip(expected) {
        let owner = board.system.ownership().find(mfn).unwrap().owner;
        let mappings = control.machine().mappings();
        let found = mappings.iter().find(|(_, mapping)| mapping.mfn == mfn);
        assert_eq!((owner, found.unwrap().1.access), expected, "{mfn:?}");
    }
    board.check();
}

#[test]
fn the_features_word_is_the_reference() {
    let board = Board::boot(&[
        DomainSpec::new("control", HARDWARE, true),
        DomainSpec::new("guest", NO_ROLE, false),
        DomainSpec::new("direct", NO_ROLE, true),
    ]);
    for (index, expected) in [(0, 0x66805), (1, 0x56005), (2, 0x66005)] {
        let guest = board.guest(index, 0);
        let question = abi::version::FeatureInfo { index: 0, word: 0 };
        let (result, answer) = guest.call_with(
            abi::number::XEN_VERSION,
            &[abi::version::GET_FEATURES],
            guest.ram(),
            question,
        );
        assert_eq!((result, answer.word), (0, expected));
    }
}

#[test]
fn build_errors_say_what_is_wrong() {
    let text = BuildError::Count.to_string();
    assert_eq!(text, "the machine's domains or vCPUs aren't the plan's");
}
