//! From the draft to the blob: references get their values, what nobody refers to is left out, and each piece of a value
//! is remembered by its offset.

use std::collections::HashMap;

use super::fault::{Fault, Faults};
use super::parse::unknown;
use super::text::Span;
use super::tree::{Draft, Item, NodeId, Piece, Property, ROOT};
use crate::tree::blob::MAX_BYTES;
use crate::tree::writer::Writer;

/// Where a node of the blob and its properties were written, in the order of [`Node::index`](crate::tree::blob::Node::index).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodePlace {
    pub(super) name: Span,
    pub(super) properties: Vec<PropertyPlace>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PropertyPlace {
    pub(super) name: String,
    pub(super) span: Span,
    /// Each piece by the offset of its first byte.
    pub(super) pieces: Vec<(u32, Span)>,
}

/// The blob, and where everything in it was written. `None` if the faults say why.
pub(super) fn flatten(draft: &mut Draft, faults: &mut Faults) -> Option<(Vec<u8>, Vec<NodePlace>)> {
    let order = live(draft);
    let mut phandles = explicit(draft, &order, faults);
    resolve(draft, &order, &mut phandles, faults);
    for &id in &order {
        let unused = |node: &super::tree::Node| node.omit_if_unused && !node.is_referenced;
        if draft.node(id).is_some_and(unused) {
            draft.delete(id);
        }
    }
    if !faults.is_empty() {
        return None;
    }
    write(draft, &phandles, faults)
}

/// The nodes that aren't deleted, in preorder.
fn live(draft: &Draft) -> Vec<NodeId> {
    let mut order = Vec::new();
    let mut left = vec![ROOT];
    while let Some(id) = left.pop() {
        let Some(node) = draft.node(id).filter(|node| !node.is_deleted) else {
            continue;
        };
        order.push(id);
        left.extend(node.children.iter().rev());
    }
    order
}

#[derive(Debug, Default)]
struct Phandles {
    of: HashMap<NodeId, u32>,
    taken: HashMap<u32, Span>,
    next: u32,
}

impl Phandles {
    /// The node's phandle; the lowest free one if it has none.
    fn get(&mut self, id: NodeId, span: Span) -> u32 {
        if let Some(&phandle) = self.of.get(&id) {
            return phandle;
        }
        self.next = self.next.max(1);
        while self.taken.contains_key(&self.next) {
            self.next += 1;
        }
        self.taken.insert(self.next, span);
        self.of.insert(id, self.next);
        self.next
    }
}

/// The phandles that the source itself gives.
fn explicit(draft: &Draft, order: &[NodeId], faults: &mut Faults) -> Phandles {
    let mut phandles = Phandles::default();
    for &id in order {
        let Some(node) = draft.node(id) else { continue };
        let given = live_properties(&node.properties)
            .find(|property| matches!(property.name.as_str(), "phandle" | "linux,phandle"));
        let Some(property) = given else { continue };
        let phandle = match property.items.as_slice() {
            [
                Item {
                    piece: Piece::Number(number, 4),
                    ..
                },
            ] => u32::try_from(number & 0xffff_ffff).unwrap_or(0),
            // `phandle = <&itself>` asks for a free one.
            [
                Item {
                    piece: Piece::Phandle(_),
                    ..
                },
            ] => continue,
            _ => 0,
        };
        if phandle == 0 || phandle == u32::MAX {
            let why = "a phandle is one cell other than 0 and 0xffffffff";
            faults.add(property.name_span, "not a phandle", why, "");
            continue;
        }
        if let Some(&first) = phandles.taken.get(&phandle) {
            faults.push(Fault {
                span: property.name_span,
                what: "again".to_owned(),
                why: format!("two nodes have the phandle {phandle:#x}"),
                help: "leave phandles out: a label and &label are enough".to_owned(),
                other: Some((first, "first here".to_owned())),
            });
            continue;
        }
        phandles.taken.insert(phandle, property.name_span);
        phandles.of.insert(id, phandle);
    }
    phandles
}

fn live_properties(properties: &[Property]) -> impl Iterator<Item = &Property> {
    properties.iter().filter(|property| !property.is_deleted)
}

/// Puts phandles and paths into the values that refer to nodes.
fn resolve(draft: &mut Draft, order: &[NodeId], phandles: &mut Phandles, faults: &mut Faults) {
    let mut referenced = Vec::new();
    let mut bytes = 0usize;
    for &id in order {
        let Some(node) = draft.nodes.get_mut(id) else {
            continue;
        };
        let mut properties = std::mem::take(&mut node.properties);
        for property in properties
            .iter_mut()
            .filter(|property| !property.is_deleted)
        {
            for item in &mut property.items {
                let (Piece::Phandle(name) | Piece::Path(name)) = &item.piece else {
                    continue;
                };
                let Some(target) = draft.find(name) else {
                    let (why, help) = unknown(name, draft);
                    faults.add(item.span, "not known", why, help);
                    continue;
                };
                referenced.push(target);
                if let Piece::Phandle(_) = item.piece {
                    let phandle = phandles.get(target, item.span);
                    item.piece = Piece::Number(u64::from(phandle), 4);
                    continue;
                }
                let mut path = draft.path(target).into_bytes();
                path.push(0);
                bytes += path.len();
                if bytes > MAX_BYTES {
                    faults.add(item.span, "too much", TOO_LARGE, "");
                    return;
                }
                item.piece = Piece::Bytes(path);
            }
        }
        if let Some(node) = draft.nodes.get_mut(id) {
            node.properties = properties;
        }
    }
    for target in referenced {
        if let Some(node) = draft.nodes.get_mut(target) {
            node.is_referenced = true;
        }
    }
}

const TOO_LARGE: &str = "the tree takes more than 2 MiB, the most that a kernel maps";

enum Step {
    Begin(NodeId),
    End,
}

fn write(
    draft: &Draft,
    phandles: &Phandles,
    faults: &mut Faults,
) -> Option<(Vec<u8>, Vec<NodePlace>)> {
    let mut writer = Writer::new();
    let mut places = Vec::new();
    let mut bytes = 0usize;
    let mut left = vec![Step::Begin(ROOT)];
    while let Some(step) = left.pop() {
        let Step::Begin(id) = step else {
            writer.end();
            continue;
        };
        let Some(node) = draft.node(id).filter(|node| !node.is_deleted) else {
            continue;
        };
        writer.begin(&node.name);
        bytes += 12 + node.name.len();
        let mut place = NodePlace {
            name: node.name_span,
            properties: Vec::new(),
        };
        let mut has_phandle = false;
        for property in live_properties(&node.properties) {
            has_phandle |= matches!(property.name.as_str(), "phandle" | "linux,phandle");
            let (value, pieces) = value(&property.items);
            bytes += 12 + value.len();
            if bytes > MAX_BYTES {
                faults.add(property.name_span, "too much", TOO_LARGE, "");
                return None;
            }
            writer.bytes(&property.name, &value);
            place.properties.push(PropertyPlace {
                name: property.name.clone(),
                span: property.name_span,
                pieces,
            });
        }
        if let Some(&phandle) = phandles.of.get(&id).filter(|_| !has_phandle) {
            writer.cells("phandle", &[phandle]);
        }
        places.push(place);
        left.push(Step::End);
        left.extend(node.children.iter().rev().map(|&child| Step::Begin(child)));
    }
    let reservations: Vec<(u64, u64)> = draft
        .reservations
        .iter()
        .copied()
        // A pair of zeroes would end the list.
        .filter(|entry| *entry != (0, 0))
        .collect();
    match writer.finish(&reservations, MAX_BYTES) {
        Ok(blob) => Some((blob, places)),
        Err(_) => {
            faults.add(Span::default(), "too much", TOO_LARGE, "");
            None
        }
    }
}

fn value(items: &[Item]) -> (Vec<u8>, Vec<(u32, Span)>) {
    let mut value = Vec::new();
    let mut pieces = Vec::with_capacity(items.len());
    for item in items {
        pieces.push((super::text::small(value.len()), item.span));
        match &item.piece {
            Piece::Bytes(bytes) => value.extend_from_slice(bytes),
            Piece::Number(number, bytes) => {
                let all = number.to_be_bytes();
                let kept = all.len().saturating_sub(usize::from(*bytes));
                value.extend_from_slice(all.get(kept..).unwrap_or_default());
            }
            Piece::Phandle(_) | Piece::Path(_) => {}
        }
    }
    (value, pieces)
}
