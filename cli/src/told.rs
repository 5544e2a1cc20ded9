//! What the planner is told: the host with what the boot loader put into it, and the request as the
//! hypervisor will read it.

use std::path::Path;

use layout::{
    Code, Conflict, HostMap, MachineAddress, MachineRange, RamBank, Severity, Side, SystemRequest,
};
use manifest::origin::Origins;
use manifest::pc::{self, MemoryKind};
use manifest::toml::{HostSource, HostSpec, Loaded};
use manifest::tree::blob::Tree;
use manifest::tree::host;

use crate::boot::{self, Places, Sizes};
use crate::diagnostics::{self, Diagnostic};
use crate::exit::Exit;
use crate::findings::Findings;
use crate::host::{Description, Host, Loader, not_a_tree};
use crate::host_tree;
use crate::hypervisor::Footprint;
use crate::system::container_failed;

/// What the planner is told.
pub struct Told {
    /// Where the boot loader puts things.
    pub places: Places,
    /// The tree that it hands over, if it does.
    pub host_tree: Option<Vec<u8>>,
    /// The host.
    pub map: HostMap,
    /// Regions that the hardware domain's kernel places in its own RAM.
    pub regions: Vec<host::Dynamic>,
    /// What is asked for.
    pub request: SystemRequest,
    /// What was wrong in either.
    pub problems: Vec<Conflict>,
}

/// Puts it together. The container of `loaded` is arranged for its place.
///
/// # Errors
/// There is no such host, or no room on it: the exit status that says so.
pub fn tell(
    host: &Host,
    spec: &HostSpec,
    footprint: &Footprint,
    loaded: &mut Loaded,
    findings: &mut Findings,
) -> Result<Told, Exit> {
    match &host.description {
        Description::Tree { handed, live } => {
            let tree = Tree::read(live).map_err(|error| {
                let message = format!("the host's device tree can't be read: {error}");
                findings.give_up(Diagnostic::error("tree-invalid", message), Exit::Unreadable)
            })?;
            let board = Board {
                tree,
                tree_bytes: live.len() as u64,
                loader: &host.loader,
                spec,
            };
            board.tell(handed, footprint, loaded, findings)
        }
        Description::Pc(described) => {
            let mut told = tell_pc(described, footprint, loaded, findings)?;
            told.problems.extend(firmwares_own(&spec.memory));
            Ok(told)
        }
    }
}

/// A machine that is handed a device tree.
struct Board<'a> {
    tree: Tree<'a>,
    tree_bytes: u64,
    loader: &'a Loader,
    spec: &'a HostSpec,
}

impl Board<'_> {
    fn tell(
        &self,
        handed: &[u8],
        footprint: &Footprint,
        loaded: &mut Loaded,
        findings: &mut Findings,
    ) -> Result<Told, Exit> {
        let places = self
            .places(footprint, loaded.container_bytes())
            .map_err(|mut found| {
                let origin = match &self.spec.source {
                    HostSource::Description(path) => path.origin,
                    HostSource::Qemu(machine) => machine.origin,
                };
                found.sides.push(diagnostics::Side {
                    what: "the host, described here".to_owned(),
                    place: findings.place(origin, &loaded.manifest().origins),
                });
                findings.give_up(found, Exit::Conflicts)
            })?;
        let container = places.container;
        let system = loaded
            .system(container.start().raw(), &self.tree)
            .map_err(|error| findings.give_up(container_failed(&error), Exit::Conflicts))?;
        let console = system.request.hypervisor.console.as_ref();
        let console = console.map(|console| console.value.as_str());
        let facts = facts(&places);
        let origins = &mut loaded.manifest_mut().origins;
        let mut host = host::read(&self.tree, &facts, console, origins);
        host.map.reserved.extend(system.reserved);
        let (start, end) = (container.start().raw(), container.end().raw());
        let host_tree = host_tree::with_container(handed, start, end).map_err(|error| {
            findings.give_up(not_a_tree(Path::new("host.dtb"), &error), Exit::Unreadable)
        })?;
        let mut problems = host.problems;
        problems.extend(system.problems);
        Ok(Told {
            places,
            host_tree: Some(host_tree),
            map: host.map,
            regions: host.dynamic,
            request: system.request,
            problems,
        })
    }

    fn places(&self, footprint: &Footprint, container_bytes: u64) -> Result<Places, Diagnostic> {
        let host::Host { map, problems, .. } =
            host_tree::first_reading(&self.tree, &mut Origins::new());
        let ram: Vec<MachineRange> = map.ram.iter().map(|bank| bank.range).collect();
        let Some(lowest) = boot::lowest(&ram) else {
            let code = Code::MemoryNotDescribed;
            let told = problems.into_iter().find(|problem| problem.code == code);
            let (why, help) = told.map_or_else(Default::default, |told| (told.why, told.help));
            let message = format!("the host's device tree describes no memory: {why}");
            return Err(Diagnostic::error(code.as_str(), message).with_help(help));
        };
        let (hypervisor, text_offset) = match footprint {
            Footprint::Movable { bytes, text_offset } => (*bytes, *text_offset),
            Footprint::Linked(range) => (range.size(), 0),
        };
        let sizes = Sizes {
            hypervisor,
            text_offset,
            tree: self.tree_bytes,
            container: container_bytes,
        };
        let places = match self.loader {
            Loader::Qemu(_) => boot::on_qemu(lowest, &sizes),
            Loader::Board => {
                let reserved = map.reserved.iter().chain(&self.spec.reserved);
                let taken: Vec<MachineRange> = reserved.map(|reserved| reserved.range).collect();
                boot::on_board(&ram, &taken, &sizes)
            }
        };
        places.ok_or_else(|| no_room("hypervisor, device tree and container"))
    }
}

fn facts(places: &Places) -> host::BootFacts {
    host::BootFacts {
        hypervisor: places.hypervisor,
        host_tree: places
            .tree
            .unwrap_or(MachineRange::saturating(MachineAddress::new(0), 0)),
        container: Some(places.container),
    }
}

fn tell_pc(
    described: &pc::Description,
    footprint: &Footprint,
    loaded: &mut Loaded,
    findings: &mut Findings,
) -> Result<Told, Exit> {
    let places = pc_places(described, footprint, loaded)
        .map_err(|found| findings.give_up(found, Exit::Conflicts))?;
    let system = loaded
        .system(places.container.start().raw(), described)
        .map_err(|error| findings.give_up(container_failed(&error), Exit::Conflicts))?;
    let facts = pc::BootFacts {
        hypervisor: places.hypervisor,
        container: Some(places.container),
    };
    let origins = &mut loaded.manifest_mut().origins;
    let mut host = pc::host_map(described, &facts, origins);
    host.map.reserved.extend(system.reserved);
    let mut problems = host.problems;
    problems.extend(system.problems);
    Ok(Told {
        places,
        host_tree: None,
        map: host.map,
        regions: Vec::new(),
        request: system.request,
        problems,
    })
}

fn pc_places(
    described: &pc::Description,
    footprint: &Footprint,
    loaded: &mut Loaded,
) -> Result<Places, Diagnostic> {
    let room = || no_room("hypervisor and container");
    let Footprint::Linked(image) = *footprint else {
        return Err(room());
    };
    let base = boot::multiboot_container(image).ok_or_else(room)?;
    loaded
        .arrange_at(base.raw())
        .map_err(|error| container_failed(&error))?;
    let ram: Vec<MachineRange> = described
        .memory
        .iter()
        .filter(|entry| entry.kind == MemoryKind::Ram)
        .map(|entry| entry.range)
        .collect();
    boot::by_multiboot(&ram, image, loaded.container_bytes()).ok_or_else(room)
}

/// Why nothing adds memory to a PC: nobody would hand it to the hypervisor.
pub const FIRMWARES_OWN: &str = "a PC's memory is what its firmware says";

/// Nothing hands memory that a manifest adds to a PC's hypervisor.
fn firmwares_own(memory: &[RamBank]) -> impl Iterator<Item = Conflict> {
    memory.iter().map(|bank| Conflict {
        code: Code::ValueInvalid,
        severity: Severity::Error,
        sides: vec![Side {
            what: "here".to_owned(),
            origin: bank.origin,
            domain: None,
        }],
        why: FIRMWARES_OWN.to_owned(),
        help: "leave `memory` out of [host]".to_owned(),
    })
}

/// The finding that the host is too small for what boots it.
pub fn no_room(what: &str) -> Diagnostic {
    let message = format!("the host's memory has no room for {what}");
    Diagnostic::error("boot-no-room", message)
        .with_help("give the host more memory, or the domains smaller files")
}
