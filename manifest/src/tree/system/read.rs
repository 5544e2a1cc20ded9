//! Reads the system tree, all problems at once.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use layout::{
    Capabilities, Code, Conflict, DomainRequest, HypervisorRequest, Located, MachineAddress,
    MachineRange, MemoryRequest, Origin, Reserved, Severity, Side, SystemRequest,
};

use super::words::Word;
use super::{HostDescription, VERSION, property};
use crate::image::HEADER_BYTES;
use crate::origin::{LineColumn, Origins, Position, WhichTree};
use crate::tree::blob::{Cells, Node, Tree};

/// What a module's `reg` counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    /// The start of the container, at this machine address.
    Container(u64),
    /// Zero: there is no container, the boot loader placed each module.
    Absolute,
}

/// What the system's tree says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// The request for the planner.
    pub request: SystemRequest,
    /// What the manifest keeps of the host's memory: to be added to the host map's.
    pub reserved: Vec<Reserved>,
    /// The digest of the plan that the workstation made, in hexadecimal; `None` if the tree was not made by one.
    pub digest: Option<String>,
    /// What is wrong. An error leaves out what it is about.
    pub problems: Vec<Conflict>,
}

/// Reads a system's tree. `host` is the machine's description. `header` gives the first bytes of a kernel's module,
/// `None` where nothing can be read; kernels whose node says all aren't asked for.
#[must_use]
pub fn read<'r, 'h: 'r>(
    tree: &Tree<'_>,
    modules: Modules,
    host: impl Into<HostDescription<'r, 'h>>,
    header: &dyn Fn(MachineRange) -> Option<[u8; HEADER_BYTES]>,
    origins: &mut Origins,
) -> System {
    let host = host.into();
    let mut reader = Reader {
        modules,
        host,
        header,
        origins,
        problems: Vec::new(),
        current: None,
    };
    let mut request = SystemRequest::default();
    let mut digest = None;
    let mut reserved = Vec::new();
    match tree.find("/chosen") {
        Some(chosen) => {
            reader.check_modules(chosen);
            request.hypervisor = reader.hypervisor(chosen);
            // Zeroes hold the place of a digest that nobody could make: the loader was to choose the places.
            let given = chosen.string(property::PLAN_DIGEST);
            digest = given
                .filter(|given| given.bytes().any(|digit| digit != b'0'))
                .map(ToOwned::to_owned);
            request.domains = reader.domains(chosen);
            reserved = reader.reserved(chosen);
        }
        None => {
            let path = "there is no /chosen node";
            reader.problem(
                tree.root(),
                Code::TreeInvalid,
                "a system tree without domains",
                path,
            );
        }
    }
    reader.refuse(&mut request.domains);
    request.hypervisor.tree_bytes = host.bytes() + tree.total_bytes() as u64;
    System {
        request,
        reserved,
        digest,
        problems: reader.problems,
    }
}

/// Whether a node stands for a domain.
fn is_domain(node: Node<'_, '_>) -> bool {
    node.is_compatible("xen,domain")
}

pub(super) struct Reader<'r, 'h> {
    pub(super) modules: Modules,
    pub(super) host: HostDescription<'r, 'h>,
    pub(super) header: &'r dyn Fn(MachineRange) -> Option<[u8; HEADER_BYTES]>,
    origins: &'r mut Origins,
    problems: Vec<Conflict>,
    /// The domain that is being read, by its index in the request.
    current: Option<usize>,
}

impl Reader<'_, '_> {
    /// Notes a node's position, with the manifest's line where it or a node above tells it.
    pub(super) fn origin(&mut self, node: Node<'_, '_>) -> Origin {
        let mut at = Some(node);
        let mut manifest = None;
        while let Some((here, None)) = at.map(|here| (here, manifest)) {
            manifest = here.value(property::MANIFEST_LINE).and_then(|value| {
                let mut cells = Cells::new(value);
                Some(LineColumn {
                    line: cells.next_u32()?,
                    column: cells.next_u32()?,
                })
            });
            at = here.parent();
        }
        let path = node.path();
        self.origins.add(Position::Node {
            tree: WhichTree::System,
            path,
            manifest,
        })
    }

    pub(super) fn problem(&mut self, node: Node<'_, '_>, code: Code, what: &str, why: &str) {
        let origin = self.origin(node);
        self.problem_with_help(origin, code, what, why, "");
    }

    pub(super) fn problem_with_help(
        &mut self,
        origin: Origin,
        code: Code,
        what: &str,
        why: &str,
        help: &str,
    ) {
        self.problems.push(Conflict {
            code,
            severity: Severity::Error,
            sides: alloc::vec![Side {
                what: what.to_owned(),
                origin,
                domain: self.current
            }],
            why: why.to_owned(),
            help: help.to_owned(),
        });
    }

    /// A choice by its word; a word that isn't known is a problem and gives the default.
    pub(super) fn choice<W: Word + Default>(&mut self, node: Node<'_, '_>, name: &str) -> W {
        self.optional_choice(node, name).unwrap_or_default()
    }

    pub(super) fn optional_choice<W: Word>(&mut self, node: Node<'_, '_>, name: &str) -> Option<W> {
        if !node.has(name) {
            return None;
        }
        let word = node.string(name).unwrap_or_default();
        let choice = W::from_word(word);
        if choice.is_none() {
            let words: Vec<&str> = W::WORDS.iter().map(|&(word, _)| word).collect();
            let origin = self.origin(node);
            let help = format!("one of \"{}\"", words.join("\", \""));
            let what = format!("{name} = \"{word}\"");
            self.problem_with_help(
                origin,
                Code::ValueInvalid,
                &what,
                "it is none of the known words",
                &help,
            );
        }
        choice
    }

    /// A property of one cell; another length is a problem.
    pub(super) fn cell(&mut self, node: Node<'_, '_>, name: &str) -> Option<u32> {
        let cell = node.u32(name);
        if cell.is_none() && node.has(name) {
            self.problem(node, Code::WrongType, name, "it is not one 32-bit cell");
        }
        cell
    }

    /// A property of two cells (one is taken too); another length is a problem.
    pub(super) fn number(&mut self, node: Node<'_, '_>, name: &str) -> Option<u64> {
        let number = node.u64(name);
        if number.is_none() && node.has(name) {
            self.problem(
                node,
                Code::WrongType,
                name,
                "it is not a 64-bit number of two cells",
            );
        }
        number
    }

    /// `terrane,*` properties that nobody knows: most likely a newer version's, and then not to be guessed at.
    pub(super) fn check_names(&mut self, node: Node<'_, '_>, known: &[&str]) {
        for property in node.properties() {
            if property.name.starts_with("terrane,") && !known.contains(&property.name) {
                self.problem(
                    node,
                    Code::UnknownKey,
                    property.name,
                    "this version has no such property",
                );
            }
        }
    }

    fn check_modules(&mut self, chosen: Node<'_, '_>) {
        let relative = chosen.has(property::MODULES_RELATIVE);
        if relative && self.modules == Modules::Absolute {
            let why = "its modules are counted from the start of a container, and there is none";
            self.problem(chosen, Code::TreeInvalid, property::MODULES_RELATIVE, why);
        }
        // A container whose tree doesn't say so has absolute addresses all the same.
        if !relative {
            self.modules = Modules::Absolute;
        }
    }

    fn hypervisor(&mut self, chosen: Node<'_, '_>) -> HypervisorRequest {
        self.check_names(chosen, &property::OF_CHOSEN);
        if let Some(version) = self
            .cell(chosen, property::VERSION)
            .filter(|&version| version != VERSION)
        {
            let what = format!("{} = {version}", property::VERSION);
            self.problem(
                chosen,
                Code::ValueInvalid,
                &what,
                "this hypervisor reads version 1",
            );
        }
        let named = chosen.string(property::CONSOLE);
        let console = self.host.console(named);
        if let (Some(name), None) = (named, &console) {
            let origin = self.origin(chosen);
            let what = format!("{} = \"{name}\"", property::CONSOLE);
            let why = "the host has no console by this path or alias";
            self.problem_with_help(
                origin,
                Code::DeviceUnknown,
                &what,
                why,
                "leave it out for the host's own console",
            );
        }
        let origin = if named.is_some() {
            self.origin(chosen)
        } else {
            Origin::NONE
        };
        HypervisorRequest {
            image_bytes: 0,
            tree_bytes: 0,
            on_conflict: self.choice(chosen, property::ON_CONFLICT),
            print_plan: chosen.has(property::PRINT_PLAN),
            scrub: self.choice(chosen, property::SCRUB),
            console: console.map(|path| Located::new(path, origin)),
        }
    }

    fn domains(&mut self, chosen: Node<'_, '_>) -> Vec<DomainRequest> {
        let mut domains = Vec::new();
        self.current = Some(0);
        let before = self.problems.len();
        domains.extend(self.classic(chosen));
        if domains.is_empty() {
            // What was wrong there is no domain's.
            let sides = self.problems[before..].iter_mut().map(|one| &mut one.sides);
            sides.flatten().for_each(|side| side.domain = None);
        }
        self.current = None;
        for node in chosen.children() {
            if is_domain(node) {
                self.current = Some(domains.len());
                domains.push(self.domain(chosen, node));
                self.current = None;
            } else if node.is_compatible("xen,evtchn") {
                self.problem(
                    node,
                    Code::NotBuiltYet,
                    "a static event channel",
                    "Terrane can't make them yet",
                );
            } else if node.is_compatible("xen,domain-shared-memory-v1") {
                self.problem(
                    node,
                    Code::NotBuiltYet,
                    "static shared memory",
                    "Terrane can't share memory yet",
                );
            }
        }
        domains
    }

    /// Has the planner refuse each domain in which an error was found.
    fn refuse(&self, domains: &mut [DomainRequest]) {
        for problem in self.problems.iter().filter(|problem| problem.is_error()) {
            for domain in problem.sides.iter().filter_map(|side| side.domain) {
                if let Some(domain) = domains.get_mut(domain) {
                    domain.misread.get_or_insert(problem.code);
                }
            }
        }
    }

    fn reserved(&mut self, chosen: Node<'_, '_>) -> Vec<Reserved> {
        let (address_cells, size_cells) = chosen.child_cells();
        let mut reserved = Vec::new();
        for node in chosen.children() {
            let Some(name) = node.string(property::RESERVED) else {
                continue;
            };
            let mut cells = Cells::new(node.value("reg").unwrap_or_default());
            let reg = cells
                .next_number(address_cells)
                .zip(cells.next_number(size_cells));
            let range =
                reg.and_then(|(start, size)| MachineRange::new(MachineAddress::new(start), size));
            match range {
                Some(range) => reserved.push(Reserved {
                    range,
                    name: name.to_owned(),
                    no_map: false,
                    origin: self.origin(node),
                }),
                None => {
                    let why = "its reg is not one address and size, or passes 2^64";
                    self.problem(
                        node,
                        Code::TreeInvalid,
                        "a reserved range without a place",
                        why,
                    );
                }
            }
        }
        reserved
    }

    /// The hardware domain whose modules stand right under `/chosen`, as Xen before 4.21 has it.
    fn classic(&mut self, chosen: Node<'_, '_>) -> Option<DomainRequest> {
        let found = self.modules_of(chosen);
        let kernel = found.kernel?;
        let xen = chosen.string("xen,xen-bootargs").unwrap_or_default();
        let option = |name: &str| {
            xen.split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .and_then(suffixed)
        };
        let origin = self.origin(chosen);
        let host_cpus = self.host.cpus();
        let cpus = option("dom0_max_vcpus").and_then(|cpus| u32::try_from(cpus).ok());
        let memory = option("dom0_mem").map_or(MemoryRequest::Rest, MemoryRequest::Size);
        let classic = chosen
            .string("xen,dom0-bootargs")
            .or_else(|| chosen.string("bootargs"));
        let command_line = found
            .command_line
            .or_else(|| classic.map(ToOwned::to_owned))
            .unwrap_or_default();
        let mut domain = DomainRequest {
            name: Located::new("dom0".to_owned(), origin),
            capabilities: Located::from(Capabilities::all()),
            cpus: Located::from(cpus.unwrap_or(u32::try_from(host_cpus).unwrap_or(u32::MAX))),
            memory: Located::from(memory),
            kernel: Some(kernel),
            ramdisk: found.ramdisk,
            command_line,
            ..DomainRequest::default()
        };
        domain.tree_bytes = self.host.budget(&domain);
        Some(domain)
    }

    /// Where a module lies, or nothing if that passes the end of the address space.
    pub(super) fn module_range(&self, start: u64, size: u64) -> Option<MachineRange> {
        let base = match self.modules {
            Modules::Container(base) => base,
            Modules::Absolute => 0,
        };
        MachineRange::new(MachineAddress::new(base.checked_add(start)?), size)
    }
}

/// A size as Xen's command line writes it: a number with an optional K, M or G.
fn suffixed(text: &str) -> Option<u64> {
    let text = text.split(',').next()?;
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
