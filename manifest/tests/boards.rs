//! Debian's device trees of real boards, where a folder of them is given in `TERRANE_BOARD_TREES`: each is read as a
//! host and planned, and docs/boards.md tells how that ends. With `TERRANE_BOARDS_WRITE=1` the page is written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use layout::{
    Capabilities, Code, DomainRequest, KernelRequest, Located, MachineAddress, MachineRange,
    MemoryRequest, MfnRange, ModuleRequest, Origin, Outcome, Reservation, Severity, SystemRequest,
};
use terrane_manifest::origin::Origins;
use terrane_manifest::tree::blob::{Cells, MAX_BYTES, Node, Tree};
use terrane_manifest::tree::host::{self, BootFacts, Host};
use terrane_manifest::tree::{edit, guest};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Where everything that is loaded begins.
const ALIGNMENT: u64 = 2 * MIB;
/// What the hypervisor's image takes.
const HYPERVISOR: u64 = 2 * MIB;
/// What a kernel takes, as file and in memory.
const KERNEL: u64 = 32 * MIB;
const RAMDISK: u64 = 16 * MIB;
/// The memory of the domain beside the hardware domain.
const GUEST: u64 = 128 * MIB;
/// What a boot loader is taken to have found, where the tree leaves it to say.
const FILLED_IN: u64 = 2 * GIB;
/// A tree with less says too little for both domains, their files and the hypervisor.
const ENOUGH: u64 = 512 * MIB;

/// Why a board with enough memory may be refused. Anything else would be a mistake of the reader's or planner's.
const REASONS: [Code; 7] = [
    Code::CpusTooMany,
    Code::CpuShared,
    Code::HostInvalid,
    Code::MemoryTooLarge,
    Code::NoContiguousRoom,
    Code::NoRoomForHypervisor,
    Code::TreeInvalid,
];

/// A tree of a package.
struct File {
    /// The kernel's series ("6.12").
    series: String,
    /// The package's version, which says which trees there are.
    package: String,
    /// Maker and board ("rockchip/rk3588-rock-5b").
    board: String,
    path: PathBuf,
}

/// Whether a board counts in a row of the page.
type InRow = dyn Fn(&Verdict) -> bool;

/// How planning ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Verdict {
    /// Bytes of RAM that the tree describes.
    described: u64,
    /// Errors of reader and planner; those with memory filled in, where the tree describes none.
    errors: BTreeSet<&'static str>,
    /// Warnings of the reader's that keep the hypervisor from starting or from using all CPUs.
    warnings: BTreeSet<&'static str>,
}

fn files(folder: &Path, found: &mut Vec<File>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.is_symlink() {
                files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            found.extend(file(path));
        }
    }
}

fn file(path: PathBuf) -> Option<File> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let at = parts
        .iter()
        .position(|part| part.starts_with("linux-image-"))?;
    let package = parts[at].trim_start_matches("linux-image-").to_owned();
    let mut numbers = package.split('.');
    let series = format!("{}.{}", numbers.next()?, numbers.next()?);
    let board = parts[at + 1..]
        .join("/")
        .trim_end_matches(".dtb")
        .to_owned();
    Some(File {
        series,
        package,
        board,
        path,
    })
}

fn range(start: u64, size: u64) -> MachineRange {
    MachineRange::saturating(MachineAddress::new(start), size)
}

/// The lowest aligned range of `size` bytes in `ram` that touches nothing of `taken`, as a boot script would choose it.
fn first_gap(ram: &[MachineRange], taken: &[MachineRange], size: u64) -> Option<MachineRange> {
    let mut banks = ram.to_vec();
    banks.sort_by_key(MachineRange::start);
    for bank in banks {
        let mut start = bank.start().raw().next_multiple_of(ALIGNMENT);
        while let Some(end) = start
            .checked_add(size)
            .filter(|&end| end <= bank.end().raw())
        {
            let wanted = range(start, size);
            match taken.iter().find(|taken| taken.overlaps(&wanted)) {
                None => return Some(wanted),
                Some(taken) => start = taken.end().raw().next_multiple_of(ALIGNMENT).max(start + 1),
            }
            let _ = end;
        }
    }
    None
}

/// One after the other: hypervisor, tree, container.
fn boot(host: &Host, tree_bytes: u64) -> Option<BootFacts> {
    let ram: Vec<MachineRange> = host.map.ram.iter().map(|bank| bank.range).collect();
    let mut taken: Vec<MachineRange> = host.map.reserved.iter().map(|it| it.range).collect();
    let mut next = |size| {
        let found = first_gap(&ram, &taken, size)?;
        taken.push(found);
        Some(found)
    };
    Some(BootFacts {
        hypervisor: next(HYPERVISOR)?,
        host_tree: next(tree_bytes)?,
        container: Some(next(2 * KERNEL + 2 * RAMDISK + ALIGNMENT)?),
    })
}

fn request(tree: &Tree<'_>, console: Option<String>, container: MachineRange) -> SystemRequest {
    let first = container.start().raw();
    let module = |offset, size| range(first + offset, size);
    let domain = |name: &str, at: u64| DomainRequest {
        name: name.to_owned().into(),
        cpus: 1.into(),
        direct_map: Some(true.into()),
        kernel: Some(KernelRequest {
            module: module(at, KERNEL),
            memory_size: KERNEL,
            alignment: ALIGNMENT,
            text_offset: 0,
            bounds: None,
            entry: None,
            origin: Origin::NONE,
        }),
        ramdisk: Some(ModuleRequest {
            module: module(at + KERNEL, RAMDISK),
            origin: Origin::NONE,
        }),
        command_line: "console=hvc0".to_owned(),
        ..DomainRequest::default()
    };
    let mut hardware = domain("control", ALIGNMENT);
    hardware.capabilities = Capabilities::all().into();
    hardware.memory = Located::from(MemoryRequest::Rest);
    let mut small = domain("guest", ALIGNMENT + KERNEL + RAMDISK);
    small.memory = Located::from(MemoryRequest::Size(GUEST));
    for domain in [&mut hardware, &mut small] {
        domain.tree_bytes = guest::budget(tree, domain);
    }
    let mut request = SystemRequest {
        domains: vec![hardware, small],
        ..SystemRequest::default()
    };
    request.hypervisor.tree_bytes = 2 * tree.total_bytes() as u64;
    request.hypervisor.console = console.map(Located::from);
    request
}

/// Reads and plans a board as the command does.
fn look(path: &Path) -> Verdict {
    let bytes = std::fs::read(path).unwrap();
    let tree = Tree::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let host = read(&tree, &nowhere());
    let described = host.map.ram.iter().map(|bank| bank.range.size()).sum();
    if described > 0 {
        return plan(path, &tree, &host, described);
    }
    let codes: Vec<Code> = host
        .problems
        .iter()
        .filter(|problem| problem.is_error())
        .map(|problem| problem.code)
        .collect();
    assert_eq!(codes, [Code::MemoryNotDescribed], "{}", path.display());
    let filled = with_memory(&tree, &host);
    let tree = Tree::read(&filled).unwrap();
    plan(path, &tree, &read(&tree, &nowhere()), 0)
}

fn nowhere() -> BootFacts {
    BootFacts {
        hypervisor: range(0, 0),
        host_tree: range(0, 0),
        container: None,
    }
}

fn read(tree: &Tree<'_>, boot: &BootFacts) -> Host {
    let console = host::resolve_console(tree, None);
    host::read(tree, boot, console.as_deref(), &mut Origins::new())
}

/// The tree with memory where its node begins, or in the first place that is free of devices.
fn with_memory(tree: &Tree<'_>, host: &Host) -> Vec<u8> {
    let node = tree
        .nodes()
        .find(|node| node.string("device_type") == Some("memory"));
    let said = node.and_then(|node| node.value("reg")?.get(..8)?.try_into().ok());
    let said = said
        .map(u64::from_be_bytes)
        .filter(|start| start % ALIGNMENT == 0);
    let is_free = |start: &u64| {
        let wanted = range(*start, FILLED_IN);
        let devices = host.map.devices.iter().flat_map(|device| &device.ranges);
        let mut taken = devices.chain(&host.map.controller.ranges);
        !taken.any(|taken| taken.overlaps(&wanted))
    };
    let places = [0x4000_0000, 0x8000_0000, 0, 0x2_0000_0000, 0x80_0000_0000];
    let start = said.or_else(|| places.into_iter().find(is_free)).unwrap();
    let (address_cells, size_cells) = tree.root().child_cells();
    let cells = |number: u64, count: usize| number.to_be_bytes()[8 - count * 4..].to_vec();
    let reg = [cells(start, address_cells), cells(FILLED_IN, size_cells)].concat();
    let name = node.map_or_else(
        || format!("memory@{start:x}"),
        |node| node.name().to_owned(),
    );
    let properties: [(&str, &[u8]); 2] = [("device_type", b"memory\0"), ("reg", &reg)];
    edit::with_properties(tree, &name, &properties, MAX_BYTES).unwrap()
}

fn plan(path: &Path, tree: &Tree<'_>, first: &Host, described: u64) -> Verdict {
    let mut verdict = Verdict {
        described,
        errors: BTreeSet::new(),
        warnings: BTreeSet::new(),
    };
    let Some(boot) = boot(first, tree.total_bytes() as u64) else {
        verdict.errors.insert("boot-no-room");
        return verdict;
    };
    let host = read(tree, &boot);
    let console = host.console.as_ref().map(|console| console.path.clone());
    let request = request(tree, console, boot.container.unwrap());
    let outcome = layout::plan(&host.map, &request);
    for problem in host.problems.iter().chain(&outcome.conflicts) {
        let code = problem.code.as_str();
        match problem.severity {
            Severity::Error => verdict.errors.insert(code),
            Severity::Warning => verdict.warnings.insert(code),
        };
    }
    if verdict.errors.is_empty() {
        check(path, tree, &host, &outcome);
    }
    verdict
}

/// What must hold of every plan: RAM is RAM, nobody's twice, nothing else lies in it, and the trees can be written.
fn check(path: &Path, tree: &Tree<'_>, host: &Host, outcome: &Outcome) {
    let board = path.display();
    let plan = &outcome.plan;
    assert_eq!(plan.domains.len(), 2, "{board}");
    let mut owned: Vec<MfnRange> = plan
        .domains
        .iter()
        .flat_map(|it| &it.banks)
        .map(|bank| bank.machine())
        .collect();
    let banks = plan.domains.iter().flat_map(|it| &it.banks);
    let pools = banks
        .filter(|bank| bank.reserved)
        .map(layout::Bank::machine);
    let pools: Vec<MfnRange> = pools.collect();
    owned.push(plan.hypervisor.region);
    owned.sort_by_key(MfnRange::start);
    assert!(
        owned.windows(2).all(|two| two[0].end() <= two[1].start()),
        "{board}"
    );
    let devices = host.map.devices.iter().flat_map(|device| &device.ranges);
    let taken = devices.chain(&host.map.controller.ranges);
    let taken: Vec<&MachineRange> = taken
        .chain(host.map.reserved.iter().map(|it| &it.range))
        .collect();
    for frames in &owned {
        let bytes = frames.bytes();
        let covered: u64 = host
            .map
            .ram
            .iter()
            .filter_map(|bank| bank.range.intersection(&bytes))
            .map(|part| part.size())
            .sum();
        assert!(covered >= bytes.size(), "{board}: {bytes} isn't RAM");
        let within = taken.iter().find(|taken| taken.overlaps(&bytes));
        let pooled = pools.contains(frames);
        assert!(within.is_none() || pooled, "{board}: {bytes} in {within:?}");
    }
    for pool in pools {
        let bytes = pool.bytes();
        let mut all = host.map.reserved.iter();
        let within = |it: &layout::Reserved| it.range.frames_touched().overlaps(&pool);
        let kinds = |kind| move |it: &layout::Reserved| within(it) && it.kind == kind;
        assert!(
            all.clone().any(kinds(Reservation::Kernel)) && !all.any(kinds(Reservation::NoMap)),
            "{board}: {bytes}"
        );
    }
    for domain in &plan.domains {
        let built = guest::build(tree, host, plan, domain, None)
            .unwrap_or_else(|error| panic!("{board}: {error:?}"));
        let written = Tree::read(&built.bytes).unwrap();
        let ram: u64 = domain
            .guest_ram()
            .iter()
            .map(|ram| ram.bytes().size())
            .sum();
        let told = memory_bytes(&written);
        assert_eq!(told, ram, "{board}: {}", domain.name);
    }
}

fn memory_bytes(tree: &Tree<'_>) -> u64 {
    let (address, size) = tree.root().child_cells();
    let is_memory = |node: &Node<'_, '_>| node.string("device_type") == Some("memory");
    let mut bytes = 0;
    for node in tree.nodes().filter(is_memory) {
        let mut cells = Cells::new(node.value("reg").unwrap());
        while cells.skip(address).is_some() {
            bytes += cells.next_number(size).unwrap();
        }
    }
    bytes
}

/// Looks at all of them, on all CPUs.
fn look_at_all(files: &[File]) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts: Mutex<BTreeMap<usize, Verdict>> = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(at) else { break };
                    let verdict = look(&file.path);
                    verdicts.lock().unwrap().insert(at, verdict);
                }
            });
        }
    });
    verdicts.into_inner().unwrap().into_values().collect()
}

#[test]
fn every_board_is_read_and_planned() {
    let Some(folder) = std::env::var_os("TERRANE_BOARD_TREES") else {
        return;
    };
    let mut files_found = Vec::new();
    files(Path::new(&folder), &mut files_found);
    files_found.sort_by(|one, other| (&one.series, &one.board).cmp(&(&other.series, &other.board)));
    let verdicts = look_at_all(&files_found);
    assert_eq!(verdicts.len(), files_found.len());

    compare(&page(&files_found, &verdicts));
    let known = |code: &&str| REASONS.iter().any(|reason| reason.as_str() == *code);
    let strange: Vec<(&str, &Verdict)> = files_found
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| verdict.described == 0 || verdict.described >= ENOUGH)
        .filter(|(_, verdict)| !verdict.errors.iter().all(&known))
        .map(|(file, verdict)| (file.board.as_str(), verdict))
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
    let share = |of: &dyn Fn(&Verdict) -> bool| {
        let (mut all, mut planned) = (0, 0);
        for (file, verdict) in files_found.iter().zip(&verdicts).filter(|(_, it)| of(it)) {
            all += 1;
            planned += usize::from(verdict.errors.is_empty());
            if !verdict.errors.is_empty() {
                println!("{} {}: {:?}", file.series, file.board, verdict.errors);
            }
        }
        println!("{planned} of {all}");
        planned * 100 >= all * 98
    };
    assert!(share(&|verdict| verdict.described >= ENOUGH));
    assert!(share(&|verdict| verdict.described == 0));
}

/// The page must be what these trees give, unless it was written for other packages: Debian replaces them.
fn compare(page: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/boards.md");
    if std::env::var_os("TERRANE_BOARDS_WRITE").is_some() {
        std::fs::write(path, page).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap();
    let packages = |page: &str| {
        page.lines()
            .find(|line| line.starts_with("| | "))
            .map(str::to_owned)
    };
    if packages(&written) == packages(page) {
        assert!(
            written == page,
            "docs/boards.md is out of date: TERRANE_BOARDS_WRITE=1 writes it"
        );
    } else {
        println!(
            "docs/boards.md was written for other packages than {:?}",
            packages(page)
        );
    }
}

fn page(files: &[File], verdicts: &[Verdict]) -> String {
    let mut page = String::from(HEAD);
    let mut series: Vec<(&str, &str)> = files
        .iter()
        .map(|file| (file.series.as_str(), file.package.as_str()))
        .collect();
    series.dedup();
    page.push_str("\n| | ");
    page.push_str(&series.iter().map(|it| it.1).collect::<Vec<_>>().join(" | "));
    page.push_str(" |\n| --- |");
    page.push_str(&" ---: |".repeat(series.len()));
    page.push('\n');
    let rows: [(&str, &InRow); 8] = [
        ("trees", &|_| true),
        ("describe 512 MiB of RAM or more", &|it| {
            it.described >= ENOUGH
        }),
        ("of these planned", &|it| {
            it.described >= ENOUGH && it.errors.is_empty()
        }),
        ("describe less", &|it| {
            it.described > 0 && it.described < ENOUGH
        }),
        ("of these planned", &|it| {
            it.described > 0 && it.described < ENOUGH && it.errors.is_empty()
        }),
        ("describe none (`memory-not-described`)", &|it| {
            it.described == 0
        }),
        ("of these planned with memory filled in", &|it| {
            it.described == 0 && it.errors.is_empty()
        }),
        (
            "planned, with an interrupt controller that the hypervisor doesn't drive",
            &|it| it.errors.is_empty() && it.warnings.contains(Code::ControllerNotDriven.as_str()),
        ),
    ];
    for (what, is_in) in rows {
        let _ = write!(page, "| {what} |");
        for (name, _) in &series {
            let of_series = files
                .iter()
                .zip(verdicts)
                .filter(|(file, _)| file.series == *name);
            let count = of_series.filter(|(_, verdict)| is_in(verdict)).count();
            let _ = write!(page, " {count} |");
        }
        page.push('\n');
    }
    page.push_str(REFUSED);
    let all = || files.iter().zip(verdicts);
    let refused = all().filter(|(_, verdict)| !verdict.errors.is_empty());
    let mut boards: BTreeMap<(&str, String, u64), Vec<&str>> = BTreeMap::new();
    for (file, verdict) in refused {
        let codes: Vec<String> = verdict
            .errors
            .iter()
            .map(|code| format!("`{code}`"))
            .collect();
        let key = (file.board.as_str(), codes.join(", "), verdict.described);
        boards.entry(key).or_default().push(&file.series);
    }
    page.push_str("\n| board | code | RAM in the tree | kernels |\n| --- | --- | --- | --- |\n");
    for ((board, codes, described), series) in &boards {
        let ram = match described {
            0 => "none; 2 GiB filled in".to_owned(),
            bytes => format!("{} MiB", bytes / MIB),
        };
        let _ = writeln!(
            page,
            "| {board} | {codes} | {ram} | {} |",
            series.join(", ")
        );
    }
    for (title, is_in) in LISTS {
        let _ = write!(page, "\n## {title}\n");
        list(
            &mut page,
            all()
                .filter(|(_, verdict)| is_in(verdict))
                .map(|(file, _)| file),
        );
    }
    page
}

type IsIn = fn(&Verdict) -> bool;
const LISTS: [(&str, IsIn); 2] = [
    (
        "Boards whose interrupt controller isn't driven (`controller-not-driven`)",
        |verdict| {
            verdict
                .warnings
                .contains(Code::ControllerNotDriven.as_str())
        },
    ),
    (
        "Boards whose boot loader fills memory in (`memory-not-described`)",
        |verdict| verdict.described == 0,
    ),
];

/// Boards by maker, each once.
fn list<'f>(page: &mut String, files: impl Iterator<Item = &'f File>) {
    let mut makers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in files {
        let (maker, board) = file.board.split_once('/').unwrap_or(("", &file.board));
        makers.entry(maker).or_default().insert(board);
    }
    for (maker, boards) in makers {
        let _ = write!(page, "\n**{maker}** ({}):", boards.len());
        let mut column = usize::MAX;
        let last = boards.len() - 1;
        for (at, board) in boards.into_iter().enumerate() {
            let comma = if at == last { "." } else { "," };
            if column.saturating_add(board.len() + 2) > 120 {
                page.push('\n');
                column = 0;
            } else {
                page.push(' ');
                column += 1;
            }
            let _ = write!(page, "{board}{comma}");
            column += board.len() + 1;
        }
        page.push('\n');
    }
}

const HEAD: &str = "\
# Boards

Written by the test `manifest/tests/boards.rs`, which reads and plans every device tree of Debian's `linux-image-*-arm64`
packages (`cargo xtask test` gives it their folder; `TERRANE_BOARDS_WRITE=1` writes this page anew). None of these boards
was booted: the page says what the planner answers.

The system is the same for each: a direct-mapped hardware domain that takes the rest of the memory, and a direct-mapped guest
of 128 MiB, one CPU each, each with a kernel of 32 MiB and a ramdisk of 16 MiB. The boot loader's part is made up: hypervisor,
tree and modules lie in the first RAM that is free. Where a tree describes no memory, 2 GiB are filled in where the tree's
memory node begins, or else in the first place that is free of devices.
";

const REFUSED: &str = "
## Refused

Codes are explained in [conflicts.md](conflicts.md); `boot-no-room` comes before any plan.
";
