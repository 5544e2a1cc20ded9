//! A PC as host, over a stand-in for QEMU: who describes it, what is kept, what is started, what is
//! written.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{TESTS, terrane};

mod common;

const QEMU: &str = r#"
manifest-version = 1

[host]
qemu = { machine = "q35", arch = "x86_64", cpu = "EPYC", cpus = 2, memory = "2GiB" }

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "kernel.elf"
"#;

/// The same with a description in a file.
fn board() -> String {
    let qemu = QEMU.lines().find(|line| line.starts_with("qemu")).unwrap();
    QEMU.replace(qemu, "description = \"host.json\"")
}

/// A folder with a manifest, its kernels, and a place for what the stand-in notes.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(manifest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("system.toml"), manifest).unwrap();
        for (file, name) in [
            ("files/kernel.elf", "kernel.elf"),
            ("files/kernel-fixed.elf", "kernel-fixed.elf"),
            ("hosts/q35-2g.json", "host.json"),
        ] {
            std::fs::copy(format!("{TESTS}/{file}"), folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = terrane(arguments, self.0.path());
        command
            .env(
                "TERRANE_HYPERVISOR",
                format!("{TESTS}/files/hypervisor.elf"),
            )
            .env("FAKE_CAPTURES", self.path("captures"));
        command
    }

    fn terrane(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// How often the stand-in was asked for a description.
    fn captures(&self) -> usize {
        let noted = std::fs::read_to_string(self.path("captures"));
        noted.map_or(0, |text| text.lines().count())
    }

    /// Runs the system on a machine that plays `script`.
    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        std::fs::write(self.path("machine.sh"), script).unwrap();
        self.command(&["run", "system.toml"])
            .args(arguments)
            .env("FAKE_MACHINE", self.path("machine.sh"))
            .output()
            .unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const OFF: &str =
    "echo '(terrane) control: powered off'; echo '(terrane) all domains have stopped'";

#[test]
fn the_hypervisor_describes_the_machine_once() {
    let folder = Folder::new(QEMU);
    for _ in 0..2 {
        let output = folder.terrane(&["check", "system.toml"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    assert_eq!(folder.captures(), 1);
    // Another machine is asked for anew, by the manifest or by the command line.
    std::fs::write(folder.path("system.toml"), QEMU.replace("2GiB", "1GiB")).unwrap();
    folder.terrane(&["check", "system.toml"]);
    assert_eq!(folder.captures(), 2);
    folder.run(OFF, &["--", "-device", "edu"]);
    assert_eq!(folder.captures(), 3);
}

/// Two builds may have one version.
#[test]
fn another_qemu_is_asked_anew() {
    let folder = Folder::new(QEMU);
    let other = folder.path("qemu");
    let check = || {
        let mut command = folder.command(&["check", "system.toml"]);
        command
            .env("TERRANE_QEMU_X86_64", &other)
            .env("FAKE_CAPTURE_MACHINE", format!("{TESTS}/fake-capture.sh"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    };
    folder.terrane(&["check", "system.toml"]);
    std::fs::copy(format!("{TESTS}/fake-qemu.sh"), &other).unwrap();
    check();
    check();
    assert_eq!(folder.captures(), 2);
    let mut script = std::fs::read_to_string(&other).unwrap();
    script.push_str("# newer\n");
    std::fs::write(&other, script).unwrap();
    check();
    assert_eq!(folder.captures(), 3);
}

#[test]
fn what_the_command_line_spoils_is_its_own_fault() {
    let folder = Folder::new(QEMU);
    let picky = folder.path("qemu");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *-bogus*) echo 'bogus: invalid option' >&2; exit 1;; esac\n\
         exec {TESTS}/fake-qemu.sh \"$@\"\n"
    );
    std::fs::write(&picky, script).unwrap();
    std::fs::set_permissions(&picky, Permissions::from_mode(0o755)).unwrap();
    let mut command = folder.command(&["run", "system.toml", "--", "-bogus"]);
    let output = command.env("TERRANE_QEMU_X86_64", &picky).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("bogus: invalid option"), "{said}");
    assert!(said.contains("behind `--`"), "{said}");
    assert!(!said.contains("system.toml"), "{said}");
    // Without them it isn't taken either: then it is the manifest.
    let other = QEMU.replace("\"q35\"", "\"q35,-bogus\"");
    assert_ne!(other, QEMU);
    std::fs::write(folder.path("system.toml"), other).unwrap();
    let mut command = folder.command(&["run", "system.toml", "--", "-bogus"]);
    let output = command.env("TERRANE_QEMU_X86_64", &picky).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn a_capture_is_announced_to_people_only() {
    let folder = Folder::new(QEMU);
    let output = folder.terrane(&["plan", "--json", "system.toml"]);
    assert_eq!(text(&output.stderr), "");
    let folder = Folder::new(QEMU);
    let output = folder.terrane(&["plan", "system.toml"]);
    assert!(text(&output.stderr).contains("Capturing the machine's description"));
}

#[test]
fn a_hypervisor_that_cannot_run_there_says_why() {
    let folder = Folder::new(QEMU);
    let refusing = folder.path("refuse.sh");
    std::fs::write(&refusing, "echo '(terrane) error[no-svm]: no SVM'").unwrap();
    let output = folder
        .command(&["check", "system.toml"])
        .env("FAKE_CAPTURE_MACHINE", refusing)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("capture-failed"), "{said}");
    assert!(said.contains("error[no-svm]: no SVM"), "{said}");
    assert!(said.contains("system.toml:5:"), "{said}");
    assert!(!folder.path("cache/terrane/hosts").exists());
}

#[test]
fn a_signal_ends_a_capture() {
    let folder = Folder::new(QEMU);
    let waiting = folder.path("wait.sh");
    let script = format!(
        "sleep 60 & echo $! > {}; sleep 60; true",
        folder.path("pid").display()
    );
    std::fs::write(&waiting, script).unwrap();
    let mut command = folder.command(&["check", "system.toml"]);
    let mut child = command
        .env("FAKE_CAPTURE_MACHINE", waiting)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    // One that nobody waited for yet is dead.
    let lives = || {
        let number = std::fs::read_to_string(folder.path("pid")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", number.trim()));
        !number.is_empty() && stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    let wait_until = |living: bool| {
        while lives() != living {
            assert!(begun.elapsed() < Duration::from_secs(30), "{living}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_until(true);
    let kill = format!("kill {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    wait_until(false);
}

#[test]
fn a_machine_that_qemu_refuses_is_the_manifests_fault() {
    let folder = Folder::new(QEMU);
    let refusing = folder.path("refuse.sh");
    std::fs::write(&refusing, "echo 'no such CPU' >&2; exit 1").unwrap();
    let output = folder
        .command(&["check", "system.toml"])
        .env("FAKE_CAPTURE_MACHINE", refusing)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("qemu-refuses") && said.contains("no such CPU"),
        "{said}"
    );
}

#[test]
fn without_the_hypervisor_a_pc_is_unknown() {
    let folder = Folder::new(QEMU);
    let output = folder
        .command(&["check", "system.toml"])
        .env("TERRANE_HYPERVISOR", folder.path("nowhere"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn it_is_started_with_the_container_as_module() {
    let folder = Folder::new(QEMU);
    let script = format!("[ -s \"$container\" ] && echo has a container; {OFF}");
    let output = folder.run(&script, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("(control) has a container\n"), "{shown}");
}

#[test]
fn a_folder_that_qemu_takes_no_module_from_is_said_so() {
    let folder = Folder::new(QEMU);
    let spaced = folder.path("two words");
    std::fs::create_dir(&spaced).unwrap();
    let output = folder
        .command(&["run", "system.toml"])
        .env("TMPDIR", spaced)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("TMPDIR"), "{said}");
}

#[test]
fn the_kernel_lies_where_it_runs() {
    let fixed = QEMU.replace("kernel.elf", "kernel-fixed.elf");
    let folder = Folder::new(&fixed);
    let output = folder.terrane(&["plan", "--format", "json", "system.toml"]);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kernel = &plan["domains"][0]["kernel"];
    assert_eq!(kernel["address"], "0x1000000", "{}", text(&output.stderr));
    assert_eq!(kernel["in-place"], true);
}

#[test]
fn a_description_in_a_file_is_a_host_too() {
    let folder = Folder::new(&board());
    let output = folder.terrane(&["plan", "system.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("Machine: x86_64, 2 CPUs"));
    assert_eq!(folder.captures(), 0);

    std::fs::write(folder.path("host.json"), "{\"version\": 7}").unwrap();
    let output = folder.terrane(&["plan", "system.toml"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("host.json") && said.contains("system.toml:5:"),
        "{said}"
    );
}

#[test]
fn an_image_is_for_grub_and_qemu() {
    let folder = Folder::new(QEMU);
    let output = folder.terrane(&["image", "system.toml", "-o", "image"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let image = folder.path("image");
    let menu = std::fs::read_to_string(image.join("grub.cfg")).unwrap();
    assert!(
        menu.contains("multiboot /boot/terrane/hypervisor.elf"),
        "{menu}"
    );
    assert!(!image.join("host.dtb").exists() && !image.join("boot.scr").exists());
    let machine = folder.path("machine.sh");
    std::fs::write(&machine, "ls $kernel $container").unwrap();
    let output = Command::new(image.join("qemu.sh"))
        .env("FAKE_MACHINE", machine)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("container.bin"));
}

/// A `grub-mkrescue` that lists what it would put on the ISO.
fn fake_mkrescue(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).unwrap();
    let program = programs.join("grub-mkrescue");
    std::fs::write(
        &program,
        "#!/bin/sh\ncd \"$3\" && find . -type f | sort > \"$2\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    programs
}

#[test]
fn an_iso_is_made_by_grub() {
    let folder = Folder::new(QEMU);
    let programs = fake_mkrescue(folder.0.path());
    let image = folder.path("image");
    let arguments = [
        "image",
        "system.toml",
        "--iso",
        "-o",
        image.to_str().unwrap(),
    ];
    let output = folder
        .command(&arguments)
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let files = std::fs::read_to_string(image.join("terrane.iso")).unwrap();
    let expected =
        "./boot/grub/grub.cfg\n./boot/terrane/container.bin\n./boot/terrane/hypervisor.elf\n";
    assert_eq!(files, expected);
}

#[test]
fn an_iso_without_grub_is_a_clear_error() {
    let folder = Folder::new(&board());
    let nothing = folder.path("nothing");
    let output = folder
        .command(&["image", "system.toml", "--iso", "-o", "image"])
        .env("PATH", nothing)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("iso-failed") && said.contains("xorriso"),
        "{said}"
    );
}
