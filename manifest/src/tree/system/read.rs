//! Reads the system tree, all problems at once.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::ops::Range;

use layout::{
    Code, Conflict, DomainRequest, HypervisorRequest, Located, MachineAddress, MachineRange,
    Origin, Reserved, Severity, Side, SystemRequest,
};

use super::words::Word;
use super::{Contents, HostDescription, Module, VERSION, property};
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
    /// The modules, in the tree's order, with those that couldn't be used.
    pub modules: Vec<Module>,
    /// What is wrong. An error leaves out what it is about.
    pub problems: Vec<Conflict>,
}

/// Reads a system's tree. `host` is the machine's description. `contents` knows what is in the modules; the headers of
/// kernels whose node says all aren't asked for.
#[must_use]
pub fn read<'r, 'h: 'r>(
    tree: &Tree<'_>,
    modules: Modules,
    host: impl Into<HostDescription<'r, 'h>>,
    contents: &dyn Contents,
    origins: &mut Origins,
) -> System {
    let host = host.into();
    let mut reader = Reader {
        modules,
        host,
        contents,
        origins,
        found: Vec::new(),
        has_unread: false,
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
            // Of a container's manifest the command has said it.
            if request.domains.is_empty() && modules == Modules::Absolute {
                let why = "nothing would be started: there is neither a domain's node nor a kernel of dom0's";
                reader.without_domains(chosen, why);
            }
            reader.check_passthrough(&request.domains);
            reserved = reader.reserved(chosen);
        }
        None => {
            reader.without_domains(tree.root(), "there is no /chosen node");
        }
    }
    request.refuse_misread(&reader.problems);
    request.hypervisor.tree_bytes = host.bytes() + tree.total_bytes() as u64;
    System {
        request,
        reserved,
        digest,
        modules: reader.found,
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
    pub(super) contents: &'r dyn Contents,
    pub(super) origins: &'r mut Origins,
    /// The modules so far.
    pub(super) found: Vec<Module>,
    /// A domain has a partial tree whose bytes aren't here.
    pub(super) has_unread: bool,
    problems: Vec<Conflict>,
    /// The domain that is being read, by its index in the request.
    pub(super) current: Option<usize>,
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

    /// The position of a property's name: that of its node, `whole`, unless more is wanted or it isn't there.
    pub(super) fn at_name(&mut self, whole: Origin, node: Node<'_, '_>, name: &str) -> Origin {
        self.part(whole, node, name, 0..0)
    }

    /// The position of a property's value; see [`Self::at_name`].
    pub(super) fn at_value(&mut self, whole: Origin, node: Node<'_, '_>, name: &str) -> Origin {
        let length = node.value(name).map_or(0, <[u8]>::len);
        self.part(whole, node, name, 0..length)
    }

    /// The position of bytes of a property's value; see [`Self::at_name`].
    pub(super) fn part(
        &mut self,
        whole: Origin,
        node: Node<'_, '_>,
        name: &str,
        bytes: Range<usize>,
    ) -> Origin {
        if !self.origins.is_detailed() || !node.has(name) {
            return whole;
        }
        let mut path = node.path();
        path.push(':');
        path.push_str(name);
        if !bytes.is_empty() {
            // Writing to a string doesn't fail.
            let _ = write!(path, "[{}..{}]", bytes.start, bytes.end);
        }
        let manifest = match self.origins.get(whole) {
            Some(Position::Node { manifest, .. }) => *manifest,
            _ => None,
        };
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

    /// A problem with a property's value.
    pub(super) fn wrong(
        &mut self,
        node: Node<'_, '_>,
        name: &str,
        code: Code,
        what: &str,
        why: &str,
        help: &str,
    ) {
        let whole = self.origin(node);
        let origin = self.at_value(whole, node, name);
        self.problem_with_help(origin, code, what, why, help);
    }

    /// The same, and nothing is refused for it.
    pub(super) fn warning(
        &mut self,
        node: Node<'_, '_>,
        name: &str,
        code: Code,
        why: &str,
        help: &str,
    ) {
        self.wrong(node, name, code, name, why, help);
        self.soften();
    }

    /// Makes a warning of the last problem.
    pub(super) fn soften(&mut self) {
        if let Some(last) = self.problems.last_mut() {
            last.severity = Severity::Warning;
        }
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

    /// Adds what the last problem clashes with.
    pub(super) fn other_side(&mut self, what: &str, origin: Origin) {
        let domain = self.current;
        if let Some(last) = self.problems.last_mut() {
            last.sides.push(Side {
                what: what.to_owned(),
                origin,
                domain,
            });
        }
    }

    /// Does something in which problems are those of this domain.
    pub(super) fn for_domain(&mut self, index: usize, run: impl FnOnce(&mut Self)) {
        let before = self.current.replace(index);
        run(self);
        self.current = before;
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
            self.unknown_word(node, name, word, &words);
        }
        choice
    }

    pub(super) fn unknown_word(
        &mut self,
        node: Node<'_, '_>,
        name: &str,
        word: &str,
        words: &[&str],
    ) {
        let help = format!("one of \"{}\"", words.join("\", \""));
        let what = format!("{name} = \"{word}\"");
        let why = "it is none of the known words";
        self.wrong(node, name, Code::ValueInvalid, &what, why, &help);
    }

    /// A property of one cell; another length is a problem.
    pub(super) fn cell(&mut self, node: Node<'_, '_>, name: &str) -> Option<u32> {
        let cell = node.u32(name);
        if cell.is_none() && node.has(name) {
            let why = "it is not one 32-bit cell";
            let help = format!("{name} = <1>; with the number that you mean");
            self.wrong(node, name, Code::WrongType, name, why, &help);
        }
        cell
    }

    /// A property of two cells (one is taken too); another length is a problem.
    pub(super) fn number(&mut self, node: Node<'_, '_>, name: &str) -> Option<u64> {
        let number = node.u64(name);
        if number.is_none() && node.has(name) {
            let why = "it is not a 64-bit number of two cells";
            let help = format!("{name} = <0x0 0x1000>; with the number that you mean");
            self.wrong(node, name, Code::WrongType, name, why, &help);
        }
        number
    }

    /// Properties that nobody knows: a slip, or a newer version's, and then not to be guessed at. What stands under
    /// another vendor's prefix is left alone. In a node that others write into too, `is_shared`, so is what has none.
    pub(super) fn check_names(&mut self, node: Node<'_, '_>, known: &[&[&str]], is_shared: bool) {
        for property in node.properties() {
            let name = property.name;
            let vendor = name.split_once(',').map(|(vendor, _)| vendor);
            let ours = match vendor {
                Some(vendor) => matches!(vendor, "xen" | "terrane" | "#xen"),
                None => !is_shared,
            };
            if !ours || known.iter().any(|list| list.contains(&name)) {
                continue;
            }
            let whole = self.origin(node);
            let origin = self.at_name(whole, node, name);
            let why = "there is no such property here";
            let help = nearest(name, known);
            self.problem_with_help(origin, Code::UnknownKey, name, why, &help);
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
        self.check_names(
            chosen,
            &[&property::OF_CHOSEN, &property::XEN_OF_CHOSEN],
            true,
        );
        if chosen.has("xen,static-heap") {
            let why = "Terrane plans its own memory: this range is given to domains as any other";
            let help = "leave it out";
            self.warning(chosen, "xen,static-heap", Code::NotBuiltYet, why, help);
        }
        if let Some(version) = self
            .cell(chosen, property::VERSION)
            .filter(|&version| version != VERSION)
        {
            let what = format!("{} = {version}", property::VERSION);
            let why = "this hypervisor reads version 1";
            self.wrong(
                chosen,
                property::VERSION,
                Code::ValueInvalid,
                &what,
                why,
                "",
            );
        }
        let named = chosen.string(property::CONSOLE);
        let console = self.host.console(named);
        if let (Some(name), None) = (named, &console) {
            let what = format!("{} = \"{name}\"", property::CONSOLE);
            let why = "the host has no console by this path or alias";
            let help = "leave it out for the host's own console";
            self.wrong(
                chosen,
                property::CONSOLE,
                Code::DeviceUnknown,
                &what,
                why,
                help,
            );
        }
        let origin = if named.is_some() {
            let whole = self.origin(chosen);
            self.at_value(whole, chosen, property::CONSOLE)
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
        let classic = self.classic(chosen);
        let (shared_memory, event_channels) = self.links(chosen);
        let has_links = !shared_memory.is_empty() || !event_channels.is_empty();
        domains.extend(classic.map(|domain| DomainRequest {
            shared_memory,
            event_channels,
            ..domain
        }));
        if domains.is_empty() {
            if has_links {
                let what = "shared memory or an event channel";
                let why = "what stands right under /chosen is dom0's, and there is none";
                self.problem(chosen, Code::TreeInvalid, what, why);
            }
            // What was wrong there is no domain's.
            let sides = self.problems[before..].iter_mut().map(|one| &mut one.sides);
            sides.flatten().for_each(|side| side.domain = None);
            self.found
                .iter_mut()
                .for_each(|module| module.domain = None);
        }
        self.current = None;
        for node in chosen.children().filter(|node| is_domain(*node)) {
            self.current = Some(domains.len());
            domains.push(self.domain(chosen, node));
            self.current = None;
        }
        self.check_xenstore(chosen, &domains);
        domains
    }

    fn without_domains(&mut self, node: Node<'_, '_>, why: &str) {
        let origin = self.origin(node);
        let what = "a system tree without domains";
        let help = "write a node with compatible = \"xen,domain\"; in /chosen";
        self.problem_with_help(origin, Code::TreeInvalid, what, why, help);
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

    /// Where a module lies, or nothing if that passes the end of the address space.
    pub(super) fn module_range(&self, start: u64, size: u64) -> Option<MachineRange> {
        let base = match self.modules {
            Modules::Container(base) => base,
            Modules::Absolute => 0,
        };
        MachineRange::new(MachineAddress::new(base.checked_add(start)?), size)
    }
}

/// The known name that is nearest, as a person is told. A hypervisor doesn't look for it.
#[cfg(feature = "std")]
fn nearest(name: &str, known: &[&[&str]]) -> String {
    let all = known.iter().flat_map(|list| list.iter().copied());
    let best = all
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .min();
    match best.filter(|(distance, other)| *distance <= other.len().max(6) / 2) {
        Some((_, other)) => format!("the nearest property that is known is `{other}`"),
        None => String::from("take it out"),
    }
}

#[cfg(not(feature = "std"))]
fn nearest(_: &str, _: &[&[&str]]) -> String {
    String::new()
}
