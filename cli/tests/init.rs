//! `terrane init`: what it writes has no conflict once its files are there, with the example guest and without.

use std::path::{Path, PathBuf};
use std::process::Output;

use common::TESTS;

mod common;

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with kernels and ramdisks of the form that the hypervisor's file is for.
    fn new(kernel: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (file, name) in [
            (kernel, "vmlinuz"),
            (kernel, "guest-vmlinuz"),
            ("ramdisk", "initrd.gz"),
        ] {
            std::fs::copy(format!("{TESTS}/files/{file}"), folder.path(name)).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn terrane(&self, arguments: &[&str]) -> Output {
        let hypervisor = match std::fs::read(self.path("vmlinuz")) {
            Ok(bytes) if bytes.starts_with(b"\x7fELF") => "hypervisor.elf",
            _ => "hypervisor.bin",
        };
        common::terrane(arguments, self.0.path())
            .env("TERRANE_HYPERVISOR", format!("{TESTS}/files/{hypervisor}"))
            .output()
            .unwrap()
    }

    /// Writes a manifest by these arguments; it has no conflict, as it is and with the guest.
    fn works(&self, arguments: &[&str]) -> String {
        let mut all = vec!["init", "-o", "system.toml", "--force"];
        all.extend(arguments);
        good(&self.terrane(&all));
        let text = std::fs::read_to_string(self.path("system.toml")).unwrap();
        good(&self.terrane(&["check", "system.toml"]));
        std::fs::write(self.path("two.toml"), with_guest(&text)).unwrap();
        good(&self.terrane(&["check", "two.toml"]));
        text
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn good(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
}

/// The text with the `# ` off the guest's lines.
fn with_guest(text: &str) -> String {
    let (before, guest) = text.split_once("# [[domain]]\n").unwrap();
    let guest: Vec<&str> = guest
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap())
        .collect();
    format!("{before}[[domain]]\n{}\n", guest.join("\n"))
}

#[test]
fn a_qemu_machine_of_each_architecture() {
    let text = Folder::new("kernel").works(&["--qemu", "aarch64"]);
    assert!(text.contains("arch = \"aarch64\""), "{text}");
    let text = Folder::new("kernel.elf").works(&["--qemu", "x86_64"]);
    assert!(text.contains("machine = \"q35\""), "{text}");
}

#[test]
fn a_board_and_a_pc_from_their_files() {
    let arm = Folder::new("kernel");
    std::fs::copy(format!("{TESTS}/hosts/virt-2g.dtb"), arm.path("board.dtb")).unwrap();
    let text = arm.works(&["--host", "board.dtb"]);
    assert!(text.contains("description = \"board.dtb\""), "{text}");
    assert!(text.contains("console = \"/pl011@9000000\""), "{text}");
    let pc = Folder::new("kernel.elf");
    std::fs::copy(format!("{TESTS}/hosts/q35-2g.json"), pc.path("host.json")).unwrap();
    let text = pc.works(&["--host", "host.json"]);
    assert!(text.contains("console = \"com1\""), "{text}");
}

#[test]
fn files_are_named_from_the_manifests_folder() {
    let folder = Folder::new("kernel");
    std::fs::create_dir(folder.path("sub")).unwrap();
    std::fs::copy(
        format!("{TESTS}/hosts/virt-2g.dtb"),
        folder.path("board.dtb"),
    )
    .unwrap();
    let output = folder.terrane(&["init", "--host", "board.dtb", "-o", "sub/system.toml"]);
    good(&output);
    good(&folder.terrane(&["check", "sub/system.toml"]));
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = Folder::new("kernel");
    std::fs::write(folder.path("system.toml"), "mine").unwrap();
    let output = folder.terrane(&["init", "--qemu", "aarch64", "-o", "system.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("file-exists") && said(&output).contains("--force"));
    let kept = std::fs::read(folder.path("system.toml")).unwrap();
    assert_eq!(kept, b"mine");
}

#[test]
fn what_is_missing_is_said() {
    let folder = Folder::new("kernel");
    std::fs::remove_file(folder.path("vmlinuz")).unwrap();
    let output = folder.terrane(&["init", "--qemu", "aarch64"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("vmlinuz: put"), "{}", said(&output));
    assert!(!said(&output).contains("initrd.gz"), "{}", said(&output));
}

#[test]
fn what_lies_beside_the_manifest_is_not_missing() {
    let folder = Folder::new("kernel");
    std::fs::create_dir(folder.path("sub")).unwrap();
    for name in ["vmlinuz", "initrd.gz"] {
        std::fs::rename(folder.path(name), folder.path("sub").join(name)).unwrap();
    }
    let arguments = ["init", "--qemu", "aarch64", "-o", "sub/system.toml"];
    let output = folder.terrane(&arguments);
    good(&output);
    assert!(!said(&output).contains("Missing"), "{}", said(&output));
    let text = std::fs::read_to_string(folder.path("sub/system.toml")).unwrap();
    assert!(text.contains("kernel = \"vmlinuz\""), "{text}");

    std::fs::remove_file(folder.path("sub/vmlinuz")).unwrap();
    let output = folder.terrane(&[&arguments[..], &["--force"]].concat());
    assert!(said(&output).contains("vmlinuz: put"), "{}", said(&output));
}

#[test]
fn memory_that_is_there_is_refused() {
    let folder = Folder::new("kernel");
    for (host, memory, code) in [
        ("board.dtb", "0x4000_0000,4GiB", "memory-named-twice"),
        ("board.dtb", "0xa000_0000,512MiB", "memory-named-twice"),
        ("q35-2g.json", "4GiB,1GiB", "value-invalid"),
    ] {
        let host = format!("{TESTS}/hosts/{host}");
        let output = folder.terrane(&["init", "--host", &host, "--memory", memory]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(code), "{}", said(&output));
        assert!(said(&output).contains("help: leave "), "{}", said(&output));
        assert!(output.stdout.is_empty());
    }
}

fn board_trees(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            board_trees(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            found.push(path);
        }
    }
}

/// Real boards: those of the examples.
#[test]
fn real_boards() {
    let Some(trees) = std::env::var_os("TERRANE_BOARD_TREES") else {
        eprintln!("skipped: real boards, for want of TERRANE_BOARD_TREES");
        return;
    };
    let mut all = Vec::new();
    board_trees(Path::new(&trees), &mut all);
    all.sort();
    let folder = Folder::new("kernel");
    for (name, memory) in [
        ("bcm2711-rpi-4-b.dtb", Some("0,948MiB")),
        ("bcm2712-rpi-5-b.dtb", None),
        ("zynqmp-zcu102-rev1.0.dtb", None),
        ("imx8mm-evk.dtb", None),
        ("rk3588-rock-5b.dtb", Some("0x0020_0000,2GiB")),
    ] {
        let path = all
            .iter()
            .rfind(|path| path.file_name().is_some_and(|file| file == name))
            .unwrap_or_else(|| panic!("no {name}"));
        // The Raspberry Pi 4's CPUs are started by PSCI in the tree that TF-A hands over.
        let mut tree = std::fs::read(path).unwrap();
        let (spin, psci) = (b"spin-table\0", b"psci\0\0\0\0\0\0\0");
        while let Some(at) = tree.windows(spin.len()).position(|bytes| bytes == spin) {
            tree[at..at + psci.len()].copy_from_slice(psci);
        }
        std::fs::write(folder.path(name), tree).unwrap();
        let without = folder.terrane(&["init", "--host", name]);
        let Some(memory) = memory else {
            folder.works(&["--host", name]);
            continue;
        };
        assert_eq!(without.status.code(), Some(1), "{name}");
        assert!(said(&without).contains("init-memory"), "{}", said(&without));
        let text = folder.works(&["--host", name, "--memory", memory]);
        assert!(text.contains("memory = [\n"), "{text}");
    }
}
