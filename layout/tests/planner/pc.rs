//! Plans for PCs: the first MiB, kernels that must lie below 1 GiB, a hypervisor below 4 GiB.

mod properties;

use terrane_layout::*;

use crate::common::*;

/// A machine as QEMU's q35, with hypervisor and container where its multiboot loader puts them.
pub fn q35(memory: u64, cpus: u32) -> HostMap {
    let below = memory.min(2 * GIB);
    let bank = |start, size| RamBank {
        node: None,
        range: bytes(start, size),
        origin: Origin(1),
    };
    let mut ram = vec![bank(0, 0x9_fc00), bank(MIB, below - MIB - 0x2_1000)];
    if memory > below {
        ram.push(bank(4 * GIB, memory - below));
    }
    let reserved = |start, size| Reserved {
        range: bytes(start, size),
        name: "firmware".into(),
        kind: Reservation::Kept,
        origin: Origin(2),
    };
    let function = |path: &str, start: u64, size: u64, dma| HostDevice {
        path: path.into(),
        ranges: vec![bytes(start, size)],
        interrupts: vec![],
        dma,
        origin: Origin(100),
        ..HostDevice::default()
    };
    let master = Dma::Possible { mask: u64::MAX };
    HostMap {
        architecture: Architecture::X86_64,
        ram,
        reserved: vec![
            reserved(0x9_fc00, 0x400),
            reserved(0xf_0000, 0x1_0000),
            reserved(below - 0x2_1000, 0x2_1000),
            reserved(0xb000_0000, 0x1000_0000),
        ],
        devices: vec![
            HostDevice {
                ranges: vec![],
                ..function("com1", 0, 0, Dma::None)
            },
            function("pci:0000", 0xb000_0000, 0x1000_0000, Dma::None),
            function("pci:0000:00:02.0", 0xfebf_0000, 0x4000, master),
            function("pci:0000:00:03.0", 0xfea0_0000, 0x10_0000, master),
        ],
        controller: Controller {
            kind: ControllerKind::IoApic,
            ranges: vec![bytes(0xfec0_0000, 4096), bytes(0xfee0_0000, 4096)],
            origin: Origin(3),
            ..Controller::default()
        },
        cpus: (0..cpus)
            .map(|id| HostCpu {
                node: None,
                hardware_id: id.into(),
                origin: Origin(4),
            })
            .collect(),
        iommus: vec![],
        boot: vec![
            BootRange {
                kind: BootKind::Hypervisor,
                range: bytes(2 * MIB, MIB + 0x2_3000),
                origin: Origin(5),
            },
            BootRange {
                kind: BootKind::Container,
                range: bytes(CONTAINER, 100 * MIB),
                origin: Origin(6),
            },
        ],
    }
}

/// Behind the image, on a page.
const CONTAINER: u64 = 3 * MIB + 0x2_4000;

/// Debian's 6.12: anywhere from 16 MiB to 1 GiB, in steps of 2 MiB.
fn movable(start: u64) -> KernelRequest {
    KernelRequest {
        memory_size: 60 * MIB,
        bounds: Some(guest(16 * MIB, GIB)),
        entry: Some(0x850),
        ..kernel(start, 40 * MIB)
    }
}

/// Debian's 6.1: at 16 MiB and nowhere else.
fn fixed_kernel(start: u64) -> KernelRequest {
    KernelRequest {
        memory_size: 58 * MIB,
        bounds: Some(guest(16 * MIB, 74 * MIB)),
        ..movable(start)
    }
}

fn guest(start: u64, end: u64) -> GuestRange {
    GuestRange::between(GuestAddress::new(start), GuestAddress::new(end))
}

fn pc_domain(
    name: &str,
    memory: MemoryRequest,
    kernel: KernelRequest,
    hardware: bool,
) -> DomainRequest {
    DomainRequest {
        kernel: Some(kernel),
        ramdisk: Some(ModuleRequest {
            module: bytes(80 * MIB, 10 * MIB + 17),
            origin: Origin(21),
        }),
        ..domain(name, memory, 0, hardware)
    }
}

fn pc_system(domains: Vec<DomainRequest>) -> SystemRequest {
    let mut request = system(domains);
    request.hypervisor.tree_bytes = 4 * KIB;
    request.hypervisor.console = Some(Located::new("com1".into(), Origin(7)));
    request
}

fn planned(host: &HostMap, request: &SystemRequest) -> Outcome {
    let outcome = plan(host, request);
    check_invariants(host, request, &outcome);
    outcome
}

#[test]
fn a_hardware_domain_gets_nearly_all_of_two_gib() {
    for kernel in [movable(16 * MIB), fixed_kernel(16 * MIB)] {
        let host = q35(2 * GIB, 2);
        let control = pc_domain("control", MemoryRequest::Rest, kernel, true);
        let outcome = planned(&host, &pc_system(vec![control]));
        assert_eq!(codes(&outcome), [""; 0]);
        let plan = &outcome.plan;
        let control = &plan.domains[0];
        let ram: u64 = host
            .ram
            .iter()
            .map(|bank| bank.range.frames_inside().frames())
            .sum();
        let taken = ram - control.frames();
        assert!(taken * FRAME_SIZE <= 6 * MIB, "{} KiB", taken * 4);
        assert!(control.kernel.in_place && control.ramdisk.as_ref().unwrap().in_place);
        assert!(plan.copies.is_empty() && plan.clear.is_empty() && plan.unowned.is_empty());
        assert_eq!(control.entry.unwrap().raw(), 16 * MIB + 0x850);
        assert_eq!(control.banks[0].machine(), frames(0, 0x9f), "the first MiB");
        assert_eq!(control.devices, [1, 2, 3], "all but the console");
        let tree = control.tree;
        assert!(tree.start().raw() >= MIB && tree.end().raw() <= 4 * GIB);
    }
}

#[test]
fn who_reaches_the_local_apic_raises_any_vector() {
    let statement = |masks: [u64; 2]| {
        let mut host = q35(2 * GIB, 2);
        for (device, mask) in [2, 3].into_iter().zip(masks) {
            host.devices[device].dma = Dma::Possible { mask };
        }
        let control = pc_domain("control", MemoryRequest::Rest, movable(16 * MIB), true);
        let request = pc_system(vec![control]);
        let plan = planned(&host, &request).plan;
        let reach = reach::of_plan(&host, &request, &plan);
        let is_trusted = reach.trusted(&plan) == [0];
        (reach.domains[0].statement(&plan), is_trusted)
    };
    // As an ISA bridge reaches it, and as far as just below the messages.
    let (line, is_trusted) = statement([0xff_ffff, 0xfedf_ffff]);
    assert!(!line.contains("interrupt") && is_trusted, "{line}");
    let (line, _) = statement([0xff_ffff, 0xffff_ffff]);
    let end = ", and raise any interrupt vector on any CPU";
    assert!(line.ends_with(end), "{line}");
    // In its own memory it can do as it likes.
    let (line, is_trusted) = statement([0xf_ffff, 0xf_ffff]);
    assert_eq!(line, "its devices reach its own memory alone");
    assert!(!is_trusted);
    // Everybody trusts it for the messages alone.
    let mut host = q35(2 * GIB, 2);
    host.devices.truncate(3);
    host.devices[2].dma_windows = vec![DmaWindow {
        bus: 0,
        machine: bytes(0xfee0_0000, 0x1000),
    }];
    let control = pc_domain("control", MemoryRequest::Rest, movable(16 * MIB), true);
    let request = pc_system(vec![control]);
    let plan = planned(&host, &request).plan;
    let reach = reach::of_plan(&host, &request, &plan);
    let line = reach.domains[0].statement(&plan);
    assert_eq!(line, format!("its devices reach no memory{end}"));
    assert_eq!(reach.trusted(&plan), [0]);
}

fn frames(start: u64, end: u64) -> MfnRange {
    MfnRange::between(Mfn::new(start), Mfn::new(end))
}

/// Other CPUs begin with 32-bit addresses.
#[test]
fn the_hypervisor_lies_below_4_gib_and_leaves_16_mib_free() {
    for loaded in [2 * MIB, 20 * MIB] {
        let mut host = q35(6 * GIB, 1);
        host.boot[0].range = bytes(loaded, MIB);
        host.boot[1].range = bytes(GIB, 100 * MIB);
        let kernel = KernelRequest {
            bounds: Some(guest(16 * MIB, 76 * MIB)),
            ..movable(GIB)
        };
        let control = pc_domain("control", MemoryRequest::Rest, kernel, true);
        let outcome = planned(&host, &pc_system(vec![control]));
        assert_eq!(codes(&outcome), [""; 0]);
        let plan = &outcome.plan;
        assert!(plan.hypervisor.region.bytes().end().raw() <= 4 * GIB);
        let kernel = plan.domains[0].kernel.address.raw();
        assert_eq!(kernel, 16 * MIB, "whatever lay there has moved");
    }
}

#[test]
fn a_sized_domain_gets_its_kernels_place_and_the_first_mib() {
    for kernel in [movable(16 * MIB), fixed_kernel(16 * MIB)] {
        let host = q35(6 * GIB, 2);
        let control = pc_domain("control", MemoryRequest::Size(512 * MIB), kernel, true);
        let outcome = planned(&host, &pc_system(vec![control]));
        assert_eq!(codes(&outcome), [""; 0]);
        let control = &outcome.plan.domains[0];
        assert_eq!(low_frames(&host, control), 0x9f);
        assert_eq!(control.frames() - 0x9f, 512 * 256);
        assert!(control.kernel.in_place);
    }
}

#[test]
fn without_a_hardware_domain_nobody_has_the_first_mib() {
    let host = q35(2 * GIB, 1);
    let mut guest = pc_domain("guest", MemoryRequest::Rest, movable(16 * MIB), false);
    guest.direct_map = Some(true.into());
    let plan = planned(&host, &pc_system(vec![guest])).plan;
    assert_eq!(low_frames(&host, &plan.domains[0]), 0);
    assert_eq!(plan.unowned.first(), Some(&frames(0, 0x9f)));
}

#[test]
fn a_guest_starts_above_its_first_mib_too() {
    let host = q35(2 * GIB, 1);
    let guest = pc_domain(
        "guest",
        MemoryRequest::Size(256 * MIB),
        fixed_kernel(16 * MIB),
        false,
    );
    let outcome = planned(&host, &pc_system(vec![guest]));
    assert_eq!(codes(&outcome), [""; 0]);
    let guest = &outcome.plan.domains[0];
    assert_eq!(guest.banks[0].gfn.raw(), 0);
    assert_eq!(guest.kernel.address.raw(), 16 * MIB);
    assert!(guest.tree.start().raw() >= MIB);
    assert!(guest.ramdisk.as_ref().unwrap().address.raw() >= MIB);
}

#[test]
fn pieces_meet_at_superpages() {
    let plain = || {
        let size = MemoryRequest::Size(2560 * MIB);
        let mut guest = pc_domain("guest", size, movable(16 * MIB), false);
        guest.kernel.as_mut().unwrap().bounds = None;
        guest
    };
    let mut direct = plain();
    direct.direct_map = Some(true.into());
    let size = MemoryRequest::Size(2560 * MIB);
    let hardware = pc_domain("control", size, movable(16 * MIB), true);
    for domain in [plain(), direct, hardware] {
        for memory in [3 * GIB, 4 * GIB] {
            let outcome = planned(&q35(memory, 1), &pc_system(vec![domain.clone()]));
            assert!(!outcome.has_errors());
            let banks = &outcome.plan.domains[0].banks;
            let above = banks.iter().filter(|bank| bank.mfn.raw() >= 256);
            for bank in above {
                let ends = [bank.mfn.raw(), bank.gfn.raw(), bank.frames];
                assert!(ends.iter().all(|end| end % 512 == 0), "{banks:?}");
            }
        }
    }
}

#[test]
fn a_kernels_place_decides_on_the_node() {
    let mut host = q35(3 * GIB, 4);
    // The node above 4 GiB would be filled better.
    let nodes = [0, 0, 1];
    for (bank, node) in host.ram.iter_mut().zip(nodes) {
        bank.node = Some(node);
    }
    for (cpu, node) in host.cpus.iter_mut().zip([1, 1, 0, 0]) {
        cpu.node = Some(node);
    }
    let size = MemoryRequest::Size(512 * MIB);
    let request = pc_system(vec![pc_domain("control", size, movable(16 * MIB), true)]);
    let outcome = planned(&host, &request);
    assert_eq!(codes(&outcome), [""; 0]);
    assert_eq!(outcome.plan.domains[0].cpus, [2]);
}

#[test]
fn a_limited_master_gets_what_it_reaches_of_a_pc() {
    let host = q35(6 * GIB, 2);
    let mut driver = pc_domain(
        "driver",
        MemoryRequest::Size(3 * GIB),
        movable(16 * MIB),
        false,
    );
    driver.direct_map = Some(true.into());
    driver.devices = vec![DeviceRequest {
        path: "pci:0000:00:02.0".into(),
        dma_mask: Some(u64::from(u32::MAX)),
        origin: Origin(80),
    }];
    let outcome = planned(&host, &pc_system(vec![driver]));
    assert_eq!(
        codes(&outcome),
        ["not-built-yet", "no-low-memory", "dma-mask"]
    );
    let banks = outcome.plan.domains[0].banks.iter();
    let low = banks.filter(|bank| bank.machine().end().address().raw() <= 4 * GIB);
    let low: u64 = low.map(Bank::bytes).sum();
    // Of 2 GiB the first MiB, the firmware's part and the hypervisor's are missing.
    assert!(low > 2 * GIB - 64 * MIB, "{low:#x}");
}

#[test]
fn what_a_domain_starts_from_lies_below_four_gib() {
    let host = q35(8 * GIB, 1);
    let mut high = pc_domain("high", MemoryRequest::SumOfStatic, movable(16 * MIB), true);
    high.static_mem = vec![fixed(16 * MIB, 128 * MIB), fixed(4 * GIB, GIB)];
    let outcome = planned(&host, &pc_system(vec![high]));
    // The container lies over the first range.
    assert_eq!(codes(&outcome), ["overlap-domain-module"]);
    let mut host = host;
    host.boot.truncate(1);
    let mut high = pc_domain("high", MemoryRequest::SumOfStatic, movable(300 * MIB), true);
    high.ramdisk = Some(ModuleRequest {
        module: bytes(400 * MIB, 64 * MIB),
        origin: Origin(21),
    });
    high.static_mem = vec![fixed(16 * MIB, 256 * MIB), fixed(4 * GIB, GIB)];
    let outcome = planned(&host, &pc_system(vec![high]));
    assert_eq!(codes(&outcome), [""; 0]);
    let high = &outcome.plan.domains[0];
    assert!(high.kernel.range().end().raw() <= GIB);
    assert!(high.ramdisk.as_ref().unwrap().range().end().raw() <= 4 * GIB);
    assert!(high.tree.end().raw() <= 4 * GIB);
}

#[test]
fn nobody_names_the_first_mib() {
    let host = q35(2 * GIB, 1);
    let mut guest = pc_domain(
        "guest",
        MemoryRequest::SumOfStatic,
        movable(16 * MIB),
        false,
    );
    guest.static_mem = vec![fixed(0, 0x9_f000), fixed(GIB, 256 * MIB)];
    let outcome = planned(&host, &pc_system(vec![guest]));
    assert_eq!(codes(&outcome), ["overlap-domain-reserved"]);
}

#[test]
fn four_domains_share_what_lies_below_one_gib() {
    let mut host = q35(8 * GIB, 8);
    host.boot.truncate(1);
    let mut domains = vec![pc_domain(
        "control",
        MemoryRequest::Rest,
        fixed_kernel(16 * MIB),
        true,
    )];
    for index in 0..5 {
        let mut driver = pc_domain(
            &format!("driver{index}"),
            MemoryRequest::Size(160 * MIB),
            movable(300 * MIB),
            false,
        );
        driver.direct_map = Some(true.into());
        driver.ramdisk = None;
        domains.push(driver);
    }
    let outcome = planned(&host, &pc_system(domains));
    assert_eq!(codes(&outcome), ["no-low-memory"; 5]);
    assert!(!outcome.has_errors());
    for domain in &outcome.plan.domains {
        assert!(domain.kernel.range().end().raw() <= GIB, "{}", domain.name);
    }
}

#[test]
fn two_kernels_for_one_place() {
    let host = q35(2 * GIB, 2);
    let first = pc_domain("first", MemoryRequest::Rest, fixed_kernel(16 * MIB), true);
    let mut second = pc_domain(
        "second",
        MemoryRequest::Size(256 * MIB),
        fixed_kernel(120 * MIB),
        false,
    );
    second.direct_map = Some(true.into());
    let outcome = planned(&host, &pc_system(vec![first, second]));
    assert_eq!(codes(&outcome), ["kernel-same-address", "no-low-memory"]);
    assert_eq!(outcome.plan.domains.len(), 1);
    let conflict = &outcome.conflicts[0];
    assert!(conflict.sides.len() >= 2, "{conflict:?}");
    assert!(
        conflict.sides.iter().any(|side| side.domain == Some(0)),
        "{conflict:?}"
    );
    assert!(
        conflict.sides.iter().any(|side| side.domain == Some(1)),
        "{conflict:?}"
    );
}

#[test]
fn static_memory_that_misses_the_kernels_place() {
    let mut host = q35(2 * GIB, 2);
    host.boot.truncate(1);
    let mut guest = pc_domain("guest", MemoryRequest::SumOfStatic, fixed_kernel(GIB), true);
    guest.ramdisk = None;
    guest.static_mem = vec![fixed(512 * MIB, 256 * MIB)];
    let outcome = planned(&host, &pc_system(vec![guest.clone()]));
    assert_eq!(codes(&outcome), ["kernel-bounds"]);
    // A range that begins below it, at no multiple of 2 MiB, will do.
    guest.static_mem = vec![fixed(15 * MIB, 256 * MIB)];
    let outcome = planned(&host, &pc_system(vec![guest]));
    assert_eq!(codes(&outcome), [""; 0]);
}

#[test]
fn a_domain_that_is_not_direct_mapped_needs_an_iommu() {
    let mut host = q35(2 * GIB, 1);
    let mut control = pc_domain(
        "control",
        MemoryRequest::Size(512 * MIB),
        movable(16 * MIB),
        true,
    );
    control.direct_map = Some(false.into());
    let outcome = planned(&host, &pc_system(vec![control.clone()]));
    assert_eq!(codes(&outcome), ["dma-without-iommu"]);
    assert!(outcome.plan.domains.is_empty());

    control.allow_dma_without_iommu = true;
    let outcome = planned(&host, &pc_system(vec![control.clone()]));
    assert_eq!(codes(&outcome), ["dma-without-iommu"]);
    assert!(!outcome.has_errors());
    let plan = &outcome.plan.domains[0];
    assert_eq!(
        plan.banks[0].gfn.raw(),
        plan.banks[0].mfn.raw(),
        "the first MiB is 1:1"
    );
    assert_eq!(low_frames(&host, plan), 0x9f);
    assert_eq!(plan.kernel.address.raw(), 16 * MIB);
    // Guest superpages lie on machine superpages: tables for every 4 KiB page would be too many.
    assert!(
        plan.banks[1..]
            .iter()
            .all(|bank| { bank.gfn.raw() % 512 == 0 && bank.mfn.raw() % 512 == 0 })
    );

    // Behind an IOMMU that isn't bypassed.
    for device in &mut host.devices {
        device.behind_iommu = true;
    }
    control.allow_dma_without_iommu = false;
    let outcome = planned(&host, &pc_system(vec![control.clone()]));
    assert_eq!(codes(&outcome), ["not-built-yet"]);
    control.direct_map = None;
    let outcome = planned(&host, &pc_system(vec![control]));
    assert_eq!(
        codes(&outcome),
        [""; 0],
        "direct-mapped, the IOMMU stays in bypass"
    );
}

#[test]
fn pv_and_hvm_are_checked_and_not_built() {
    for kind in [Kind::Pv, Kind::Hvm] {
        let host = q35(2 * GIB, 1);
        let mut control = pc_domain("control", MemoryRequest::Rest, movable(16 * MIB), true);
        control.kind = Some(kind.into());
        control.cpus.value = 7;
        let outcome = planned(&host, &pc_system(vec![control]));
        assert_eq!(codes(&outcome), ["not-built-yet", "cpus-too-many"]);
    }
}

#[test]
fn a_device_that_does_not_reach_the_domain() {
    let host = q35(2 * GIB, 1);
    let mut control = pc_domain("control", MemoryRequest::Rest, movable(16 * MIB), true);
    control.devices = vec![DeviceRequest {
        path: "pci:0000:00:03.0".into(),
        dma_mask: Some(0xfff_ffff),
        origin: Origin(22),
    }];
    let request = pc_system(vec![control]);
    let mut outcome = planned(&host, &request);
    assert_eq!(codes(&outcome), ["dma-mask"]);
    assert!(!outcome.has_errors());
    diagnose(&host, &request, &mut outcome);
    assert_eq!(outcome.conflicts[0].help, "memory-below = 0x10000000");
}

#[test]
fn a_module_that_is_kept_below_a_mebibyte_is_not_the_hardware_domains() {
    let mut host = virt(2 * GIB, 4);
    host.architecture = Architecture::X86_64;
    let bank = |start, size| RamBank {
        range: bytes(start, size),
        node: None,
        origin: Origin(1),
    };
    host.ram = vec![bank(0, 640 * KIB), bank(MIB, 2 * GIB)];
    host.boot.clear();
    host.devices.truncate(1);
    host.devices[0].ranges = vec![bytes(0xd000_0000, 0x1000)];
    host.controller = Controller::default();
    let control = domain("control", MemoryRequest::Size(256 * MIB), 0, true);
    let mut guest = domain("guest", MemoryRequest::Size(64 * MIB), 0, false);
    guest.kernel = Some(KernelRequest {
        memory_size: MIB,
        ..kernel(0x1_0000, 256 * KIB)
    });
    guest.keep_modules = true;
    guest.ramdisk = None;
    let outcome = plan(&host, &system(vec![control, guest]));
    let module = bytes(0x1_0000, 256 * KIB).frames_touched();
    assert_eq!(outcome.plan.kept, [module]);
    let control = &outcome.plan.domains[0];
    assert!(
        control
            .banks
            .iter()
            .all(|bank| !bank.machine().overlaps(&module))
    );
    assert!(control.banks.iter().any(|bank| bank.mfn.raw() == 0));
    assert!(
        outcome
            .plan
            .clear
            .iter()
            .all(|clear| !clear.frames_touched().overlaps(&module))
    );
}

#[test]
fn a_device_of_another_domain_has_no_interrupts() {
    let host = q35(2 * GIB, 2);
    let devices = vec![DeviceRequest {
        path: "pci:0000:00:02.0".into(),
        dma_mask: None,
        origin: Origin(22),
    }];
    let memory = MemoryRequest::Size(256 * MIB);
    for hardware in [true, false] {
        let mut domain = pc_domain("driver", memory, movable(CONTAINER), hardware);
        domain.direct_map = Some(true.into());
        domain.devices = devices.clone();
        let outcome = plan(&host, &pc_system(vec![domain]));
        let found = outcome.conflicts.iter();
        let found: Vec<&Conflict> = found.filter(|it| it.code == Code::NotBuiltYet).collect();
        assert_eq!(found.len(), usize::from(!hardware));
        for found in found {
            assert_eq!(found.sides[0].origin, Origin(22));
            assert!(!found.is_error());
        }
    }
}
