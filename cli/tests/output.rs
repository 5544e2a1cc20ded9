//! What becomes of a command whose output nobody takes, or has no room for: its verdict stays.

use std::fs::{self, File};
use std::io::pipe;
use std::path::Path;
use std::process::{Command, Stdio};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

fn terrane(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrane"));
    command
        .args(arguments)
        .env(
            "TERRANE_HYPERVISOR",
            format!("{TESTS}/files/hypervisor.bin"),
        )
        .current_dir(folder);
    command
}

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
