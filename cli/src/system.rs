//! From a manifest to everything that a command needs: the plan, and the files that make a
//! machine carry it out.
//!
//! The order is the boot loader's turned round. The container's length is known before its place,
//! its place before the plan, the plan before the digest that the container carries.

use std::path::{Path, PathBuf};

use layout::{Code, Conflict, HostMap, MachineAddress, MachineRange, Outcome};
use manifest::origin::Origins;
use manifest::plan_json::{digest, plan_json};
use manifest::toml::{self, HostSource, HostSpec, LoadError, Loaded, Manifest, QemuSpec};
use manifest::tree::blob::Tree;
use manifest::tree::host::{self, BootFacts};

use crate::args::ManifestArgs;
use crate::boot::{self, Places, Sizes};
use crate::diagnostics::{self, Diagnostic, Place, Severity, Side};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::host_tree::{self, EditError};
use crate::hypervisor::Hypervisor;
use crate::qemu::{Failure, Qemu};

/// What is assumed of a hypervisor whose image isn't there: bytes in memory.
const ASSUMED_HYPERVISOR: u64 = 512 << 10;

/// What a command does with the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is looked at; the hypervisor's image needn't be there.
    Look,
    /// It is booted.
    Boot,
}

/// What the system runs on.
pub enum Host {
    /// A machine of QEMU's.
    Qemu {
        /// The program.
        qemu: Qemu,
        /// The machine.
        machine: Box<QemuSpec>,
    },
    /// A board, described by its device tree.
    Board,
}

/// A planned system.
pub struct System {
    /// What it runs on.
    pub host: Host,
    /// The hypervisor; there if the purpose is to boot.
    pub hypervisor: Option<Hypervisor>,
    /// Where the boot loader puts things.
    pub places: Places,
    /// The host's tree, as the boot loader hands it over.
    pub host_tree: Vec<u8>,
    /// What the planner was told of the host.
    pub map: HostMap,
    /// The plan and its conflicts.
    pub outcome: Outcome,
    /// The manifest's files, and the container that they make.
    loaded: Loaded,
}

impl System {
    /// Plans the system of a manifest. Everything that is wrong is among `findings`, also if a
    /// plan was made.
    ///
    /// # Errors
    /// There is too little to make a plan from: the exit status that says so.
    pub fn plan(
        args: &ManifestArgs,
        purpose: Purpose,
        findings: &mut Findings,
    ) -> Result<Self, Exit> {
        let loaded = load(&args.manifest, findings)?
            .load_files()
            .map_err(|error| findings.give_up(container_failed(&error), Exit::Conflicts))?;
        let manifest = loaded.manifest();
        findings.conflicts(&manifest.problems, &manifest.origins);
        let spec = manifest.host.clone().ok_or(Exit::Conflicts)?;
        let hypervisor = find_hypervisor(args, purpose, findings)?;
        let trees = HostTrees::of(&spec, manifest, findings)?;
        Planning {
            spec,
            loaded,
            hypervisor,
            trees,
        }
        .plan(findings)
    }

    /// The domains' names, in the manifest's order.
    pub fn domains(&self) -> Vec<String> {
        let domains = &self.loaded.manifest().request.domains;
        domains
            .iter()
            .map(|domain| domain.name.value.clone())
            .collect()
    }

    /// The domain that has the console: the hardware domain, else the first.
    pub fn focus(&self) -> usize {
        let domains = &self.loaded.manifest().request.domains;
        domains
            .iter()
            .position(|domain| domain.identity().is_hardware())
            .unwrap_or(0)
    }

    /// The plan as one line of JSON.
    pub fn json(&self) -> String {
        plan_json(&self.outcome.plan, &self.map)
    }

    /// The container, with the plan's digest.
    ///
    /// # Errors
    /// It can't be made.
    pub fn container(&self) -> Result<Vec<u8>, Diagnostic> {
        let digest = digest(&self.json());
        self.loaded
            .container(Some(&digest))
            .map_err(|error| container_failed(&error))
    }
}

fn load(path: &Path, findings: &mut Findings) -> Result<Manifest, Exit> {
    let name = path.display().to_string();
    if path
        .extension()
        .is_some_and(|extension| extension == "dtb" || extension == "dts")
    {
        let message = "the command doesn't plan from a device tree in Xen's binding yet";
        let found = Diagnostic::error("not-built-yet", message)
            .with_help("describe the system in TOML; the hypervisor boots such a tree as it is");
        return Err(findings.give_up(found, Exit::Conflicts));
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    if let Some("dtb" | "dts") = extension {
        let message = format!("{name}: a device tree as manifest is not built yet");
        let found = Diagnostic::error(layout::Code::NotBuiltYet.as_str(), message).with_help(
            "describe the domains in TOML; docs/system-tree.md says which key is which property",
        );
        return Err(findings.give_up(found, Exit::Conflicts));
    }
    match toml::load(path) {
        Ok(manifest) => {
            findings.add_source(name, manifest.text.clone());
            Ok(manifest)
        }
        Err(LoadError::Read(error)) => {
            Err(findings.give_up(diagnostics::unreadable(path, &error), Exit::Unreadable))
        }
        Err(LoadError::Syntax {
            message,
            span,
            start,
            text,
        }) => {
            findings.add_source(name.clone(), text);
            let place = Place::at(name, start, span);
            let found = Diagnostic {
                sides: vec![Side {
                    what: "here".to_owned(),
                    place: Some(place),
                }],
                ..Diagnostic::error("not-toml", format!("this isn't TOML: {message}"))
            };
            Err(findings.give_up(found, Exit::Unreadable))
        }
    }
}

fn find_hypervisor(
    args: &ManifestArgs,
    purpose: Purpose,
    findings: &mut Findings,
) -> Result<Option<Hypervisor>, Exit> {
    match Hypervisor::find(args.hypervisor.as_deref(), "aarch64") {
        Ok(found) => Ok(Some(found)),
        Err(missing) if purpose == Purpose::Look && args.hypervisor.is_none() => {
            findings.add(Diagnostic {
                severity: Severity::Warning,
                message: format!("{}; the plan is made for one of 512 KiB", missing.message),
                ..missing
            });
            Ok(None)
        }
        Err(missing) => Err(findings.give_up(missing, Exit::Unreadable)),
    }
}

fn container_failed(error: &toml::BuildError) -> Diagnostic {
    Diagnostic::error("container", format!("the container can't be made: {error}"))
}

/// A host's device trees.
struct HostTrees {
    host: Host,
    /// What is handed over, with room for the container's place.
    handed: Vec<u8>,
    /// What the hypervisor finds.
    live: Vec<u8>,
}

impl HostTrees {
    fn of(spec: &HostSpec, manifest: &Manifest, findings: &mut Findings) -> Result<Self, Exit> {
        match &spec.source {
            HostSource::Qemu(machine) => Self::of_qemu(machine).map_err(|failure| {
                let (mut found, exit) = match failure {
                    Failure::Missing(found) => (found, Exit::QemuFailed),
                    Failure::Refused(found) => (found, Exit::Conflicts),
                    Failure::Io(found) => (found, Exit::Unreadable),
                };
                let place = findings.place(machine.origin, &manifest.origins);
                found.sides.push(Side {
                    what: "asked for here".to_owned(),
                    place,
                });
                findings.give_up(found, exit)
            }),
            HostSource::Description(path) => {
                Self::of_board(&path.value, spec).map_err(|mut found| {
                    let place = findings.place(path.origin, &manifest.origins);
                    found.sides.push(Side {
                        what: "named here".to_owned(),
                        place,
                    });
                    findings.give_up(found, Exit::Unreadable)
                })
            }
        }
    }

    fn of_qemu(machine: &QemuSpec) -> Result<Self, Failure> {
        let qemu = Qemu::find(&machine.arch)?;
        let handed = qemu.host_tree(machine)?;
        let live = qemu.live_tree(machine, &handed)?;
        Ok(Self {
            host: Host::Qemu {
                qemu,
                machine: Box::new(machine.clone()),
            },
            handed,
            live,
        })
    }

    fn of_board(path: &PathBuf, spec: &HostSpec) -> Result<Self, Diagnostic> {
        let bytes = std::fs::read(path).map_err(|error| diagnostics::unreadable(path, &error))?;
        let handed = host_tree::with_memory(&bytes, &spec.memory)
            .and_then(|tree| host_tree::with_container(&tree, 0, 0))
            .map_err(|error| not_a_tree(path, &error))?;
        Ok(Self {
            host: Host::Board,
            live: handed.clone(),
            handed,
        })
    }
}

fn not_a_tree(path: &Path, error: &EditError) -> Diagnostic {
    let message = format!("{} can't be read as a device tree: {error}", path.display());
    Diagnostic::error("tree-invalid", message)
}

/// All that a plan is made from.
struct Planning {
    spec: HostSpec,
    loaded: Loaded,
    hypervisor: Option<Hypervisor>,
    trees: HostTrees,
}

impl Planning {
    fn plan(mut self, findings: &mut Findings) -> Result<System, Exit> {
        let live = std::mem::take(&mut self.trees.live);
        let tree = Tree::read(&live).map_err(|error| {
            let message = format!("the host's device tree can't be read: {error}");
            findings.give_up(Diagnostic::error("tree-invalid", message), Exit::Unreadable)
        })?;
        let places = self
            .places(&tree, live.len())
            .map_err(|found| findings.give_up(found, Exit::Conflicts))?;

        let system = self
            .loaded
            .system(places.container.start().raw(), &tree)
            .map_err(|error| findings.give_up(container_failed(&error), Exit::Conflicts))?;
        let console = system.request.hypervisor.console.as_ref();
        let console = console.map(|console| console.value.as_str());
        let origins = &mut self.loaded.manifest_mut().origins;
        let mut host = host::read(&tree, &places.facts(), console, origins);
        host.map.reserved.extend(system.reserved);
        let outcome = layout::plan(&host.map, &system.request);

        let manifest = self.loaded.manifest();
        findings.conflicts(&host.problems, &manifest.origins);
        findings.conflicts(&system.problems, &manifest.origins);
        let new: Vec<Conflict> = outcome
            .conflicts
            .iter()
            .filter(|found| !self.follows(found))
            .cloned()
            .collect();
        findings.conflicts(&new, &manifest.origins);

        let container = places.container;
        let host_tree = host_tree::with_container(
            &self.trees.handed,
            container.start().raw(),
            container.end().raw(),
        )
        .map_err(|error| {
            findings.give_up(not_a_tree(Path::new("host.dtb"), &error), Exit::Unreadable)
        })?;
        Ok(System {
            host: self.trees.host,
            hypervisor: self.hypervisor,
            places,
            host_tree,
            map: host.map,
            outcome,
            loaded: self.loaded,
        })
    }

    /// Whether a conflict is only what follows from a problem that has been shown: what couldn't
    /// be read is absent to the planner.
    fn follows(&self, conflict: &Conflict) -> bool {
        use layout::Code::{CpusZero, KernelMissing, MemoryZero, NameEmpty};
        let domains = || conflict.sides.iter().filter_map(|side| side.domain);
        let problems = &self.loaded.manifest().problems;
        let known = |domain| {
            problems
                .iter()
                .flat_map(|problem| &problem.sides)
                .any(|side| side.domain == Some(domain))
        };
        [CpusZero, KernelMissing, MemoryZero, NameEmpty].contains(&conflict.code)
            && domains().any(known)
    }

    fn places(&self, tree: &Tree<'_>, tree_bytes: usize) -> Result<Places, Diagnostic> {
        let image = self.hypervisor.as_ref().map(|hypervisor| hypervisor.image);
        let sizes = Sizes {
            hypervisor: image.map_or(ASSUMED_HYPERVISOR, |image| image.memory_size),
            text_offset: image.map_or(0, |image| image.text_offset),
            tree: tree_bytes as u64,
            container: self.loaded.container_bytes(),
        };
        // The first reading is for the memory alone: the boot loader's facts aren't known yet.
        let nowhere = MachineRange::saturating(MachineAddress::new(0), 0);
        let facts = BootFacts {
            hypervisor: nowhere,
            host_tree: nowhere,
            container: None,
        };
        let map = host::read(tree, &facts, None, &mut Origins::new()).map;
        let ram: Vec<MachineRange> = map.ram.iter().map(|bank| bank.range).collect();
        let Some(lowest) = ram.iter().copied().min_by_key(MachineRange::start) else {
            let message = "the host's device tree names no memory";
            return Err(Diagnostic::error(Code::HostInvalid.as_str(), message).with_help(
                "if the boot loader fills it in, say so: `memory = [{ start = .., size = .. }]` in [host]",
            ));
        };
        let places = match self.trees.host {
            Host::Qemu { .. } => boot::on_qemu(lowest, &sizes),
            Host::Board => {
                let reserved = map.reserved.iter().chain(&self.spec.reserved);
                let taken: Vec<MachineRange> = reserved.map(|reserved| reserved.range).collect();
                boot::on_board(&ram, &taken, &sizes)
            }
        };
        places.ok_or_else(|| {
            let message = "the host's memory has no room for hypervisor, device tree and container";
            Diagnostic::error("boot-no-room", message)
                .with_help("give the host more memory, or the domains smaller files")
        })
    }
}
