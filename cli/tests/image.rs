//! `terrane image`: what is in the directory, and that its script starts QEMU on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{TESTS, terrane};

mod common;

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

/// A manifest for QEMU in a folder.
fn for_qemu(folder: &Path) -> PathBuf {
    let manifest = folder.join("m.toml");
    let text = QEMU.replace("KERNEL", &format!("{TESTS}/files/kernel"));
    std::fs::write(&manifest, text).unwrap();
    manifest
}

fn image(manifest: &Path, folder: &Path, more: &[&str]) -> (Option<i32>, PathBuf) {
    let output = folder.join("image");
    let mut arguments = vec![Path::new("image"), manifest, Path::new("-o"), &output];
    arguments.extend(more.iter().map(Path::new));
    let status = terrane(&arguments, folder).status().unwrap();
    (status.code(), output)
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
    let manifest = for_qemu(folder.path());
    let (status, image) = image(&manifest, folder.path(), &[]);
    assert_eq!(status, Some(0));
    // The stand-in shows where it is and what it was given.
    let machine = folder.path().join("machine.sh");
    std::fs::write(&machine, "ls $tree $kernel $container").unwrap();
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
    for name in ["hypervisor.bin", "container.bin", "host.dtb"] {
        assert!(shown.contains(name), "{shown}");
    }
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
fn what_a_partial_tree_says_wrong_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_terrane"))
        .arg("image")
        .arg(Path::new(TESTS).join("trees/files.dts"))
        .args(
            modules()
                .iter()
                .map(|it| it.replace("partial", "partial-astray")),
        )
        .arg("-o")
        .arg(folder.path().join("image"))
        .env(
            "TERRANE_HYPERVISOR",
            format!("{TESTS}/files/hypervisor.bin"),
        )
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("error[device-mismatch]").count(), 1, "{said}");
    assert!(said.ends_with("1 error\n"), "{said}");
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

/// A manifest whose files have the names that an image's have.
const ITS_OWN: &str = r#"
manifest-version = 1

[host]
description = "board.dtb"

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "kernel"
ramdisk = "ramdisk"
"#;

/// Everything in a folder, but what is in the folders below it.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut contents: Vec<(PathBuf, Vec<u8>)> = paths
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    contents.sort();
    contents
}

#[test]
fn what_it_is_made_from_is_not_written_over() {
    for (word, name) in [
        ("board.dtb", "host.dtb"),
        ("kernel", "container.bin"),
        ("kernel", "hypervisor.bin"),
        ("ramdisk", "boot.scr"),
        // Not of this image: it would be removed where there is one.
        ("ramdisk", "qemu.sh"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("m.toml");
        let files = [
            ("board.dtb", "hosts/virt-2g.dtb"),
            ("kernel", "files/kernel"),
            ("ramdisk", "files/ramdisk"),
        ];
        for (own, file) in files {
            let own = if own == word { name } else { own };
            std::fs::copy(format!("{TESTS}/{file}"), folder.path().join(own)).unwrap();
        }
        let text = ITS_OWN.replace(&format!("\"{word}\""), &format!("\"{name}\""));
        std::fs::write(&manifest, text).unwrap();
        if name == "qemu.sh" {
            std::fs::write(folder.path().join("container.bin"), "an image's").unwrap();
        }
        let before = contents(folder.path());
        // By another path to the same folder.
        let output = folder.path().join(".");
        let arguments = [Path::new("image"), &manifest, Path::new("-o"), &output];
        let done = terrane(&arguments, folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{name}: {said}");
        assert!(
            said.contains("error[cannot-write]") && said.contains(name),
            "{said}"
        );
        assert!(before == contents(folder.path()), "{name}");
    }
}

#[test]
fn what_an_argument_for_qemu_names_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = for_qemu(folder.path());
    let text = std::fs::read_to_string(&manifest).unwrap();
    let tree = folder.path().join("host.dtb");
    std::fs::copy(format!("{TESTS}/hosts/virt-2g.dtb"), &tree).unwrap();
    let before = std::fs::read(&tree).unwrap();
    for (machine, named) in [
        ("virt", r#""-dtb", "host.dtb""#),
        ("virt", r#""-device", "loader,file=host.dtb""#),
        ("virt,dtb=host.dtb", ""),
    ] {
        let text = text.replace("\"virt\"", &format!("\"{machine}\""));
        let text = text.replace("\"-device\", \"edu,x='y'\"", named);
        std::fs::write(&manifest, text).unwrap();
        for arguments in [
            ["image", "m.toml", "-o", "."],
            ["plan", "m.toml", "-o", "host.dtb"],
        ] {
            let done = terrane(&arguments, folder.path()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(2), "{named}: {said}");
            assert!(said.contains("error[cannot-write]"), "{said}");
            assert!(before == std::fs::read(&tree).unwrap(), "{named}");
        }
    }
}

#[test]
fn a_tree_that_an_argument_names_is_asked_for_anew_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = for_qemu(folder.path());
    let text = std::fs::read_to_string(&manifest).unwrap();
    for named in [
        r#""-dtb", "host.dtb""#,
        r#""--dtb", "host.dtb""#,
        r#""-machine", "dtb=host.dtb""#,
    ] {
        let text = text.replace("\"-device\", \"edu,x='y'\"", named);
        std::fs::write(&manifest, text).unwrap();
        let plan = |tree: &str| {
            let tree = format!("{TESTS}/hosts/{tree}.dtb");
            std::fs::copy(tree, folder.path().join("host.dtb")).unwrap();
            let arguments = ["plan", "m.toml", "--format", "json"];
            let done = terrane(&arguments, folder.path()).output().unwrap();
            assert_eq!(done.status.code(), Some(0), "{done:?}");
            done.stdout
        };
        assert!(plan("virt-2g") != plan("virt-numa-1g"), "{named}");
    }
}

#[test]
fn the_hypervisor_and_the_files_of_a_tree_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |file: &str, name: &str| {
        std::fs::copy(format!("{TESTS}/{file}"), folder.path().join(name)).unwrap();
    };
    let tree = format!("{TESTS}/trees/files.dts");
    let refused = |named: &str, modules: &[String]| {
        let before = contents(folder.path());
        let mut arguments = vec!["image", &tree, "-o", "."];
        arguments.extend(modules.iter().map(String::as_str));
        let arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
        let done = terrane(&arguments, folder.path())
            .env("TERRANE_HYPERVISOR", named)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        assert!(before == contents(folder.path()));
    };
    copy("files/hypervisor.bin", "hypervisor.bin");
    refused("hypervisor.bin", &modules());
    std::fs::remove_file(folder.path().join("hypervisor.bin")).unwrap();
    copy("files/ramdisk", "container.bin");
    let given = modules().into_iter();
    let modules =
        given.map(|word| word.replace(&format!("{TESTS}/files/ramdisk"), "container.bin"));
    let modules: Vec<String> = modules.collect();
    refused(&format!("{TESTS}/files/hypervisor.bin"), &modules);
}

#[test]
fn what_cannot_be_written_whole_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Path::new(TESTS).join("good/two.toml");
    let (_, directory) = image(&manifest, folder.path(), &[]);
    let path = |name: &str| directory.join(name);
    std::fs::write(path("hypervisor.bin"), "before").unwrap();
    std::fs::remove_file(path("container.bin")).unwrap();
    std::os::unix::fs::symlink("/dev/full", path("container.bin")).unwrap();
    let (status, _) = image(&manifest, folder.path(), &[]);
    assert_eq!(status, Some(2));
    assert!(std::fs::read(path("hypervisor.bin")).unwrap() == b"before");
    let names = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let hidden: Vec<_> = names
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn nothing_stays_of_another_image() {
    let folder = tempfile::tempdir().unwrap();
    let (_, directory) = image(&for_qemu(folder.path()), folder.path(), &[]);
    std::fs::write(directory.join("terrane.iso"), "a PC's").unwrap();
    std::fs::write(directory.join("notes"), "the user's").unwrap();
    assert!(directory.join("qemu.sh").exists());
    let (status, _) = image(&Path::new(TESTS).join("good/two.toml"), folder.path(), &[]);
    assert_eq!(status, Some(0));
    let left = contents(&directory);
    let left: Vec<_> = left
        .iter()
        .filter_map(|(path, _)| path.file_name())
        .collect();
    let expected = [
        "boot.cmd",
        "boot.scr",
        "container.bin",
        "host.dtb",
        "hypervisor.bin",
        "notes",
    ];
    assert_eq!(left, expected);
}

#[test]
fn what_was_there_without_an_image_stays() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("image");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("grub.cfg"), "the user's").unwrap();
    let (status, made) = image(&Path::new(TESTS).join("good/two.toml"), folder.path(), &[]);
    assert_eq!((status, made), (Some(0), directory.clone()));
    let left = std::fs::read_to_string(directory.join("grub.cfg")).unwrap();
    assert_eq!(left, "the user's");
}

#[test]
fn a_qemu_that_is_missing_is_a_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = for_qemu(folder.path());
    let arguments = ["image", manifest.to_str().unwrap(), "-o", "image"].map(Path::new);
    let done = terrane(&arguments, folder.path())
        .env("TERRANE_QEMU_AARCH64", "/nope")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("error[qemu-missing]"), "{said}");
}

#[test]
fn the_script_finds_its_files_and_its_program_from_anywhere() {
    // The second has names that QEMU would read as more than a name.
    for made in ["image", "an image, made"] {
        let folder = tempfile::tempdir().unwrap();
        script_from_anywhere(folder.path(), made);
    }
}

fn script_from_anywhere(folder: &Path, made: &str) {
    let manifest = for_qemu(folder);
    let qemu = folder.join("fake-qemu.sh");
    std::fs::copy(format!("{TESTS}/fake-qemu.sh"), &qemu).unwrap();
    let arguments = ["image", manifest.to_str().unwrap(), "-o", made].map(Path::new);
    let status = terrane(&arguments, folder)
        .env("TERRANE_QEMU_AARCH64", "./fake-qemu.sh")
        .status()
        .unwrap();
    assert!(status.success());
    let machine = folder.join("machine.sh");
    std::fs::write(&machine, "realpath $tree $kernel $container").unwrap();
    // Where CDPATH would lead to.
    let astray = folder.join("astray");
    std::fs::create_dir_all(astray.join(made)).unwrap();
    let output = Command::new("sh")
        .arg(format!("{made}/qemu.sh"))
        .current_dir(folder)
        .env("CDPATH", &astray)
        .env("FAKE_MACHINE", machine)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let image = folder.join(made).canonicalize().unwrap();
    let names = ["host.dtb", "hypervisor.bin", "container.bin"];
    let expected = names.map(|name| image.join(name).display().to_string());
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{output:?}");
}

#[test]
fn a_file_that_an_argument_names_is_looked_for_where_the_script_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = for_qemu(folder.path());
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace("\"edu,x='y'\"", "\"edu\", \"-drive\", \"disk.img\"");
    std::fs::write(&manifest, text).unwrap();
    std::fs::write(folder.path().join("disk.img"), "").unwrap();
    let (status, image) = image(&manifest, folder.path(), &[]);
    assert_eq!(status, Some(0));
    let machine = folder.path().join("machine.sh");
    std::fs::write(&machine, "ls $drive").unwrap();
    let output = Command::new(image.join("qemu.sh"))
        .current_dir(folder.path())
        .env("FAKE_MACHINE", machine)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"disk.img\n", "{output:?}");
}
