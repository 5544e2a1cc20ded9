//! The machine under a system: what boots it, how it is described, and what the planner is told of
//! it.

use std::path::Path;

use layout::{Architecture, MachineRange, Origin, RamBank};
use manifest::capture::{self, Captured};
use manifest::files;
use manifest::pc;
use manifest::toml::{HostSource, HostSpec, Manifest, QemuSpec};
use manifest::tree::blob::Tree;
use manifest::tree::host;

use crate::arch::{Arch, DescriptionForm};
use crate::diagnostics::{self, Diagnostic, Place, Side};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::host_tree::{self, EditError, Over, Twice};
use crate::hypervisor::{self, Hypervisor};
use crate::qemu::{Failure, Machine, process};

/// What boots the machine.
pub enum Loader {
    /// QEMU.
    Qemu(Box<Machine>),
    /// The boot loader of a board, described by a file.
    Board,
}

/// How the machine is described.
pub enum Description {
    /// By a device tree.
    Tree {
        /// What is handed over, with room for the container's place.
        handed: Vec<u8>,
        /// What the hypervisor finds.
        live: Vec<u8>,
    },
    /// By what the hypervisor found on it.
    Pc(Box<pc::Description>),
}

/// A file that describes a machine.
pub struct HostFile {
    /// The architecture of its machine.
    pub arch: &'static Arch,
    described: Described,
}

/// What such a file holds.
enum Described {
    /// A device tree, and memory for one that names none.
    Tree(Vec<u8>, Vec<MachineRange>),
    /// What was found on a PC.
    Pc(Box<pc::Description>),
}

impl HostFile {
    /// The file `path`, which has these bytes.
    ///
    /// # Errors
    /// It is no description of a machine that the command plans for, with the exit status that says so.
    pub fn read(path: &Path, bytes: Vec<u8>) -> Result<Self, (Diagnostic, Exit)> {
        // A device tree begins with its magic number.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            let architecture = Tree::read(&bytes).map(|tree| host::architecture(&tree));
            return Self::of_tree(path, architecture.unwrap_or_default(), bytes, Vec::new());
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string());
        let captured = text.and_then(|text| capture::read(text).map_err(|error| error.to_string()));
        match captured {
            Ok(Captured::Pc(described)) => Ok(Self {
                arch: Arch::of_description(DescriptionForm::Capture),
                described: Described::Pc(described),
            }),
            Ok(Captured::Tree {
                architecture,
                tree,
                memory,
            }) => Self::of_tree(path, architecture, tree, memory),
            Err(reason) => {
                let message = format!("{} can't be read: {reason}", path.display());
                let found = Diagnostic::error("host-invalid", message).with_help(
                    "name what `terrane host capture` wrote, or the hypervisor with the word `capture`",
                );
                Err((found, Exit::Unreadable))
            }
        }
    }

    fn of_tree(
        path: &Path,
        architecture: Architecture,
        tree: Vec<u8>,
        memory: Vec<MachineRange>,
    ) -> Result<Self, (Diagnostic, Exit)> {
        let name = architecture.as_str();
        let Some(arch) = Arch::find(name) else {
            let message = format!(
                "{} is of a {name} machine, and Terrane doesn't run there yet",
                path.display()
            );
            return Err((Diagnostic::error("not-built-yet", message), Exit::Conflicts));
        };
        Ok(Self {
            arch,
            described: Described::Tree(tree, memory),
        })
    }

    /// What it says of its machine, to which the boot loader adds `memory`; `place` is where a bank of that is said.
    ///
    /// # Errors
    /// Its tree can't be read, or RAM is named twice or over registers: all that is wrong, with the exit status that says so.
    pub fn describe(
        self,
        path: &Path,
        memory: &[RamBank],
        place: &dyn Fn(&RamBank) -> Option<Place>,
    ) -> Result<Description, (Vec<Diagnostic>, Exit)> {
        let (tree, found) = match self.described {
            Described::Pc(described) => return Ok(Description::Pc(described)),
            Described::Tree(tree, found) => (tree, found),
        };
        let found = found.into_iter().map(|range| RamBank {
            range,
            node: None,
            origin: Origin::NONE,
        });
        let found: Vec<RamBank> = found.collect();
        let in_file = |_: &RamBank| Some(Place::without_lines(path.display().to_string()));
        let tree = filled(path, &tree, &found, &in_file, Vec::new())?;
        let over = host_tree::over_registers(&tree, memory).map_err(|it| no_host(path, &it))?;
        let over = (!over.is_empty()).then(|| over_registers(&over, place));
        let tree = filled(path, &tree, memory, place, over.into_iter().collect())?;
        let handed =
            host_tree::with_container(&tree, 0, 0).map_err(|error| no_host(path, &error))?;
        let live = handed.clone();
        Ok(Description::Tree { handed, live })
    }
}

/// The tree with more memory, none of which it names; `wrong` is what is wrong with that already.
fn filled(
    path: &Path,
    tree: &[u8],
    memory: &[RamBank],
    place: &dyn Fn(&RamBank) -> Option<Place>,
    mut wrong: Vec<Diagnostic>,
) -> Result<Vec<u8>, (Vec<Diagnostic>, Exit)> {
    let twice = host_tree::named_twice(tree, memory).map_err(|error| no_host(path, &error))?;
    if !twice.is_empty() {
        wrong.push(named_twice(&twice, place));
    }
    if !wrong.is_empty() {
        return Err((wrong, Exit::Conflicts));
    }
    host_tree::with_memory(tree, memory).map_err(|error| no_host(path, &error))
}

fn no_host(path: &Path, error: &EditError) -> (Vec<Diagnostic>, Exit) {
    let found = not_a_tree(path, error)
        .with_help("name a device tree, or a capture by `terrane host capture`");
    (vec![found], Exit::Unreadable)
}

/// The finding about RAM that is to be added and is there.
fn named_twice(twice: &[Twice], place: &dyn Fn(&RamBank) -> Option<Place>) -> Diagnostic {
    let side = |what: &str, bank: &RamBank, place| Side {
        what: format!("{what} {}", bank.range),
        place,
    };
    let named = twice.iter().flat_map(|found| {
        let others = found.named.iter().map(|(other, node)| match node {
            Some(node) => {
                let node = Place::without_lines(node.to_string());
                side("the description has", other, Some(node))
            }
            None => side("added too:", other, place(other)),
        });
        std::iter::once(side("added:", &found.bank, place(&found.bank))).chain(others)
    });
    let in_tree = |found: &Twice| found.named.iter().any(|(_, node)| node.is_some());
    let help = if twice.iter().any(in_tree) {
        "leave it out of the memory that is added: it is there without it. If there is more than the description says, \
         take the one that `terrane host capture` writes on the running board"
    } else {
        "leave one of the two out of the memory that is added"
    };
    let message = "RAM that is added has been named already";
    Diagnostic {
        sides: named.collect(),
        ..Diagnostic::error("memory-named-twice", message).with_help(help)
    }
}

/// The finding about RAM that is to be added where registers are.
fn over_registers(over: &[Over], place: &dyn Fn(&RamBank) -> Option<Place>) -> Diagnostic {
    let mut sides = Vec::new();
    let mut helps = Vec::new();
    for found in over {
        let (bank, (what, range, node)) = (&found.bank, &found.first);
        sides.push(Side {
            what: format!("added: {}", bank.range),
            place: place(bank),
        });
        let others = match found.others {
            0 => String::new(),
            others => format!(", the first of {} there", others + 1),
        };
        sides.push(Side {
            what: format!("{what}: registers {range}{others}"),
            place: node
                .as_ref()
                .map(|node| Place::without_lines(node.to_string())),
        });
        let (start, end) = (bank.range.start().raw(), range.start().raw());
        helps.push(match end.saturating_sub(start) >> 20 {
            0 => format!("leave out what begins at {start:#x}"),
            mib => format!("{{ start = {start:#x}, size = \"{mib}MiB\" }} ends below them"),
        });
    }
    let help = format!("{}; RAM beyond registers is another item", helps.join(", "));
    let message = "RAM that is added lies over devices' registers";
    Diagnostic {
        sides,
        ..Diagnostic::error("memory-over-registers", message).with_help(help)
    }
}

/// Which architecture a manifest's host has, and the board's file if there is one.
pub struct Source {
    /// The architecture.
    pub arch: &'static Arch,
    board: Option<HostFile>,
}

impl Source {
    /// Looks at what the manifest names.
    ///
    /// # Errors
    /// The file of a board can't be read; or an architecture that isn't there, which the manifest's
    /// reader has said.
    pub fn of(spec: &HostSpec, manifest: &Manifest, findings: &mut Findings) -> Result<Self, Exit> {
        match &spec.source {
            HostSource::Qemu(machine) => {
                let arch = Arch::find(&machine.arch).ok_or(Exit::Conflicts)?;
                Ok(Self { arch, board: None })
            }
            HostSource::Description(path) => {
                let bytes = files::read(&path.value, files::MAX_TEXT).map_err(|error| {
                    let mut found = diagnostics::unreadable(&path.value, &error);
                    let place = findings.place(path.origin, &manifest.origins);
                    found.sides.push(named_here(place));
                    let found = found.with_help(manifest.nearest_file(path));
                    findings.give_up(found, Exit::Unreadable)
                })?;
                let board = HostFile::read(&path.value, bytes).map_err(|(mut found, exit)| {
                    let place = findings.place(path.origin, &manifest.origins);
                    found.sides.push(named_here(place));
                    findings.give_up(found, exit)
                })?;
                Ok(Self {
                    arch: board.arch,
                    board: Some(board),
                })
            }
        }
    }
}

impl Source {
    /// Whether the description comes from the hypervisor itself.
    pub fn needs_hypervisor(&self) -> bool {
        self.board.is_none() && self.arch.description == DescriptionForm::Capture
    }
}

/// What a machine of QEMU's is asked with.
pub struct Asking<'a> {
    /// The hypervisor; there if [`Source::needs_hypervisor`].
    pub hypervisor: Option<&'a Hypervisor>,
    /// The user's arguments for QEMU.
    pub more: &'a [String],
    /// A person is told what takes a moment.
    pub progress: bool,
}

/// The machine.
pub struct Host {
    /// What boots it.
    pub loader: Loader,
    /// What is known of it.
    pub description: Description,
}

impl Host {
    /// The machine that a device tree describes; `path` is its file.
    ///
    /// # Errors
    /// It is no description of a machine that the command plans for, with the exit status that says so.
    pub fn of_board(path: &Path, tree: Vec<u8>) -> Result<Self, (Vec<Diagnostic>, Exit)> {
        let file = HostFile::read(path, tree).map_err(|(found, exit)| (vec![found], exit))?;
        let description = file.describe(path, &[], &|_| None)?;
        Ok(Self {
            loader: Loader::Board,
            description,
        })
    }

    /// The machine of a manifest. Everything that is wrong is among `findings`.
    ///
    /// # Errors
    /// There is no description: the exit status that says so.
    pub fn find(
        source: Source,
        spec: &HostSpec,
        manifest: &Manifest,
        asking: &Asking<'_>,
        findings: &mut Findings,
    ) -> Result<Self, Exit> {
        let arch = source.arch;
        let (loader, description) = match (&spec.source, source.board) {
            (HostSource::Qemu(machine), _) => {
                of_qemu(arch, machine, asking).map_err(|failure| {
                    let (mut found, exit) = match failure {
                        Failure::Missing(found) => (found, Exit::QemuFailed),
                        Failure::Refused(found) => (found, Exit::Conflicts),
                        // The manifest isn't to blame.
                        Failure::CommandLine(found) => {
                            return findings.give_up(found, Exit::QemuFailed);
                        }
                        Failure::Io(found) => (found, Exit::Unreadable),
                        Failure::Interrupted(signal) => process::end_by(signal),
                    };
                    let place = findings.place(machine.origin, &manifest.origins);
                    found.sides.push(Side {
                        what: "asked for here".to_owned(),
                        place,
                    });
                    findings.give_up(found, exit)
                })?
            }
            (HostSource::Description(path), board) => {
                let place = |bank: &RamBank| findings.place(bank.origin, &manifest.origins);
                let board = board.ok_or(Exit::Unreadable)?;
                let described = board.describe(&path.value, &spec.memory, &place);
                let described = described.map_err(|(mut wrong, exit)| {
                    let place = findings.place(path.origin, &manifest.origins);
                    for found in &mut wrong {
                        found.sides.push(named_here(place.clone()));
                    }
                    findings.give_up_by(wrong, exit)
                })?;
                (Loader::Board, described)
            }
        };
        Ok(Self {
            loader,
            description,
        })
    }
}

fn named_here(place: Option<Place>) -> Side {
    Side {
        what: "named here".to_owned(),
        place,
    }
}

fn of_qemu(
    arch: &'static Arch,
    spec: &QemuSpec,
    asking: &Asking<'_>,
) -> Result<(Loader, Description), Failure> {
    let machine = Machine::find(arch, spec, asking.more)?;
    let description = match arch.description {
        DescriptionForm::Tree => {
            let handed = machine.host_tree()?;
            let live = machine.live_tree(&handed)?;
            Description::Tree { handed, live }
        }
        DescriptionForm::Capture => {
            let hypervisor = asking.hypervisor;
            let hypervisor = hypervisor.ok_or_else(|| Failure::Io(hypervisor::missing(arch)))?;
            let line = machine.capture(hypervisor, asking.progress)?;
            let described = captured(&line).map_err(|reason| {
                let message = format!("the hypervisor's description can't be read: {reason}");
                let found = Diagnostic::error("capture-failed", message);
                Failure::Io(found.with_help("hypervisor and command must be of one version"))
            })?;
            Description::Pc(Box::new(described))
        }
    };
    Ok((Loader::Qemu(Box::new(machine)), description))
}

fn captured(line: &[u8]) -> Result<pc::Description, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    pc::read(text).map_err(|error| error.to_string())
}

/// A device tree that can't be used.
pub fn not_a_tree(path: &Path, error: &EditError) -> Diagnostic {
    let message = format!("{} can't be read as a device tree: {error}", path.display());
    Diagnostic::error("tree-invalid", message)
}
