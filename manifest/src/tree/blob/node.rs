//! What a node is asked: where it stands, and what its properties say.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Property, Record, Tree, double_word, word};

/// A node of a [`Tree`].
#[derive(Debug, Clone, Copy)]
pub struct Node<'t, 'a> {
    pub(super) tree: &'t Tree<'a>,
    pub(super) index: u32,
}

impl PartialEq for Node<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.tree, other.tree) && self.index == other.index
    }
}

impl<'t, 'a> Node<'t, 'a> {
    fn record(self) -> Record<'a> {
        const NONE: Record<'static> = Record {
            name: "",
            parent: 0,
            end: 0,
            first_property: 0,
            end_property: 0,
        };
        self.tree
            .nodes
            .get(self.index as usize)
            .copied()
            .unwrap_or(NONE)
    }

    /// The tree that it is a node of.
    #[must_use]
    pub fn tree(self) -> &'t Tree<'a> {
        self.tree
    }

    /// Its place in preorder, from 0 for the root; a key for tables beside the tree.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Name with unit address ("pl011@9000000"); empty for the root.
    #[must_use]
    pub fn name(self) -> &'a str {
        self.record().name
    }

    /// Name without unit address.
    #[must_use]
    pub fn base_name(self) -> &'a str {
        let name = self.name();
        name.split_once('@').map_or(name, |(base, _)| base)
    }

    /// The node above; `None` for the root.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        (self.index != 0).then(|| Node {
            tree: self.tree,
            index: self.record().parent,
        })
    }

    /// Its children in the order of the blob.
    pub fn children(self) -> impl Iterator<Item = Self> {
        let end = self.record().end;
        let mut next = self.index + 1;
        core::iter::from_fn(move || {
            let child = (next < end).then_some(Node {
                tree: self.tree,
                index: next,
            })?;
            next = child.record().end.max(next + 1);
            Some(child)
        })
    }

    /// The child of this name; without a unit address the first that matches whatever its unit address.
    #[must_use]
    pub fn child(self, name: &str) -> Option<Self> {
        let exact = self.children().find(|child| child.name() == name);
        if exact.is_some() || name.contains('@') {
            return exact;
        }
        self.children().find(|child| child.base_name() == name)
    }

    /// Whether `other` is this node or below it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        (self.index..self.record().end).contains(&other.index)
    }

    /// Its path ("/soc/serial@1000").
    #[must_use]
    pub fn path(self) -> String {
        let mut names = Vec::new();
        let mut node = self;
        while let Some(parent) = node.parent() {
            names.push(node.name());
            node = parent;
        }
        if names.is_empty() {
            return String::from("/");
        }
        let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// Its properties in the order of the blob.
    #[must_use]
    pub fn properties(self) -> &'t [Property<'a>] {
        let record = self.record();
        let range = record.first_property as usize..record.end_property as usize;
        self.tree.properties.get(range).unwrap_or_default()
    }

    /// A property's value.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a [u8]> {
        self.properties()
            .iter()
            .find(|property| property.name == name)
            .map(|property| property.value)
    }

    /// Whether it has this property.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// A property of exactly one cell.
    #[must_use]
    pub fn u32(self, name: &str) -> Option<u32> {
        Some(u32::from_be_bytes(self.value(name)?.try_into().ok()?))
    }

    /// A property of one or two cells, as a number.
    #[must_use]
    pub fn u64(self, name: &str) -> Option<u64> {
        let value = self.value(name)?;
        match value.len() {
            4 => word(value, 0).map(u64::from),
            8 => double_word(value, 0),
            _ => None,
        }
    }

    /// A property's first string.
    #[must_use]
    pub fn string(self, name: &str) -> Option<&'a str> {
        self.strings(name).next()
    }

    /// A property's strings, such as `compatible`'s; those that aren't UTF-8 are left out.
    pub fn strings(self, name: &str) -> impl Iterator<Item = &'a str> {
        let value = self.value(name).unwrap_or_default();
        let value = value.strip_suffix(&[0]).unwrap_or(value);
        let pieces = (!value.is_empty()).then(|| value.split(|&byte| byte == 0));
        pieces
            .into_iter()
            .flatten()
            .filter_map(|piece| core::str::from_utf8(piece).ok())
    }

    /// Whether `compatible` has this string.
    #[must_use]
    pub fn is_compatible(self, name: &str) -> bool {
        self.strings("compatible").any(|other| other == name)
    }

    /// Whether `status` is absent, "okay" or "ok".
    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.string("status")
            .is_none_or(|status| matches!(status, "okay" | "ok"))
    }

    /// `#address-cells` and `#size-cells` for its children; 2 and 1 where it has none, as the specification says.
    #[must_use]
    pub fn child_cells(self) -> (usize, usize) {
        let cells = |name, default| self.u32(name).map_or(default, |cells| cells as usize);
        (cells("#address-cells", 2), cells("#size-cells", 1))
    }
}
