//! A device tree for Xen as a manifest: host and system in one file, as a blob or as source.
//!
//! Its modules are where a boot loader is to put files. Which files those are it doesn't say: it can be checked, planned
//! and explained without them, and booted once all are named by `--module`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use layout::{
    Conflict, HostMap, Located, MachineAddress, MachineRange, Origin, Outcome, SystemRequest,
};
use manifest::dts::{self, SourceError};
use manifest::image::HEADER_BYTES;
use manifest::origin::Origins;
use manifest::toml::{DomainFiles, HostSource, HostSpec, Manifest};
use manifest::tree::blob::{MAGIC, Tree};
use manifest::tree::host::{self, BootFacts};
use manifest::tree::system::{self, Module, Modules, Role};

use crate::boot::{self, Places, Sizes};
use crate::diagnostics::{Diagnostic, Place, Severity, Side};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::hypervisor::Footprint;
use crate::module_files::{ModuleFiles, Read, Scope};
use crate::system::Purpose;
use crate::xen_dts;

/// What a file that is named as a manifest is.
pub enum Form {
    /// A device tree blob.
    Blob(Vec<u8>),
    /// A device tree source.
    Source(Vec<u8>),
    /// Anything else: TOML, or nothing.
    Other,
}

impl Form {
    /// Looks at the bytes, then at the name.
    pub fn of(path: &Path, bytes: Vec<u8>) -> Self {
        let named = |extension: &str| path.extension().is_some_and(|other| other == extension);
        if bytes.starts_with(&MAGIC.to_be_bytes()) {
            Self::Blob(bytes)
        } else if named("dts") || dts::is_source(&bytes) {
            Self::Source(bytes)
        } else if named("dtb") {
            Self::Blob(bytes)
        } else {
            Self::Other
        }
    }
}

/// A tree that can be read.
pub struct XenTree {
    /// The file as it is shown.
    name: String,
    blob: Vec<u8>,
    /// Where everything in it was written.
    source: Option<dts::Source>,
    included: Vec<PathBuf>,
}

/// Files beside the source that names them, and which of them were read.
struct Noted(Vec<PathBuf>);

impl dts::Files for Noted {
    fn open(
        &mut self,
        from: &str,
        name: &str,
        part: Range<u64>,
    ) -> Result<(String, Vec<u8>), String> {
        let opened = dts::Beside.open(from, name, part)?;
        self.0.push(PathBuf::from(&opened.0));
        Ok(opened)
    }
}

/// What was planned from it.
pub struct Planned {
    /// Where the boot loader is assumed to put hypervisor and tree.
    pub places: Places,
    /// The host.
    pub map: HostMap,
    /// What is asked for.
    pub request: SystemRequest,
    /// Where it was said.
    pub origins: Origins,
    /// The files of each domain, as far as they are named.
    pub files: Vec<DomainFiles>,
    /// The plan and its conflicts.
    pub outcome: Outcome,
}

impl XenTree {
    /// The tree of a blob or of a source.
    ///
    /// # Errors
    /// It is none: everything that is wrong is among `findings`.
    pub fn read(path: &Path, form: Form, findings: &mut Findings) -> Result<Self, Exit> {
        let name = path.display().to_string();
        let mut files = Noted(Vec::new());
        let (blob, source) = match form {
            Form::Source(bytes) => match dts::parse(&name, bytes, &mut files) {
                Ok(source) => {
                    add_texts(source.texts(), findings);
                    (source.blob.clone(), Some(source))
                }
                Err(broken) => {
                    add_texts(&broken.texts, findings);
                    for error in broken.errors {
                        findings.add(not_source(error));
                    }
                    return Err(Exit::Unreadable);
                }
            },
            Form::Blob(bytes) => (bytes, None),
            Form::Other => (Vec::new(), None),
        };
        if let Err(error) = Tree::read(&blob) {
            let message = format!("{name} can't be read as a device tree: {error}");
            let found = Diagnostic::error("tree-invalid", message);
            return Err(findings.give_up(found, Exit::Unreadable));
        }
        Ok(Self {
            name,
            blob,
            source,
            included: files.0,
        })
    }

    /// The tree as a manifest that names these files, if they are those of all its modules. Its positions are the tree's
    /// nodes: see [`Self::locate`]. `path` is its file.
    ///
    /// # Errors
    /// It can't be read.
    pub fn manifest(
        &self,
        path: &Path,
        files: &ModuleFiles,
        findings: &mut Findings,
    ) -> Result<Option<Manifest>, Exit> {
        let tree = Tree::read(&self.blob).map_err(|_| Exit::Unreadable)?;
        let mut origins = Origins::detailed();
        let system = system::read(&tree, Modules::Absolute, &tree, files, &mut origins);
        if !system.modules.iter().all(|module| files.has(module)) {
            return Ok(None);
        }
        files.name(&system.modules, &mut origins);
        let mut request = system.request;
        let named = files.of_domains(&request, &system.modules);
        let mut located = origins.clone();
        self.locate(&mut located);
        let read = Read {
            modules: &system.modules,
            request: &request,
            origins: &located,
        };
        files.check(&read, Scope::Places, findings);
        // They are in the container, which is still to be made.
        for domain in &mut request.domains {
            (domain.kernel, domain.ramdisk, domain.partial_tree) = (None, None, None);
        }
        Ok(Some(Manifest {
            text: String::new(),
            host: Some(HostSpec {
                source: HostSource::Description(Located::new(path.to_owned(), Origin::NONE)),
                memory: Vec::new(),
                reserved: system.reserved,
            }),
            request,
            files: named,
            origins,
            problems: system.problems,
        }))
    }

    /// The files that its source includes.
    pub fn included(&self) -> &[PathBuf] {
        &self.included
    }

    /// The tree as a blob.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Turns positions in its nodes into those in its source, if it has one.
    pub fn locate(&self, origins: &mut Origins) {
        match &self.source {
            Some(source) => source.locate(origins),
            None => origins.name_trees(self.name.clone()),
        }
    }

    /// Plans it, with its modules where it says. Everything that is wrong is among `findings`, also if a plan was made.
    ///
    /// # Errors
    /// There is no memory to plan with.
    pub fn plan(
        &self,
        footprint: &Footprint,
        purpose: Purpose,
        files: &ModuleFiles,
        findings: &mut Findings,
    ) -> Result<Planned, Exit> {
        let tree = Tree::read(&self.blob).map_err(|_| Exit::Unreadable)?;
        let places =
            places(&tree, footprint).map_err(|found| findings.give_up(found, Exit::Conflicts))?;
        let facts = BootFacts {
            hypervisor: places.hypervisor,
            host_tree: places.tree.unwrap_or(nowhere()),
            container: None,
        };
        let mut origins = Origins::detailed();
        let modules = Modules::Absolute;
        let mut system = system::read(&tree, modules, &tree, files, &mut origins);
        let console = system.request.hypervisor.console.as_ref();
        let console = console.map(|console| console.value.as_str());
        let mut host = host::read(&tree, &facts, console, &mut origins);
        host.map.reserved.extend(system.reserved);
        if purpose == Purpose::Xen {
            xen_dts::prepare(&mut host.map, &mut system.request);
        }
        let outcome = layout::plan(&host.map, &system.request);
        files.name(&system.modules, &mut origins);
        self.locate(&mut origins);
        let mut problems: Vec<Conflict> = host.problems;
        problems.extend(system.problems);
        findings.conflicts(&problems, &origins);
        let new = outcome.conflicts.iter();
        let new: Vec<Conflict> = new
            .filter(|found| !crate::system::follows(found, &problems))
            .cloned()
            .collect();
        findings.conflicts(&new, &origins);
        let read = Read {
            modules: &system.modules,
            request: &system.request,
            origins: &origins,
        };
        files.check(&read, Scope::All, findings);
        if let Some(found) = files_unknown(&read, files, purpose, findings) {
            findings.add(found);
        }
        let named = files.of_domains(&system.request, &system.modules);
        Ok(Planned {
            places,
            map: host.map,
            request: system.request,
            files: named,
            origins,
            outcome,
        })
    }
}

fn add_texts(texts: &dts::Texts, findings: &mut Findings) {
    for text in texts.files() {
        findings.add_source(text.name.clone(), text.text.clone());
    }
}

fn not_source(error: SourceError) -> Diagnostic {
    let place = |place: dts::Place| Some(Place::at(place.file, place.start, place.span));
    let first = Side {
        what: error.what,
        place: place(error.place),
    };
    let other = error.other.map(|(at, what)| Side {
        what,
        place: place(at),
    });
    Diagnostic {
        sides: std::iter::once(first).chain(other).collect(),
        help: Some(error.help).filter(|help| !help.is_empty()),
        ..Diagnostic::error("not-dts", error.why)
    }
}

/// What can't be done, or is assumed, without the files that weren't named; `None` if nothing is.
fn files_unknown(
    tree: &Read<'_>,
    files: &ModuleFiles,
    purpose: Purpose,
    findings: &Findings,
) -> Option<Diagnostic> {
    let boots = purpose == Purpose::Boot;
    let modules = tree.modules.iter();
    // A plan doesn't depend on what is in a ramdisk.
    let unnamed: Vec<&Module> = modules
        .filter(|module| !files.has(module) && (boots || module.role != Role::Ramdisk))
        .collect();
    let has_kernel = unnamed.iter().any(|module| module.role == Role::Kernel);
    let has_tree = unnamed
        .iter()
        .any(|module| module.role == Role::PartialTree);
    let assumed = "the kernels aren't here: each is taken for an arm64 Image that takes as much memory as its module";
    let message = match (boots, has_kernel) {
        (true, _) => "a device tree says where a boot loader puts the files, not which they are",
        (false, true) if files.is_empty() => assumed,
        (false, true) => {
            "not all kernels are here: each other is taken for an arm64 Image that takes as much memory as its module"
        }
        (false, false) => {
            "a partial tree isn't here: the devices that it passes through aren't known"
        }
    };
    if unnamed.is_empty() {
        return None;
    }
    let mut found = Diagnostic {
        severity: match boots {
            true => Severity::Error,
            false => Severity::Warning,
        },
        ..Diagnostic::error("files-unknown", message)
    };
    // Who names none knows of none.
    if boots || has_tree || !files.is_empty() {
        tree.list(&mut found, &unnamed, findings);
    }
    Some(found)
}

/// The header of a kernel whose file isn't here: an arm64 Image of its module's size.
///
/// Source: Linux, Documentation/arch/arm64/booting.rst, "The decompressed kernel image contains a 64-byte header".
pub fn assumed_header(module: MachineRange) -> Option<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    header
        .get_mut(16..24)?
        .copy_from_slice(&module.size().to_le_bytes());
    header.get_mut(56..60)?.copy_from_slice(b"ARM\x64");
    Some(header)
}

fn nowhere() -> MachineRange {
    MachineRange::saturating(MachineAddress::new(0), 0)
}

/// Where a boot loader could put hypervisor and tree: clear of everything that the tree gives a place.
fn places(tree: &Tree<'_>, footprint: &Footprint) -> Result<Places, Diagnostic> {
    let facts = BootFacts {
        hypervisor: nowhere(),
        host_tree: nowhere(),
        container: None,
    };
    let map = host::read(tree, &facts, None, &mut Origins::new()).map;
    let ram: Vec<MachineRange> = map.ram.iter().map(|bank| bank.range).collect();
    if ram.is_empty() {
        let message = "the device tree names no memory: it describes domains, and no machine";
        let help = "merge the domains into the board's own tree, as its boot loader does: \
                    /include/ \"BOARD.dts\" before them";
        return Err(Diagnostic::error("host-invalid", message).with_help(help));
    }
    let origins = &mut Origins::new();
    let request = system::read(tree, Modules::Absolute, tree, &assumed_header, origins).request;
    let mut taken: Vec<MachineRange> = map.reserved.iter().map(|it| it.range).collect();
    for domain in &request.domains {
        taken.extend(domain.kernel.iter().map(|kernel| kernel.module));
        let files = domain.ramdisk.iter().chain(&domain.partial_tree);
        taken.extend(files.map(|file| file.module));
    }
    let (hypervisor, text_offset) = match footprint {
        Footprint::Movable { bytes, text_offset } => (*bytes, *text_offset),
        Footprint::Linked(range) => (range.size(), 0),
    };
    let sizes = Sizes {
        hypervisor,
        text_offset,
        tree: tree.total_bytes() as u64,
        container: 0,
    };
    let named = taken.len();
    for domain in &request.domains {
        let own = domain.static_mem.iter().map(|it| (it.start, it.size));
        let shared = domain.shared_memory.iter();
        let shared = shared.filter_map(|it| Some((it.start?, it.size)));
        let ranges = own.chain(shared);
        taken.extend(
            ranges.map(|(start, size)| MachineRange::saturating(MachineAddress::new(start), size)),
        );
    }
    // Where static memory leaves no room, it is what is wrong.
    boot::on_board(&ram, &taken, &sizes)
        .or_else(|| boot::on_board(&ram, taken.get(..named)?, &sizes))
        .ok_or_else(|| crate::told::no_room("hypervisor and device tree"))
}
