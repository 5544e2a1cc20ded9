//! Reads a flattened device tree into an index, once and in linear time.
//!
//! The index borrows names and values from the blob. Nodes lie in the order of the blob (preorder), so that a
//! subtree is a run of nodes and looking for a child never walks the structure block again.
//!
//! Boot loaders and tests hand over anything: no input makes this panic, recurse or loop. It takes names longer
//! than the 31 characters that the Devicetree Specification allows, since trees of real boards have them (Tegra's
//! `nvidia,pad-autocal-pull-up-offset-3v3-timeout`); that and the bounded depth are why `dtoolkit` reads the trees
//! in the tests only, as a second opinion on what the [writer](super::writer) makes.
//!
//! Source of the format: Devicetree Specification 0.4, chapter 5.

mod node;

use alloc::vec::Vec;
use core::fmt;

pub use super::cells::Cells;
pub use node::Node;

/// The first word of every flattened device tree.
pub const MAGIC: u32 = 0xd00d_feed;

/// The largest blob that is read, in bytes: Linux maps 2 MiB of its tree on arm64, no boot loader passes more.
pub const MAX_BYTES: usize = 2 << 20;

/// How deep nodes may nest. Trees of real boards stay below 12.
pub const MAX_DEPTH: usize = 32;

/// Bytes of a property's name, without its end. The specification allows 31; names of real boards stay below 64. Many
/// properties may share one name, so that without a bound each would cost the length of all names.
pub const MAX_PROPERTY_NAME: usize = 255;

const HEADER_BYTES: usize = 40;
const TOKEN_BEGIN_NODE: u32 = 1;
const TOKEN_END_NODE: u32 = 2;
const TOKEN_PROPERTY: u32 = 3;
const TOKEN_NOP: u32 = 4;
const TOKEN_END: u32 = 9;
/// The format's version that this reads; later ones say in `last_comp_version` that they can be read as this one.
const VERSION: u32 = 17;

/// Why a blob is not a device tree, and at which byte of it that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeError {
    /// What is wrong.
    pub kind: TreeErrorKind,
    /// Offset from the start of the blob, in bytes.
    pub offset: usize,
}

/// What can be wrong with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeErrorKind {
    /// Fewer bytes than a header, or than the header's `totalsize`.
    Truncated,
    /// `totalsize` is above [`MAX_BYTES`].
    TooLarge,
    /// The first word is not [`MAGIC`].
    Magic,
    /// A version that cannot be read as version 17.
    Version,
    /// A block of the header lies outside the blob.
    Block,
    /// A word of the structure block that is no token, or not here.
    Token,
    /// A name or value that runs out of its block, a name that is not UTF-8, or a property's name above
    /// [`MAX_PROPERTY_NAME`].
    Value,
    /// Nodes nest deeper than [`MAX_DEPTH`].
    Depth,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            TreeErrorKind::Truncated => "the blob is cut short",
            TreeErrorKind::TooLarge => "the blob is larger than 2 MiB",
            TreeErrorKind::Magic => "the blob does not begin with 0xd00dfeed",
            TreeErrorKind::Version => "the blob has a version other than 17",
            TreeErrorKind::Block => "a block of the header lies outside the blob",
            TreeErrorKind::Token => "the structure block has a token where none may stand",
            TreeErrorKind::Value => "a name or value is malformed",
            TreeErrorKind::Depth => "nodes nest deeper than 32",
        };
        write!(f, "{what} (at byte {:#x})", self.offset)
    }
}

const fn error(kind: TreeErrorKind, offset: usize) -> TreeError {
    TreeError { kind, offset }
}

/// Reads a big-endian word.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    let four: [u8; 4] = bytes.get(offset..end)?.try_into().ok()?;
    Some(u32::from_be_bytes(four))
}

fn double_word(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    let eight: [u8; 8] = bytes.get(offset..end)?.try_into().ok()?;
    Some(u64::from_be_bytes(eight))
}

/// Reads a string that ends with NUL within `bytes`.
fn string(bytes: &[u8], offset: usize) -> Option<&str> {
    let rest = bytes.get(offset..)?;
    let length = rest.iter().position(|&byte| byte == 0)?;
    core::str::from_utf8(rest.get(..length)?).ok()
}

/// Reads a property's name; no further than one may be long.
fn property_name(strings: &[u8], offset: usize) -> Option<&str> {
    let rest = strings.get(offset..)?;
    string(rest.get(..=MAX_PROPERTY_NAME).unwrap_or(rest), 0)
}

/// The `totalsize` of the tree that starts at `bytes`, if its header is there, says so and fits in `bytes`.
#[must_use]
pub fn total_size(bytes: &[u8]) -> Option<usize> {
    if word(bytes, 0)? != MAGIC {
        return None;
    }
    let size = usize::try_from(word(bytes, 4)?).ok()?;
    (HEADER_BYTES..=bytes.len()).contains(&size).then_some(size)
}

#[derive(Debug, Clone, Copy)]
struct Record<'a> {
    name: &'a str,
    parent: u32,
    /// One past the last node of the subtree.
    end: u32,
    first_property: u32,
    end_property: u32,
}

/// A property: a name and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value; what the bytes mean depends on the name.
    pub value: &'a [u8],
}

/// A device tree: an index over a blob.
#[derive(Debug)]
pub struct Tree<'a> {
    nodes: Vec<Record<'a>>,
    properties: Vec<Property<'a>>,
    /// The phandle in the upper half, its node in the lower; sorted.
    phandles: Vec<u64>,
    reservations: Vec<(u64, u64)>,
    total_bytes: usize,
    used_bytes: usize,
}

impl<'a> Tree<'a> {
    /// Reads the tree at the start of `bytes`; what follows its `totalsize` is left alone.
    ///
    /// # Errors
    /// The first thing that makes the blob no device tree, with its offset.
    pub fn read(bytes: &'a [u8]) -> Result<Self, TreeError> {
        use TreeErrorKind as Kind;
        let header = |offset| word(bytes, offset).ok_or(error(Kind::Truncated, offset));
        let block =
            |offset| Ok::<usize, TreeError>(usize::try_from(header(offset)?).unwrap_or(usize::MAX));

        if header(0)? != MAGIC {
            return Err(error(Kind::Magic, 0));
        }
        let total = block(4)?;
        if total > MAX_BYTES {
            return Err(error(Kind::TooLarge, 4));
        }
        let bytes = bytes.get(..total).ok_or(error(Kind::Truncated, 4))?;
        if bytes.len() < HEADER_BYTES {
            return Err(error(Kind::Truncated, 4));
        }
        let (structure, strings, reserved) = (block(8)?, block(12)?, block(16)?);
        if header(20)? < VERSION || header(24)? > VERSION {
            return Err(error(Kind::Version, 20));
        }
        let (strings_size, structure_size) = (block(32)?, block(36)?);
        let cut = |start: usize, size: usize, field| {
            start
                .checked_add(size)
                .and_then(|end| bytes.get(start..end))
                .ok_or(error(Kind::Block, field))
        };
        let strings = cut(strings, strings_size, 12)?;
        cut(structure, structure_size, 8)?;

        let reservations = read_reservations(bytes, reserved)?;
        let mut reader = Reader {
            bytes: bytes.get(..structure + structure_size).unwrap_or_default(),
            strings,
            offset: structure,
            nodes: Vec::new(),
            properties: Vec::new(),
        };
        reader.read_nodes()?;

        let mut tree = Self {
            nodes: reader.nodes,
            properties: reader.properties,
            phandles: Vec::new(),
            reservations,
            total_bytes: total,
            used_bytes: HEADER_BYTES + structure_size + strings_size,
        };
        // Sorting by node too: of two nodes with one phandle, the first is found, always the same.
        let phandles = tree
            .nodes()
            .filter_map(|node| Some((node.u32("phandle")?, node.index)));
        let mut phandles: Vec<u64> = phandles
            .map(|(phandle, node)| u64::from(phandle) << 32 | u64::from(node))
            .collect();
        phandles.sort_unstable();
        tree.phandles = phandles;
        Ok(tree)
    }

    /// The root node.
    #[must_use]
    pub fn root(&self) -> Node<'_, 'a> {
        // A tree is only made by `read`, which refuses a structure block without a root.
        Node {
            tree: self,
            index: 0,
        }
    }

    /// All nodes, parents before children, in the order of the blob.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_, 'a>> {
        (0u32..)
            .zip(&self.nodes)
            .map(|(index, _)| Node { tree: self, index })
    }

    /// The node with this [`Node::index`].
    #[must_use]
    pub fn node(&self, index: usize) -> Option<Node<'_, 'a>> {
        let is_there = index < self.nodes.len();
        let index = u32::try_from(index).ok().filter(|_| is_there)?;
        Some(Node { tree: self, index })
    }

    /// The node at `path` ("/a/b@1"). A component without unit address also finds a node that has one.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Node<'_, 'a>> {
        let path = path.strip_prefix('/')?;
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(self.root(), |node, name| node.child(name))
    }

    /// The node that `/aliases` or a path names; a `:options` suffix, as `stdout-path` has, is left out.
    #[must_use]
    pub fn find_by_alias(&self, name: &str) -> Option<Node<'_, 'a>> {
        let name = name.split(':').next()?;
        if name.starts_with('/') {
            return self.find(name);
        }
        self.find(self.find("/aliases")?.string(name)?)
    }

    /// The node with this phandle.
    #[must_use]
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'_, 'a>> {
        let wanted = u64::from(phandle) << 32;
        let at = self.phandles.partition_point(|&entry| entry < wanted);
        let found = self.phandles.get(at)? ^ wanted;
        let index = u32::try_from(found).ok()?;
        Some(Node { tree: self, index })
    }

    /// The header's `totalsize`, in bytes; boot loaders leave room in it for their own edits.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// What header, structure and names take of it, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// The memory reservation block: `(address, size)` in bytes, as they stand.
    #[must_use]
    pub fn reservations(&self) -> &[(u64, u64)] {
        &self.reservations
    }
}

fn read_reservations(bytes: &[u8], mut offset: usize) -> Result<Vec<(u64, u64)>, TreeError> {
    let mut entries = Vec::new();
    loop {
        let entry = double_word(bytes, offset).zip(double_word(bytes, offset.saturating_add(8)));
        match entry.ok_or(error(TreeErrorKind::Block, 16))? {
            (0, 0) => return Ok(entries),
            entry => entries.push(entry),
        }
        offset += 16;
    }
}

struct Reader<'a> {
    /// The blob up to the end of its structure block.
    bytes: &'a [u8],
    strings: &'a [u8],
    offset: usize,
    nodes: Vec<Record<'a>>,
    properties: Vec<Property<'a>>,
}

impl<'a> Reader<'a> {
    /// How many nodes and properties the rest of the structure block seems to have.
    fn count(&self) -> (usize, usize) {
        let (mut nodes, mut properties, mut at) = (0, 0, self.offset);
        while let Some(token) = word(self.bytes, at) {
            at += 4;
            let bytes = match token {
                TOKEN_BEGIN_NODE => {
                    nodes += 1;
                    string(self.bytes, at).map_or(0, |name| name.len() + 1)
                }
                TOKEN_PROPERTY => {
                    properties += 1;
                    word(self.bytes, at).map_or(0, |length| length as usize + 8)
                }
                TOKEN_END => break,
                _ => 0,
            };
            at = at.saturating_add(bytes).saturating_add(3) & !3;
        }
        (nodes, properties)
    }

    fn read_nodes(&mut self) -> Result<(), TreeError> {
        // The hypervisor's first heap is small: a list that grows would need the room of one and a half.
        let (nodes, properties) = self.count();
        let _ = self.nodes.try_reserve_exact(nodes);
        let _ = self.properties.try_reserve_exact(properties);
        let mut open: Vec<u32> = Vec::new();
        loop {
            let at = self.offset;
            let token = word(self.bytes, at).ok_or(error(TreeErrorKind::Truncated, at))?;
            self.offset += 4;
            let bad = Err(error(TreeErrorKind::Token, at));
            match token {
                TOKEN_NOP => {}
                TOKEN_BEGIN_NODE => {
                    if open.is_empty() != self.nodes.is_empty() {
                        return bad;
                    }
                    if open.len() == MAX_DEPTH {
                        return Err(error(TreeErrorKind::Depth, at));
                    }
                    self.begin_node(&mut open)?;
                }
                TOKEN_PROPERTY => self.property(&open, at)?,
                TOKEN_END_NODE => {
                    let end = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
                    let Some(node) = open
                        .pop()
                        .and_then(|index| self.nodes.get_mut(index as usize))
                    else {
                        return bad;
                    };
                    node.end = end;
                }
                TOKEN_END if open.is_empty() && !self.nodes.is_empty() => return Ok(()),
                _ => return bad,
            }
        }
    }

    fn begin_node(&mut self, open: &mut Vec<u32>) -> Result<(), TreeError> {
        let name =
            string(self.bytes, self.offset).ok_or(error(TreeErrorKind::Value, self.offset))?;
        self.advance(name.len() + 1);
        let next_property = u32::try_from(self.properties.len()).unwrap_or(u32::MAX);
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Record {
            name,
            parent: open.last().copied().unwrap_or(0),
            end: index + 1,
            first_property: next_property,
            end_property: next_property,
        });
        open.push(index);
        Ok(())
    }

    fn property(&mut self, open: &[u32], at: usize) -> Result<(), TreeError> {
        // Properties stand before the node's children, so theirs is the last node that was begun.
        let last = u32::try_from(self.nodes.len())
            .unwrap_or(u32::MAX)
            .checked_sub(1);
        if last.is_none() || open.last().copied() != last {
            return Err(error(TreeErrorKind::Token, at));
        }
        let value_error = error(TreeErrorKind::Value, at);
        let length = word(self.bytes, self.offset).ok_or(value_error)? as usize;
        let name_offset = word(self.bytes, self.offset + 4).ok_or(value_error)? as usize;
        let start = self.offset + 8;
        let end = start.checked_add(length).ok_or(value_error)?;
        let value = self.bytes.get(start..end).ok_or(value_error)?;
        let name = property_name(self.strings, name_offset).ok_or(value_error)?;
        self.properties.push(Property { name, value });
        self.offset = start;
        self.advance(length);
        if let Some(node) = self.nodes.last_mut() {
            node.end_property += 1;
        }
        Ok(())
    }

    /// Steps over `length` bytes and what pads them to a word.
    fn advance(&mut self, length: usize) {
        self.offset = self.offset.saturating_add(length).next_multiple_of(4);
    }
}
