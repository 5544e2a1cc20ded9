//! Xen's dom0less binding beyond what becomes a request as it stands: ranges, exclusions, links, unknown names, positions.

use layout::{Code, MachineRange, ShareRole};
use terrane_manifest::origin::Origins;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::system::{self, Modules, System};
use terrane_manifest::tree::writer::Writer;

const HOST: &[u8] = include_bytes!("trees/virt-gicv3.dtb");

/// The header of a kernel of 32 MiB.
fn header(_: MachineRange) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    bytes[16..24].copy_from_slice(&0x200_0000u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    Some(bytes)
}

fn read(tree: &[u8]) -> System {
    let host = Tree::read(HOST).unwrap();
    let tree = Tree::read(tree).unwrap();
    let origins = &mut Origins::new();
    system::read(&tree, Modules::Absolute, &host, &header, origins)
}

fn codes(system: &System) -> Vec<Code> {
    system.problems.iter().map(|problem| problem.code).collect()
}

fn tree(chosen: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.node("", |root| root.node("chosen", chosen));
    writer.finish(&[], 1 << 16).unwrap()
}

/// The codes of a domain with these properties beside its two that must be there.
fn of_domain(more: impl FnOnce(&mut Writer)) -> Vec<Code> {
    codes(&read(&tree(|chosen| {
        chosen.cells("#address-cells", &[2]);
        chosen.cells("#size-cells", &[2]);
        chosen.node("domU1", |domain| {
            domain.string("compatible", "xen,domain");
            domain.cells("#address-cells", &[2]);
            domain.cells("#size-cells", &[2]);
            domain.numbers("memory", &[0x2_0000]);
            domain.cells("cpus", &[1]);
            more(domain);
        });
    })))
}

#[test]
fn xens_words_and_numbers_have_their_ranges() {
    let string = |name: &str, value: &str| of_domain(|domain| domain.string(name, value));
    let cell = |name: &str, value: u32| of_domain(|domain| domain.cells(name, &[value]));
    let flag = |name: &str| of_domain(|domain| domain.flag(name));
    assert_eq!(string("xen,enhanced", "no-xenstore"), []);
    assert_eq!(string("xen,enhanced", "disabled"), []);
    // XenStore needs a dom0.
    assert_eq!(string("xen,enhanced", "enabled"), [Code::ValueInvalid]);
    assert_eq!(flag("xen,enhanced"), [Code::ValueInvalid]);
    assert_eq!(string("xen,enhanced", "on"), [Code::ValueInvalid]);
    assert_eq!(string("passthrough", "enabled"), []);
    assert_eq!(string("passthrough", "yes"), [Code::ValueInvalid]);
    assert_eq!(cell("nr_spis", 988), []);
    assert_eq!(cell("nr_spis", 989), [Code::ValueInvalid]);
    assert_eq!(cell("max_grant_version", 1), []);
    assert_eq!(cell("max_grant_version", 2), [Code::NotBuiltYet]);
    assert_eq!(cell("max_grant_version", 3), [Code::ValueInvalid]);
    assert_eq!(cell("max_maptrack_frames", 1024), []);
    assert_eq!(cell("max_maptrack_frames", u32::MAX), [Code::ValueInvalid]);
    assert_eq!(cell("xen,domain-p2m-mem-mb", 8), []);
    assert_eq!(cell("sve", 0), []);
    assert_eq!(cell("sve", 128), [Code::NotBuiltYet]);
    assert_eq!(flag("sve"), [Code::NotBuiltYet]);
    assert_eq!(string("llc-colors", "0-3"), [Code::NotBuiltYet]);
    assert_eq!(string("v8r_el1_msa", "mmu"), []);
    assert_eq!(string("v8r_el1_msa", "mpu"), [Code::MpuNotStatic]);
    assert_eq!(string("xen,sci_type", "none"), []);
    assert_eq!(string("xen,sci_type", "scmi_smc"), [Code::NotBuiltYet]);
    assert_eq!(cell("#xen,static-mem-address-cells", 2), []);
    assert_eq!(
        cell("#xen,static-mem-address-cells", 1),
        [Code::ValueInvalid]
    );
}

#[test]
fn what_excludes_each_other_is_refused() {
    let with_static = |name: &'static str, value: &'static str, direct: bool| {
        of_domain(|domain| {
            domain.string(name, value);
            domain.numbers("xen,static-mem", &[0x7000_0000, 0x800_0000]);
            if direct {
                domain.flag("direct-map");
            }
        })
    };
    let colours = with_static("llc-colors", "0-3", true);
    assert_eq!(colours, [Code::LlcColorsExclude]);
    let mpu = |direct| with_static("v8r_el1_msa", "mpu", direct);
    assert_eq!(mpu(false), [Code::MpuNotStatic]);
    // Right, and not for this machine.
    assert_eq!(mpu(true), [Code::NotBuiltYet]);
}

#[test]
fn a_property_that_nobody_knows_is_named_with_the_nearest() {
    let bytes = tree(|chosen| {
        chosen.flag("xen,xen-bootarg");
        chosen.flag("linux,anything");
        chosen.node("domU1", |domain| {
            domain.string("compatible", "xen,domain");
            domain.numbers("memroy", &[0x2_0000]);
            domain.cells("cpus", &[1]);
            domain.flag("vendor,anything");
        });
    });
    let system = read(&bytes);
    let told: Vec<_> = system
        .problems
        .iter()
        .map(|problem| (problem.sides[0].what.as_str(), problem.help.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "xen,xen-bootarg",
                "the nearest property that is known is `xen,xen-bootargs`"
            ),
            ("memroy", "the nearest property that is known is `memory`"),
        ]
    );
    assert_eq!(codes(&system), [Code::UnknownKey; 2]);
}

#[test]
fn links_of_xens_binding_are_read() {
    let bytes = tree(|chosen| {
        chosen.cells("#address-cells", &[1]);
        chosen.cells("#size-cells", &[1]);
        chosen.node("module@50000000", |module| {
            module.strings("compatible", &["multiboot,kernel", "multiboot,module"]);
            module.cells("reg", &[0x5000_0000, 0x100_0000]);
        });
        chosen.node("channel", |channel| {
            channel.string("compatible", "xen,evtchn-v1");
            channel.cells("phandle", &[1]);
            channel.cells("xen,evtchn", &[10, 2]);
        });
        chosen.node("domU1", |domain| {
            domain.string("compatible", "xen,domain");
            domain.cells("#address-cells", &[1]);
            domain.cells("#size-cells", &[1]);
            domain.cells("cpus", &[1]);
            domain.node("channel", |channel| {
                channel.string("compatible", "xen,evtchn-v1");
                channel.cells("phandle", &[2]);
                channel.cells("xen,evtchn", &[11, 1]);
            });
            domain.node("lost", |channel| {
                channel.string("compatible", "xen,evtchn-v1");
                channel.cells("xen,evtchn", &[12, 7]);
            });
            for (name, value) in [
                ("placed", [0x7000_0000, 0x6000_0000, 0x1000].as_slice()),
                ("free", &[0x6000_1000, 0x1000]),
                ("wrong", &[0x6000_1000]),
            ] {
                domain.node(name, |shared| {
                    shared.string("compatible", "xen,domain-shared-memory-v1");
                    shared.string("xen,shm-id", name);
                    shared.cells("xen,shared-mem", value);
                });
            }
        });
    });
    let system = read(&bytes);
    assert_eq!(codes(&system), [Code::EventChannelEnds, Code::WrongType]);
    let ends = |domain: usize| {
        let channels = &system.request.domains[domain].event_channels;
        let ends = channels
            .iter()
            .map(|end| (end.port, end.peer.as_str(), end.peer_port));
        ends.collect::<Vec<_>>()
    };
    assert_eq!(ends(0), [(10, "domU1", 11)]);
    assert_eq!(ends(1), [(11, "dom0", 10)]);
    let shared: Vec<_> = system.request.domains[1]
        .shared_memory
        .iter()
        .map(|it| (it.id.as_str(), it.start, it.address, it.size, it.role))
        .collect();
    let borrower = ShareRole::Borrower;
    assert_eq!(
        shared,
        [
            ("placed", Some(0x7000_0000), 0x6000_0000, 0x1000, borrower),
            ("free", None, 0x6000_1000, 0x1000, borrower),
        ]
    );
}

#[test]
fn details_name_properties_and_bytes() {
    let bytes = tree(|chosen| {
        chosen.cells("#address-cells", &[1]);
        chosen.cells("#size-cells", &[1]);
        chosen.node("domU1", |domain| {
            domain.string("compatible", "xen,domain");
            domain.cells("cpus", &[1]);
            domain.cells(
                "xen,static-mem",
                &[0x7000_0000, 0x1000, 0x7100_0000, 0x1000],
            );
        });
    });
    let (host, tree) = (Tree::read(HOST).unwrap(), Tree::read(&bytes).unwrap());
    let mut origins = Origins::detailed();
    let system = system::read(&tree, Modules::Absolute, &host, &header, &mut origins);
    let domain = &system.request.domains[0];
    let at = |origin| origins.describe(origin).unwrap();
    assert_eq!(
        at(domain.cpus.origin),
        "system tree /chosen/domU1:cpus[0..4]"
    );
    assert_eq!(
        at(domain.static_mem[1].origin),
        "system tree /chosen/domU1:xen,static-mem[8..16]"
    );
}

#[test]
fn a_device_that_xen_hides_must_be_somebodys() {
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.node("nic@1000", |nic| nic.flag("xen,passthrough"));
        root.node("chosen", |_| {});
    });
    let host = writer.finish(&[], 4096).unwrap();
    let host = Tree::read(&host).unwrap();
    let read_beside = |bytes: &[u8]| {
        let tree = Tree::read(bytes).unwrap();
        let origins = &mut Origins::new();
        codes(&system::read(
            &tree,
            Modules::Absolute,
            &host,
            &header,
            origins,
        ))
    };
    let with = |device: Option<&str>| {
        tree(|chosen| {
            chosen.node("domU1", |domain| {
                domain.string("compatible", "xen,domain");
                domain.cells("cpus", &[1]);
                domain.cells("#address-cells", &[1]);
                domain.cells("#size-cells", &[1]);
                domain.node("module@1000", |module| {
                    module.strings("compatible", &["multiboot,device-tree", "multiboot,module"]);
                    module.cells("reg", &[0x5000_0000, 0x1000]);
                });
                if let Some(path) = device {
                    domain.node("device", |node| node.string("terrane,device", path));
                }
            });
        })
    };
    assert_eq!(read_beside(&with(Some("/nic@1000"))), []);
    // The partial tree's warning, and the device that nobody has.
    assert_eq!(read_beside(&with(None)), [Code::NotBuiltYet; 2]);
}

/// The hardware domain right under `/chosen`, with these words for Xen, and a module more.
fn classic(xen: &str, kind: &str) -> System {
    read(&tree(|chosen| {
        chosen.cells("#address-cells", &[1]);
        chosen.cells("#size-cells", &[1]);
        chosen.string("xen,xen-bootargs", xen);
        chosen.string("xen,dom0-bootargs", "console=hvc0");
        for (start, kind) in [
            (0x5000_0000, "multiboot,kernel"),
            (0x5400_0000, "multiboot,ramdisk"),
            (0x5800_0000, kind),
        ] {
            chosen.node(&format!("module@{start:x}"), |module| {
                module.strings("compatible", &[kind, "multiboot,module"]);
                module.cells("reg", &[start, 0x100_0000]);
            });
        }
    }))
}

#[test]
fn a_policy_or_microcode_is_no_kernel() {
    for (kind, expected) in [
        ("xen,xsm-policy", vec![Code::NotBuiltYet]),
        ("multiboot,microcode", vec![Code::NotBuiltYet]),
        ("vendor,data", vec![]),
    ] {
        let system = classic("", kind);
        assert_eq!(codes(&system), expected, "{kind}");
        let domain = &system.request.domains[0];
        let kernel = domain.kernel.as_ref().unwrap();
        assert_eq!(kernel.module.start().raw(), 0x5000_0000, "{kind}");
        assert_eq!(domain.command_line, "console=hvc0");
    }
}

#[test]
fn xens_command_line_has_xens_numbers() {
    use layout::MemoryRequest::{Rest, Size};
    for (line, memory) in [
        ("", Rest),
        ("dom0_mem=524288", Size(512 << 20)),
        ("dom0_mem=512M,max:1G", Size(512 << 20)),
        ("dom0_mem=0x80000K", Size(512 << 20)),
        ("dom0_mem=1G console=dtuart dom0_mem=256m", Size(256 << 20)),
        ("dom0_mem=4096B", Size(4096)),
        ("dom0_mem=1T", Size(1 << 40)),
    ] {
        let system = classic(line, "vendor,data");
        assert_eq!(codes(&system), [], "{line}");
        assert_eq!(system.request.domains[0].memory.value, memory, "{line}");
    }
    for line in [
        "dom0_mem=much",
        "dom0_mem=010M",
        "dom0_mem=",
        "dom0_max_vcpus=two",
    ] {
        assert_eq!(
            codes(&classic(line, "vendor,data")),
            [Code::ValueInvalid],
            "{line}"
        );
    }
}
