//! What becomes of a command whose output nobody takes, or has no room for: its verdict stays. And with `--json` there
//! is nothing on standard error that isn't an object.

use std::fs::{self, File};
use std::io::pipe;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{TESTS, terrane};

mod common;

/// A pipe whose reader has gone away.
fn unread() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

fn status(command: &mut Command) -> Option<i32> {
    command.status().unwrap().code()
}

#[test]
fn a_reader_that_goes_away_changes_no_exit_status() {
    let tests = Path::new(TESTS);
    for (expected, arguments) in [
        (1, &["check", "bad/keys.toml"][..]),
        (1, &["check", "--json", "bad/keys.toml"]),
        (2, &["check", "bad/syntax.toml"]),
        (0, &["check", "good/two.toml"]),
        (0, &["plan", "good/two.toml"]),
        (0, &["plan", "--format", "json", "good/two.toml"]),
        (1, &["explain", "bad/keys.toml", "0x4000_0000"]),
        (1, &["explain", "no-such-code"]),
        (0, &["explain"]),
        (2, &["explain", "bad/syntax.toml", "0", "--json"]),
        (2, &["diff", "bad/syntax.toml", "good/two.toml"]),
        (
            1,
            &["diff", "--exit-code", "good/two.toml", "good/three.toml"],
        ),
        (0, &["schema"]),
    ] {
        let mut command = terrane(arguments, tests);
        command.stdout(unread()).stderr(unread());
        assert_eq!(status(&mut command), Some(expected), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_written_is_no_panic() {
    let tests = Path::new(TESTS);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (expected, arguments) in [
        (0, &["check", "good/two.toml"][..]),
        (2, &["check", "bad/keys.toml"]),
        (2, &["plan", "good/two.toml"]),
    ] {
        let mut command = terrane(arguments, tests);
        command.stdout(full()).stderr(full());
        assert_eq!(status(&mut command), Some(expected), "{arguments:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = terrane(&["schema", "-o", "schema.json"], folder.path());
    assert_eq!(status(command.stderr(full())), Some(0));
    assert!(fs::exists(folder.path().join("schema.json")).unwrap());
}

/// Standard error's lines, each of them an object: their codes.
fn codes(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    said.lines()
        .map(|line| {
            let object: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said}"));
            object["code"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn programs_are_told_by_objects_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("{TESTS}/{name}");
    let (config, good) = (at("import/config"), at("good/two.toml"));
    let import = ["import", "imagebuilder", "--json", &config];
    let warned = codes(&mut terrane(&import, folder.path()));
    let codes_of = |arguments: &[&str]| codes(&mut terrane(arguments, folder.path()));
    let import_to = |file| codes_of(&[&import[..], &["-o", file]].concat());
    assert_eq!(import_to("made.toml"), warned);
    let failed = [&warned[..], &["cannot-write".to_owned()]].concat();
    assert_eq!(import_to("/proc/nope"), failed);
    let silent: [String; 0] = [];
    for arguments in [
        &["check", "--json", &good][..],
        &["plan", "--json", &good, "-o", "made.txt"],
        &["image", "--json", &good, "-o", "made"],
    ] {
        assert_eq!(codes_of(arguments), silent, "{arguments:?}");
    }
    for arguments in [
        &["plan", "--json", &good, "-o", "/proc/nope"][..],
        &["image", "--json", &good, "-o", "/proc/nope"],
    ] {
        assert_eq!(codes_of(arguments), ["cannot-write"], "{arguments:?}");
    }
    for arguments in [
        &["plan", "--json", &good][..],
        &["explain", "--json", &good, "0"],
        &["diff", "--json", &good, &good],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = terrane(arguments, folder.path());
        assert_eq!(
            codes(command.stdout(full)),
            ["cannot-write"],
            "{arguments:?}"
        );
    }
}

#[test]
fn a_result_does_not_replace_what_it_is_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |file: &str, name: &str| {
        fs::copy(format!("{TESTS}/{file}"), folder.path().join(name)).unwrap();
    };
    copy("import/config", "config");
    copy("hosts/virt-2g.dtb", "host.dtb");
    copy("files/kernel", "kernel");
    let text = fs::read_to_string(format!("{TESTS}/good/two.toml")).unwrap();
    let text = text.replace("../hosts/virt-2g.dtb", "host.dtb");
    fs::write(folder.path().join("m.toml"), text.replace("../files/", "")).unwrap();
    copy("files/ramdisk", "ramdisk");
    copy("trees/two.dts", "two.dts");
    copy("trees/board.dtsi", "board.dtsi");
    let tree = fs::read_to_string(folder.path().join("two.dts")).unwrap();
    let named = "/ { blob = /incbin/(\"kernel\"); };\n";
    fs::write(folder.path().join("two.dts"), tree + named).unwrap();
    for (arguments, name) in [
        (&["plan", "m.toml", "-o", "./m.toml"][..], "m.toml"),
        (&["plan", "m.toml", "-o", "host.dtb"], "host.dtb"),
        (&["plan", "m.toml", "-o", "kernel"], "kernel"),
        (&["plan", "two.dts", "-o", "board.dtsi"], "board.dtsi"),
        (&["plan", "two.dts", "-o", "kernel"], "kernel"),
        (
            &["import", "imagebuilder", "config", "-o", "config"],
            "config",
        ),
        (
            &["init", "--host", "host.dtb", "--force", "-o", "host.dtb"],
            "host.dtb",
        ),
    ] {
        let before = fs::read(folder.path().join(name)).unwrap();
        let output = terrane(arguments, folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("error[cannot-write]"), "{said}");
        assert!(
            before == fs::read(folder.path().join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_and_a_link_stays_one() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("schema.json"), "before").unwrap();
    fs::set_permissions(path("schema.json"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(path("schema.json"), path("before")).unwrap();
    symlink("schema.json", path("link")).unwrap();
    let command = &mut terrane(&["schema", "-o", "link"], folder.path());
    assert_eq!(status(command), Some(0));
    assert!(path("link").is_symlink());
    let written = fs::metadata(path("schema.json")).unwrap();
    assert!(written.len() > 1000);
    assert_eq!(written.permissions().mode() & 0o777, 0o600);
    // The old file was left alone until the new one was there.
    assert!(fs::read(path("before")).unwrap() == b"before");
    let output = terrane(&["schema", "-o", "/dev/stdout"], folder.path()).output();
    assert!(output.unwrap().stdout == fs::read(path("link")).unwrap());
}
