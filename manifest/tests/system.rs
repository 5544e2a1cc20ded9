//! The system tree: what is written is read back, Xen's own trees are read, bad ones give problems.

use layout::{
    Capabilities, Code, DeviceRequest, DomainRequest, EventChannelRequest, GuestAddress,
    GuestRange, HypervisorRequest, KernelRequest, Kind, Limits, Located, MachineAddress,
    MachineRange, MemoryRequest, ModuleRequest, OnConflict, OnStop, OnStrayAccess, Origin,
    Policies, Reservation, Reserved, Scrub, ShareRole, SharedMemoryRequest, StaticRange,
    SystemRequest,
};
use proptest::prelude::*;
use terrane_manifest::origin::Origins;
use terrane_manifest::pc;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::guest;
use terrane_manifest::tree::system::{self, Contents, Modules, System};
use terrane_manifest::tree::writer::Writer;

const HOST: &[u8] = include_bytes!("trees/virt-gicv3.dtb");
const CONTAINER: u64 = 0x5000_0000;
const KERNEL_MEMORY: u64 = 0x200_0000;

/// The header of a kernel of `KERNEL_MEMORY` bytes.
fn header(_: MachineRange) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    bytes[16..24].copy_from_slice(&KERNEL_MEMORY.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    Some(bytes)
}

/// Modules of which every kernel is that one, and every partial tree passes nothing through.
struct Files(Vec<u8>);

impl Contents for Files {
    fn header(&self, module: MachineRange) -> Option<[u8; 64]> {
        header(module)
    }

    fn partial_tree(&self, _: MachineRange) -> Option<&[u8]> {
        Some(&self.0)
    }
}

fn read(tree: &[u8], modules: Modules) -> System {
    let (host, tree) = (Tree::read(HOST).unwrap(), Tree::read(tree).unwrap());
    let files = Files(self::tree(|_| {}));
    system::read(&tree, modules, &host, &files, &mut Origins::new())
}

fn codes(system: &System) -> Vec<Code> {
    system.problems.iter().map(|problem| problem.code).collect()
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::new(MachineAddress::new(start), size).unwrap()
}

prop_compose! {
    fn module()(offset in 1u64..0x4000, size in 1u64..0x100_0000) -> MachineRange {
        range(CONTAINER + offset * 4096, size)
    }
}

fn kernel() -> impl Strategy<Value = KernelRequest> {
    let arm64 = module().prop_map(|module| KernelRequest {
        module,
        memory_size: KERNEL_MEMORY,
        alignment: 2 << 20,
        text_offset: 0,
        bounds: None,
        entry: None,
        origin: Origin::NONE,
    });
    prop_oneof![arm64, x86_kernel()]
}

fn x86_kernel() -> impl Strategy<Value = KernelRequest> {
    let numbers = (1u64..u64::MAX, any::<u64>(), any::<u64>());
    let bounds = prop::option::of((any::<u64>(), any::<u64>()));
    (module(), numbers, any::<u64>(), bounds).prop_map(
        |(module, (memory_size, alignment, text_offset), entry, bounds)| KernelRequest {
            module,
            memory_size,
            alignment,
            text_offset,
            bounds: bounds
                .map(|(start, size)| GuestRange::saturating(GuestAddress::new(start), size)),
            entry: Some(entry % memory_size),
            origin: Origin::NONE,
        },
    )
}

fn module_request() -> impl Strategy<Value = Option<ModuleRequest>> {
    prop::option::of(module().prop_map(|module| ModuleRequest {
        module,
        origin: Origin::NONE,
    }))
}

fn memory() -> impl Strategy<Value = MemoryRequest> {
    prop_oneof![
        Just(MemoryRequest::Rest),
        Just(MemoryRequest::SumOfStatic),
        any::<u64>().prop_map(MemoryRequest::Size),
        (0u64..1 << 30).prop_map(|kib| MemoryRequest::Size(kib * 1024)),
    ]
}

fn on_stop() -> impl Strategy<Value = OnStop> {
    prop::sample::select(vec![
        OnStop::Stop,
        OnStop::Restart,
        OnStop::HaltMachine,
        OnStop::RebootMachine,
    ])
}

fn policies() -> impl Strategy<Value = Policies> {
    let stray = [
        OnStrayAccess::Fault,
        OnStrayAccess::Ignore,
        OnStrayAccess::Stop,
    ];
    (
        prop::sample::select(stray.to_vec()),
        on_stop(),
        on_stop(),
        on_stop(),
    )
        .prop_map(
            |(on_stray_access, on_poweroff, on_reboot, on_crash)| Policies {
                on_stray_access,
                on_poweroff,
                on_reboot,
                on_crash,
            },
        )
}

fn device() -> impl Strategy<Value = DeviceRequest> {
    ("/[a-z]{1,8}@[0-9a-f]{1,8}", any::<Option<u64>>()).prop_map(|(path, dma_mask)| DeviceRequest {
        path,
        dma_mask,
        origin: Origin::NONE,
    })
}

fn shared() -> impl Strategy<Value = SharedMemoryRequest> {
    let numbers = (any::<u64>(), any::<Option<u64>>(), any::<u64>());
    ("[a-z]{1,8}", numbers, any::<(bool, bool)>()).prop_map(
        |(id, (size, start, address), (owner, read_only))| SharedMemoryRequest {
            id,
            size,
            role: if owner {
                ShareRole::Owner
            } else {
                ShareRole::Borrower
            },
            start,
            address,
            read_only,
            origin: Origin::NONE,
        },
    )
}

fn channel() -> impl Strategy<Value = EventChannelRequest> {
    (any::<u32>(), "[a-z]{1,8}", any::<u32>()).prop_map(|(port, peer, peer_port)| {
        EventChannelRequest {
            port,
            peer,
            peer_port,
            origin: Origin::NONE,
        }
    })
}

prop_compose! {
    fn domain()(
        name in "[a-z][a-z0-9-]{0,20}",
        kind in prop::sample::select(vec![None, Some(Kind::Pv), Some(Kind::Pvh), Some(Kind::Hvm)]),
        capabilities in 0u32..8,
        direct_map: Option<bool>,
        cpus in 0u32..12,
        affinity in prop::option::of(prop::collection::vec(0u32..12, 0..5)),
        memory in memory(),
        static_mem in prop::collection::vec(any::<(u64, u64)>(), 0..4),
        (memory_below, vpl011, allow_dma) in any::<(Option<u64>, bool, bool)>(),
        modules in (prop::option::of(kernel()), module_request(), module_request()),
        command_line in "[ -~]{0,60}",
        devices in prop::collection::vec(device(), 0..3),
        (max_event_channels, max_grant_frames) in any::<(u32, u32)>(),
        policies in policies(),
        shared_memory in prop::collection::vec(shared(), 0..3),
        event_channels in prop::collection::vec(channel(), 0..3),
    ) -> DomainRequest {
        let (kernel, ramdisk, partial_tree) = modules;
        let mut domain = DomainRequest {
            name: name.into(),
            kind: kind.map(Located::from),
            capabilities: Capabilities::from_bits(capabilities).unwrap().into(),
            direct_map: direct_map.map(Located::from),
            cpus: cpus.into(),
            affinity: affinity.map(Located::from),
            memory: memory.into(),
            static_mem: static_mem
                .into_iter()
                .map(|(start, size)| StaticRange { start, size, origin: Origin::NONE })
                .collect(),
            memory_below: memory_below.map(Located::from),
            command_line: if kernel.is_some() { command_line } else { String::new() },
            kernel,
            ramdisk,
            partial_tree,
            tree_bytes: 0,
            devices,
            allow_dma_without_iommu: allow_dma,
            keep_modules: [policies.on_poweroff, policies.on_reboot, policies.on_crash]
                .contains(&OnStop::Restart),
            limits: Limits { max_event_channels, max_grant_frames },
            policies,
            vpl011,
            shared_memory,
            event_channels,
            misread: None,
        };
        domain.tree_bytes = guest::budget(&Tree::read(HOST).unwrap(), &domain);
        domain
    }
}

prop_compose! {
    fn request()(
        domains in prop::collection::vec(domain(), 0..4),
        skip: bool,
        print_plan: bool,
        scrub_all: bool,
    ) -> SystemRequest {
        SystemRequest {
            hypervisor: HypervisorRequest {
                image_bytes: 0,
                tree_bytes: 0,
                on_conflict: if skip { OnConflict::SkipDomain } else { OnConflict::Halt },
                print_plan,
                scrub: if scrub_all { Scrub::All } else { Scrub::Reused },
                console: Some(String::from("/pl011@9000000").into()),
            },
            domains,
        }
    }
}

/// The request without origins, which differ by nature.
fn without_origins(mut request: SystemRequest) -> SystemRequest {
    fn clear<T>(located: &mut Located<T>) {
        located.origin = Origin::NONE;
    }
    request.hypervisor.console.iter_mut().for_each(clear);
    for domain in &mut request.domains {
        clear(&mut domain.name);
        domain.kind.iter_mut().for_each(clear);
        clear(&mut domain.capabilities);
        domain.direct_map.iter_mut().for_each(clear);
        clear(&mut domain.cpus);
        domain.affinity.iter_mut().for_each(clear);
        clear(&mut domain.memory);
        domain.memory_below.iter_mut().for_each(clear);
        domain
            .static_mem
            .iter_mut()
            .for_each(|range| range.origin = Origin::NONE);
        domain
            .devices
            .iter_mut()
            .for_each(|device| device.origin = Origin::NONE);
        domain
            .shared_memory
            .iter_mut()
            .for_each(|shared| shared.origin = Origin::NONE);
        domain
            .event_channels
            .iter_mut()
            .for_each(|channel| channel.origin = Origin::NONE);
        domain
            .kernel
            .iter_mut()
            .for_each(|kernel| kernel.origin = Origin::NONE);
        for module in [&mut domain.ramdisk, &mut domain.partial_tree] {
            module
                .iter_mut()
                .for_each(|module| module.origin = Origin::NONE);
        }
    }
    request
}

proptest! {
    #[test]
    fn what_is_written_is_read(request in request()) {
        let digest = "0123456789abcdef".repeat(4);
        let tree = system::write(&request, &[], CONTAINER, Some(&digest), &Origins::new()).unwrap();
        let placeholder = system::write(&request, &[], CONTAINER, None, &Origins::new()).unwrap();
        prop_assert_eq!(tree.len(), placeholder.len());
        let without = read(&placeholder, Modules::Container(CONTAINER));
        prop_assert_eq!(without.digest, None);
        let mut read = read(&tree, Modules::Container(CONTAINER));
        prop_assert_eq!(&read.problems, &[]);
        prop_assert_eq!(read.digest.as_deref(), Some(digest.as_str()));
        prop_assert_eq!(read.request.hypervisor.tree_bytes, (HOST.len() + tree.len()) as u64);
        read.request.hypervisor.tree_bytes = 0;
        prop_assert_eq!(without_origins(read.request), request);
    }

    #[test]
    fn damaged_trees_do_not_panic(
        request in request(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
    ) {
        let mut bytes = system::write(&request, &[], CONTAINER, None, &Origins::new()).unwrap();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if Tree::read(&bytes).is_ok() {
            read(&bytes, Modules::Container(CONTAINER));
            read(&bytes, Modules::Absolute);
        }
    }
}

fn tree(chosen: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.node("", |root| root.node("chosen", chosen));
    writer.finish(&[], 1 << 16).unwrap()
}

/// A tree as a U-Boot script for Xen makes it: one-cell addresses, classic dom0 beside a domU.
#[test]
fn a_tree_for_xen_is_read() {
    let bytes = tree(|chosen| {
        chosen.cells("#address-cells", &[1]);
        chosen.cells("#size-cells", &[1]);
        chosen.string(
            "xen,xen-bootargs",
            "console=dtuart dom0_mem=512M dom0_max_vcpus=1",
        );
        chosen.string("xen,dom0-bootargs", "console=hvc0");
        chosen.node("module@50000000", |module| {
            module.strings("compatible", &["multiboot,kernel", "multiboot,module"]);
            module.cells("reg", &[0x5000_0000, 0x100_0000]);
        });
        chosen.node("module@54000000", |module| {
            module.strings("compatible", &["xen,linux-initrd", "xen,multiboot-module"]);
            module.cells("reg", &[0x5400_0000, 0x10_0000]);
        });
        chosen.node("domU1", |domain| {
            domain.string("compatible", "xen,domain");
            domain.cells("#address-cells", &[1]);
            domain.cells("#size-cells", &[1]);
            domain.numbers("memory", &[0x4_0000]);
            domain.cells("cpus", &[1]);
            domain.cells("xen,static-mem", &[0x7000_0000, 0x1000_0000]);
            domain.flag("direct-map");
            domain.flag("vpl011");
            domain.cells("trap-unmapped-accesses", &[0]);
            domain.node("module@58000000", |module| {
                module.strings("compatible", &["multiboot,kernel", "multiboot,module"]);
                module.cells("reg", &[0x5800_0000, 0x100_0000]);
                module.string("bootargs", "console=ttyAMA0");
            });
            domain.node("vcpu@0", |vcpu| {
                vcpu.string("compatible", "xen,vcpu");
                vcpu.cells("id", &[0]);
                vcpu.string("hard-affinity", "1");
            });
        });
    });
    let system = read(&bytes, Modules::Absolute);
    assert_eq!(system.problems, []);
    let [dom0, guest] = &system.request.domains[..] else {
        panic!("two domains")
    };
    assert_eq!(dom0.name.value, "dom0");
    assert!(dom0.identity().is_hardware() && dom0.identity().is_direct_mapped());
    assert_eq!(
        (dom0.memory.value, dom0.cpus.value),
        (MemoryRequest::Size(512 << 20), 1)
    );
    assert_eq!(dom0.command_line, "console=hvc0");
    assert_eq!(
        dom0.ramdisk.as_ref().unwrap().module,
        range(0x5400_0000, 0x10_0000)
    );
    assert_eq!(guest.name.value, "domU1");
    assert_eq!(guest.memory.value, MemoryRequest::Size(256 << 20));
    assert_eq!(
        (guest.static_mem[0].start, guest.static_mem[0].size),
        (0x7000_0000, 0x1000_0000)
    );
    assert!(guest.identity().is_direct_mapped() && guest.vpl011);
    assert_eq!(guest.affinity.as_ref().unwrap().value, [1]);
    assert_eq!(guest.policies.on_stray_access, OnStrayAccess::Ignore);
    assert_eq!(
        guest.kernel.as_ref().unwrap().module,
        range(0x5800_0000, 0x100_0000)
    );
    assert_eq!(guest.command_line, "console=ttyAMA0");
}

#[test]
fn reserved_ranges_reach_the_reader() {
    let reserved = Reserved {
        range: range(0x9000_0000, 0x100_0000),
        name: "remoteproc".into(),
        kind: Reservation::Kept,
        origin: Origin::NONE,
    };
    let request = SystemRequest::default();
    let tree = system::write(
        &request,
        std::slice::from_ref(&reserved),
        CONTAINER,
        None,
        &Origins::new(),
    )
    .unwrap();
    let mut read = read(&tree, Modules::Container(CONTAINER));
    assert_eq!(read.problems, []);
    read.reserved
        .iter_mut()
        .for_each(|reserved| reserved.origin = Origin::NONE);
    assert_eq!(read.reserved, [reserved]);
}

/// A kernel's module with these properties beside its size in memory.
fn x86_tree(more: impl Fn(&mut Writer)) -> Vec<u8> {
    tree(|chosen| {
        chosen.node("domU1", |domain| {
            domain.string("compatible", "xen,domain");
            domain.cells("cpus", &[1]);
            domain.cells("#address-cells", &[2]);
            domain.cells("#size-cells", &[2]);
            domain.node("module@1000000", |module| {
                module.strings("compatible", &["multiboot,kernel", "multiboot,module"]);
                module.numbers("reg", &[0x100_0000, 0x1000]);
                module.numbers("terrane,memory-size", &[0x8000]);
                more(module);
            });
        });
    })
}

fn read_x86(bytes: &[u8]) -> System {
    let pc = pc::Description {
        cpus: vec![0, 1],
        console: Some(0x3f8),
        ..pc::Description::default()
    };
    let no_header = |_: MachineRange| None;
    let tree = Tree::read(bytes).unwrap();
    system::read(
        &tree,
        Modules::Absolute,
        &pc,
        &no_header,
        &mut Origins::new(),
    )
}

#[test]
fn a_kernel_that_is_described_needs_no_header() {
    let system = read_x86(&x86_tree(|module| {
        module.numbers("terrane,entry", &[0x7fff]);
    }));
    assert_eq!(system.problems, []);
    let domain = &system.request.domains[0];
    let kernel = domain.kernel.as_ref().unwrap();
    assert_eq!(
        (kernel.memory_size, kernel.alignment, kernel.text_offset),
        (0x8000, 4096, 0)
    );
    assert_eq!((kernel.entry, kernel.bounds), (Some(0x7fff), None));
    // Beside a PC there is no tree for the domain, but room for what it starts from.
    assert_eq!(domain.tree_bytes, pc::START_BYTES);
    let console = system.request.hypervisor.console.unwrap();
    assert_eq!(console.value, "com1");
}

#[test]
fn a_kernel_that_is_described_wrongly_is_refused() {
    let refused = |name: &str, numbers: &[u64]| {
        let system = read_x86(&x86_tree(|module| module.numbers(name, numbers)));
        assert!(system.request.domains[0].kernel.is_none(), "{name}");
        codes(&system)
    };
    assert_eq!(refused("terrane,entry", &[0x8000]), [Code::KernelFile]);
    assert_eq!(refused("terrane,bounds", &[1]), [Code::WrongType]);
    assert_eq!(refused("terrane,bounds", &[2, 1]), [Code::WrongType]);
    assert_eq!(refused("terrane,bounds", &[0, 1, 2]), [Code::WrongType]);
    let unknown = read_x86(&x86_tree(|module| module.flag("terrane,new-thing")));
    assert_eq!(codes(&unknown), [Code::UnknownKey]);
}

#[test]
fn a_pc_has_the_console_that_it_says() {
    let named = |name: &str| {
        read_x86(&tree(|chosen| {
            chosen.string("terrane,console", name);
        }))
    };
    // Nor has it a domain.
    assert_eq!(codes(&named("com1")), [Code::TreeInvalid]);
    assert_eq!(
        codes(&named("com2")),
        [Code::DeviceUnknown, Code::TreeInvalid]
    );
}

#[test]
fn all_problems_at_once() {
    let bytes = tree(|chosen| {
        chosen.cells("terrane,version", &[2]);
        chosen.string("terrane,on-conflict", "panic");
        chosen.string("terrane,console", "/nowhere");
        chosen.flag("terrane,new-thing");
        chosen.node("domU1", |domain| {
            domain.string("compatible", "xen,domain");
            domain.cells("memory", &[1, 2, 3]);
            domain.cells("capabilities", &[8]);
            domain.flag("llc-colors");
            domain.cells("terrane,manifest-line", &[12, 3]);
            domain.cells("xen,static-mem", &[1, 2]);
        });
        chosen.node("shared", |shared| {
            shared.string("compatible", "xen,domain-shared-memory-v1")
        });
        chosen.node("channel", |channel| {
            channel.string("compatible", "xen,evtchn-v1");
            channel.cells("terrane,port", &[1]);
            channel.string("terrane,peer", "domU1");
            channel.cells("terrane,peer-port", &[1]);
        });
    });
    let host = Tree::read(HOST).unwrap();
    let mut origins = Origins::new();
    let tree = Tree::read(&bytes).unwrap();
    let system = system::read(&tree, Modules::Absolute, &host, &header, &mut origins);
    let expected = [
        Code::UnknownKey,
        Code::ValueInvalid,
        Code::DeviceUnknown,
        Code::ValueInvalid,
        Code::WrongType,
        Code::KeyMissing,
        Code::TreeInvalid,
        Code::LlcColorsExclude,
        Code::ValueInvalid,
        Code::KeyMissing,
        Code::WrongType,
        Code::WrongType,
    ];
    assert_eq!(codes(&system), expected);
    let side = &system.problems[7].sides[0];
    assert_eq!(side.domain, Some(0));
    let at = origins.describe(side.origin).unwrap();
    assert_eq!(at, "system tree /chosen/domU1 (manifest 12:3)");
}
