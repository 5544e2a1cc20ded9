//! A tree written anew with a few properties changed: what a boot loader does to `/chosen`.

use alloc::vec::Vec;

use super::blob::{Node, Tree};
use super::writer::{TooLarge, Writer};

/// The tree with these properties at the top-level node `name` ("chosen"), which is made if it isn't there. Other
/// properties stay, the rest of the tree too; what a boot loader left free behind it does not.
///
/// # Errors
/// The result would take more than `limit` bytes.
pub fn with_properties(
    tree: &Tree<'_>,
    name: &str,
    properties: &[(&str, &[u8])],
    limit: usize,
) -> Result<Vec<u8>, TooLarge> {
    let mut writer = Writer::new();
    writer.begin("");
    for property in tree.root().properties() {
        writer.bytes(property.name, property.value);
    }
    let target = tree.root().child(name);
    if target.is_none() {
        writer.node(name, |writer| write_properties(writer, properties));
    }
    for child in tree.root().children() {
        if Some(child) == target {
            writer.node(child.name(), |writer| {
                let kept = child.properties().iter();
                for property in
                    kept.filter(|kept| properties.iter().all(|(name, _)| *name != kept.name))
                {
                    writer.bytes(property.name, property.value);
                }
                write_properties(writer, properties);
                child
                    .children()
                    .for_each(|grandchild| copy(writer, grandchild));
            });
        } else {
            copy(&mut writer, child);
        }
    }
    writer.finish(tree.reservations(), limit)
}

/// The tree with `size` bytes from `start` on in its memory reservation block (Devicetree Specification v0.4, 5.3) too.
///
/// # Errors
/// The result would take more than `limit` bytes.
pub fn with_reservation(
    tree: &Tree<'_>,
    start: u64,
    size: u64,
    limit: usize,
) -> Result<Vec<u8>, TooLarge> {
    let mut writer = Writer::new();
    copy(&mut writer, tree.root());
    let reservations = [tree.reservations(), &[(start, size)]].concat();
    writer.finish(&reservations, limit)
}

fn write_properties(writer: &mut Writer, properties: &[(&str, &[u8])]) {
    for (name, value) in properties {
        writer.bytes(name, value);
    }
}

/// Writes a node with everything in it. The depth is bounded by the reader's.
pub(crate) fn copy(writer: &mut Writer, node: Node<'_, '_>) {
    writer.node(node.name(), |writer| {
        for property in node.properties() {
            writer.bytes(property.name, property.value);
        }
        node.children().for_each(|child| copy(writer, child));
    });
}

/// What a partial tree says to the hypervisor. Source: Xen, docs/misc/arm/device-tree/booting.txt, "Device Assignment".
const NOT_FOR_GUESTS: [&str; 3] = ["xen,path", "xen,reg", "xen,force-assign-without-iommu"];

/// As [`copy`], without what a partial tree says to the hypervisor alone.
pub(crate) fn copy_for_guest(writer: &mut Writer, node: Node<'_, '_>) {
    writer.node(node.name(), |writer| {
        let properties = node.properties().iter();
        for property in properties.filter(|it| !NOT_FOR_GUESTS.contains(&it.name)) {
            writer.bytes(property.name, property.value);
        }
        node.children()
            .for_each(|child| copy_for_guest(writer, child));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_adds_and_keeps() {
        let mut writer = Writer::new();
        writer.node("", |root| {
            root.node("chosen", |chosen| {
                chosen.string("stdout-path", "serial0");
                chosen.string("bootargs", "old");
                chosen.node("inner", |_| {});
            });
            root.node("memory", |_| {});
        });
        let blob = writer.finish(&[(1, 2)], 4096).unwrap();
        let tree = Tree::read(&blob).unwrap();
        let edited =
            with_properties(&tree, "chosen", &[("bootargs", b"new\0"), ("x", b"")], 4096).unwrap();
        let edited = Tree::read(&edited).unwrap();
        let chosen = edited.find("/chosen").unwrap();
        assert_eq!(
            (chosen.string("bootargs"), chosen.string("stdout-path")),
            (Some("new"), Some("serial0"))
        );
        assert!(
            chosen.has("x")
                && edited.find("/chosen/inner").is_some()
                && edited.find("/memory").is_some()
        );
        assert_eq!(edited.reservations(), [(1, 2)]);

        let reserved = with_reservation(&tree, 0x1000, 0x2000, 4096).unwrap();
        let reserved = Tree::read(&reserved).unwrap();
        assert_eq!(reserved.reservations(), [(1, 2), (0x1000, 0x2000)]);
        assert!(reserved.find("/chosen/inner").is_some());

        let made = with_properties(&tree, "made", &[("x", b"")], 4096).unwrap();
        assert!(Tree::read(&made).unwrap().find("/made").unwrap().has("x"));
    }
}
