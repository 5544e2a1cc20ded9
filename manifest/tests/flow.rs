//! The whole way from a container and a host tree to a guest's tree, by the real planner: what workstation and
//! hypervisor both do.

use layout::{
    Architecture, BootKind, Capabilities, DomainRequest, KernelRequest, Located, MachineAddress,
    MachineRange, MemoryRequest, ModuleRequest, Origin, SystemRequest,
};
use terrane_manifest::container::{self, Container, Shape};
use terrane_manifest::image::Image;
use terrane_manifest::origin::Origins;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::host::{self, BootFacts};
use terrane_manifest::tree::system::{self, Modules};
use terrane_manifest::tree::{edit, guest};

const HOST: &[u8] = include_bytes!("trees/virt-gicv3.dtb");
const CONTAINER: u64 = 0x5000_0000;

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::new(MachineAddress::new(start), size).unwrap()
}

fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 0x12_3000];
    bytes[16..24].copy_from_slice(&0x30_0000u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

/// A container with one hardware domain that takes all memory.
fn pack(kernel: &[u8], ramdisk: &[u8]) -> Vec<u8> {
    let image = Image::read(kernel, kernel.len() as u64, Architecture::Aarch64).unwrap();
    let shapes = [
        Shape {
            file_size: kernel.len() as u64,
            memory_size: image.memory_size,
            alignment: container::ALIGNMENT,
            offset: image.text_offset,
            bounds: None,
        },
        Shape::data(ramdisk.len() as u64),
    ];
    let with = |offsets: &[u64]| SystemRequest {
        domains: vec![DomainRequest {
            name: String::from("control").into(),
            capabilities: Capabilities::all().into(),
            cpus: 2.into(),
            memory: Located::from(MemoryRequest::Rest),
            kernel: Some(KernelRequest {
                module: range(offsets[0], kernel.len() as u64),
                memory_size: image.memory_size,
                alignment: 2 << 20,
                text_offset: 0,
                bounds: None,
                entry: None,
                origin: Origin::NONE,
            }),
            ramdisk: Some(ModuleRequest {
                module: range(offsets[1], ramdisk.len() as u64),
                origin: Origin::NONE,
            }),
            command_line: "console=hvc0".into(),
            ..DomainRequest::default()
        }],
        ..SystemRequest::default()
    };
    let write =
        |offsets: &[u64]| system::write(&with(offsets), &[], 0, None, &Origins::new()).unwrap();
    // The tree's length doesn't depend on where the modules are.
    let tree_bytes = write(&[0, 0]).len() as u64;
    let arrangement = container::arrange(tree_bytes, &shapes, 0).unwrap();
    let tree = write(&arrangement.offsets);
    assert_eq!(tree.len() as u64, tree_bytes);
    container::assemble(&tree, [kernel, ramdisk], &arrangement).unwrap()
}

#[test]
fn from_container_to_guest_tree() {
    let (kernel, ramdisk) = (kernel(), vec![7; 0x5_4321]);
    let blob = pack(&kernel, &ramdisk);
    let container = Container::open(&blob).unwrap();

    let end = CONTAINER + blob.len() as u64;
    let initrd = [
        ("linux,initrd-start", &CONTAINER.to_be_bytes()[..]),
        ("linux,initrd-end", &end.to_be_bytes()),
    ];
    let host_blob =
        edit::with_properties(&Tree::read(HOST).unwrap(), "chosen", &initrd, 1 << 20).unwrap();
    let host_tree = Tree::read(&host_blob).unwrap();
    assert_eq!(
        host_tree.find("/chosen").unwrap().u64("linux,initrd-start"),
        Some(CONTAINER)
    );

    let mut origins = Origins::new();
    let system_tree = Tree::read(container.tree()).unwrap();
    let header = |module: MachineRange| {
        let bytes = container
            .module(module.start().raw() - CONTAINER, module.size())
            .ok()?;
        bytes.first_chunk().copied()
    };
    let system = system::read(
        &system_tree,
        Modules::Container(CONTAINER),
        &host_tree,
        &header,
        &mut origins,
    );
    assert_eq!(system.problems, []);

    let boot = BootFacts {
        hypervisor: range(0x4020_0000, 0x8_0000),
        host_tree: range(0x4800_0000, host_blob.len() as u64),
        container: Some(range(CONTAINER, blob.len() as u64)),
    };
    let console = system
        .request
        .hypervisor
        .console
        .as_ref()
        .map(|console| console.value.as_str());
    let host = host::read(&host_tree, &boot, console, &mut origins);
    assert_eq!(host.problems, []);
    assert!(
        host.map
            .boot
            .iter()
            .any(|placed| placed.kind == BootKind::Container)
    );

    let outcome = layout::plan(&host.map, &system.request);
    assert_eq!(outcome.conflicts, []);
    let domain = &outcome.plan.domains[0];
    assert!(domain.frames() << 12 >= 2036 << 20);
    assert!(domain.kernel.in_place);

    let built = guest::build(&host_tree, &host, &outcome.plan, domain, None).unwrap();
    let tree = Tree::read(&built.bytes).unwrap();
    let chosen = tree.find("/chosen").unwrap();
    assert_eq!(chosen.string("bootargs"), Some("console=hvc0"));
    let start = chosen.u64("linux,initrd-start").unwrap();
    assert_eq!(
        chosen.u64("linux,initrd-end"),
        Some(start + ramdisk.len() as u64)
    );
    // All devices are the hardware domain's, but for the hypervisor's UART.
    assert_eq!(domain.devices.len() + 1, host.map.devices.len());
    assert!(tree.find("/pl011").is_none());
}
