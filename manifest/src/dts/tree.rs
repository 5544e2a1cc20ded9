//! The tree in the making: nodes that later definitions change, merge with and delete.

use std::collections::HashMap;

use super::text::Span;

/// A node, by its index in [`Draft`].
pub(super) type NodeId = usize;

/// The root.
pub(super) const ROOT: NodeId = 0;

/// A piece of a value: a cell, a string, a byte, a reference. Together they are all of it, in order.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) span: Span,
    pub(super) piece: Piece,
}

#[derive(Debug, Clone)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// A number of so many bytes.
    Number(u64, u8),
    /// The phandle of a node, one cell.
    Phandle(String),
    /// The path of a node, a string.
    Path(String),
}

impl Piece {
    /// Bytes that it takes, as far as that is known.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(_, bytes) => usize::from(*bytes),
            Self::Phandle(_) => 4,
            Self::Path(_) => 1,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) items: Vec<Item>,
    pub(super) is_deleted: bool,
    /// The block in braces that defined it last.
    pub(super) block: usize,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) parent: NodeId,
    pub(super) properties: Vec<Property>,
    pub(super) children: Vec<NodeId>,
    pub(super) is_deleted: bool,
    pub(super) omit_if_unused: bool,
    pub(super) is_referenced: bool,
    labels: Vec<String>,
    block: usize,
}

/// Nodes and properties that one source may define. A blob of 2 MiB has no room for more.
const MAX_ENTRIES: usize = 1 << 18;

/// There are too many of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct TooMany;

/// What was there before.
pub(super) struct Before {
    /// Where it was defined in the same block of braces, if it was: one of the two is a slip.
    pub(super) twice: Option<Span>,
}

/// What the search for the nearest label may take, in cells of the distances' tables: some ten milliseconds. Sources of
/// boards have some thousand labels of some ten characters.
const MAX_COMPARED: usize = 4 << 20;

/// What the search takes at most, but for a constant factor: only labels about as long as the name are compared.
fn compared_cells(labels: usize, name: usize) -> usize {
    labels.saturating_mul(name).saturating_mul(name)
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) nodes: Vec<Node>,
    pub(super) labels: HashMap<String, (NodeId, Span)>,
    pub(super) reservations: Vec<(u64, u64)>,
    by_name: HashMap<(NodeId, String), NodeId>,
    property_by_name: HashMap<(NodeId, String), usize>,
    entries: usize,
}

impl Draft {
    pub(super) fn new() -> Self {
        let mut draft = Self::default();
        draft.nodes.push(Node::default());
        draft
    }

    /// A node that nothing leads to.
    pub(super) fn nowhere(&mut self) -> NodeId {
        self.nodes.push(Node {
            is_deleted: true,
            ..Node::default()
        });
        self.nodes.len() - 1
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// The child of this name, made or brought back if need be. `block` are the braces that name it.
    pub(super) fn child(
        &mut self,
        parent: NodeId,
        name: String,
        name_span: Span,
        block: usize,
    ) -> Result<(NodeId, Before), TooMany> {
        let known = self.by_name.get(&(parent, name.clone())).copied();
        if let Some((id, node)) = known.and_then(|id| Some((id, self.nodes.get_mut(id)?))) {
            let again = !node.is_deleted && node.block == block;
            let twice = again.then_some(node.name_span);
            node.is_deleted = false;
            node.block = block;
            if twice.is_none() {
                node.name_span = name_span;
            }
            return Ok((id, Before { twice }));
        }
        self.count()?;
        let id = self.nodes.len();
        self.nodes.push(Node {
            name: name.clone(),
            name_span,
            parent,
            block,
            ..Node::default()
        });
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.push(id);
        }
        self.by_name.insert((parent, name), id);
        Ok((id, Before { twice: None }))
    }

    fn count(&mut self) -> Result<(), TooMany> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            Err(TooMany)
        } else {
            Ok(())
        }
    }

    /// Gives a node a property, in place of the one of that name.
    pub(super) fn set(&mut self, id: NodeId, property: Property) -> Result<Before, TooMany> {
        let block = property.block;
        let key = (id, property.name.clone());
        let known = self.property_by_name.get(&key).copied();
        let Some(node) = self.nodes.get_mut(id) else {
            return Ok(Before { twice: None });
        };
        if let Some(old) = known.and_then(|place| node.properties.get_mut(place)) {
            let again = !old.is_deleted && old.block == block;
            let twice = again.then_some(old.name_span);
            *old = property;
            return Ok(Before { twice });
        }
        let place = node.properties.len();
        node.properties.push(property);
        self.property_by_name.insert(key, place);
        self.count()?;
        Ok(Before { twice: None })
    }

    pub(super) fn delete_property(&mut self, id: NodeId, name: &str) {
        let place = self.property_by_name.get(&(id, name.to_owned())).copied();
        let property = place
            .zip(self.nodes.get_mut(id))
            .and_then(|(place, node)| node.properties.get_mut(place));
        if let Some(property) = property {
            property.is_deleted = true;
        }
    }

    pub(super) fn delete_child(&mut self, parent: NodeId, name: &str) {
        if let Some(&id) = self.by_name.get(&(parent, name.to_owned())) {
            self.delete(id);
        }
    }

    /// Deletes a node with all that is in it. What is defined anew later begins empty.
    pub(super) fn delete(&mut self, id: NodeId) {
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            let Some(node) = self.nodes.get_mut(id) else {
                continue;
            };
            if node.is_deleted {
                continue;
            }
            node.is_deleted = true;
            for property in &mut node.properties {
                property.is_deleted = true;
            }
            left.extend(&node.children);
            for label in node.labels.drain(..) {
                self.labels.remove(&label);
            }
        }
    }

    /// Gives a node a label; the place of the same label at another node.
    pub(super) fn label(&mut self, id: NodeId, label: String, span: Span) -> Option<Span> {
        if let Some(&(other, at)) = self.labels.get(&label) {
            return (other != id).then_some(at);
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.labels.push(label.clone());
        }
        self.labels.insert(label, (id, span));
        None
    }

    /// The child of this name that isn't deleted.
    fn live_child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let id = *self.by_name.get(&(parent, name.to_owned()))?;
        self.node(id).filter(|node| !node.is_deleted)?;
        Some(id)
    }

    /// What a reference names: a label, a path from the root, or a path from a label.
    pub(super) fn find(&self, reference: &str) -> Option<NodeId> {
        let (start, path) = match reference.strip_prefix('/') {
            Some(path) => (ROOT, path),
            None => {
                let (label, path) = reference.split_once('/').unwrap_or((reference, ""));
                (self.labels.get(label)?.0, path)
            }
        };
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(start, |node, name| self.live_child(node, name))
    }

    /// A node's path.
    pub(super) fn path(&self, id: NodeId) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let Some(node) = self.node(at) else { break };
            names.push(node.name.as_str());
            at = node.parent;
        }
        if names.is_empty() {
            return "/".to_owned();
        }
        names
            .iter()
            .rev()
            .flat_map(|name| ["/", name])
            .collect::<String>()
    }

    /// Why a reference leads nowhere, with the nearest that doesn't.
    pub(super) fn unknown(&self, name: &str) -> (String, String) {
        if name.contains('/') {
            return (format!("there is no node at {name}"), String::new());
        }
        let is_little = compared_cells(self.labels.len(), name.len()) <= MAX_COMPARED;
        let nearest = self
            .labels
            .keys()
            .filter(|_| is_little)
            .filter(|label| label.len().abs_diff(name.len()) <= 3)
            .map(|label| (strsim::damerau_levenshtein(name, label), label))
            .min()
            .filter(|(distance, label)| *distance <= label.len().max(4) / 2);
        let help = nearest.map_or(String::new(), |(_, label)| {
            format!("the nearest label is `{label}`")
        });
        (format!("there is no label `{name}`"), help)
    }
}
