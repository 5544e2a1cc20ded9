//! From a manifest to everything that a command needs: the plan, and the files that make a
//! machine carry it out.
//!
//! The order is the boot loader's turned round. The container's length is known before its place,
//! its place before the plan, the plan before the digest that the container carries.

use std::path::{Path, PathBuf};

use layout::{Code, Conflict, HostMap, OnConflict, Outcome, SystemRequest};
use manifest::files;
use manifest::origin::Origins;
use manifest::plan_json::{digest, plan_json};
use manifest::toml::{self, DomainFiles, HostSource, HostSpec, LoadError, Loaded, Manifest};
use manifest::tree::host;

use crate::arch::{Arch, DescriptionForm};
use crate::args::ManifestArgs;
use crate::boot::Places;
use crate::diagnostics::{self, Diagnostic, Place, Severity, Side};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::host::{Asking, Host, Loader, Source};
use crate::hypervisor::{self, Footprint, Hypervisor};
use crate::module_files::ModuleFiles;
use crate::told::{self, Told};
use crate::view::Source as ViewSource;
use crate::xen_dts;
use crate::xen_tree::{Form, XenTree};

/// What a command does with the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is looked at; the hypervisor's image needn't be there.
    Look,
    /// It is booted.
    Boot,
    /// It is written down for Xen, whose place Terrane's image doesn't take.
    Xen,
}

/// What was asked for, and where.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    /// The request. Modules may be absent from it.
    pub request: &'a SystemRequest,
    /// The files of each domain, in the request's order, as far as they are named.
    pub files: &'a [DomainFiles],
    /// Where things were said.
    pub origins: &'a Origins,
}

/// A planned system.
pub struct System {
    /// The host's architecture.
    pub arch: &'static Arch,
    /// What boots it.
    pub loader: Loader,
    /// There if the purpose is to boot.
    hypervisor: Option<Hypervisor>,
    /// Where the boot loader puts things.
    pub places: Places,
    /// The host's tree, as the boot loader hands it over; a PC has none.
    pub host_tree: Option<Vec<u8>>,
    /// What the planner was told of the host.
    pub map: HostMap,
    /// What the planner was asked for: what the manifest says, with what its files hold.
    request: SystemRequest,
    /// The plan and its conflicts.
    pub outcome: Outcome,
    /// What it was planned from.
    basis: Basis,
    /// The files that a device tree's source includes.
    included: Vec<PathBuf>,
}

/// What a system was planned from.
enum Basis {
    /// A manifest's files, and the container that they make.
    Files(Box<Loaded>),
    /// A device tree, whose modules are where it says; with the files that are named.
    Tree(Origins, Vec<DomainFiles>),
}

impl System {
    /// Plans the system of a manifest, on a machine that the user's arguments for QEMU, `more`, add
    /// to. Everything that is wrong is among `findings`, also if a plan was made.
    ///
    /// # Errors
    /// There is too little to make a plan from: the exit status that says so.
    pub fn plan(
        args: &ManifestArgs,
        purpose: Purpose,
        more: &[String],
        findings: &mut Findings,
    ) -> Result<Self, Exit> {
        if let Some(tree) = tree_of(&args.manifest, findings)? {
            findings.speak_of_a_tree();
            let planned = Self::plan_tree(&tree, args, purpose, findings)?;
            let included = tree.included().to_vec();
            return Ok(Self {
                included,
                ..planned
            });
        }
        let read = toml::load(&args.manifest);
        let manifest = loaded(&args.manifest, read, findings)?;
        Self::plan_manifest(manifest, args, purpose, more, findings)
    }

    /// Plans the system of a manifest whose text was read already: a pipe has it once.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn plan_text(
        text: String,
        args: &ManifestArgs,
        findings: &mut Findings,
    ) -> Result<Self, Exit> {
        let path = &args.manifest;
        let folder = path.parent().unwrap_or(Path::new(""));
        let read = toml::parse(&path.display().to_string(), text, folder);
        let manifest = loaded(path, read, findings)?;
        Self::plan_manifest(manifest, args, Purpose::Look, &[], findings)
    }

    fn plan_manifest(
        manifest: Manifest,
        args: &ManifestArgs,
        purpose: Purpose,
        more: &[String],
        findings: &mut Findings,
    ) -> Result<Self, Exit> {
        if !args.modules.is_empty() {
            let message = "--module is for a device tree: a TOML manifest names its files itself";
            let found = Diagnostic::error("module-unknown", message);
            findings.add(found.with_help("leave --module out"));
        }
        let (spec, source) = match host_of(&manifest, findings) {
            Ok(found) => found,
            Err(exit) => {
                findings.conflicts(&problems_without_host(&manifest), &manifest.origins);
                return Err(exit);
            }
        };
        let arch = source.arch;
        if purpose == Purpose::Xen {
            xen_dts::check_host(arch.architecture, findings)?;
        }
        if !arch.boots && purpose == Purpose::Boot {
            return Err(findings.give_up(no_hypervisor(arch, Severity::Error), Exit::Conflicts));
        }
        let mut loaded = manifest
            .load_files(arch.architecture)
            .map_err(|error| findings.give_up(container_failed(&error), Exit::Conflicts))?;
        let manifest = loaded.manifest();
        findings.conflicts(&manifest.problems, &manifest.origins);
        let needed = purpose == Purpose::Boot || source.needs_hypervisor();
        let hypervisor = match purpose {
            Purpose::Xen => None,
            Purpose::Look | Purpose::Boot => find_hypervisor(args, arch, needed, findings)?,
        };
        let asking = Asking {
            hypervisor: hypervisor.as_ref(),
            more,
            progress: !args.json,
        };
        let host = Host::find(source, &spec, manifest, &asking, findings)?;
        let footprint = footprint(hypervisor.as_ref(), arch, purpose);
        let mut told = told::tell(&host, &spec, &footprint, &mut loaded, findings)?;
        if purpose == Purpose::Xen {
            xen_dts::prepare(&mut told.map, &mut told.request);
        }
        let machine = (arch, host.loader, hypervisor);
        Ok(Self::of_files(machine, told, loaded, findings))
    }

    /// The system of what the planner is told of a manifest and its files.
    fn of_files(
        (arch, loader, hypervisor): (&'static Arch, Loader, Option<Hypervisor>),
        mut told: Told,
        loaded: Loaded,
        findings: &mut Findings,
    ) -> Self {
        // As a system tree's reader does: what couldn't be read isn't in the tree that the manifest became.
        told.request.refuse_misread(&loaded.manifest().problems);
        let mut outcome = layout::plan(&told.map, &told.request);
        layout::diagnose(&told.map, &told.request, &mut outcome);
        let manifest = loaded.manifest();
        findings.conflicts(&told.problems, &manifest.origins);
        let new: Vec<Conflict> = outcome
            .conflicts
            .iter()
            .filter(|found| !follows(found, &manifest.problems))
            .cloned()
            .collect();
        findings.conflicts(&new, &manifest.origins);
        let homeless = host::without_room(&told.regions, &outcome.plan);
        findings.conflicts(&homeless, &manifest.origins);
        Self {
            arch,
            loader,
            hypervisor,
            places: told.places,
            host_tree: told.host_tree,
            map: told.map,
            request: told.request,
            outcome,
            basis: Basis::Files(Box::new(loaded)),
            included: Vec::new(),
        }
    }

    /// Plans the system of a device tree for Xen.
    fn plan_tree(
        tree: &XenTree,
        args: &ManifestArgs,
        purpose: Purpose,
        findings: &mut Findings,
    ) -> Result<Self, Exit> {
        // Xen has the binding on Arm; its RISC-V port starts no domain yet.
        let arch = Arch::of_description(DescriptionForm::Tree);
        let hypervisor = match purpose {
            Purpose::Xen => None,
            Purpose::Look => find_hypervisor(args, arch, false, findings)?,
            Purpose::Boot => find_hypervisor(args, arch, true, findings)?,
        };
        let footprint = footprint(hypervisor.as_ref(), arch, purpose);
        let files = ModuleFiles::find(&args.modules);
        if purpose == Purpose::Boot
            && let Some(manifest) = tree.manifest(&args.manifest, &files, findings)?
        {
            let machine = (arch, hypervisor);
            return Self::boot_tree(tree, manifest, machine, &footprint, findings);
        }
        let planned = tree.plan(&footprint, purpose, &files, findings)?;
        Ok(Self {
            arch,
            loader: Loader::Board,
            hypervisor,
            places: planned.places,
            host_tree: None,
            map: planned.map,
            request: planned.request,
            outcome: planned.outcome,
            basis: Basis::Tree(planned.origins, planned.files),
            included: Vec::new(),
        })
    }

    /// Plans the system of a device tree whose files are all named, as a board's: they go into a container.
    fn boot_tree(
        tree: &XenTree,
        manifest: Manifest,
        (arch, hypervisor): (&'static Arch, Option<Hypervisor>),
        footprint: &Footprint,
        findings: &mut Findings,
    ) -> Result<Self, Exit> {
        let spec = manifest.host.clone().ok_or(Exit::Conflicts)?;
        let HostSource::Description(path) = &spec.source else {
            return Err(Exit::Conflicts);
        };
        let mut loaded = manifest
            .load_files(arch.architecture)
            .map_err(|error| findings.give_up(container_failed(&error), Exit::Conflicts))?;
        let host = Host::of_board(&path.value, tree.blob().to_vec())
            .map_err(|(found, exit)| findings.give_up(found, exit))?;
        let mut told = told::tell(&host, &spec, footprint, &mut loaded, findings)?;
        // Partial trees were read where the tree has them, and are again in the container.
        let before = &loaded.manifest().problems;
        told.problems
            .retain(|found| !before.iter().any(|first| is_same(first, found)));
        tree.locate(&mut loaded.manifest_mut().origins);
        let manifest = loaded.manifest();
        findings.conflicts(&manifest.problems, &manifest.origins);
        let machine = (arch, host.loader, hypervisor);
        Ok(Self::of_files(machine, told, loaded, findings))
    }

    /// What was asked for.
    pub fn said(&self) -> Said<'_> {
        match &self.basis {
            Basis::Files(loaded) => {
                let manifest = loaded.manifest();
                Said {
                    request: &manifest.request,
                    files: &manifest.files,
                    origins: &manifest.origins,
                }
            }
            Basis::Tree(origins, files) => Said {
                request: &self.request,
                files,
                origins,
            },
        }
    }

    /// The hypervisor.
    ///
    /// # Errors
    /// It isn't there.
    pub fn hypervisor(&self) -> Result<&Hypervisor, Diagnostic> {
        let found = self.hypervisor.as_ref();
        found.ok_or_else(|| hypervisor::missing(self.arch))
    }

    /// The files that it was planned from; `args` named the first ones.
    pub fn inputs(&self, args: &ManifestArgs) -> Vec<PathBuf> {
        let mut inputs = vec![args.manifest.clone()];
        inputs.extend(args.modules.iter().map(|module| module.path().to_owned()));
        inputs.extend_from_slice(&self.included);
        inputs.extend(self.hypervisor.iter().map(|image| image.path.clone()));
        if let Loader::Qemu(machine) = &self.loader {
            inputs.extend(machine.files());
        }
        if let Basis::Files(loaded) = &self.basis
            && let Some(host) = &loaded.manifest().host
            && let HostSource::Description(path) = &host.source
        {
            inputs.push(path.value.clone());
        }
        for files in self.said().files {
            let named = [&files.kernel, &files.ramdisk, &files.partial_tree];
            inputs.extend(named.into_iter().flatten().map(|path| path.value.clone()));
        }
        inputs
    }

    /// The domains' names, in the manifest's order.
    pub fn domains(&self) -> Vec<String> {
        let domains = self.said().request.domains.iter();
        domains.map(|domain| domain.name.value.clone()).collect()
    }

    /// The domain that has the console: the hardware domain, else the first.
    pub fn focus(&self) -> usize {
        let domains = &self.said().request.domains;
        domains
            .iter()
            .position(|domain| domain.identity().is_hardware())
            .unwrap_or(0)
    }

    /// The system as people look at it.
    pub fn view_source(&self) -> ViewSource<'_> {
        ViewSource {
            plan: &self.outcome.plan,
            host: &self.map,
            request: &self.request,
            origins: self.said().origins,
        }
    }

    /// Whether the machine would start domains by this plan: with errors only if the manifest says so.
    pub fn goes_on(&self, findings: &Findings) -> bool {
        let on_conflict = self.outcome.plan.hypervisor.on_conflict;
        !findings.has_errors() || on_conflict == OnConflict::SkipDomain
    }

    /// The plan as one line of JSON.
    pub fn json(&self) -> String {
        plan_json(&self.outcome.plan, &self.map, &self.request)
    }

    /// The container, with the plan's digest.
    ///
    /// # Errors
    /// It can't be made.
    pub fn container(&self) -> Result<Vec<u8>, Diagnostic> {
        let digest = digest(&self.json());
        self.loaded()?
            .container(Some(&digest))
            .map_err(|error| container_failed(&error))
    }

    /// The container for a loader that puts it elsewhere than this plan has it.
    ///
    /// # Errors
    /// It can't be made.
    pub fn container_without_digest(&self) -> Result<Vec<u8>, Diagnostic> {
        self.loaded()?
            .container(None)
            .map_err(|error| container_failed(&error))
    }

    fn loaded(&self) -> Result<&Loaded, Diagnostic> {
        match &self.basis {
            Basis::Files(loaded) => Ok(loaded),
            Basis::Tree(..) => {
                let message = "a device tree says where the files are, not which they are";
                Err(Diagnostic::error("files-unknown", message))
            }
        }
    }
}

/// Whether two findings are one that was found at two places.
fn is_same(one: &Conflict, other: &Conflict) -> bool {
    let what = |found: &Conflict| found.sides.first().map(|side| side.what.clone());
    one.code == other.code && one.why == other.why && what(one) == what(other)
}

/// What stands where the hypervisor is loaded.
fn footprint(hypervisor: Option<&Hypervisor>, arch: &Arch, purpose: Purpose) -> Footprint {
    match (hypervisor, purpose) {
        (_, Purpose::Xen) => xen_dts::FOOTPRINT,
        (Some(image), _) => image.footprint,
        (None, _) => Footprint::assumed(arch.image),
    }
}

/// Whether the file at `path` is a device tree in place of a TOML file.
pub fn is_tree(path: &Path) -> bool {
    !matches!(form_of(path), Form::Other)
}

/// What the file at `path` is, as far as it can be read.
fn form_of(path: &Path) -> Form {
    match files::read(path, files::MAX_TEXT) {
        Ok(bytes) => Form::of(path, bytes),
        // The reader of TOML says what can't be read. A pipe can be read once, and is TOML.
        Err(_) => Form::Other,
    }
}

/// The device tree that is named in place of a TOML file, if it is one.
fn tree_of(path: &Path, findings: &mut Findings) -> Result<Option<XenTree>, Exit> {
    match form_of(path) {
        Form::Other => Ok(None),
        form => XenTree::read(path, form, findings).map(Some),
    }
}

fn host_of(manifest: &Manifest, findings: &mut Findings) -> Result<(HostSpec, Source), Exit> {
    let spec = manifest.host.clone().ok_or(Exit::Conflicts)?;
    let source = Source::of(&spec, manifest, findings)?;
    Ok((spec, source))
}

/// What is wrong with a manifest and the files of its domains, as far as it is so on any machine.
fn problems_without_host(manifest: &Manifest) -> Vec<Conflict> {
    let any = Arch::of_description(DescriptionForm::Tree).architecture;
    let loaded = manifest.clone().load_files(any);
    let loaded = loaded.as_ref().map(Loaded::manifest);
    let problems = loaded.unwrap_or(manifest).problems.iter();
    // Which kernels it starts, only the host can tell.
    let known = problems.filter(|problem| problem.code != Code::KernelFile);
    known.cloned().collect()
}

/// What was read, with the text for whoever shows its lines.
fn loaded(
    path: &Path,
    read: Result<Manifest, LoadError>,
    findings: &mut Findings,
) -> Result<Manifest, Exit> {
    let name = path.display().to_string();
    match read {
        Ok(manifest) => {
            findings.add_source(name, manifest.text.clone());
            Ok(manifest)
        }
        Err(LoadError::Read(error)) => {
            Err(findings.give_up(diagnostics::unreadable(path, &error), Exit::Unreadable))
        }
        Err(LoadError::Syntax { errors, text }) => {
            findings.add_source(name.clone(), text);
            for error in errors {
                findings.add(not_toml(&name, error));
            }
            Err(Exit::Unreadable)
        }
    }
}

fn not_toml(name: &str, error: toml::SyntaxError) -> Diagnostic {
    let side = |what: &str, span, start| Side {
        what: what.to_owned(),
        place: Some(Place::at(name.to_owned(), start, span)),
    };
    let mut sides = vec![side("here", error.span, error.start)];
    sides.extend(
        error
            .first
            .map(|(span, start)| side("and there", span, start)),
    );
    Diagnostic {
        sides,
        help: Some(error.help).filter(|help| !help.is_empty()),
        ..Diagnostic::error("not-toml", format!("this isn't TOML: {}", error.message))
    }
}

fn find_hypervisor(
    args: &ManifestArgs,
    arch: &Arch,
    needed: bool,
    findings: &mut Findings,
) -> Result<Option<Hypervisor>, Exit> {
    match Hypervisor::find(args.hypervisor.as_deref(), arch) {
        Ok(found) => Ok(Some(found)),
        Err(_) if !arch.boots && args.hypervisor.is_none() => {
            findings.add(no_hypervisor(arch, Severity::Warning));
            Ok(None)
        }
        Err(missing) if !needed && args.hypervisor.is_none() => {
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

/// Of an architecture whose systems can't be booted.
fn no_hypervisor(arch: &Arch, severity: Severity) -> Diagnostic {
    let message = format!(
        "there is no hypervisor for {} yet: its systems are planned only",
        arch.name
    );
    Diagnostic {
        severity,
        ..Diagnostic::error("not-built-yet", message)
            .with_help("`check`, `plan`, `explain` and `diff` work")
    }
}

/// A container that can't be made.
pub fn container_failed(error: &toml::BuildError) -> Diagnostic {
    Diagnostic::error("container", format!("the container can't be made: {error}"))
}

/// Whether a conflict is only what follows from a problem that has been shown: what couldn't be
/// read is absent to the planner.
pub fn follows(conflict: &Conflict, problems: &[Conflict]) -> bool {
    use layout::Code::{CpusZero, KernelMissing, MemoryZero, NameEmpty};
    let domains = || conflict.sides.iter().filter_map(|side| side.domain);
    let known = |domain| {
        problems
            .iter()
            .flat_map(|problem| &problem.sides)
            .any(|side| side.domain == Some(domain))
    };
    [CpusZero, KernelMissing, MemoryZero, NameEmpty].contains(&conflict.code)
        && domains().any(known)
}
