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
    for path in &paths {
        let bytes = std::fs::read(path).unwrap();
        let tree = Tree::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let console = host::resolve_console(&tree, None);
        let host = host::read(&tree, &boot, console.as_deref(), &mut Origins::new());
        for problem in host
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
        {
            // Older Raspberry Pis and Apple's machines have controllers of their own; overlays have none.
            let what = problem.sides[0].what.as_str();
            assert_eq!(
                what,
                "no interrupt controller",
                "{}: {}",
                path.display(),
                problem.why
            );
        }
        if host.gic.is_some() {
            assert!(!host.map.cpus.is_empty(), "{}", path.display());
        }
    }
    println!("{} trees", paths.len());
}
