//! `terrane run` over a stand-in for QEMU: whose line is whose, what is logged, how it ends.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{TESTS, terrane};

mod common;

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

    /// Writes a program.
    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Whether the process lives whose number is in this file. One that nobody waited for yet is dead.
    fn lives(&self, file: &str) -> bool {
        let number = std::fs::read_to_string(self.path(file)).unwrap_or_default();
        let stat = Path::new("/proc").join(number.trim()).join("stat");
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        !number.is_empty() && !stat.is_empty() && !stat.contains(") Z ")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let all = [&["run", "system.toml"], arguments].concat();
        let mut command = terrane(&all, self.folder.path());
        command.env("FAKE_MACHINE", self.path("machine.sh"));
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
fn a_cache_is_no_need() {
    let machine = Machine::new(OFF);
    let mut command = machine.command(&[]);
    // A file is where its folder would have to be.
    let output = command
        .env("XDG_CACHE_HOME", machine.path("kernel"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_cache_that_was_cut_is_made_anew() {
    let machine = Machine::new(OFF);
    machine.run(&[]);
    let kept = || std::fs::read_dir(machine.path("cache/terrane/hosts")).unwrap();
    assert_eq!(kept().count(), 2);
    for file in kept() {
        std::fs::write(file.unwrap().path(), "").unwrap();
    }
    let output = machine.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(kept().all(|file| file.unwrap().metadata().unwrap().len() > 0));
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

/// Writes more than any pipe holds, and how many pieces of 4 KiB.
const FLOOD: &str = "echo $$ > pid; while :; do printf '%4095d\\n' 0; echo >> count; done";

/// Starts it with an output that nobody reads, and waits until that is full.
fn stalled(machine: &Machine, arguments: &[&str]) -> Child {
    let mut command = machine.command(arguments);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let written = || std::fs::metadata(machine.path("count")).map_or(0, |count| count.len());
    wait_for("a full pipe", || {
        let before = written();
        std::thread::sleep(Duration::from_millis(200));
        before > 0 && written() == before
    });
    child
}

#[test]
fn qemu_waits_for_who_reads_and_the_time_is_up_all_the_same() {
    let machine = Machine::new(FLOOD);
    let mut child = stalled(&machine, &["--timeout", "2"]);
    let pieces = std::fs::metadata(machine.path("count")).unwrap().len();
    assert!(pieces < 200, "{pieces}");
    assert_eq!(status_of(&mut child), Some(3));
    assert!(!machine.lives("pid"));
}

#[test]
fn a_signal_ends_qemu_though_nobody_reads() {
    let machine = Machine::new(FLOOD);
    let mut child = stalled(&machine, &[]);
    terminate(&child);
    assert_eq!(status_of(&mut child), Some(3));
    assert!(!machine.lives("pid"));
}

#[test]
fn a_reader_that_goes_away_changes_no_verdict() {
    let script = format!("echo one; read -r line; echo two; echo three; {OFF}");
    let machine = Machine::new(&script);
    let mut command = machine.command(&["--log-dir", "logs"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = [0; 14];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut seen).unwrap();
    drop(stdout);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let log = std::fs::read_to_string(machine.path("logs/control.log")).unwrap();
    assert_eq!(log, "one\ntwo\nthree\n");
}

#[test]
fn what_qemu_started_ends_with_it() {
    let machine = Machine::new("sleep 60 & echo $! > pid; sleep 60; true");
    let mut child = machine.command(&[]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("child of QEMU's", || machine.lives("pid"));
    terminate(&child);
    assert_eq!(status_of(&mut child), Some(3));
    wait_for("end of all", || !machine.lives("pid"));
}

/// QEMU puts the tree 128 MiB into the whole RAM, and here that is the second node's.
#[test]
fn nodes_do_not_move_qemus_tree() {
    let machine = Machine::new(OFF);
    let over = "static-mem = [{ start = 0x4800_0000, size = \"64MiB\" }]";
    let manifest = MANIFEST.replace("memory = \"rest\"", over);
    std::fs::write(machine.path("system.toml"), manifest).unwrap();
    let mut command = machine.command(&[]);
    let output = command
        .env("FAKE_TREE", format!("{TESTS}/hosts/virt-numa-1g.dtb"))
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("overlap-domain-host-tree"), "{said}");
}

#[test]
fn a_signal_ends_a_qemu_that_is_asked_for_its_tree() {
    let machine = Machine::new(OFF);
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && exit\nsleep 60 & echo $! > pid\nwait\n";
    let program = machine.program("slow-qemu", script);
    let mut command = machine.command(&[]);
    let mut child = command
        .env("TERRANE_QEMU_AARCH64", program)
        .spawn()
        .unwrap();
    wait_for("QEMU", || machine.lives("pid"));
    terminate(&child);
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(15));
    wait_for("end of all", || !machine.lives("pid"));
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
    assert!(machine.lives("pid"));
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(!machine.lives("pid"));
}

fn terminate(child: &Child) {
    // The shell has a `kill` of its own; not every machine has the program.
    let ended = Command::new("sh")
        .args(["-c", &format!("kill {}", child.id())])
        .status()
        .unwrap();
    assert!(ended.success());
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The exit status of a child that nobody reads from.
fn status_of(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_for("end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}
