//! The reader and writer of device trees, against QEMU's trees, `dtoolkit` and damaged blobs.

use dtoolkit::{Property as _, fdt::Fdt};
use proptest::prelude::*;
use terrane_manifest::tree::blob::{
    Cells, MAX_DEPTH, MAX_PROPERTY_NAME, Node, Tree, TreeErrorKind,
};
use terrane_manifest::tree::writer::Writer;

/// A node as plain data, for comparing.
#[derive(Debug, PartialEq)]
struct Plain {
    name: String,
    properties: Vec<(String, Vec<u8>)>,
    children: Vec<Plain>,
}

fn ours(node: Node<'_, '_>) -> Plain {
    Plain {
        name: node.name().into(),
        properties: node
            .properties()
            .iter()
            .map(|p| (p.name.into(), p.value.to_vec()))
            .collect(),
        children: node.children().map(ours).collect(),
    }
}

fn theirs(node: &impl dtoolkit::Node) -> Plain {
    Plain {
        name: node.name().as_ref().into(),
        properties: node
            .properties()
            .map(|p| (p.name().into(), p.value().to_vec()))
            .collect(),
        children: node.children().map(|child| theirs(&child)).collect(),
    }
}

fn copy(node: Node<'_, '_>, to: &mut Writer) {
    to.node(node.name(), |to| {
        for property in node.properties() {
            to.bytes(property.name, property.value);
        }
        for child in node.children() {
            copy(child, to);
        }
    });
}

const TREES: [&[u8]; 4] = [
    include_bytes!("trees/virt-gicv2.dtb"),
    include_bytes!("trees/virt-gicv3.dtb"),
    include_bytes!("trees/virt-gicv3-noits.dtb"),
    include_bytes!("trees/virt-gicv3-smmu.dtb"),
];

#[test]
fn reads_what_dtoolkit_reads() {
    for bytes in TREES {
        let tree = Tree::read(bytes).unwrap();
        assert_eq!(ours(tree.root()), theirs(&Fdt::new(bytes).unwrap().root()));
    }
}

#[test]
fn a_copy_reads_the_same_in_dtoolkit() {
    for bytes in TREES {
        let tree = Tree::read(bytes).unwrap();
        let mut writer = Writer::new();
        copy(tree.root(), &mut writer);
        let blob = writer.finish(&[(0x1000, 0x2000)], 1 << 20).unwrap();
        let read = Fdt::new(&blob).unwrap();
        assert_eq!(theirs(&read.root()), ours(tree.root()));
        assert_eq!(
            Tree::read(&blob).unwrap().reservations(),
            [(0x1000, 0x2000)]
        );
    }
}

#[test]
fn looks_things_up() {
    let tree = Tree::read(TREES[1]).unwrap();
    let uart = tree.find("/pl011").unwrap();
    assert_eq!(uart.path(), "/pl011@9000000");
    assert_eq!(tree.find_by_alias("serial0:115200n8"), Some(uart));
    assert_eq!(tree.find_by_alias("/pl011@9000000"), Some(uart));
    assert!(uart.is_compatible("arm,primecell") && uart.is_enabled());
    let gic = tree
        .by_phandle(tree.root().u32("interrupt-parent").unwrap())
        .unwrap();
    assert_eq!(gic.path(), "/intc@8000000");
    assert!(gic.contains(tree.find("/intc/its").unwrap()) && !gic.contains(uart));
    assert_eq!(tree.root().path(), "/");
    let mut reg = Cells::new(uart.value("reg").unwrap());
    assert_eq!(
        (reg.next_number(2), reg.next_number(2)),
        (Some(0x900_0000), Some(0x1000))
    );
    assert_eq!(reg.next_number(1), None);
}

#[test]
fn refuses_deep_nesting_and_large_output() {
    let mut writer = Writer::new();
    for _ in 0..=MAX_DEPTH {
        writer.begin(if MAX_DEPTH == 0 { "" } else { "n" });
    }
    let blob = writer.finish(&[], 1 << 16).unwrap();
    assert_eq!(Tree::read(&blob).unwrap_err().kind, TreeErrorKind::Depth);

    let mut writer = Writer::new();
    writer.begin("");
    writer.bytes("big", &[0; 4096]);
    assert_eq!(writer.finish(&[], 4096).unwrap_err().limit, 4096);
}

/// A name can be shared by very many properties, each of which is to cost little.
#[test]
fn refuses_long_names_of_properties() {
    let blob = |length: usize| {
        let mut writer = Writer::new();
        let name = "n".repeat(length);
        writer.node("", |to| {
            to.bytes(&name, &[]);
            to.bytes("other", &[]);
            to.node("child", |to| to.bytes(&name, &[]));
        });
        writer.finish(&[], 1 << 20).unwrap()
    };
    let longest = blob(MAX_PROPERTY_NAME);
    let tree = Tree::read(&longest).unwrap();
    let names = tree.root().properties().iter().map(|p| p.name.len());
    assert_eq!(names.collect::<Vec<_>>(), [MAX_PROPERTY_NAME, 5]);
    for length in [MAX_PROPERTY_NAME + 1, 1 << 16] {
        let error = Tree::read(&blob(length)).unwrap_err();
        assert_eq!(error.kind, TreeErrorKind::Value, "{length}");
    }
}

/// Reads everything there is; what counts is that it ends.
fn walk(bytes: &[u8]) {
    let Ok(tree) = Tree::read(bytes) else { return };
    for node in tree.nodes() {
        let _ = (
            node.path(),
            node.child_cells(),
            node.is_enabled(),
            node.children().count(),
        );
        for property in node.properties() {
            let _ = (node.string(property.name), node.u64(property.name));
        }
    }
    let _ = (tree.find_by_alias("serial0"), tree.by_phandle(0x8000));
}

proptest! {
    #[test]
    fn damaged_trees_do_not_panic(
        which in 0..TREES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = TREES[which].to_vec();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        walk(&bytes);
    }

    #[test]
    fn any_bytes_after_a_header_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        walk(&bytes);
        let mut with_magic = 0xd00d_feedu32.to_be_bytes().to_vec();
        with_magic.extend(&bytes);
        walk(&with_magic);
    }
}
