//! Machines made of files.

use std::fs;
use std::path::Path;

use layout::{MachineAddress, MachineRange};
use manifest::capture::{self, Captured};
use manifest::pc::{self, Bridge, Description, IommuKind, MemoryKind, PciAddress};

use super::files::Files;
use super::{architecture, capture as capture_line};
use crate::diagnostics::Diagnostic;

/// A machine's root directory.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn without(self, path: &str) -> Self {
        let path = self.0.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        self
    }

    fn capture(&self) -> Result<Captured, Vec<Diagnostic>> {
        capture_line(&Files::below(self.0.path())).map(|line| capture::read(&line).unwrap())
    }

    fn pc(&self) -> Description {
        match self.capture().unwrap() {
            Captured::Pc(pc) => *pc,
            other => panic!("{other:?}"),
        }
    }

    /// The only complaint.
    fn complaint(&self) -> Diagnostic {
        let mut complaints = self.capture().unwrap_err();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        complaints.remove(0)
    }

    /// As Linux shows the machine that `pc` describes, IOMMUs and nodes aside.
    fn of(pc: &Description) -> Self {
        let bits = pc.address_bits;
        let info =
            format!("vendor_id\t: X\naddress sizes\t: {bits} bits physical, 48 bits virtual\n");
        let mut machine = Self::new()
            .with("proc/cpuinfo", info)
            .with("proc/ioports", "0000-001f : dma1\n  03f8-03ff : serial\n");
        for (number, entry) in pc.memory.iter().enumerate() {
            let folder = format!("sys/firmware/memmap/{number}");
            let name = match entry.kind {
                MemoryKind::Ram => "System RAM",
                MemoryKind::AcpiTables => "ACPI Tables",
                MemoryKind::AcpiNvs => "ACPI Non-volatile Storage",
                MemoryKind::Unusable => "Unusable memory",
                MemoryKind::Reserved => "Reserved",
            };
            let (start, last) = (entry.range.start().raw(), entry.range.end().raw() - 1);
            machine = machine
                .with(&format!("{folder}/start"), format!("{start:#x}\n"))
                .with(&format!("{folder}/end"), format!("{last:#x}\n"))
                .with(&format!("{folder}/type"), format!("{name}\n"));
        }
        for function in &pc.functions {
            let folder = format!("sys/bus/pci/devices/{}", function.address);
            let mut resources = String::new();
            for bar in &function.bars {
                let (start, last) = (bar.start().raw(), bar.end().raw() - 1);
                resources += &format!("{start:#018x} {last:#018x} 0x0000000000040200\n");
            }
            // A port, and one without a place.
            resources += "0x000000000000c000 0x000000000000c01f 0x0000000000040101\n";
            resources += "0x0000000000000000 0x0000000000000fff 0x0000000020040200\n";
            machine = machine
                .with(
                    &format!("{folder}/vendor"),
                    format!("{:#06x}\n", function.vendor),
                )
                .with(
                    &format!("{folder}/device"),
                    format!("{:#06x}\n", function.device),
                )
                .with(
                    &format!("{folder}/class"),
                    format!("{:#08x}\n", function.class),
                )
                .with(&format!("{folder}/resource"), resources)
                .with(&format!("{folder}/config"), [0; 64]);
        }
        machine
            .with("sys/firmware/acpi/tables/APIC", madt(pc))
            .with("sys/firmware/acpi/tables/MCFG", mcfg(pc))
    }
}

/// A table with this body behind its header.
fn table(signature: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.as_bytes().to_vec();
    bytes.extend(u32::try_from(36 + body.len()).unwrap().to_le_bytes());
    bytes.resize(36, 0);
    bytes.extend(body);
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[9] = 0_u8.wrapping_sub(sum);
    bytes
}

fn madt(pc: &Description) -> Vec<u8> {
    let mut body = u32::try_from(pc.local_apic).unwrap().to_le_bytes().to_vec();
    body.extend([0; 4]);
    for cpu in &pc.cpus {
        let id = u8::try_from(*cpu).unwrap();
        body.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    for chip in &pc.io_apics {
        body.extend([1, 12, chip.id, 0]);
        body.extend(u32::try_from(chip.address).unwrap().to_le_bytes());
        body.extend(chip.first_interrupt.to_le_bytes());
    }
    table("APIC", &body)
}

fn mcfg(pc: &Description) -> Vec<u8> {
    let mut body = vec![0; 8];
    for ecam in &pc.ecam {
        body.extend(ecam.base.to_le_bytes());
        body.extend(ecam.segment.to_le_bytes());
        body.extend([ecam.first_bus, ecam.last_bus, 0, 0, 0, 0]);
    }
    table("MCFG", &body)
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

fn q35() -> Description {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/q35-2g.json");
    pc::read(&fs::read_to_string(path).unwrap()).unwrap()
}

fn place(bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress {
        segment: 0,
        bus,
        device,
        function,
    }
}

/// What the hypervisor itself finds on a machine, Linux shows there.
#[test]
fn linux_and_the_hypervisor_describe_one_machine() {
    assert_eq!(Machine::of(&q35()).pc(), q35());
}

#[test]
fn two_io_apics_share_the_interrupts() {
    let mut pc = q35();
    let second = pc::IoApic {
        id: 1,
        address: 0xfec0_1000,
        first_interrupt: 120,
        pins: 24,
    };
    pc.io_apics[0].pins = 120;
    pc.io_apics.push(second);
    assert_eq!(Machine::of(&pc).pc().io_apics, pc.io_apics);
}

#[test]
fn an_iommu_stands_before_what_its_table_names() {
    let mut body = vec![0; 12];
    // One unit for the function 00:02.0 alone.
    body.extend([0, 0, 24, 0, 0, 0, 0, 0]);
    body.extend(0xfed9_0000_u64.to_le_bytes());
    body.extend([1, 8, 0, 0, 0, 0, 2, 0]);
    let machine = Machine::of(&q35()).with("sys/firmware/acpi/tables/DMAR", table("DMAR", &body));
    let pc = machine.pc();
    assert_eq!(pc.iommus.len(), 1);
    assert_eq!(pc.iommus[0].kind, IommuKind::VtD);
    assert_eq!(pc.iommus[0].range, range(0xfed9_0000, 0x1000));
    let behind = pc.functions.iter().filter(|it| it.behind_iommu);
    assert_eq!(
        behind.map(|it| it.address).collect::<Vec<_>>(),
        [place(0, 2, 0)]
    );
}

#[test]
fn memory_and_cpus_have_their_nodes() {
    let mut body = vec![0; 12];
    let cpu = |node, id| [0, 16, node, id, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend(cpu(0, 0));
    body.extend(cpu(1, 1));
    let mut memory = vec![1, 40, 1, 0, 0, 0, 0, 0];
    memory.extend(0x4000_0000_u64.to_le_bytes());
    memory.extend(0x4000_0000_u64.to_le_bytes());
    memory.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    memory.resize(40, 0);
    body.extend(memory);
    let machine = Machine::of(&q35()).with("sys/firmware/acpi/tables/SRAT", table("SRAT", &body));
    let pc = machine.pc();
    let nodes: Vec<(u32, u32)> = pc.cpu_nodes.iter().map(|it| (it.cpu, it.node)).collect();
    assert_eq!(nodes, [(0, 0), (1, 1)]);
    assert_eq!(pc.memory_nodes.len(), 1);
    assert_eq!(pc.memory_nodes[0].range, range(0x4000_0000, 0x4000_0000));
    assert_eq!(pc.memory_nodes[0].node, 1);
}

/// A function's configuration space with access control services that can do `services`.
fn configuration(header: u8, buses: [u8; 2], services: u16) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[0x0e] = header;
    bytes[0x19..0x1b].copy_from_slice(&buses);
    // Another capability first.
    bytes[0x100..0x104].copy_from_slice(&0x1401_0001_u32.to_le_bytes());
    bytes[0x140..0x144].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
    bytes[0x144..0x146].copy_from_slice(&services.to_le_bytes());
    bytes
}

#[test]
fn bridges_and_what_keeps_functions_apart() {
    let folder = "sys/bus/pci/devices";
    let add = |machine: Machine, name: &str, class: &str, config: Vec<u8>| {
        machine
            .with(&format!("{folder}/{name}/vendor"), "0x8086\n")
            .with(&format!("{folder}/{name}/device"), "0x1234\n")
            .with(&format!("{folder}/{name}/class"), class)
            .with(&format!("{folder}/{name}/resource"), "")
            .with(&format!("{folder}/{name}/config"), config)
    };
    let machine = Machine::of(&q35());
    let machine = add(
        machine,
        "0000:00:1c.0",
        "0x060400\n",
        configuration(0x81, [1, 2], 0x1f),
    );
    let machine = add(
        machine,
        "0000:00:1c.1",
        "0x060400\n",
        configuration(0x81, [3, 3], 0x0c),
    );
    let machine = add(
        machine,
        "0000:03:00.0",
        "0x020000\n",
        configuration(0, [0, 0], 0x0c),
    );
    // What firmware doesn't know: a virtual function, and what is behind a controller's own segment.
    let machine = add(
        machine,
        "0000:03:10.0",
        "0x020000\n",
        configuration(0, [0, 0], 0),
    );
    let machine = machine.with(&format!("{folder}/0000:03:10.0/physfn/vendor"), "0x8086\n");
    let machine = add(
        machine,
        "10000:00:00.0",
        "0x020000\n",
        configuration(0, [0, 0], 0),
    );
    let pc = machine.pc();
    let bridge = |function, secondary, subordinate, isolates| Bridge {
        address: place(0, 0x1c, function),
        secondary,
        subordinate,
        isolates,
    };
    assert_eq!(pc.bridges, [bridge(0, 1, 2, true), bridge(1, 3, 3, false)]);
    let isolated = pc.functions.iter().filter(|it| it.isolated);
    let isolated: Vec<PciAddress> = isolated.map(|it| it.address).collect();
    assert_eq!(
        isolated,
        [place(0, 0x1c, 0), place(0, 0x1c, 1), place(3, 0, 0)]
    );
    assert_eq!(pc.functions.len(), q35().functions.len() + 3);
}

const RESOURCES: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-7ffdffff : System RAM
  01000000-022090c7 : Kernel code
7ffe0000-7fffffff : ACPI Tables
";

#[test]
fn without_a_memory_map_its_use_is_taken() {
    let machine = Machine::of(&q35())
        .without("sys/firmware/memmap")
        .with("proc/iomem", RESOURCES);
    let memory: Vec<_> = machine
        .pc()
        .memory
        .iter()
        .map(|it| (it.range, it.kind))
        .collect();
    let expected = [
        (range(0, 0x1000), MemoryKind::Reserved),
        (range(0x1000, 0x9_ec00), MemoryKind::Ram),
        (range(0x10_0000, 0x7fee_0000), MemoryKind::Ram),
        (range(0x7ffe_0000, 0x2_0000), MemoryKind::AcpiTables),
    ];
    assert_eq!(memory, expected);
}

/// The file as who isn't root sees it.
fn zeroed(resources: &str) -> String {
    let line = |line: &str| {
        let (_, name) = line.split_once(" : ").unwrap();
        format!("00000000-00000000 : {name}\n")
    };
    resources.lines().map(line).collect()
}

#[test]
fn zeros_are_no_addresses() {
    let machine = Machine::of(&q35())
        .without("sys/firmware/memmap")
        .with("proc/iomem", zeroed(RESOURCES));
    let found = machine.complaint();
    let said = found.message;
    assert!(
        said.ends_with("/proc/iomem has zeros for all addresses"),
        "{said}"
    );
    assert!(found.help.unwrap().starts_with("run it as root"));
}

#[test]
fn all_that_cannot_be_read_is_said() {
    let machine = Machine::of(&q35())
        .without("sys/firmware/memmap")
        .without("proc/ioports")
        .without("sys/bus/pci/devices/0000:00:02.0/class")
        .with("proc/iomem", zeroed(RESOURCES))
        .with("sys/firmware/acpi/tables/APIC", "APIC")
        .with("sys/firmware/acpi/tables/MCFG", [0; 60]);
    let complaints = machine.capture().unwrap_err();
    let messages: Vec<&str> = complaints.iter().map(|it| it.message.as_str()).collect();
    for part in [
        "iomem",
        "ioports",
        "0000:00:02.0/class",
        "tables/APIC",
        "tables/MCFG",
    ] {
        assert!(
            messages.iter().any(|message| message.contains(part)),
            "{part}: {messages:?}"
        );
    }
    assert_eq!(messages.len(), 5, "{messages:?}");
}

#[test]
fn a_pc_without_tables_is_none() {
    let machine = Machine::of(&q35()).without("sys/firmware/acpi");
    assert!(machine.complaint().message.contains("APIC"));
}

#[test]
fn without_a_serial_port_there_is_no_console() {
    let machine =
        Machine::of(&q35()).with("proc/ioports", "0000-001f : dma1\n03f8-03ff : parport\n");
    assert_eq!(machine.pc().console, None);
}

fn virt() -> Vec<u8> {
    fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/hosts/virt-2g.dtb"
    ))
    .unwrap()
}

#[test]
fn a_tree_is_captured_as_it_is() {
    let arm = Machine::new()
        .with("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\n")
        .with("sys/firmware/fdt", virt());
    let expected = Captured::Tree {
        architecture: layout::Architecture::Aarch64,
        tree: virt(),
        memory: Vec::new(),
    };
    assert_eq!(arm.capture().unwrap(), expected);
}

#[test]
fn memory_that_an_efi_stub_took_out_of_the_tree_is_the_kernels() {
    // No node is of memory any more.
    let mut tree = virt();
    let name = b"device_type\0";
    let at = tree
        .windows(name.len())
        .position(|bytes| bytes == name)
        .unwrap();
    tree[at] = b'x';
    let arm = Machine::new()
        .with("proc/cpuinfo", "CPU implementer\t: 0x41\n")
        .with("sys/firmware/fdt", &tree);
    let arm = arm.with(
        "proc/iomem",
        "09000000-09000fff : pl011@9000000\n40000000-bfffffff : System RAM\n  40010000-419fffff : Kernel code\n",
    );
    let Captured::Tree { memory, .. } = arm.capture().unwrap() else {
        panic!()
    };
    assert_eq!(memory, [range(0x4000_0000, 0x8000_0000)]);
    let arm = arm.with("proc/iomem", "00000000-00000000 : System RAM\n");
    assert!(arm.complaint().message.contains("zeros"));
}

#[test]
fn machines_that_cannot_be_hosts_are_told_so() {
    let arm = Machine::new().with("proc/cpuinfo", "CPU implementer\t: 0x41\n");
    assert_eq!(arm.complaint().code, "host-unknown");
    let other = Machine::new().with("proc/cpuinfo", "cpu\t: POWER9\n");
    assert_eq!(other.complaint().code, "host-unknown");
    let rubbish = arm.with("sys/firmware/fdt", "rubbish");
    assert_eq!(rubbish.complaint().code, "host-unreadable");
    let riscv = Machine::new().with("proc/cpuinfo", "hart\t: 0\nisa\t: rv64imafdch\n");
    let found = architecture(&Files::below(riscv.0.path())).unwrap();
    assert_eq!(found, layout::Architecture::Riscv64);
    assert_eq!(
        Files::below(Path::new("/nowhere"))
            .text("x")
            .unwrap_err()
            .code,
        "host-unreadable"
    );
}
