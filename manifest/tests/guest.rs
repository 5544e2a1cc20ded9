//! Guests' trees, from QEMU's host trees and plans made by hand; read back by dtoolkit and, where it is installed,
//! by dtc.

use std::process::{Command, Stdio};

use layout::{
    Architecture, Bank, Capabilities, DomainPlan, GuestAddress, GuestRange, HypervisorPlan,
    Identity, Kind, Limits, MachineAddress, MachineRange, Mfn, MfnRange, OnConflict, Placement,
    Plan, Policies, Scrub,
};
use terrane_manifest::origin::Origins;
use terrane_manifest::tree::blob::{Cells, Node, Tree};
use terrane_manifest::tree::guest::{self, GuestTree};
use terrane_manifest::tree::host::{self, BootFacts, Host};
use terrane_manifest::tree::writer::Writer;

const V2: &[u8] = include_bytes!("trees/virt-gicv2.dtb");
const V3: &[u8] = include_bytes!("trees/virt-gicv3.dtb");
const V3_SMMU: &[u8] = include_bytes!("trees/virt-gicv3-smmu.dtb");

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::new(MachineAddress::new(start), size).unwrap()
}

fn read_host(tree: &Tree<'_>) -> Host {
    let boot = BootFacts {
        hypervisor: range(0x4020_0000, 0x8_0000),
        host_tree: range(0x4800_0000, 0x1_0000),
        container: None,
    };
    let console = host::resolve_console(tree, None);
    host::read(tree, &boot, console.as_deref(), &mut Origins::new())
}

fn domain(capabilities: Capabilities, direct: bool, banks: &[(u64, u64, u64)]) -> DomainPlan {
    let banks = banks.iter().map(|&(gfn, mfn, size)| Bank {
        reserved: false,
        gfn: GuestAddress::new(gfn).frame(),
        mfn: MachineAddress::new(mfn).frame(),
        frames: size >> 12,
    });
    let place = |address, size| Placement {
        address: GuestAddress::new(address),
        size,
        source: range(0x5000_0000, size),
        in_place: false,
    };
    DomainPlan {
        index: 0,
        id: 0,
        name: "d".into(),
        identity: Identity::new(Kind::Pvh, capabilities, Some(direct)),
        banks: banks.collect(),
        pool: MfnRange::empty(Mfn::default()),
        tables: MfnRange::empty(Mfn::default()),
        kernel: place(0x4800_0000, 0x100_0000),
        entry: None,
        ramdisk: Some(place(0x4a00_0000, 0x12_3456)),
        tree: GuestRange::new(GuestAddress::new(0x4c00_0000), 0x8000).unwrap(),
        partial_tree: None,
        cpus: vec![0, 1],
        devices: Vec::new(),
        limits: Limits::default(),
        policies: Policies::default(),
        command_line: "console=hvc0 quiet".into(),
        vpl011: false,
    }
}

fn plan() -> Plan {
    Plan {
        architecture: Architecture::Aarch64,
        hypervisor: HypervisorPlan {
            region: MfnRange::new(Mfn::new(0x40000), 0x400).unwrap(),
            image: MfnRange::empty(Mfn::new(0x40200)),
            in_place: true,
            on_conflict: OnConflict::Halt,
            print_plan: false,
            scrub: Scrub::Reused,
            console: None,
            heap: Vec::new(),
        },
        domains: Vec::new(),
        copies: Vec::new(),
        clear: Vec::new(),
        kept: Vec::new(),
        reserved: Vec::new(),
        unowned: Vec::new(),
    }
}

fn all_devices(host: &Host) -> Vec<usize> {
    let console = host.console.as_ref().map(|console| console.path.as_str());
    let devices = host.map.devices.iter().enumerate();
    devices
        .filter(|(_, device)| Some(device.path.as_str()) != console)
        .map(|(index, _)| index)
        .collect()
}

/// The hardware domain's tree, checked by two other readers.
fn hardware(bytes: &[u8], change: impl FnOnce(&mut DomainPlan, &Host)) -> GuestTree {
    let tree = Tree::read(bytes).unwrap();
    let host = read_host(&tree);
    let mut domain = domain(
        Capabilities::all(),
        true,
        &[(0x4040_0000, 0x4040_0000, 0x7fc0_0000)],
    );
    domain.devices = all_devices(&host);
    change(&mut domain, &host);
    let built = guest::build(&tree, &host, &plan(), &domain, None).unwrap();
    assert_eq!(
        built,
        guest::build(&tree, &host, &plan(), &domain, None).unwrap()
    );
    check(&built.bytes);
    built
}

fn check(bytes: &[u8]) {
    dtoolkit::fdt::Fdt::new(bytes).unwrap();
    let mut dtc = Command::new("dtc");
    dtc.args(["-q", "-I", "dtb", "-O", "dts", "-o", "/dev/null", "-"]);
    let Ok(mut child) = dtc.stdin(Stdio::piped()).spawn() else {
        return;
    };
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), bytes).unwrap();
    assert!(child.wait().unwrap().success());
}

fn numbers(node: Node<'_, '_>, name: &str) -> Vec<u64> {
    let mut cells = Cells::new(node.value(name).unwrap());
    core::iter::from_fn(|| cells.next_number(2)).collect()
}

fn words(node: Node<'_, '_>, name: &str) -> Vec<u32> {
    let mut cells = Cells::new(node.value(name).unwrap());
    core::iter::from_fn(|| cells.next_u32()).collect()
}

#[test]
fn the_hardware_domain_on_gicv3() {
    let built = hardware(V3, |_, _| {});
    let tree = Tree::read(&built.bytes).unwrap();
    let find = |path: &str| tree.find(path);
    for hidden in [
        "/pl011",
        "/pmu",
        "/memory@40000000",
        "/cpus/cpu-map",
        "/aliases/serial0",
    ] {
        assert!(find(hidden).is_none(), "{hidden}");
    }
    let memory = find("/memory@40400000").unwrap();
    assert_eq!(numbers(memory, "reg"), [0x4040_0000, 0x7fc0_0000]);
    assert_eq!(find("/psci").unwrap().string("method"), Some("hvc"));
    let gic = find("/intc@8000000").unwrap();
    assert!(!gic.has("interrupts") && find("/intc@8000000/its@8080000").is_some());
    assert_eq!(
        numbers(gic, "reg"),
        [0x800_0000, 0x1_0000, 0x80a_0000, 0xf6_0000]
    );
    assert!(find("/timer").is_some() && find("/virtio_mmio@a000000").is_some());
    let chosen = find("/chosen").unwrap();
    assert_eq!(chosen.string("bootargs"), Some("console=hvc0 quiet"));
    assert_eq!(numbers(chosen, "linux,initrd-start"), [0x4a00_0000]);
    assert_eq!(numbers(chosen, "linux,initrd-end"), [0x4a12_3456]);
    assert!(!chosen.has("stdout-path"));
    let cpus = find("/cpus").unwrap();
    let names: Vec<&str> = cpus.children().map(Node::name).collect();
    assert_eq!(names, ["cpu@0", "cpu@1"]);
    let pcie = find("/pcie@10000000").unwrap();
    assert!(pcie.has("msi-map") && pcie.has("interrupt-map"));
}

#[test]
fn the_hypervisor_node_has_unused_addresses() {
    let built = hardware(V3, |_, _| {});
    let tree = Tree::read(&built.bytes).unwrap();
    let node = tree.find("/hypervisor").unwrap();
    assert!(node.is_compatible("xen,xen"));
    assert_eq!(words(node, "interrupts"), [1, 15, 0xf08]);
    assert_eq!(
        node.u32("interrupt-parent"),
        tree.find("/intc").unwrap().u32("phandle")
    );
    let reg = numbers(node, "reg");
    assert_eq!(
        reg[..2],
        [built.grant_table.start().raw(), built.grant_table.size()]
    );
    assert_eq!(reg.len(), 2 + 2 * built.extended.len());
    assert!(built.grant_table.size() >= 64 << 12 && !built.extended.is_empty());
    let host_tree = Tree::read(V3).unwrap();
    let host = read_host(&host_tree);
    let taken: Vec<MachineRange> = (host.map.ram.iter().map(|bank| bank.range))
        .chain(
            host.map
                .devices
                .iter()
                .flat_map(|device| device.ranges.iter().copied()),
        )
        .chain(host.map.controller.ranges.iter().copied())
        .chain([range(0xc00_0000, 0x200_0000)])
        .collect();
    for region in built.extended.iter().chain([&built.grant_table]) {
        assert_eq!((region.start().raw() | region.size()) % (2 << 20), 0);
        let same = range(region.start().raw(), region.size());
        assert!(taken.iter().all(|taken| !taken.overlaps(&same)), "{region}");
    }
    assert!(
        built
            .extended
            .iter()
            .all(|region| region.size() >= 64 << 20)
    );
}

#[test]
fn vcpus_are_in_order_and_cut() {
    let built = hardware(V3_SMMU, |domain, _| domain.cpus = vec![2, 0]);
    let tree = Tree::read(&built.bytes).unwrap();
    let cpus = tree.find("/cpus").unwrap();
    let names: Vec<&str> = cpus.children().map(Node::name).collect();
    assert_eq!(names, ["cpu@2", "cpu@0"]);
    assert!(
        cpus.children()
            .all(|cpu| cpu.string("enable-method") == Some("psci"))
    );
}

#[test]
fn shared_cpus_get_numbers_of_their_own() {
    let tree = Tree::read(V3_SMMU).unwrap();
    let host = read_host(&tree);
    let mut domain = domain(Capabilities::all(), true, &[]);
    domain.cpus = vec![1, 1, 2];
    assert_eq!(guest::vcpu_affinities(&host, &domain), [0, 1, 2]);
    domain.identity = Identity::new(Kind::Pvh, Capabilities::empty(), None);
    domain.cpus = vec![0; 18];
    let affinities = guest::vcpu_affinities(&host, &domain);
    assert_eq!(
        (affinities[15], affinities[16], affinities[17]),
        (15, 0x100, 0x101)
    );
}

#[test]
fn an_iommu_is_hidden() {
    let built = hardware(V3_SMMU, |_, _| {});
    let tree = Tree::read(&built.bytes).unwrap();
    assert!(tree.find("/smmuv3").is_none());
    let pcie = tree.find("/pcie@10000000").unwrap();
    assert!(!pcie.has("iommu-map") && pcie.has("msi-map"));
}

#[test]
fn the_hardware_domain_on_gicv2() {
    let built = hardware(V2, |_, _| {});
    let tree = Tree::read(&built.bytes).unwrap();
    let gic = tree.find("/intc@8000000").unwrap();
    assert_eq!(
        numbers(gic, "reg"),
        [0x800_0000, 0x1_0000, 0x801_0000, 0x1_0000]
    );
    assert!(!gic.has("interrupts") && gic.child("v2m").is_some());
}

#[test]
fn other_domains_devices_are_hidden() {
    let path = "/virtio_mmio@a003e00";
    let built = hardware(V3, |domain, host| {
        let device = host
            .map
            .devices
            .iter()
            .position(|device| device.path == path)
            .unwrap();
        domain.devices.retain(|&index| index != device);
    });
    let tree = Tree::read(&built.bytes).unwrap();
    assert!(tree.find(path).is_none() && tree.find("/virtio_mmio@a003c00").is_some());
}

#[test]
fn reserved_ram_is_memory_and_reserved() {
    let built = hardware(V3, |domain, _| {
        let pool = Bank {
            reserved: true,
            gfn: GuestAddress::new(0xc000_0000).frame(),
            mfn: MachineAddress::new(0xc000_0000).frame(),
            frames: 0x1000,
        };
        let behind = Bank {
            reserved: false,
            gfn: GuestAddress::new(0xc100_0000).frame(),
            mfn: MachineAddress::new(0xc100_0000).frame(),
            frames: 0x1000,
        };
        domain.banks.extend([pool, behind]);
    });
    let tree = Tree::read(&built.bytes).unwrap();
    let memory = tree.find("/memory@40400000").unwrap();
    assert_eq!(numbers(memory, "reg"), [0x4040_0000, 0x81c0_0000]);
}

#[test]
fn a_direct_mapped_guest_finds_the_hosts_addresses() {
    let tree = Tree::read(V3).unwrap();
    let host = read_host(&tree);
    let mut domain = domain(
        Capabilities::empty(),
        true,
        &[(0x7000_0000, 0x7000_0000, 0x1000_0000)],
    );
    domain.vpl011 = true;
    let built = guest::build(&tree, &host, &plan(), &domain, None).unwrap();
    check(&built.bytes);
    let tree = Tree::read(&built.bytes).unwrap();
    let gic = tree.find("/interrupt-controller@8000000").unwrap();
    assert_eq!(
        numbers(gic, "reg"),
        [0x800_0000, 0x1_0000, 0x80a_0000, 0xf6_0000]
    );
    let uart = tree.find("/sbsa-uart@9000000").unwrap();
    assert_eq!(words(uart, "interrupts"), [0, 1, 4]);
    assert!(tree.find("/memory@70000000").is_some() && tree.find("/pcie").is_none());
}

#[test]
fn a_default_guest_has_the_fixed_layout() {
    for (bytes, gic) in [
        (V3, [0x300_1000, 0x1_0000, 0x302_0000, 0x100_0000]),
        (V2, [0x300_1000, 0x1000, 0x300_2000, 0x2000]),
    ] {
        let tree = Tree::read(bytes).unwrap();
        let host = read_host(&tree);
        let mut domain = domain(
            Capabilities::empty(),
            false,
            &[(0x4000_0000, 0x7000_0000, 0x1000_0000)],
        );
        domain.vpl011 = true;
        let built = guest::build(&tree, &host, &plan(), &domain, None).unwrap();
        check(&built.bytes);
        let tree = Tree::read(&built.bytes).unwrap();
        assert_eq!(
            numbers(tree.find("/interrupt-controller@3001000").unwrap(), "reg"),
            gic
        );
        assert_eq!(
            words(tree.find("/sbsa-uart@22000000").unwrap(), "interrupts"),
            [0, 0, 4]
        );
        assert_eq!(built.grant_table.start().raw(), 0x3800_0000);
        assert_eq!(built.extended[0].start().raw(), 0x5000_0000);
        assert_eq!(built.extended[1].start().raw(), 0x2_0000_0000);
    }
}

#[test]
fn a_tree_that_outgrows_its_place_is_refused() {
    let tree = Tree::read(V3).unwrap();
    let host = read_host(&tree);
    let mut domain = domain(Capabilities::all(), true, &[]);
    domain.tree = GuestRange::new(GuestAddress::new(0), 4096).unwrap();
    domain.devices = all_devices(&host);
    assert_eq!(
        guest::build(&tree, &host, &plan(), &domain, None)
            .unwrap_err()
            .limit,
        4096
    );
}

#[test]
fn a_partial_tree_has_the_controller_by_its_own_phandle() {
    let mut partial = Writer::new();
    partial.node("", |root| {
        root.node("gic", |gic| gic.cells("phandle", &[1]));
        root.node("passthrough", |passthrough| {
            passthrough.node("gpio@9030000", |node| {
                node.string("compatible", "arm,pl061");
                node.string("xen,path", "/pl061@9030000");
                node.numbers("xen,reg", &[0x903_0000, 0x1000, 0x903_0000]);
                node.flag("xen,force-assign-without-iommu");
            });
        });
    });
    let partial = partial.finish(&[], 4096).unwrap();
    let partial = Tree::read(&partial).unwrap();
    let tree = Tree::read(V3).unwrap();
    let host = read_host(&tree);
    let domain = domain(
        Capabilities::empty(),
        false,
        &[(0x4000_0000, 0x7000_0000, 0x1000_0000)],
    );
    let built = guest::build(&tree, &host, &plan(), &domain, Some(&partial)).unwrap();
    check(&built.bytes);
    let tree = Tree::read(&built.bytes).unwrap();
    assert_eq!(tree.root().u32("interrupt-parent"), Some(1));
    let gic = tree.find("/interrupt-controller@3001000").unwrap();
    assert_eq!(gic.u32("phandle"), Some(1));
    let gpio = tree.find("/passthrough/gpio@9030000").unwrap();
    let names: Vec<&str> = gpio.properties().iter().map(|it| it.name).collect();
    assert_eq!(names, ["compatible"]);
}

/// A host whose root has that many cells for an address and a size.
fn narrow(cells: (u32, u32)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.cells("#address-cells", &[cells.0]);
        root.cells("#size-cells", &[cells.1]);
        root.node("memory@40000000", |memory| {
            memory.string("device_type", "memory");
            let zeros = |cells: u32| vec![0; cells as usize - 1];
            let reg = [
                zeros(cells.0),
                vec![0x4000_0000],
                zeros(cells.1),
                vec![0x4000_0000],
            ];
            memory.cells("reg", &reg.concat());
        });
    });
    writer.finish(&[], 1 << 16).unwrap()
}

fn entries(tree: &Tree<'_>, path: &str, (address, size): (u32, u32)) -> Vec<(u64, u64)> {
    let mut cells = Cells::new(tree.find(path).unwrap().value("reg").unwrap());
    let next = || {
        let start = cells.next_number(address as usize)?;
        Some((start, cells.next_number(size as usize)?))
    };
    core::iter::from_fn(next).collect()
}

#[test]
fn regions_are_such_as_the_roots_cells_can_say() {
    for cells in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let built = hardware(&narrow(cells), |domain, _| {
            domain.banks[0].frames = 0x4000_0000 >> 12;
        });
        let tree = Tree::read(&built.bytes).unwrap();
        let told = entries(&tree, "/hypervisor", cells);
        let regions = [built.grant_table].into_iter().chain(built.extended);
        let meant: Vec<(u64, u64)> = regions
            .map(|region| (region.start().raw(), region.size()))
            .collect();
        assert_eq!(told, meant, "{cells:?}");
        assert!(meant.len() > 2 && meant.iter().all(|&(_, size)| size > 0));
        let within = |&(start, size): &(u64, u64)| start + size <= 1 << 32;
        assert_eq!(meant.iter().all(within), cells.0 == 1, "{cells:?}");
    }
}

#[test]
fn memory_is_split_where_a_size_has_one_cell() {
    let memory = |cells, bytes: u64| {
        let built = hardware(&narrow(cells), |domain, _| {
            domain.banks[0].gfn = GuestAddress::new(0x1_0000_0000).frame();
            domain.banks[0].mfn = MachineAddress::new(0x1_0000_0000).frame();
            domain.banks[0].frames = bytes >> 12;
        });
        let tree = Tree::read(&built.bytes).unwrap();
        entries(&tree, "/memory@100000000", cells)
    };
    const GIB: u64 = 1 << 30;
    assert_eq!(memory((2, 1), 3 * GIB), [(4 * GIB, 3 * GIB)]);
    assert_eq!(memory((2, 2), 9 * GIB), [(4 * GIB, 9 * GIB)]);
    for bytes in [4 * GIB, 9 * GIB] {
        let pieces = memory((2, 1), bytes);
        let end = pieces.iter().fold(4 * GIB, |end, &(start, size)| {
            assert_eq!(start, end);
            end + size
        });
        assert_eq!(end, 4 * GIB + bytes);
    }
}
