//! Device tree source: version 1 of dtc's language, into a blob with the place of every cell.
//!
//! The whole language is read: merging by path, label and reference, deletion, expressions, `/include/`, `/incbin/`.
//! What goes through the C preprocessor first must have gone through it; its line markers are obeyed. Overlays
//! (`/plugin/`) are refused. Every error is found at once. What the tree means isn't this module's business.
//!
//! Memory and depth are bounded: by 8 MiB of source, 8 MiB of values with what `/incbin/` brings in, 2 MiB of blob and 32
//! levels of nodes.
//!
//! It is our own because no kept crate gives both a blob and a place for every cell: `dtoolkit` reads blobs only,
//! `device_tree_source` (2017) and `ginko` (an editor's helper) make none, the tree-sitter grammar knows the syntax only.
//!
//! Source: Devicetree Specification 0.4, chapter 6, and dtc 1.7, dtc-lexer.l and dtc-parser.y.

mod expression;
mod fault;
mod flatten;
mod parse;
mod scan;
mod text;
mod tree;

pub use fault::SourceError;
pub use scan::{Files, NoFiles};
pub use text::{Place, Text, Texts};

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::origin::{Origins, Position, WhichTree};
use crate::tree::blob::{Node, Tree};
use flatten::{NodePlace, PropertyPlace, flatten};
use parse::Parser;
use scan::{MAX_SOURCE_BYTES, Scanner};

/// A source that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The tree as a blob.
    pub blob: Vec<u8>,
    texts: Texts,
    places: Vec<NodePlace>,
}

/// A source that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong, in the order of the files.
    pub errors: Vec<SourceError>,
    /// The files.
    pub texts: Texts,
}

/// A source that can't be read.
#[derive(Debug)]
pub enum LoadError {
    /// The file can't be read.
    Read(io::Error),
    /// It is no device tree source.
    Broken(Broken),
}

/// Reads the source in the file `path`, under which name its places are shown. What it includes is looked for beside
/// whatever names it.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &Path) -> Result<Source, LoadError> {
    let part = 0..MAX_SOURCE_BYTES as u64 + 1;
    let bytes = read_file(path, part).map_err(LoadError::Read)?;
    parse(&path.display().to_string(), bytes, &mut Beside).map_err(LoadError::Broken)
}

/// Reads a source. `name` is what it is shown as.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &str, bytes: Vec<u8>, files: &mut dyn Files) -> Result<Source, Broken> {
    let mut scanner = Scanner::new(name.to_owned(), bytes, files);
    let mut parser = Parser::new(&mut scanner);
    parser.source();
    let (mut draft, has_lost) = (parser.draft, parser.has_lost);
    // A reference to what couldn't be read isn't wrong.
    let flat = match has_lost || scanner.is_unprocessed || scanner.faults.is_closed() {
        true => None,
        false => flatten(&mut draft, &mut scanner.faults),
    };
    let Scanner { texts, faults, .. } = scanner;
    match flat {
        Some((blob, places)) => Ok(Source {
            blob,
            texts,
            places,
        }),
        None => Err(Broken {
            errors: faults.into_errors(&texts),
            texts,
        }),
    }
}

/// Whether these bytes look like a device tree source: they begin with a slash (`/dts-v1/`, `/include/`), comments and the
/// preprocessor's lines aside. TOML never does.
#[must_use]
pub fn is_source(bytes: &[u8]) -> bool {
    let mut rest = bytes.trim_ascii_start();
    loop {
        let end = match rest {
            [b'/', b'*', ..] => rest.windows(2).skip(2).position(|pair| pair == b"*/"),
            [b'/', b'/', ..] | [b'#', ..] => rest.iter().position(|&byte| byte == b'\n'),
            _ => return rest.starts_with(b"/"),
        };
        let Some(end) = end else { return false };
        let length = if rest.starts_with(b"/*") {
            end + 4
        } else {
            end
        };
        rest = rest.get(length..).unwrap_or_default().trim_ascii_start();
    }
}

/// Files beside the one that names them.
#[derive(Debug, Clone, Copy)]
pub struct Beside;

impl Files for Beside {
    fn open(
        &mut self,
        from: &str,
        name: &str,
        part: Range<u64>,
    ) -> Result<(String, Vec<u8>), String> {
        let path: PathBuf = Path::new(from).parent().unwrap_or(Path::new("")).join(name);
        let bytes = read_file(&path, part).map_err(|error| error.to_string())?;
        Ok((path.display().to_string(), bytes))
    }
}

/// The bytes `part` of a file, as far as there are such.
fn read_file(path: &Path, part: Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = crate::files::open(path)?;
    // The system takes no offset that isn't a signed one; no file has bytes there.
    if i64::try_from(part.start).is_ok() {
        file.seek(SeekFrom::Start(part.start))?;
        let length = part.end.saturating_sub(part.start);
        file.take(length).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

impl Source {
    /// The files that it was read from.
    #[must_use]
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Where a node of [`Self::blob`] is named; for a node that several blocks define, the last of them.
    #[must_use]
    pub fn node(&self, node: Node<'_, '_>) -> Option<Place> {
        Some(self.texts.place(self.places.get(node.index())?.name))
    }

    /// Where a property of a node of [`Self::blob`] is named.
    #[must_use]
    pub fn property(&self, node: Node<'_, '_>, name: &str) -> Option<Place> {
        Some(self.texts.place(self.property_place(node, name)?.span))
    }

    /// Where these bytes of a property's value were written: from the piece that has the first to the one that has the
    /// last. The name of a property that has no such bytes.
    #[must_use]
    pub fn value(
        &self,
        node: Node<'_, '_>,
        name: &str,
        bytes: std::ops::Range<usize>,
    ) -> Option<Place> {
        let property = self.property_place(node, name)?;
        let piece = |offset: usize| {
            let behind = property
                .pieces
                .partition_point(|(start, _)| *start as usize <= offset);
            property.pieces.get(behind.checked_sub(1)?)
        };
        let Some((_, first)) = piece(bytes.start) else {
            return self.property(node, name);
        };
        let last = piece(bytes.end.saturating_sub(1)).map_or(*first, |(_, last)| *last);
        let end = if last.file == first.file && last.end > first.end {
            last.end
        } else {
            first.end
        };
        Some(self.texts.place(text::Span { end, ..*first }))
    }

    fn property_place(&self, node: Node<'_, '_>, name: &str) -> Option<&PropertyPlace> {
        let properties = &self.places.get(node.index())?.properties;
        properties.iter().find(|property| property.name == name)
    }

    /// Turns each position in a tree's node into the one in the source that the tree was made from. All positions of
    /// `origins` must be of this tree, but for those of partial trees, which stay.
    pub fn locate(&self, origins: &mut Origins) {
        let Ok(tree) = Tree::read(&self.blob) else {
            return;
        };
        origins.replace(|position| {
            let path = match position {
                Position::Node {
                    tree: WhichTree::Host | WhichTree::System,
                    path,
                    ..
                } => path,
                _ => return None,
            };
            let place = self.find(&tree, path)?;
            Some((place.file, place.start, place.span))
        });
    }

    /// The place behind a [`Position::Node`]'s path, with or without a property and bytes of it.
    fn find(&self, tree: &Tree<'_>, path: &str) -> Option<Place> {
        let (path, property) = match path.split_once(':') {
            Some((path, property)) => (path, Some(property)),
            None => (path, None),
        };
        let node = tree.find(path)?;
        let Some(property) = property else {
            return self.node(node);
        };
        let (name, bytes) = match property.strip_suffix(']').and_then(|p| p.split_once('[')) {
            Some((name, bytes)) => (name, bytes.split_once("..")),
            None => (property, None),
        };
        let range = bytes.and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
        range
            .and_then(|range| self.value(node, name, range))
            .or_else(|| self.property(node, name))
            .or_else(|| self.node(node))
    }
}

#[cfg(test)]
mod tests;
