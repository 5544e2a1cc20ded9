//! The whole way from a manifest to a PC's plan, by the real reader, container and planner: what workstation and
//! hypervisor both do.
#![cfg(feature = "std")]

use layout::{Architecture, MachineAddress, MachineRange};
use terrane_manifest::container::{Container, PAGE};
use terrane_manifest::origin::Origins;
use terrane_manifest::pc::{self, BootFacts, Description, MemoryKind};
use terrane_manifest::toml;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::system::{self, Modules};

const MIB: u64 = 1 << 20;
const IMAGE: u64 = 2 * MIB;
const IMAGE_BYTES: u64 = MIB + 0x3000;
const CONTAINER: u64 = IMAGE + IMAGE_BYTES + PAGE;

const MANIFEST: &str = r#"
manifest-version = 1
[host]
qemu = { machine = "q35", arch = "x86_64", cpu = "EPYC", cpus = 2, memory = "1GiB" }
[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "kernel.elf"
ramdisk = "ramdisk"
cmdline = "console=hvc0"
"#;

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::new(MachineAddress::new(start), size).unwrap()
}

fn machine() -> Description {
    let memory = |start, end, kind| pc::Memory::new(start, end - start, kind);
    Description {
        memory: vec![
            memory(0, 0x9_fc00, MemoryKind::Ram),
            memory(0x9_fc00, 0xa_0000, MemoryKind::Reserved),
            memory(MIB, 1024 * MIB, MemoryKind::Ram),
        ],
        cpus: vec![0, 1],
        local_apic: 0xfee0_0000,
        console: Some(0x3f8),
        ..Description::default()
    }
}

/// An ELF64 file with one segment of a page at 16 MiB that takes 40 MiB, and a PVH note.
fn kernel() -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    file[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    file[32] = 64;
    file[52] = 64;
    file[54] = 56;
    file[56] = 2;
    let mut header = |kind: u32, numbers: [u64; 6]| {
        file.extend(kind.to_le_bytes());
        file.extend([0; 4]);
        file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    header(1, [4096, 0, 16 * MIB, 4096, 40 * MIB, 4096]);
    header(4, [64 + 112, 0, 0, 20, 20, 4]);
    for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x100_0040] {
        file.extend(word.to_le_bytes());
    }
    file.resize(8192, 0x90);
    file
}

fn plan_of(system: &system::System, blob_bytes: u64) -> layout::Outcome {
    let boot = BootFacts {
        hypervisor: range(IMAGE, IMAGE_BYTES),
        container: Some(range(CONTAINER, blob_bytes)),
    };
    let host = pc::host_map(&machine(), &boot, &mut Origins::new());
    assert_eq!(host.problems, []);
    layout::plan(&host.map, &system.request)
}

#[test]
fn from_manifest_to_plan_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kernel.elf"), kernel()).unwrap();
    std::fs::write(folder.path().join("ramdisk"), vec![7; 5 << 20]).unwrap();
    let manifest = toml::parse("system.toml", MANIFEST.into(), folder.path()).unwrap();
    let mut loaded = manifest.load_files(Architecture::X86_64).unwrap();
    loaded.arrange_at(CONTAINER).unwrap();
    assert_eq!(loaded.manifest().problems, []);

    let workstation = loaded.system(CONTAINER, &machine()).unwrap();
    assert_eq!(workstation.problems, []);
    let first = plan_of(&workstation, loaded.container_bytes());
    assert_eq!(first.conflicts, []);

    // The hypervisor has the bytes only.
    let blob = loaded.container(None).unwrap();
    assert_eq!(blob.len() as u64, loaded.container_bytes());
    let container = Container::open(&blob).unwrap();
    let tree = Tree::read(container.tree()).unwrap();
    let no_header = |_: MachineRange| None;
    let modules = Modules::Container(CONTAINER);
    let read = system::read(&tree, modules, &machine(), &no_header, &mut Origins::new());
    assert_eq!(read.problems, []);
    let second = plan_of(&read, blob.len() as u64);
    assert_eq!(second.plan, first.plan);

    let domain = &second.plan.domains[0];
    assert!(domain.kernel.in_place && domain.ramdisk.as_ref().unwrap().in_place);
    assert_eq!(domain.kernel.address.raw(), 16 * MIB);
    assert_eq!(domain.kernel.size, 40 * MIB);
    assert_eq!(domain.entry.unwrap().raw(), 16 * MIB + 0x40);
    assert!(second.plan.copies.is_empty());
    let source = domain.kernel.source;
    let bytes = container.module(source.start().raw() - CONTAINER, source.size());
    assert!(bytes.unwrap().iter().all(|&byte| byte == 0x90));
}

#[test]
fn an_arm64_kernel_does_not_start_on_a_pc() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = vec![0; 4096];
    image[56..60].copy_from_slice(b"ARM\x64");
    std::fs::write(folder.path().join("kernel.elf"), image).unwrap();
    std::fs::write(folder.path().join("ramdisk"), [7]).unwrap();
    let manifest = toml::parse("system.toml", MANIFEST.into(), folder.path()).unwrap();
    let loaded = manifest.load_files(Architecture::X86_64).unwrap();
    let problem = &loaded.manifest().problems[0];
    assert_eq!(problem.code, layout::Code::KernelFile);
    assert!(problem.help.contains("PVH"), "{}", problem.help);
}
