//! A domain's partial tree: which devices it passes through, and what in it contradicts the host's tree.

use layout::{Code, MachineRange};
use terrane_manifest::image::HEADER_BYTES;
use terrane_manifest::origin::Origins;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::system::{self, Contents, Modules, Role, System};
use terrane_manifest::tree::writer::Writer;

const HOST: &[u8] = include_bytes!("trees/virt-gicv3.dtb");

/// A partial tree, and nothing else that can be read.
struct Partial(Vec<u8>);

impl Contents for Partial {
    fn header(&self, _: MachineRange) -> Option<[u8; HEADER_BYTES]> {
        None
    }

    fn partial_tree(&self, module: MachineRange) -> Option<&[u8]> {
        (module.start().raw() == 0x5000_0000).then_some(&self.0)
    }
}

/// A partial tree with these nodes below `/passthrough`; its controller is there by phandle 1.
fn partial(nodes: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.cells("#address-cells", &[2]);
        root.cells("#size-cells", &[2]);
        root.cells("interrupt-parent", &[1]);
        root.node("gic", |gic| {
            gic.cells("#interrupt-cells", &[3]);
            gic.flag("interrupt-controller");
            gic.cells("phandle", &[1]);
        });
        root.node("passthrough", |passthrough| {
            passthrough.string("compatible", "simple-bus");
            passthrough.flag("ranges");
            passthrough.cells("#address-cells", &[2]);
            passthrough.cells("#size-cells", &[2]);
            nodes(passthrough);
        });
    });
    writer.finish(&[], 1 << 16).unwrap()
}

/// The system of one domain with this partial tree and, by its own node, this device.
fn read(bytes: Vec<u8>, named: Option<&str>) -> System {
    read_on(HOST, bytes, named)
}

fn read_on(host: &[u8], bytes: Vec<u8>, named: Option<&str>) -> System {
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.node("chosen", |chosen| {
            chosen.node("net", |domain| {
                domain.string("compatible", "xen,domain");
                domain.cells("#address-cells", &[1]);
                domain.cells("#size-cells", &[1]);
                domain.cells("cpus", &[1]);
                domain.node("module@50000000", |module| {
                    module.strings("compatible", &["multiboot,device-tree", "multiboot,module"]);
                    module.cells("reg", &[0x5000_0000, 0x1000]);
                });
                if let Some(path) = named {
                    domain.node("device", |node| node.string("terrane,device", path));
                }
            });
        });
    });
    let tree = writer.finish(&[], 1 << 16).unwrap();
    let (host, tree) = (Tree::read(host).unwrap(), Tree::read(&tree).unwrap());
    let origins = &mut Origins::detailed();
    system::read(&tree, Modules::Absolute, &host, &Partial(bytes), origins)
}

/// Codes and helps of what is wrong with one node of these properties.
fn wrong(node: impl FnOnce(&mut Writer)) -> Vec<(Code, String)> {
    let system = read(partial(|nodes| nodes.node("gpio@9030000", node)), None);
    let problems = system.problems.into_iter();
    problems.map(|it| (it.code, it.help)).collect()
}

fn gpio(node: &mut Writer, reg: &[u64]) {
    node.string("xen,path", "/pl061@9030000");
    node.numbers("xen,reg", reg);
}

const GPIO: [u64; 3] = [0x903_0000, 0x1000, 0x903_0000];
const XEN_REG: &str = "xen,reg = <0x0 0x9030000 0x0 0x1000 0x0 0x9030000>;";

#[test]
fn a_node_with_a_path_is_a_device_of_the_domain() {
    let bytes = partial(|nodes| {
        nodes.node("gpio@9030000", |node| {
            gpio(node, &GPIO);
            node.numbers("reg", &[0x903_0000, 0x1000]);
            node.cells("interrupts", &[0, 7, 4]);
        });
        nodes.node("clock", |node| node.string("compatible", "fixed-clock"));
    });
    let system = read(bytes.clone(), None);
    assert_eq!(system.problems, []);
    let domain = &system.request.domains[0];
    let paths: Vec<&str> = domain.devices.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["/pl061@9030000"]);
    assert!(!domain.allow_dma_without_iommu);
    let modules = system.modules.iter();
    let modules: Vec<_> = modules.map(|it| (it.domain, it.role, it.cells)).collect();
    assert_eq!(modules, [(Some(0), Role::PartialTree, (1, 1))]);
    // Named twice is wanted once.
    let both = read(bytes, Some("/pl061@9030000"));
    assert_eq!(both.request.domains[0].devices.len(), 1);
    let twice = partial(|nodes| {
        nodes.node("one", |node| gpio(node, &GPIO));
        nodes.node("two", |node| gpio(node, &GPIO));
    });
    let twice = read(twice, None);
    assert_eq!(twice.problems, []);
    assert_eq!(twice.request.domains[0].devices.len(), 1);
}

#[test]
fn what_does_dma_without_an_iommu_needs_leave_for_each() {
    let force = |gpio_too: bool, virtio: bool| {
        let bytes = partial(|nodes| {
            nodes.node("gpio@9030000", |node| {
                gpio(node, &GPIO);
                if gpio_too {
                    node.flag("xen,force-assign-without-iommu");
                }
            });
            nodes.node("virtio@a000000", |node| {
                node.string("xen,path", "/virtio_mmio@a000000");
                node.numbers("xen,reg", &[0xa00_0000, 0x1000, 0xa00_0000]);
                if virtio {
                    node.flag("xen,force-assign-without-iommu");
                }
            });
        });
        let system = read(bytes, None);
        assert_eq!(system.problems, []);
        system.request.domains[0].allow_dma_without_iommu
    };
    assert!(force(true, true));
    // A GPIO block does no DMA.
    assert!(force(false, true));
    assert!(!force(true, false));
    assert!(!force(false, false));
}

#[test]
fn registers_must_be_the_devices_own() {
    let with = |reg: [u64; 3]| wrong(|node| gpio(node, &reg));
    let told = |code| vec![(code, XEN_REG.to_owned())];
    let outside = with([0x903_1000, 0x1000, 0x903_1000]);
    assert_eq!(outside, told(Code::DeviceMismatch));
    let longer = with([0x903_0000, 0x2000, 0x903_0000]);
    assert_eq!(longer, told(Code::DeviceMismatch));
    assert_eq!(
        with([0x903_0000, 0, 0x903_0000]),
        told(Code::DeviceMismatch)
    );
    assert_eq!(
        with([0x903_0000, 0x800, 0x903_0000]),
        told(Code::ValueInvalid)
    );
    let moved = with([0x903_0000, 0x1000, 0x1_0000]);
    assert_eq!(moved[0].0, Code::NotBuiltYet);
    assert!(moved[0].1.starts_with(XEN_REG), "{moved:?}");
    let cells = wrong(|node| {
        node.string("xen,path", "/pl061@9030000");
        node.cells("xen,reg", &[0x903_0000, 0x1000]);
    });
    assert_eq!(cells, told(Code::WrongType));
    let reg = wrong(|node| {
        gpio(node, &GPIO);
        node.numbers("reg", &[0x904_0000, 0x1000]);
    });
    let expected = "reg = <0x0 0x9030000 0x0 0x1000>;".to_owned();
    assert_eq!(reg, [(Code::DeviceMismatch, expected)]);
}

#[test]
fn interrupts_must_be_the_devices_own() {
    let told = wrong(|node| {
        gpio(node, &GPIO);
        node.cells("interrupts", &[0, 8, 4]);
    });
    let expected = "interrupts = <0x0 0x7 0x4>;".to_owned();
    assert_eq!(told, [(Code::DeviceMismatch, expected.clone())]);
    let told = wrong(|node| {
        gpio(node, &GPIO);
        node.cells("interrupts-extended", &[1, 0, 8, 4]);
    });
    let expected = format!("{expected} in place of interrupts-extended");
    assert_eq!(told, [(Code::DeviceMismatch, expected)]);
    // Of another controller than the guest's.
    let other = wrong(|node| {
        gpio(node, &GPIO);
        node.cells("interrupt-parent", &[2]);
        node.cells("interrupts", &[0, 8, 4]);
    });
    assert_eq!(other, []);
}

/// A partial tree of this many devices, whose interrupts each go through a map of this many entries, which the last is for.
fn mapped(devices: u32, entries: u32) -> Vec<u8> {
    let map: Vec<u32> = (1..=entries).flat_map(|line| [line, 1, 0, 8, 4]).collect();
    partial(|nodes| {
        nodes.node("nexus", |node| {
            node.cells("#interrupt-cells", &[1]);
            node.cells("#address-cells", &[0]);
            node.cells("phandle", &[2]);
            node.cells("interrupt-map", &map);
        });
        for device in 0..devices {
            nodes.node(&format!("gpio@{device}"), |node| {
                gpio(node, &GPIO);
                node.cells("interrupt-parent", &[2]);
                node.cells("interrupts", &[entries]);
            });
        }
    })
}

#[test]
fn interrupts_are_walked_so_far_in_a_whole_tree_and_that_is_said() {
    let codes = |devices| {
        let problems = read(mapped(devices, 2000), None).problems;
        let codes = problems.iter().map(|it| it.code);
        codes.collect::<Vec<_>>()
    };
    assert_eq!(codes(4), [Code::DeviceMismatch; 4]);
    // 2¹⁸ steps are 131 devices'.
    let codes = codes(200);
    assert_eq!(codes.len(), 132);
    assert_eq!(codes.last(), Some(&Code::TreeInvalid));
}

/// A host whose device has an interrupt behind Qualcomm's PDC, and one at a bus with a map.
fn indirect() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.cells("#address-cells", &[2]);
        root.cells("#size-cells", &[2]);
        root.node("intc@1000000", |node| {
            node.string("compatible", "arm,gic-v3");
            node.flag("interrupt-controller");
            node.cells("#interrupt-cells", &[3]);
            node.cells("phandle", &[1]);
            node.numbers("reg", &[0x100_0000, 0x1_0000, 0x110_0000, 0x10_0000]);
        });
        root.node("pdc", |node| {
            node.string("compatible", "qcom,pdc");
            node.flag("interrupt-controller");
            node.cells("#interrupt-cells", &[2]);
            node.cells("phandle", &[2]);
            node.cells("interrupt-parent", &[1]);
            node.cells("qcom,pdc-ranges", &[20, 480, 5]);
        });
        root.node("nexus", |node| {
            node.cells("#interrupt-cells", &[1]);
            node.cells("#address-cells", &[0]);
            node.cells("phandle", &[3]);
            node.cells("interrupt-map", &[6, 1, 0, 50, 4]);
        });
        root.node("device@9030000", |node| {
            node.string("compatible", "x,device");
            node.numbers("reg", &[0x903_0000, 0x1000]);
            node.cells("interrupts-extended", &[3, 6, 2, 21, 2]);
        });
    });
    writer.finish(&[], 4096).unwrap()
}

#[test]
fn an_interrupt_is_proposed_as_the_guests_controller_has_it() {
    let bytes = partial(|nodes| {
        nodes.node("device@9030000", |node| {
            node.string("xen,path", "/device@9030000");
            node.numbers("xen,reg", &GPIO);
            node.cells("interrupts", &[0, 50, 4, 0, 21, 1]);
        })
    });
    let system = read_on(&indirect(), bytes, None);
    let helps = system.problems.iter().map(|it| it.help.as_str());
    let helps: Vec<&str> = helps.collect();
    // A falling edge comes out of the PDC as a rising one.
    assert_eq!(helps, ["interrupts = <0x0 0x32 0x4 0x0 0x1e1 0x1>;"]);
}

#[test]
fn path_and_registers_stand_together() {
    let path = wrong(|node| node.string("xen,path", "/pl061@9030000"));
    assert_eq!(path, [(Code::KeyMissing, XEN_REG.to_owned())]);
    let named = "xen,path = \"/pl061@9030000\";".to_owned();
    let reg = wrong(|node| node.numbers("xen,reg", &GPIO));
    assert_eq!(reg, [(Code::KeyMissing, named.clone())]);
    let forced = wrong(|node| {
        node.numbers("xen,reg", &GPIO);
        node.flag("xen,force-assign-without-iommu");
    });
    assert_eq!(forced, [(Code::NotBuiltYet, named)]);
}

#[test]
fn all_sides_are_named_and_the_domain_is_refused() {
    let system = read(
        partial(|nodes| {
            nodes.node("gpio@9030000", |node| {
                gpio(node, &[0x904_0000, 0x1000, 0x904_0000])
            })
        }),
        None,
    );
    let [problem] = system.problems.as_slice() else {
        panic!("{:?}", system.problems);
    };
    let whats: Vec<&str> = problem.sides.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(whats.len(), 3);
    assert_eq!(whats[1], "the partial tree of \"net\"");
    assert!(
        whats[2].starts_with("device /pl061@9030000: registers "),
        "{whats:?}"
    );
    let domain = &system.request.domains[0];
    assert_eq!(domain.misread, Some(Code::DeviceMismatch));
}

#[test]
fn rubbish_is_refused() {
    let codes = |bytes: &[u8]| {
        let system = read(bytes.to_vec(), None);
        let problems = system.problems.iter();
        problems.map(|it| it.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(b"rubbish"), [Code::TreeInvalid]);
    // A tree without `/passthrough` passes nothing through.
    let mut writer = Writer::new();
    writer.node("", |root| {
        root.node("other", |node| node.string("xen,path", "/pl061@9030000"))
    });
    assert_eq!(codes(&writer.finish(&[], 4096).unwrap()), []);
}
