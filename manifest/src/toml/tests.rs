use super::*;
use crate::origin::Position;
use layout::{Capabilities, MemoryRequest, OnStop, StaticRange};

const WHOLE: &str = r#"
manifest-version = 1

[host]
qemu = { machine = "virt,gic-version=3", arch = "aarch64", cpu = "cortex-a57", cpus = 2, memory = "2GiB" }

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "vmlinuz"
ramdisk = "initrd.gz"
cmdline = "console=hvc0"
"#;

fn read(text: &str) -> Manifest {
    parse("m.toml", text.to_owned(), Path::new("dir")).unwrap()
}

/// The codes and places of all problems.
fn problems(text: &str) -> Vec<String> {
    let manifest = read(text);
    let shown = manifest.problems.iter().map(|problem| {
        let at = manifest.origins.describe(problem.sides[0].origin).unwrap();
        format!("{} {at}", problem.code.as_str())
    });
    shown.collect()
}

fn with_domain(keys: &str) -> String {
    format!("{WHOLE}[[domain]]\nname = \"net\"\n{keys}\n")
}

#[test]
fn the_whole_example_is_understood() {
    let manifest = read(WHOLE);
    assert_eq!(manifest.problems, []);
    let Some(HostSource::Qemu(qemu)) = manifest.host.map(|host| host.source) else {
        panic!()
    };
    assert_eq!(
        (qemu.cpus, qemu.memory, qemu.cpu.as_str()),
        (2, 2 << 30, "cortex-a57")
    );
    let domain = &manifest.request.domains[0];
    assert_eq!(domain.name.value, "control");
    assert_eq!(
        domain.capabilities.value,
        Capabilities::CONTROL | Capabilities::HARDWARE
    );
    assert_eq!(domain.memory.value, MemoryRequest::Rest);
    assert_eq!(domain.command_line, "console=hvc0");
    let kernel = manifest.files[0].kernel.as_ref().unwrap();
    assert_eq!(kernel.value, Path::new("dir/vmlinuz"));
}

#[test]
fn every_key_of_a_domain_arrives() {
    let text = with_domain(
        "kind = \"pvh\"\ncpus = 3\naffinity = [2, 1, 0]\ndirect-map = true\n\
         static-mem = [{ start = 0x6000_0000, size = \"256MiB\" }]\nmemory-below = \"4GiB\"\n\
         devices = [\"/a@1\", { path = \"/b@2\", dma-mask = 0xffff_ffff }]\n\
         allow-dma-without-iommu = true\nvpl011 = true\nmax-event-channels = 7\n\
         max-grant-frames = 9\non-crash = \"restart\"\ndtb = \"p.dtb\"",
    );
    let manifest = read(&text);
    assert_eq!(manifest.problems, []);
    let domain = &manifest.request.domains[1];
    let range = &domain.static_mem[0];
    assert_eq!((range.start, range.size), (0x6000_0000, 256 << 20));
    assert_eq!(domain.memory.value, MemoryRequest::SumOfStatic);
    assert_eq!(domain.affinity.as_ref().unwrap().value, [2, 1, 0]);
    assert_eq!(domain.memory_below.unwrap().value, 4 << 30);
    assert_eq!(domain.devices[1].dma_mask, Some(0xffff_ffff));
    assert_eq!(
        (
            domain.limits.max_event_channels,
            domain.limits.max_grant_frames
        ),
        (7, 9)
    );
    assert_eq!(domain.policies.on_crash, OnStop::Restart);
    assert!(domain.keep_modules && domain.vpl011 && domain.allow_dma_without_iommu);
    assert!(manifest.files[1].partial_tree.is_some());
}

#[test]
fn links_arrive_whole_or_are_told() {
    let text = with_domain(
        "shared-memory = [{ id = \"ring\", size = \"1MiB\", role = \"owner\", start = 0x7000_0000, \
         address = 0x7000_0000 }, { id = \"x\", role = \"lender\", size = 1, address = 1 }]\n\
         event-channels = [{ port = 10, peer = \"control\", peer-port = 11 }, { port = 1 }]",
    );
    let manifest = read(&text);
    let domain = &manifest.request.domains[1];
    let [shared] = domain.shared_memory.as_slice() else {
        panic!("{:?}", domain.shared_memory)
    };
    assert_eq!((shared.id.as_str(), shared.size), ("ring", 1 << 20));
    assert_eq!(
        (shared.start, shared.address, shared.read_only),
        (Some(0x7000_0000), 0x7000_0000, false)
    );
    let [channel] = domain.event_channels.as_slice() else {
        panic!("{:?}", domain.event_channels)
    };
    assert_eq!(
        (channel.port, channel.peer.as_str(), channel.peer_port),
        (10, "control", 11)
    );
    let codes: Vec<_> = manifest.problems.iter().map(|it| it.code).collect();
    assert_eq!(
        codes,
        [Code::ValueInvalid, Code::KeyMissing, Code::KeyMissing]
    );
}

#[test]
fn numbers_may_be_integers_beyond_an_i64_or_strings() {
    let text = with_domain(
        "static-mem = [{ start = 0xffff_ffff_f000_0000, size = 1 }, { start = \"0x10\", size = \"1KiB\" }]",
    );
    let manifest = read(&text);
    assert_eq!(manifest.problems, []);
    let ranges: Vec<(u64, u64)> = manifest.request.domains[1]
        .static_mem
        .iter()
        .map(|StaticRange { start, size, .. }| (*start, *size))
        .collect();
    assert_eq!(ranges, [(0xffff_ffff_f000_0000, 1), (0x10, 1024)]);
}

#[test]
fn an_unknown_key_has_the_nearest_in_its_help() {
    let manifest = read(&with_domain("memroy = 1\nmemory = 1"));
    let problem = &manifest.problems[0];
    assert_eq!(problem.code, Code::UnknownKey);
    assert!(problem.help.contains("`memory`"), "{}", problem.help);
    assert_eq!(problem.sides[0].domain, Some(1));
}

#[test]
fn everything_wrong_is_found_at_once_with_its_place() {
    let text = "manifest-version = 2\nx = 1\n[host]\n[[domain]]\nname = 1\ncpus = -1\n\
                memory = 1.5\non-crash = \"die\"\ncapabilities = [\"hardwar\"]\n\
                devices = [{ dma-mask = 1 }]\nstatic-mem = [{ start = \"1XB\" }]\nvpl011 = 1\n";
    let mut found = problems(text);
    found.sort();
    let mut expected = vec![
        "unknown-key m.toml:2:1",
        "value-invalid m.toml:1:20",
        "key-missing m.toml:3:1",
        "wrong-type m.toml:5:8",
        "value-invalid m.toml:6:8",
        "wrong-type m.toml:7:10",
        "value-invalid m.toml:8:12",
        "value-invalid m.toml:9:17",
        "key-missing m.toml:10:12",
        "value-invalid m.toml:11:25",
        "key-missing m.toml:11:15",
        "wrong-type m.toml:12:10",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn qemu_and_description_exclude_each_other() {
    let text = WHOLE.replace("[host]\n", "[host]\ndescription = \"x.dtb\"\n");
    assert_eq!(problems(&text), ["value-invalid m.toml:6:8"]);
}

#[test]
fn an_architecture_is_one_of_three() {
    for name in ["\"x86_64\"", "\"riscv64\""] {
        assert!(problems(&WHOLE.replace("\"aarch64\"", name)).is_empty());
    }
    assert_eq!(
        problems(&WHOLE.replace("\"aarch64\"", "\"arm65\"")),
        ["value-invalid m.toml:5:49"]
    );
}

#[test]
fn a_name_that_would_confuse_the_console_is_refused() {
    for name in ["terrane", "a b", "x)", "../x"] {
        let found = problems(&WHOLE.replace("\"control\"\n", &format!("\"{name}\"\n")));
        assert_eq!(found, ["value-invalid m.toml:8:8"], "{name}");
    }
}

#[test]
fn what_is_not_toml_has_a_place_too() {
    let error = parse("m.toml", "a = 1\nb = [\n".to_owned(), Path::new("")).unwrap_err();
    let LoadError::Syntax { errors, .. } = error else {
        panic!()
    };
    assert!(errors[0].start.line >= 2);
}

#[test]
fn files_are_read_and_the_containers_tree_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut kernel = vec![0; 4096];
    kernel[16..24].copy_from_slice(&0x10_0000u64.to_le_bytes());
    kernel[56..60].copy_from_slice(b"ARM\x64");
    std::fs::write(folder.path().join("vmlinuz"), &kernel).unwrap();
    std::fs::write(folder.path().join("initrd.gz"), [7; 5000]).unwrap();
    let manifest = parse("m.toml", WHOLE.to_owned(), folder.path()).unwrap();
    let mut loaded = manifest.load_files(layout::Architecture::Aarch64).unwrap();
    assert_eq!(loaded.manifest().problems, []);

    let digest = "d".repeat(64);
    let container = loaded.container(Some(&digest)).unwrap();
    assert_eq!(container.len() as u64, loaded.container_bytes());
    let opened = crate::container::Container::open(&container).unwrap();
    let host = std::fs::read("tests/trees/virt-gicv3.dtb").unwrap();
    let host = crate::tree::blob::Tree::read(&host).unwrap();
    let start = 0x4040_0000;
    let system = loaded.system(start, &host).unwrap();
    assert_eq!(system.problems, []);

    let tree = crate::tree::blob::Tree::read(opened.tree()).unwrap();
    let kernel_header = |module: layout::MachineRange| {
        let bytes = opened
            .module(module.start().raw() - start, module.size())
            .ok()?;
        bytes.first_chunk().copied()
    };
    let modules = crate::tree::system::Modules::Container(start);
    let again =
        crate::tree::system::read(&tree, modules, &host, &kernel_header, &mut Origins::new());
    assert_eq!(again.digest.as_deref(), Some(digest.as_str()));
    let domain = &system.request.domains[0];
    let other = &again.request.domains[0];
    assert_eq!(
        domain.kernel.as_ref().unwrap().module,
        other.kernel.as_ref().unwrap().module
    );
    assert_eq!(domain.kernel.as_ref().unwrap().memory_size, 0x10_0000);
    assert_eq!(domain.tree_bytes, other.tree_bytes);
    assert_eq!(
        system.request.hypervisor.tree_bytes,
        again.request.hypervisor.tree_bytes
    );

    let origin = domain.ramdisk.as_ref().unwrap().origin;
    let Some(Position::Text { start, .. }) = loaded.manifest().origins.get(origin) else {
        panic!()
    };
    assert_eq!((start.line, start.column), (12, 11));
}

#[test]
fn files_that_are_not_there_or_no_kernels_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vmlinuz"), b"no kernel").unwrap();
    let manifest = parse("m.toml", WHOLE.to_owned(), folder.path()).unwrap();
    let loaded = manifest.load_files(layout::Architecture::Aarch64).unwrap();
    let codes: Vec<Code> = loaded
        .manifest()
        .problems
        .iter()
        .map(|found| found.code)
        .collect();
    assert_eq!(codes, [Code::KernelFile, Code::FileUnreadable]);
}

/// A partial tree that passes the machine's GPIO through.
fn gpio() -> Vec<u8> {
    let mut writer = crate::tree::writer::Writer::new();
    writer.node("", |root| {
        root.node("passthrough", |passthrough| {
            passthrough.cells("#address-cells", &[2]);
            passthrough.cells("#size-cells", &[2]);
            passthrough.node("gpio@9030000", |node| {
                node.string("xen,path", "/pl061@9030000");
                node.numbers("xen,reg", &[0x903_0000, 0x1000, 0x903_0000]);
            });
        });
    });
    writer.finish(&[], 1 << 16).unwrap()
}

/// A container in memory.
struct InMemory<'a>(crate::container::Container<'a>, u64);

impl InMemory<'_> {
    fn bytes(&self, module: layout::MachineRange) -> Option<&[u8]> {
        let offset = module.start().raw().checked_sub(self.1)?;
        self.0.module(offset, module.size()).ok()
    }
}

impl crate::tree::system::Contents for InMemory<'_> {
    fn header(&self, module: layout::MachineRange) -> Option<[u8; 64]> {
        self.bytes(module)?.first_chunk().copied()
    }

    fn partial_tree(&self, module: layout::MachineRange) -> Option<&[u8]> {
        self.bytes(module)
    }
}

#[test]
fn a_partial_trees_device_is_the_domains_for_workstation_and_hypervisor() {
    let folder = tempfile::tempdir().unwrap();
    let mut kernel = vec![0; 4096];
    kernel[16..24].copy_from_slice(&0x10_0000u64.to_le_bytes());
    kernel[56..60].copy_from_slice(b"ARM\x64");
    let files = [
        ("vmlinuz", kernel),
        ("initrd.gz", Vec::new()),
        ("gpio.dtb", gpio()),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let text = with_domain("memory = \"64MiB\"\nkernel = \"vmlinuz\"\ndtb = \"gpio.dtb\"");
    let manifest = parse("m.toml", text, folder.path()).unwrap();
    let mut loaded = manifest.load_files(layout::Architecture::Aarch64).unwrap();
    let container = loaded.container(None).unwrap();
    let container = crate::container::Container::open(&container).unwrap();
    let host = std::fs::read("tests/trees/virt-gicv3.dtb").unwrap();
    let host = crate::tree::blob::Tree::read(&host).unwrap();
    let start = 0x4040_0000;
    let told = loaded.system(start, &host).unwrap();
    assert_eq!(told.problems, []);
    let tree = crate::tree::blob::Tree::read(container.tree()).unwrap();
    let modules = crate::tree::system::Modules::Container(start);
    let contents = InMemory(container, start);
    let mut origins = Origins::new();
    let booted = crate::tree::system::read(&tree, modules, &host, &contents, &mut origins);
    for request in [&told.request, &booted.request] {
        let devices = request.domains[1].devices.iter();
        let paths: Vec<&str> = devices.map(|device| device.path.as_str()).collect();
        assert_eq!(paths, ["/pl061@9030000"]);
    }
    // By the file's name and the node, not by an address that nobody chose.
    let device = told.request.domains[1].devices[0].origin;
    let place = loaded.manifest().origins.describe(device).unwrap();
    assert!(
        place.ends_with("gpio.dtb /passthrough/gpio@9030000:xen,path"),
        "{place}"
    );
}
