//! `terrane diff`: what counts as a difference, and what a side may be.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::TESTS;

mod common;

const DEVICE: &str = "/pl061@9030000";

fn manifest(hypervisor: &str, device: &str) -> String {
    format!(
        r#"
manifest-version = 1

[host]
description = "{TESTS}/hosts/virt-2g.dtb"

[hypervisor]
{hypervisor}

[[domain]]
name = "net"
direct-map = true
memory = "128MiB"
kernel = "{TESTS}/files/kernel"
devices = [{device}]
"#
    )
}

fn terrane(arguments: &[&str], folder: &Path, stdin: Stdio) -> Output {
    let mut command = common::terrane(arguments, folder);
    command.stdin(stdin).output().unwrap()
}

/// What is said of two files' differences, and that the status follows it.
fn difference(before: &str, after: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("a", before), ("b", after)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let arguments = ["diff", "a", "b", "--exit-code"];
    let output = terrane(&arguments, folder.path(), Stdio::null());
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(i32::from(!said.is_empty())),
        "{said}"
    );
    said
}

fn path() -> String {
    format!("\"{DEVICE}\"")
}

#[test]
fn a_mask_of_the_manifests_counts() {
    let masked = format!("{{ path = \"{DEVICE}\", dma-mask = 0xffff_ffff }}");
    let said = difference(&manifest("", &path()), &manifest("", &masked));
    assert_eq!(
        said,
        format!(
            "Machine\n  device {DEVICE} changed: `net`, no DMA -> `net`, DMA up to 0xffffffff\n"
        )
    );
}

#[test]
fn what_the_machine_prints_counts() {
    let said = difference(
        &manifest("", &path()),
        &manifest("print-plan = true", &path()),
    );
    assert_eq!(said, "Machine\n  print-plan changed: false -> true\n");
}

#[test]
fn another_machines_registers_and_interrupts_count() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), manifest("", &path())).unwrap();
    let arguments = ["plan", "a", "--format", "json"];
    let output = terrane(&arguments, folder.path(), Stdio::null());
    let plan = String::from_utf8(output.stdout).unwrap();
    let other = plan.replace("0x9030000\"", "0x9040000\"");
    let said = difference(
        &plan,
        &other.replace("\"interrupts\":[39]", "\"interrupts\":[41]"),
    );
    assert_eq!(
        said,
        format!(
            "Machine\n  registers of {DEVICE} changed: 0x09030000-0x09030fff -> \
             0x09040000-0x09040fff\n  interrupts of {DEVICE} changed: 39 -> 41\n"
        )
    );
}

#[test]
fn a_side_may_be_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), manifest("", &path())).unwrap();
    let mut cat = Command::new("cat")
        .arg(folder.path().join("a"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = Stdio::from(cat.stdout.take().unwrap());
    let arguments = ["diff", "/dev/stdin", "a", "--exit-code"];
    let output = terrane(&arguments, folder.path(), pipe);
    cat.wait().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(output.stdout.is_empty());
}

/// Sizes in a plan that somebody wrote need not be those of a machine.
#[test]
fn what_passes_2_to_the_64_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), manifest("", &path())).unwrap();
    let arguments = ["plan", "a", "--format", "json"];
    let plan = terrane(&arguments, folder.path(), Stdio::null()).stdout;
    let mut plan: serde_json::Value = serde_json::from_slice(&plan).unwrap();
    let bank = serde_json::json!({ "address": "0x1000", "machine": "0x1000", "size": u64::MAX });
    plan["domains"][0]["memory"] = serde_json::json!([bank, bank]);
    fs::write(folder.path().join("b"), plan.to_string()).unwrap();
    let output = terrane(&["diff", "a", "b"], folder.path(), Stdio::null());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let most = format!("memory changed: 128 MiB -> {} B", u64::MAX);
    assert!(said.contains(&most), "{said}");
}

/// Nor need a machine's tree be true.
#[test]
fn memory_that_passes_2_to_the_64_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = manifest("", "").replace("virt-2g.dtb", "overlapping.dtb");
    fs::write(folder.path().join("a"), text).unwrap();
    for format in ["text", "json", "svg", "html", "dts"] {
        let arguments = ["plan", "a", "--format", format];
        let output = terrane(&arguments, folder.path(), Stdio::null());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{format}: {said}");
    }
}
