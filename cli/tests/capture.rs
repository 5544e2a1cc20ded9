//! `terrane host capture`, of machines made of files, and what it writes as a host.

use std::path::{Path, PathBuf};
use std::process::Output;

use common::TESTS;

mod common;

fn terrane(folder: &Path, arguments: &[&str]) -> Output {
    common::terrane(arguments, folder).output().unwrap()
}

fn good(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

/// The machine's description, and the starter manifest for it, with its files in place.
fn captured(machine: &str, kernel: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("{TESTS}/machines/{machine}");
    let file = |name: &str| PathBuf::from(TESTS).join("files").join(name);
    std::fs::copy(file(kernel), folder.path().join("vmlinuz")).unwrap();
    std::fs::copy(file("ramdisk"), folder.path().join("initrd.gz")).unwrap();
    let path = folder.path();
    good(&terrane(
        path,
        &["host", "capture", "--root", &root, "-o", "host.json"],
    ));
    good(&terrane(
        path,
        &["init", "--host", "host.json", "-o", "system.toml"],
    ));
    folder
}

#[test]
fn a_board_is_planned_by_its_capture_as_by_its_tree() {
    let folder = captured("board", "kernel");
    let hypervisor = format!("{TESTS}/files/hypervisor.bin");
    let plan = |manifest: &str| {
        let arguments = [
            "plan",
            "--format",
            "json",
            "--hypervisor",
            &hypervisor,
            manifest,
        ];
        let output = terrane(folder.path(), &arguments);
        good(&output);
        output.stdout
    };
    let by_capture = plan("system.toml");
    let tree = format!("{TESTS}/hosts/virt-2g.dtb");
    std::fs::copy(tree, folder.path().join("board.dtb")).unwrap();
    let text = std::fs::read_to_string(folder.path().join("system.toml")).unwrap();
    let text = text.replace("host.json", "board.dtb");
    std::fs::write(folder.path().join("by-tree.toml"), text).unwrap();
    assert_eq!(by_capture, plan("by-tree.toml"));
}

#[test]
fn a_pc_is_planned_by_its_capture() {
    let folder = captured("pc", "kernel.elf");
    let hypervisor = format!("{TESTS}/files/hypervisor.elf");
    let arguments = ["check", "system.toml", "--hypervisor", &hypervisor];
    good(&terrane(folder.path(), &arguments));
}

/// Where the tests run as root on a PC or an arm64 machine, that machine is one more.
#[test]
fn this_machine_is_captured_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let output = terrane(folder.path(), &["host", "capture", "-o", "host.json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => good(&terrane(folder.path(), &["init", "--host", "host.json"])),
        Some(2) => assert!(said.contains("error[host-un"), "{said}"),
        other => panic!("{other:?}: {said}"),
    }
}
