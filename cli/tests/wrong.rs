//! Wrong manifests: what each is told, to the letter, and that doing what it is told makes it right.
//!
//! Beside each manifest in `wrong/` stands what `terrane check` says of it, as NAME.stderr
//! (`SNAPSHOTS=overwrite cargo test -p terrane --test wrong` writes it anew; read what changes).
//! Its first lines say what is wrong and what is done about it:
//!
//! ```text
//! # mend: OLD => BEGINNING           the text OLD is replaced by what a help proposes that begins so
//! # mend: OLD => (nothing)           a help says to leave it out
//! # mend: after OLD add BEGINNING    likewise `before`
//! # mend: OLD => NEW (by: WORDS)     the value is the user's to know; a message has these words
//! # left: CODE                       a word that is still said then, and rightly
//! ```
//!
//! In a `.dts` they stand behind `//`, and `args: ...` gives the command more arguments; a mend may change these too.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

mod common;

/// Codes that no manifest in a file can cause, and who shows them instead.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "boot-no-room",
        "a host smaller than the hypervisor: cli/src/told.rs",
    ),
    ("cannot-write", "`plan -o` and `image`: cli/tests/image.rs"),
    ("capture-failed", "a PC in QEMU: cli/tests/pc.rs"),
    (
        "container",
        "files of more than 4 GiB: manifest/src/container.rs",
    ),
    ("config-invalid", "`import`: cli/tests/import.rs"),
    ("config-missing", "`import`: cli/tests/import.rs"),
    ("config-no-word", "`import`: cli/tests/import.rs"),
    ("config-not-literal", "`import`: cli/tests/import.rs"),
    ("config-unread", "`import`: cli/tests/import.rs"),
    ("file-exists", "`init -o`: cli/tests/cmd"),
    ("host-not-qemu", "`run`: cli/tests/run.rs"),
    ("host-unknown", "`init`, `host capture`: cli/tests/cmd"),
    ("host-unreadable", "`host capture`: cli/tests/cmd"),
    ("init-memory", "`init`: cli/tests/cmd"),
    (
        "hypervisor-invalid",
        "an option of the command: cli/tests/pc.rs",
    ),
    (
        "hypervisor-missing",
        "an option of the command: cli/tests/pc.rs",
    ),
    ("iso-failed", "`image --iso`: cli/tests/cmd/pc.trycmd"),
    ("plan-invalid", "`diff`: cli/tests/cmd"),
    ("qemu-missing", "QEMU hosts: cli/tests/run.rs"),
    ("qemu-refuses", "QEMU hosts: cli/tests/run.rs"),
    ("run-ended", "`run`: cli/tests/run.rs"),
    ("terminal", "`run`"),
    ("xen-host", "`plan --format dts`: cli/tests/xen.rs"),
    ("xen-limit", "`plan --format dts`: cli/tests/xen.rs"),
    ("xen-no-word", "`plan --format dts`: cli/tests/xen.rs"),
    (
        "tree-too-large",
        "a partial tree of more than 2 MiB: layout/tests/planner",
    ),
    (
        "unknown-code",
        "`explain`: cli/tests/cmd/diagnostics.trycmd",
    ),
    (
        "controller-not-driven",
        "about the host's tree: manifest/tests/host",
    ),
    (
        "cpu-not-started",
        "about the host's tree: manifest/tests/host",
    ),
    (
        "reserved-no-room",
        "about the host's tree: manifest/tests/host",
    ),
    (
        "module-cycle",
        "files that a loader put in each other's way: layout/tests/planner",
    ),
];

/// What more arguments stand behind.
const ARGS: &str = "// args: ";

fn tests() -> PathBuf {
    PathBuf::from(common::TESTS)
}

/// What `terrane check` says.
struct Said {
    status: Option<i32>,
    text: String,
}

/// Checks a manifest of this name in `wrong/`.
fn check(name: &str) -> Said {
    let path = Path::new("tests/wrong").join(name);
    let manifest = fs::read(tests().join("wrong").join(name)).unwrap_or_default();
    // A host's capture is a PC's.
    let pc = String::from_utf8_lossy(&manifest).contains(".json\"");
    let hypervisor = if pc {
        "hypervisor.elf"
    } else {
        "hypervisor.bin"
    };
    let text = String::from_utf8_lossy(&manifest);
    let more = text.lines().find_map(|line| line.strip_prefix(ARGS));
    let mut arguments = vec![OsStr::new("check"), path.as_os_str()];
    arguments.extend(more.unwrap_or_default().split_whitespace().map(OsStr::new));
    let output = common::terrane(&arguments, Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("TERRANE_HYPERVISOR", tests().join("files").join(hypervisor))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    Said {
        status: output.status.code(),
        text: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Said {
    /// One finding a piece.
    fn findings(&self) -> impl Iterator<Item = &str> {
        let pieces = self.text.split("\n\n");
        pieces.filter(|piece| piece.starts_with("error[") || piece.starts_with("warning["))
    }

    fn codes(&self) -> BTreeSet<String> {
        self.findings().filter_map(code).collect()
    }

    fn errors(&self) -> BTreeSet<String> {
        let errors = self
            .findings()
            .filter(|finding| finding.starts_with("error["));
        errors.filter_map(code).collect()
    }

    fn helps(&self) -> Vec<&str> {
        let helps = self.text.lines();
        helps
            .filter_map(|line| Some(line.split_once("= help: ")?.1))
            .collect()
    }
}

fn code(finding: &str) -> Option<String> {
    Some(finding.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// A change to the text, as a `mend:` line has it.
enum Mend<'a> {
    Replace(&'a str, &'a str),
    Remove(&'a str),
    After(&'a str, &'a str),
    Before(&'a str, &'a str),
}

impl<'a> Mend<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let rule = line.split_once("mend: ")?.1;
        if let Some((anchor, new)) = rule
            .strip_prefix("after ")
            .and_then(|it| it.split_once(" add "))
        {
            return Some(Self::After(anchor, new));
        }
        if let Some((anchor, new)) = rule
            .strip_prefix("before ")
            .and_then(|it| it.split_once(" add "))
        {
            return Some(Self::Before(anchor, new));
        }
        match rule.split_once(" => ")? {
            (old, "(nothing)") => Some(Self::Remove(old)),
            (old, new) => Some(Self::Replace(old, new)),
        }
    }

    /// Does it, with what the helps propose.
    fn apply(&self, text: &str, said: &Said, is_tree: bool) -> Result<String, String> {
        let (Self::Replace(old, _)
        | Self::Remove(old)
        | Self::After(old, _)
        | Self::Before(old, _)) = *self;
        if text.matches(old).count() != 1 {
            return Err(format!("`{old}` isn't there once"));
        }
        let new = match *self {
            Self::Remove(old) => {
                let key = old.split(['=', ';']).next().unwrap_or(old);
                let key = key.trim().trim_matches([',', ' ']);
                let says = |help: &&str| {
                    help.contains("leave") && help.contains("out") && help.contains(key)
                };
                said.helps()
                    .iter()
                    .find(|help| says(help))
                    .ok_or_else(|| format!("nobody says to leave `{key}` out"))?;
                String::new()
            }
            Self::Replace(_, beginning) => proposed(beginning, said, is_tree)?,
            Self::After(old, beginning) => {
                format!("{old}\n{}", proposed(beginning, said, is_tree)?)
            }
            Self::Before(old, beginning) => {
                format!("{}\n{old}", proposed(beginning, said, is_tree)?)
            }
        };
        Ok(text.replacen(old, &new, 1))
    }
}

/// What is proposed: the longest piece of TOML or of a device tree in a help that begins so.
fn proposed(beginning: &str, said: &Said, is_tree: bool) -> Result<String, String> {
    if let Some((new, words)) = beginning.split_once(" (by: ") {
        let words = words.trim_end_matches(')');
        let says = said.text.contains(words);
        return if says {
            Ok(new.replace("\\n", "\n"))
        } else {
            Err(format!("nobody says `{words}`"))
        };
    }
    let found = said.helps().into_iter().find_map(|help| {
        let rest = &help[help.find(beginning)?..];
        let ends = rest
            .char_indices()
            .map(|(at, letter)| at + letter.len_utf8())
            .rev();
        ends.map(|end| &rest[..end])
            .find(|piece| is_whole(piece, is_tree))
    });
    found
        .map(str::to_owned)
        .ok_or_else(|| format!("`{beginning}` isn't proposed"))
}

/// Whether it is something that can be written into a manifest as it stands.
fn is_whole(piece: &str, is_tree: bool) -> bool {
    if is_tree {
        let inner = piece.strip_suffix(';');
        return inner.is_some_and(|inner| !inner.contains(';'));
    }
    let forms = [
        format!("x = {piece}"),
        format!("x = {{ {piece} }}"),
        format!("{piece} = 1"),
    ];
    let is_toml = forms.iter().any(|form| form.parse::<toml::Table>().is_ok());
    is_toml && piece.trim() == piece && !piece.ends_with(',')
}

/// What is wrong with a case, if anything is: its refusal, its snapshot, or its mend.
fn fault(name: &str) -> Option<String> {
    let said = check(name);
    if !matches!(said.status, Some(0..=2)) || said.codes().is_empty() {
        return Some(format!("isn't refused: {:?}\n{}", said.status, said.text));
    }
    let snapshot = tests()
        .join("wrong")
        .join(Path::new(name).with_extension("stderr"));
    if std::env::var("SNAPSHOTS").is_ok_and(|what| what == "overwrite") {
        fs::write(&snapshot, &said.text).unwrap();
    }
    let expected = fs::read_to_string(&snapshot).unwrap_or_default();
    if expected != said.text {
        return Some(format!(
            "is told\n{}and not, as written down,\n{expected}",
            said.text
        ));
    }
    let lost = said
        .findings()
        .find(|finding| finding.starts_with("error[") && !has_place(finding, name));
    if let Some(lost) = lost {
        return Some(format!("isn't told where:\n{lost}"));
    }
    mended(name, &said).err()
}

/// Whether a finding names a line and a column of the manifest.
fn has_place(finding: &str, name: &str) -> bool {
    finding.contains(&format!("--> tests/wrong/{name}:"))
}

/// Does what it was told, and checks again.
fn mended(name: &str, said: &Said) -> Result<(), String> {
    let folder = tests().join("wrong");
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let is_head = |line: &&str| line.starts_with('#') || line.starts_with("//");
    let head: Vec<&str> = text.lines().take_while(is_head).collect();
    let mends: Vec<Mend<'_>> = head.iter().filter_map(|line| Mend::read(line)).collect();
    if mends.is_empty() {
        return Err("has no mend".to_owned());
    }
    let args = head.iter().filter(|line| line.starts_with(ARGS));
    let rest = args.copied().chain(text.lines().skip(head.len()));
    let mut body: String = rest.collect::<Vec<_>>().join("\n") + "\n";
    for mend in &mends {
        body = mend
            .apply(&body, said, name.ends_with(".dts"))
            .map_err(|why| format!("can't be mended: {why}\n{}", said.text))?;
    }
    // Beside the original, since its paths are relative.
    let file = tempfile::Builder::new()
        .prefix(".mended-")
        .suffix(&format!("-{name}"))
        .tempfile_in(&folder)
        .unwrap();
    fs::write(file.path(), &body).unwrap();
    let again = check(&file.path().file_name().unwrap().to_string_lossy());
    let left: BTreeSet<String> = head
        .iter()
        .filter_map(|line| Some(line.split_once("left: ")?.1.to_owned()))
        .collect();
    let said_again: BTreeSet<String> = again.codes().intersection(&said.codes()).cloned().collect();
    let is_left = |codes: &BTreeSet<String>| codes.is_subset(&left);
    if left.is_subset(&again.codes()) && is_left(&again.errors()) && is_left(&said_again) {
        Ok(())
    } else {
        Err(format!(
            "is still wrong when mended:\n{}\n{body}",
            again.text
        ))
    }
}

/// The manifests' names.
fn cases() -> Vec<String> {
    let entries = fs::read_dir(tests().join("wrong")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_case = |name: &String| {
        !name.starts_with('.') && (name.ends_with(".toml") || name.ends_with(".dts"))
    };
    let mut cases: Vec<String> = names.filter(is_case).collect();
    cases.sort();
    cases
}

#[test]
fn each_is_told_what_is_wrong_and_what_makes_it_right() {
    let cases = cases();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut faults = Vec::new();
        while let Some(name) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            faults.extend(fault(name).map(|fault| format!("{name} {fault}")));
        }
        faults
    };
    let faults: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
}

#[test]
fn there_are_enough_of_them() {
    let cases = cases();
    let trees = cases.iter().filter(|name| name.ends_with(".dts")).count();
    assert!(trees >= 25, "{trees}");
    assert!(cases.len() >= 120, "{}", cases.len());
}

#[test]
fn no_snapshot_is_left_over() {
    let entries = fs::read_dir(tests().join("wrong")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let cases = cases();
    for name in names.filter(|name| name.ends_with(".stderr")) {
        let stem = name.trim_end_matches(".stderr");
        assert!(
            cases
                .iter()
                .any(|case| Path::new(case).file_stem().unwrap() == stem),
            "{name}"
        );
    }
}

#[test]
fn every_code_is_among_them_or_is_shown_elsewhere() {
    let documented = include_str!("../../docs/conflicts.md");
    let mut codes: BTreeSet<String> = layout::Code::ALL
        .iter()
        .map(|code| code.as_str().to_owned())
        .collect();
    codes.extend(
        documented
            .lines()
            .filter_map(|line| line.strip_prefix("## ").map(str::to_owned)),
    );
    let mut shown = BTreeSet::new();
    for case in cases() {
        let snapshot = tests()
            .join("wrong")
            .join(Path::new(&case).with_extension("stderr"));
        let said = Said {
            status: None,
            text: fs::read_to_string(snapshot).unwrap_or_default(),
        };
        shown.extend(said.codes());
    }
    for (code, why) in ELSEWHERE {
        assert!(codes.remove(*code), "{code} is no code");
        assert!(
            !shown.contains(*code),
            "{code} is here, not elsewhere ({why})"
        );
    }
    let missing: Vec<&String> = codes.difference(&shown).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let unknown: Vec<&String> = shown.difference(&codes).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
