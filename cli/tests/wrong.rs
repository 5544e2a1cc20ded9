//! Wrong manifests: each is refused, and the change that a message proposes makes it right.
//!
//! A file in `wrong/` says in its head what is wrong and, in a line `# mend: OLD => NEW`, what to
//! replace and how the replacement begins, which is then taken from the help of a message as it
//! stands there. The messages themselves are in `cmd/wrong.trycmd`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn check(manifest: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_terrane"))
        .arg("check")
        .arg(manifest)
        .args(arguments)
        .env("TERRANE_HYPERVISOR", tests().join("files/hypervisor.bin"))
        .output()
        .unwrap()
}

/// The help of each error.
fn proposals(output: &Output) -> Vec<String> {
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let found = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let errors = found.filter(|found| found["severity"] == "error");
    errors
        .map(|found| found["help"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// What to replace, and how the replacement begins.
fn mend(text: &str) -> Option<(&str, &str)> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("# mend: "))?;
    line.split_once(" => ")
}

/// The TOML in a help that begins so: a range to its closing brace, another key to the
/// alternative that follows it, if one does.
fn proposal<'a>(help: &'a str, beginning: &str) -> Option<&'a str> {
    let rest = &help[help.find(beginning)?..];
    let ends = if beginning == "{" {
        ["}", "}"]
    } else {
        [", or", " or"]
    };
    let end = ends.iter().filter_map(|end| rest.find(end)).min();
    Some(match end {
        Some(end) if beginning == "{" => &rest[..=end],
        Some(end) => &rest[..end],
        None => rest,
    })
}

/// Applies the mend of one file; what is wrong with it, if anything is.
fn fault(path: &Path) -> Option<String> {
    let output = check(path, &["--json"]);
    if output.status.code() != Some(1) {
        return Some(format!("isn't refused: {}", output.status));
    }
    let proposals = proposals(&output);
    let text = std::fs::read_to_string(path).unwrap();
    let Some((old, beginning)) = mend(&text) else {
        return Some("has no mend".to_owned());
    };
    let Some(new) = proposals.iter().find_map(|help| proposal(help, beginning)) else {
        return Some(format!("nothing is proposed: {proposals:#?}"));
    };
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let wrong = kept.join("\n");
    assert!(wrong.contains(old), "{}: no `{old}`", path.display());
    let mended = wrong.replace(old, new);
    // Beside the original, since its paths are relative.
    let file = tempfile::Builder::new()
        .prefix(".mended")
        .suffix(".toml")
        .tempfile_in(path.parent().unwrap())
        .unwrap();
    std::fs::write(file.path(), mended).unwrap();
    let again = check(file.path(), &[]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    (again.status.code() != Some(0)).then(|| format!("is still wrong when mended:\n{said}"))
}

#[test]
fn what_a_message_proposes_makes_the_manifest_right() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(tests().join("wrong"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect();
    files.sort();
    assert!(files.len() >= 17, "{files:?}");
    let faults: Vec<String> = files
        .iter()
        .filter_map(|path| Some(format!("{}: {}", path.display(), fault(path)?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
