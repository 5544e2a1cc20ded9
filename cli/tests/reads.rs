//! Files that have no end, never begin or are far too large: each is said, and none is waited for or read to its end.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::TESTS;

mod common;

const MANIFEST: &str = r#"
manifest-version = 1

[host]
description = "HOST"

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "KERNEL"
"#;

/// A folder with a manifest, and the files `fifo` and `huge`.
fn folder(host: &str, kernel: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = MANIFEST.replace("HOST", host).replace("KERNEL", kernel);
    fs::write(folder.path().join("m.toml"), text).unwrap();
    let made = Command::new("mkfifo")
        .arg(folder.path().join("fifo"))
        .status();
    assert!(made.unwrap().success());
    let huge = File::create(folder.path().join("huge")).unwrap();
    // It has holes only.
    huge.set_len(1 << 40).unwrap();
    folder
}

/// Runs the command, with little memory and not for long.
fn terrane(arguments: &[&str], folder: &Path) -> Output {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -v 2000000; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_terrane"));
    let mut child = common::within(shell, arguments, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// It ends with this status, and says once why it can't read the file.
fn refused(arguments: &[&str], folder: &Path, status: i32, file: &str) {
    let output = terrane(arguments, folder);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    let found = said.matches("error[file-unreadable]").count();
    assert!(found > 0 && said.contains(file), "{arguments:?}: {said}");
    assert!(
        said.contains("it isn't a file") || said.contains("it has more than"),
        "{said}"
    );
}

const UNENDING: [&str; 3] = ["/dev/zero", "fifo", "huge"];

#[test]
fn a_description_is_a_file_and_not_a_huge_one() {
    for file in UNENDING {
        let folder = folder(file, &format!("{TESTS}/files/kernel"));
        refused(&["check", "m.toml"], folder.path(), 2, file);
        refused(&["init", "--host", file], folder.path(), 2, file);
    }
}

#[test]
fn a_hypervisor_is_a_file_and_not_a_huge_one() {
    let folder = folder(
        &format!("{TESTS}/hosts/virt-2g.dtb"),
        &format!("{TESTS}/files/kernel"),
    );
    for file in UNENDING {
        let arguments = ["check", "m.toml", "--hypervisor", file];
        refused(&arguments, folder.path(), 2, file);
    }
}

#[test]
fn a_kernel_is_a_file_and_not_a_huge_one() {
    for file in UNENDING {
        let folder = folder(&format!("{TESTS}/hosts/virt-2g.dtb"), file);
        refused(&["check", "m.toml"], folder.path(), 1, file);
    }
}

#[test]
fn a_manifest_or_a_plan_has_an_end() {
    let folder = folder("none", "none");
    for file in ["/dev/zero", "huge"] {
        for arguments in [
            &["check", file][..],
            &["run", file],
            &["diff", file, file],
            &["import", "imagebuilder", file],
        ] {
            refused(arguments, folder.path(), 2, file);
        }
    }
}

/// A shell's `<(...)`.
#[test]
fn a_manifest_may_be_a_pipe() {
    let manifest = fs::read_to_string(format!("{TESTS}/good/two.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.toml");
    fs::write(&path, manifest.replace("../", &format!("{TESTS}/"))).unwrap();
    let mut cat = Command::new("cat")
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = common::terrane(&["check", "/dev/stdin"], folder.path())
        .stdin(cat.stdout.take().unwrap())
        .output()
        .unwrap();
    cat.wait().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn files_are_looked_for_also_where_the_host_cannot_be_read() {
    let folder = folder("no-host.dtb", "no-kernel");
    let text = fs::read_to_string(folder.path().join("m.toml")).unwrap();
    let more = "ramdisk = \"no-ramdisk\"\ndtb = \"no-tree\"\n";
    // And a file that may be a kernel on some machine.
    let second = format!(
        "\n[[domain]]\nname = \"net\"\nmemory = \"128MiB\"\nkernel = \"{TESTS}/files/kernel.elf\"\n"
    );
    fs::write(folder.path().join("m.toml"), text + more + &second).unwrap();
    let output = terrane(&["check", "m.toml"], folder.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for file in ["no-host.dtb", "no-kernel", "no-ramdisk", "no-tree"] {
        assert!(
            said.contains(&format!("can't read {file}: No such")),
            "{said}"
        );
    }
    assert!(said.contains("\n4 errors\n"), "{said}");
}
