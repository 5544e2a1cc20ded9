//! `terrane image`: what is in the directory, and that its script starts QEMU on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

const QEMU: &str = r#"
manifest-version = 1

[host]
qemu = { machine = "virt", arch = "aarch64", cpu = "max", cpus = 4, memory = "2GiB", args = ["-device", "edu,x='y'"] }

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "KERNEL"
"#;

fn terrane(arguments: &[&Path], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_terrane"))
        .args(arguments)
        .env(
            "TERRANE_HYPERVISOR",
            format!("{TESTS}/files/hypervisor.bin"),
        )
        .env("TERRANE_QEMU_AARCH64", format!("{TESTS}/fake-qemu.sh"))
        .env("FAKE_TREE", format!("{TESTS}/hosts/virt-2g.dtb"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .output()
        .unwrap()
}

fn image(manifest: &Path, folder: &Path, more: &[&str]) -> (Option<i32>, PathBuf) {
    let output = folder.join("image");
    let mut arguments = vec![Path::new("image"), manifest, Path::new("-o"), &output];
    arguments.extend(more.iter().map(Path::new));
    (terrane(&arguments, folder).status.code(), output)
}

#[test]
fn a_board_gets_three_files_and_a_boot_script() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Path::new(TESTS).join("good/two.toml");
    let (status, image) = image(&manifest, folder.path(), &[]);
    assert_eq!(status, Some(0));
    let read = |name: &str| std::fs::read(image.join(name)).unwrap();
    let hypervisor = std::fs::read(format!("{TESTS}/files/hypervisor.bin")).unwrap();
    assert_eq!(read("hypervisor.bin"), hypervisor);
    for tree in ["container.bin", "host.dtb"] {
        assert_eq!(read(tree)[..4], [0xd0, 0x0d, 0xfe, 0xed], "{tree}");
    }
    let source = read("boot.cmd");
    let script = read("boot.scr");
    assert_eq!(script[..4], [0x27, 0x05, 0x19, 0x56]);
    assert_eq!(script[72..], source);
    assert!(!image.join("qemu.sh").exists());
}

#[test]
fn the_same_manifest_gives_the_same_files() {
    let manifest = Path::new(TESTS).join("good/two.toml");
    let made = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = made
        .each_ref()
        .map(|folder| image(&manifest, folder.path(), &[]).1);
    for name in ["container.bin", "host.dtb", "boot.scr"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read(&first), read(&second), "{name}");
    }
}

#[test]
fn a_qemu_machine_gets_a_script_that_starts_it() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("m.toml");
    let text = QEMU.replace("KERNEL", &format!("{TESTS}/files/kernel"));
    std::fs::write(&manifest, text).unwrap();
    let (status, image) = image(&manifest, folder.path(), &[]);
    assert_eq!(status, Some(0));
    // The stand-in shows where it is and what it was given.
    let machine = folder.path().join("machine.sh");
    std::fs::write(
        &machine,
        "pwd; ls $PWD/container.bin $PWD/hypervisor.bin $tree",
    )
    .unwrap();
    let output = Command::new(image.join("qemu.sh"))
        .env("FAKE_MACHINE", machine)
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        shown.contains("container.bin") && shown.contains("host.dtb"),
        "{shown}"
    );
}

#[test]
fn conflicts_stop_it_unless_told_otherwise() {
    let manifest = Path::new(TESTS).join("wrong/overlap.toml");
    let folder = tempfile::tempdir().unwrap();
    let (status, directory) = image(&manifest, folder.path(), &[]);
    assert_eq!(status, Some(1));
    assert!(!directory.exists());
    let (status, directory) = image(&manifest, folder.path(), &["--no-check"]);
    assert_eq!(status, Some(0));
    assert!(directory.join("container.bin").exists());
}

/// The files of tests/trees/files.dts.
fn modules() -> Vec<String> {
    let named = [
        ("0x60000000", "kernel"),
        ("0x60200000", "ramdisk"),
        ("0x60400000", "kernel"),
        ("0x60600000", "partial.dtb"),
    ];
    let flags = named.iter();
    flags
        .flat_map(|(address, file)| {
            [
                "--module".to_owned(),
                format!("{address}={TESTS}/files/{file}"),
            ]
        })
        .collect()
}

#[test]
fn a_tree_for_xen_is_a_boards_once_its_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Path::new(TESTS).join("trees/files.dts");
    let modules = modules();
    let more: Vec<&str> = modules.iter().map(String::as_str).collect();
    let (status, image) = image(&tree, folder.path(), &more);
    assert_eq!(status, Some(0));
    let read = |name: &str| std::fs::read(image.join(name)).unwrap();
    let container = read("container.bin");
    let has = |what: &[u8]| container.windows(what.len()).any(|bytes| bytes == what);
    assert!(has(b"console=hvc0") && has(b"/soc/ethernet@9100000"));
    for file in ["kernel", "ramdisk", "partial.dtb"] {
        assert!(
            has(&std::fs::read(format!("{TESTS}/files/{file}")).unwrap()),
            "{file}"
        );
    }
    assert_eq!(read("host.dtb")[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    assert!(!read("boot.scr").is_empty() && !image.join("qemu.sh").exists());
}

#[test]
fn a_tree_with_a_file_too_few_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Path::new(TESTS).join("trees/files.dts");
    let modules = modules();
    let more: Vec<&str> = modules.iter().skip(2).map(String::as_str).collect();
    let (status, directory) = image(&tree, folder.path(), &more);
    assert_eq!(status, Some(1));
    assert!(!directory.exists());
}
