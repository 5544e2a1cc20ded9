//! Edits of a host's device tree that a boot loader would make: where the container lies.

use std::fmt;

use manifest::tree::blob::{MAX_BYTES, Node, Tree, TreeError};
use manifest::tree::writer::{TooLarge, Writer};

/// Properties of `/chosen` that name the container, as the kernel's initrd is named
/// (Linux, Documentation/arch/arm64/booting.rst and the devicetree chosen schema).
const START: &str = "linux,initrd-start";
const END: &str = "linux,initrd-end";

/// A tree that can't be edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditError {
    /// It isn't a device tree.
    Read(TreeError),
    /// It would be larger than the hypervisor reads.
    Write(TooLarge),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
        }
    }
}

/// The tree, packed, with the container at machine addresses `start` to `end` (exclusive). Its
/// length doesn't depend on the two addresses.
///
/// # Errors
/// See [`EditError`].
pub fn with_container(blob: &[u8], start: u64, end: u64) -> Result<Vec<u8>, EditError> {
    let tree = Tree::read(blob).map_err(EditError::Read)?;
    let mut writer = Writer::new();
    copy(&mut writer, tree.root(), &Container { start, end });
    writer
        .finish(tree.reservations(), MAX_BYTES)
        .map_err(EditError::Write)
}

struct Container {
    start: u64,
    end: u64,
}

fn copy(writer: &mut Writer, node: Node<'_, '_>, container: &Container) {
    let is_root = node.parent().is_none();
    let is_chosen = node.path() == "/chosen";
    writer.begin(if is_root { "" } else { node.name() });
    for property in node.properties() {
        if !(is_chosen && [START, END].contains(&property.name)) {
            writer.bytes(property.name, property.value);
        }
    }
    if is_chosen {
        container.write(writer);
    }
    for child in node.children() {
        copy(writer, child, container);
    }
    if is_root && node.child("chosen").is_none() {
        writer.begin("chosen");
        container.write(writer);
        writer.end();
    }
    writer.end();
}

impl Container {
    fn write(&self, writer: &mut Writer) {
        writer.numbers(START, &[self.start]);
        writer.numbers(END, &[self.end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(chosen: bool) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.begin("");
        writer.string("model", "board");
        writer.begin("memory@0");
        writer.numbers("reg", &[0, 1 << 30]);
        writer.end();
        if chosen {
            writer.begin("chosen");
            writer.string("stdout-path", "/serial");
            writer.end();
        }
        writer.end();
        writer.finish(&[(0x1000, 0x2000)], MAX_BYTES).unwrap()
    }

    #[test]
    fn the_container_is_named_and_the_rest_kept() {
        for chosen in [true, false] {
            let edited = with_container(&sample(chosen), 0x4040_0000, 0x4140_0000).unwrap();
            let tree = Tree::read(&edited).unwrap();
            let node = tree.find("/chosen").unwrap();
            assert_eq!(node.u64(START), Some(0x4040_0000));
            assert_eq!(node.u64(END), Some(0x4140_0000));
            assert_eq!(node.has("stdout-path"), chosen);
            assert_eq!(tree.root().string("model"), Some("board"));
            assert_eq!(tree.reservations(), [(0x1000, 0x2000)]);
        }
    }

    #[test]
    fn other_addresses_give_the_same_length() {
        let first = with_container(&sample(true), 0, 0).unwrap();
        let second = with_container(&first, u64::MAX - 1, u64::MAX).unwrap();
        assert_eq!(first.len(), second.len());
        assert_eq!(with_container(&second, 0, 0).unwrap(), first);
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(matches!(
            with_container(b"rubbish", 0, 0),
            Err(EditError::Read(_))
        ));
    }
}
