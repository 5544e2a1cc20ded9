//! A domain in which the reader of the system tree finds an error isn't started, whatever the planner thinks of the rest.

use std::cell::RefCell;

use layout::{
    Capabilities, Code, DomainRequest, HypervisorRequest, KernelRequest, MachineAddress,
    MachineRange, MemoryRequest, OnConflict, OnStrayAccess, Origin, Policies, SystemRequest,
};
use terrane_manifest::origin::Origins;
use terrane_manifest::report::Report;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::host::{self, BootFacts};
use terrane_manifest::tree::system::{self, Modules};

const HOST: &[u8] = include_bytes!("trees/virt-gicv3.dtb");
const CONTAINER: u64 = 0x5000_0000;

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::new(MachineAddress::new(start), size).unwrap()
}

fn domain(name: &str, memory: MemoryRequest, offset: u64) -> DomainRequest {
    DomainRequest {
        name: String::from(name).into(),
        cpus: 1.into(),
        memory: memory.into(),
        kernel: Some(KernelRequest {
            module: range(offset, 0x10_0000),
            memory_size: 0x20_0000,
            alignment: 2 << 20,
            text_offset: 0,
            bounds: None,
            entry: None,
            origin: Origin::NONE,
        }),
        ..DomainRequest::default()
    }
}

/// The tree of a healthy hardware domain and of one whose `on-stray-access` is a word that nobody knows.
fn misspelt(on_conflict: OnConflict) -> Vec<u8> {
    let request = SystemRequest {
        hypervisor: HypervisorRequest {
            on_conflict,
            ..HypervisorRequest::default()
        },
        domains: vec![
            DomainRequest {
                capabilities: Capabilities::all().into(),
                ..domain("control", MemoryRequest::Rest, 0x20_0000)
            },
            DomainRequest {
                policies: Policies {
                    on_stray_access: OnStrayAccess::Ignore,
                    ..Policies::default()
                },
                ..domain("wrong", MemoryRequest::Size(64 << 20), 0x40_0000)
            },
        ],
    };
    let mut tree = system::write(&request, &[], 0, None, &Origins::new()).unwrap();
    let word = b"ignore\0";
    let at = tree.windows(word.len()).position(|bytes| bytes == word);
    tree[at.unwrap()] = b'x';
    tree
}

fn header(_: MachineRange) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    bytes[16..24].copy_from_slice(&0x20_0000u64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    Some(bytes)
}

/// What a hypervisor does with the tree at boot: the names of the domains that are planned, the lines that it says, and
/// whether it starts them.
fn boot(tree: &[u8]) -> (Vec<String>, Vec<String>, bool) {
    let (host_tree, tree) = (Tree::read(HOST).unwrap(), Tree::read(tree).unwrap());
    let mut origins = Origins::new();
    let modules = Modules::Container(CONTAINER);
    let system = system::read(&tree, modules, &host_tree, &header, &mut origins);
    let facts = BootFacts {
        hypervisor: range(0x4020_0000, 0x8_0000),
        host_tree: range(0x4800_0000, HOST.len() as u64),
        container: Some(range(CONTAINER, 0x60_0000)),
    };
    let host = host::read(&host_tree, &facts, None, &mut origins);
    let outcome = layout::plan(&host.map, &system.request);
    assert_eq!(outcome.conflicts, []);
    let lines = RefCell::new(Vec::new());
    let report = Report {
        image: facts.hypervisor,
        host: &host.map,
        host_problems: &host.problems,
        system: &system,
        outcome: &outcome,
        origins: &origins,
    };
    let starts = report.print(&|line| lines.borrow_mut().push(line.to_string()));
    let planned = outcome.plan.domains.iter();
    let planned = planned.map(|domain| domain.name.clone()).collect();
    (planned, lines.into_inner(), starts)
}

#[test]
fn it_is_refused_and_the_others_start() {
    let (planned, lines, starts) = boot(&misspelt(OnConflict::SkipDomain));
    assert_eq!(planned, ["control"]);
    assert!(starts);
    let code = Code::ValueInvalid.as_str();
    let said = |line: String| assert!(lines.contains(&line), "{line} isn't in {lines:#?}");
    said(format!("error[{code}]: it is none of the known words"));
    said(format!("wrong: refused: {code}"));
}

#[test]
fn nothing_starts_where_a_conflict_halts() {
    let (_, lines, starts) = boot(&misspelt(OnConflict::Halt));
    assert!(!starts);
    let last = lines.last().map(String::as_str);
    assert_eq!(last, Some("on-conflict is \"halt\": no domain is started"));
}
