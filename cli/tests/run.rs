//! `terrane run` over a stand-in for QEMU: whose line is whose, what is logged, how it ends.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

const MANIFEST: &str = r#"
manifest-version = 1

[host]
qemu = { machine = "virt,gic-version=3", arch = "aarch64", cpu = "cortex-a57", cpus = 2, memory = "2GiB" }

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "kernel"

[[domain]]
name = "net"
memory = "256MiB"
kernel = "kernel"
"#;

/// A folder with a manifest, and a machine that plays `script`.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("system.toml", MANIFEST);
        put("machine.sh", script);
        std::fs::copy(
            format!("{TESTS}/files/kernel"),
            folder.path().join("kernel"),
        )
        .unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrane"));
        command
            .arg("run")
            .arg(self.path("system.toml"))
            .args(arguments)
            .env(
                "TERRANE_HYPERVISOR",
                format!("{TESTS}/files/hypervisor.bin"),
            )
            .env("TERRANE_QEMU_AARCH64", format!("{TESTS}/fake-qemu.sh"))
            .env("FAKE_TREE", format!("{TESTS}/hosts/virt-2g.dtb"))
            .env("FAKE_MACHINE", self.path("machine.sh"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn status(script: &str, arguments: &[&str]) -> i32 {
    let output = Machine::new(script).run(arguments);
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("{}", text(&output.stderr)))
}

const OFF: &str = "echo '(terrane) control: powered off'; echo '(terrane) net: powered off'; \
                   echo '(terrane) all domains have stopped'\n";

#[test]
fn every_line_begins_with_its_domains_name() {
    let script = format!("printf '(terrane) hello\\r\\nLinux\\r\\n(net) up\\r\\n'; {OFF}");
    let output = Machine::new(&script).run(&[]);
    let shown = text(&output.stdout);
    assert!(
        shown.starts_with("(terrane) hello\n(control) Linux\n(net) up\n"),
        "{shown}"
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_exit_status_says_how_it_ended() {
    assert_eq!(status(OFF, &[]), 0);
    assert_eq!(status("echo '(terrane) net: crashed: data abort'", &[]), 4);
    assert_eq!(status("echo '(terrane) net: powered off'", &[]), 4);
    assert_eq!(status("exit 3", &[]), 5);
    assert_eq!(status("echo '(terrane) error[memory-zero]: no'", &[]), 1);
}

#[test]
fn the_time_is_up() {
    let begun = Instant::now();
    assert_eq!(status("exec sleep 60", &["--timeout", "0.3"]), 3);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_qemu_that_is_not_there_is_said_so() {
    let machine = Machine::new(OFF);
    let output = machine
        .command(&[])
        .env("TERRANE_QEMU_AARCH64", "/nowhere/qemu")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = text(&output.stderr);
    assert!(
        said.contains("qemu-missing") && said.contains("TERRANE_QEMU_AARCH64"),
        "{said}"
    );
}

#[test]
fn programs_are_told_by_an_object_how_it_ended() {
    let script = "echo '(terrane) net: crashed: data abort'";
    let output = Machine::new(script).run(&["--json"]);
    assert_eq!(output.status.code(), Some(4));
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["code"], "run-ended");
    assert_eq!(said["message"], "domain `net` crashed: data abort");
}

#[test]
fn logs_have_the_bytes_without_names() {
    let machine = Machine::new(&format!("printf '(net) up\\nLinux\\n'; {OFF}"));
    machine.run(&["--log-dir", "logs"]);
    let read = |name: &str| std::fs::read_to_string(machine.path("logs").join(name)).unwrap();
    assert_eq!(read("net.log"), "up\n");
    assert_eq!(read("control.log"), "Linux\n");
    assert!(read("terrane.log").ends_with("all domains have stopped\n"));
}

#[test]
fn plain_leaves_standard_output_to_the_domain_with_the_console() {
    let script =
        format!("printf '(terrane) hello\\r\\n'; read -r line; printf \"got $line\\n\"; {OFF}");
    let machine = Machine::new(&script);
    let mut child = machine
        .command(&["--plain"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"ls -l\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "got ls -l\n");
    assert!(text(&output.stderr).contains("(terrane) hello\n"));
}

#[test]
fn a_prompt_without_a_line_feed_is_seen_at_once() {
    let machine = Machine::new(&format!("printf '/ # '; read -r line; {OFF}"));
    let mut child = machine
        .command(&[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = [0; 14];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut seen)
        .unwrap();
    assert_eq!(&seen, b"(control) / # ");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn more_arguments_reach_qemu() {
    let machine = Machine::new(OFF);
    // The stand-in takes this for a request for its tree, and ends.
    let output = machine.run(&["--", "-machine", "virt,dumpdtb=asked.dtb"]);
    assert!(
        machine.path("asked.dtb").exists(),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_signal_ends_qemu_too() {
    let machine = Machine::new("echo $$ > pid; echo ready; exec sleep 60");
    let mut child = machine.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = [0; 15];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut seen)
        .unwrap();
    let qemu = std::fs::read_to_string(machine.path("pid")).unwrap();
    assert!(alive(qemu.trim()));
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(!alive(qemu.trim()));
}

fn alive(process: &str) -> bool {
    Path::new("/proc").join(process).exists()
}

fn terminate(child: &Child) {
    // The shell has a `kill` of its own; not every machine has the program.
    let ended = Command::new("sh")
        .args(["-c", &format!("kill {}", child.id())])
        .status()
        .unwrap();
    assert!(ended.success());
}
