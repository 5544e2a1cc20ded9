//! Debian's device trees of real boards, where a folder of them is given in `TERRANE_BOARD_TREES`.

use std::path::{Path, PathBuf};

use layout::{MachineAddress, MachineRange, Severity};
use terrane_manifest::origin::Origins;
use terrane_manifest::tree::blob::Tree;
use terrane_manifest::tree::host::{self, BootFacts};

fn trees(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            trees(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            found.push(path);
        }
    }
}

#[test]
fn every_board_is_read() {
    let Some(folder) = std::env::var_os("TERRANE_BOARD_TREES") else {
        return;
    };
    let mut paths = Vec::new();
    trees(Path::new(&folder), &mut paths);
    let range = |start, size| MachineRange::new(MachineAddress::new(start), size).unwrap();
    let boot = BootFacts {
        hypervisor: range(0, 0),
        host_tree: range(0, 0),
        container: None,
    };
    let mut bad = Vec::new();
    for path in &paths {
        let bytes = std::fs::read(path).unwrap();
        let tree = Tree::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let console = host::resolve_console(&tree, None);
        let host = host::read(&tree, &boot, console.as_deref(), &mut Origins::new());
        let errors = host
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error);
        for problem in errors.filter(|_| !tree.root().has("fragment")) {
            bad.push(format!(
                "{}: {}: {}",
                path.display(),
                problem.sides[0].what,
                problem.why
            ));
        }
        for problem in host
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Warning)
        {
            if !problem.sides[0].what.starts_with("a reserved region") {
                println!(
                    "{}: {}: {}",
                    path.display(),
                    problem.sides[0].what,
                    problem.why
                );
            }
        }
    }
    println!("{} trees, {} with errors", paths.len(), bad.len());
    bad.iter().for_each(|line| println!("{line}"));
}
