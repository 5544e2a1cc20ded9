//! Where things were said: the table behind [`layout::Origin`].
//!
//! The planner hands origins on without looking at them; who prints a conflict looks them up here.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use layout::Origin;

/// A line and a column of a text, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineColumn {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

/// Which device tree a node is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichTree {
    /// The host's.
    Host,
    /// The system's: the dom0less tree.
    System,
    /// The partial tree of a domain, whose module lies at this machine address.
    Partial(u64),
}

/// A place where something was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// A span of a file.
    Text {
        /// The file, by index into [`Origins::files`].
        file: usize,
        /// The bytes of the file.
        span: Range<usize>,
        /// Where they begin.
        start: LineColumn,
    },
    /// A node of a device tree.
    Node {
        /// The tree.
        tree: WhichTree,
        /// The node's path, with a property's name behind a colon where one is meant ("/chosen/net:memory"), and
        /// bytes of its value where these are ("/chosen/net:xen,static-mem[0..8]").
        path: String,
        /// The line of the manifest that the node was made from, where the tree tells it.
        manifest: Option<LineColumn>,
    },
    /// A PC's firmware, by its memory map, its tables or its PCI functions.
    Firmware {
        /// Which part of the host's description.
        what: String,
    },
    /// The boot loader, by putting something somewhere.
    Boot {
        /// What it put there.
        what: &'static str,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Whoever has the file's name writes it in front.
            Self::Text { start, .. } => write!(f, "{}:{}", start.line, start.column),
            Self::Node {
                tree,
                path,
                manifest,
            } => {
                match tree {
                    WhichTree::Host => write!(f, "host tree {path}")?,
                    WhichTree::System => write!(f, "system tree {path}")?,
                    WhichTree::Partial(module) => {
                        write!(f, "partial tree at {module:#x} {path}")?;
                    }
                }
                match manifest {
                    Some(at) => write!(f, " (manifest {}:{})", at.line, at.column),
                    None => Ok(()),
                }
            }
            Self::Firmware { what } => write!(f, "host description, {what}"),
            Self::Boot { what } => write!(f, "{what}, as the boot loader placed it"),
        }
    }
}

/// A file that is a module.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ModuleFile {
    /// Its machine address.
    address: u64,
    name: String,
    /// Who brings it in.
    origin: Origin,
}

/// The table of positions. Origins of one table mean nothing to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    files: Vec<String>,
    positions: Vec<Position>,
    is_detailed: bool,
    trees: Option<String>,
    modules: Vec<ModuleFile>,
}

impl Origins {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty table that wants properties and cells of device trees too. A hypervisor names nodes only.
    #[must_use]
    pub fn detailed() -> Self {
        Self {
            is_detailed: true,
            ..Self::default()
        }
    }

    /// Whether properties and cells of device trees are wanted.
    #[must_use]
    pub fn is_detailed(&self) -> bool {
        self.is_detailed
    }

    /// Says which file the nodes are in: host's and system's tree are one.
    pub fn name_trees(&mut self, file: String) {
        self.trees = Some(file);
    }

    /// The file that the nodes are in, if it is known.
    #[must_use]
    pub fn trees(&self) -> Option<&str> {
        self.trees.as_deref()
    }

    /// Says which file is the module at this machine address, and who brings it in.
    pub fn name_module(&mut self, address: u64, name: String, origin: Origin) {
        self.modules.push(ModuleFile {
            address,
            name,
            origin,
        });
    }

    /// The file that is the module at this machine address, and who brings it in, if that is known.
    #[must_use]
    pub fn module(&self, address: u64) -> Option<(&str, Origin)> {
        let mut known = self.modules.iter();
        let module = known.find(|module| module.address == address)?;
        Some((&module.name, module.origin))
    }

    /// Puts better positions in place of those for which `better` knows one: a file's name, a place in its text and the
    /// bytes there.
    pub fn replace(
        &mut self,
        mut better: impl FnMut(&Position) -> Option<(String, LineColumn, Range<usize>)>,
    ) {
        for position in &mut self.positions {
            let Some((name, start, span)) = better(position) else {
                continue;
            };
            let known = self.files.iter().position(|file| *file == name);
            let file = known.unwrap_or_else(|| {
                self.files.push(name);
                self.files.len() - 1
            });
            *position = Position::Text { file, span, start };
        }
    }

    /// Notes a position and returns its origin.
    pub fn add(&mut self, position: Position) -> Origin {
        let Ok(index) = u32::try_from(self.positions.len()) else {
            return Origin::NONE;
        };
        self.positions.push(position);
        Origin(index)
    }

    /// Notes a node.
    pub fn node(&mut self, tree: WhichTree, path: String) -> Origin {
        self.add(Position::Node {
            tree,
            path,
            manifest: None,
        })
    }

    /// Notes a file by the name that it is shown with and returns its index.
    pub fn add_file(&mut self, name: String) -> usize {
        self.files.push(name);
        self.files.len() - 1
    }

    /// The names of the files.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The position behind an origin; `None` for [`Origin::NONE`] and for another table's.
    #[must_use]
    pub fn get(&self, origin: Origin) -> Option<&Position> {
        self.positions.get(usize::try_from(origin.0).ok()?)
    }

    /// The position as text, with the file's name where it has one ("system.toml:3:1").
    #[must_use]
    pub fn describe(&self, origin: Origin) -> Option<String> {
        let position = self.get(origin)?;
        Some(match position {
            Position::Text { file, .. } => {
                let name = self.files.get(*file).map_or("?", String::as_str);
                alloc::format!("{name}:{position}")
            }
            Position::Node {
                tree: WhichTree::Partial(module),
                path,
                ..
            } => match self.module(*module) {
                Some((name, _)) => alloc::format!("{name} {path}"),
                None => alloc::format!("{position}"),
            },
            _ => alloc::format!("{position}"),
        })
    }
}
