//! `terrane diff A B`: what moves between two manifests or plans.
//!
//! A manifest is planned, and its plan's JSON compared; a plan comes as that JSON. So both sides
//! are compared by what the machine would do, not by how a file is written.

mod compare;
mod document;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use manifest::files;
use serde::Serialize;

use self::compare::{Change, Handed, How, changes, handed};
use self::document::Document;
use crate::args::{DiffArgs, ManifestArgs};
use crate::diagnostics::Diagnostic;
use crate::exit::Exit;
use crate::findings::Findings;
use crate::output::Output;
use crate::stream::{self, Stream};
use crate::system::{Purpose, System};
use crate::view::shown;

/// The version of the answer's schema.
const VERSION: u32 = 1;

/// What two sides differ in; its JSON is docs/json.md, "A difference".
#[derive(Debug, Serialize)]
struct Difference {
    version: u32,
    changes: Vec<Change>,
    /// RAM that changes its owner.
    memory: Vec<Handed>,
    /// Null if a side is a plan: it has none to compare.
    conflicts: Option<Vec<Conflict>>,
}

/// A conflict that one side has alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Conflict {
    change: How,
    code: String,
    message: String,
}

/// One side.
struct Side {
    /// `None`: conflicts leave no plan.
    plan: Option<Document>,
    /// Code and message of each conflict, of a manifest.
    conflicts: Option<Vec<(String, String)>>,
}

/// Compares, and writes the result.
///
/// # Errors
/// The result can't be written.
pub fn run(args: &DiffArgs) -> io::Result<Exit> {
    let (before, after) = match (read(args, &args.before)?, read(args, &args.after)?) {
        (Some(before), Some(after)) => (before, after),
        _ => return Ok(Exit::Unreadable),
    };
    let found = difference(&before, &after);
    let answer = match args.json {
        true => serde_json::to_string(&found)? + "\n",
        false => text(&found),
    };
    stream::result(answer.as_bytes())?;
    let differs = !found.changes.is_empty()
        || !found.memory.is_empty()
        || found
            .conflicts
            .iter()
            .any(|conflicts| !conflicts.is_empty());
    Ok(match args.exit_code && differs {
        true => Exit::Conflicts,
        false => Exit::Good,
    })
}

/// A side; `None` if it can't be read, which is then said.
fn read(args: &DiffArgs, path: &Path) -> io::Result<Option<Side>> {
    let bytes = files::read_piped(path, files::MAX_TEXT).unwrap_or_default();
    let is_file = fs::metadata(path).is_ok_and(|data| data.is_file());
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return match document(&bytes) {
            Ok(plan) => Ok(Some(Side {
                plan: Some(plan),
                conflicts: None,
            })),
            Err(reason) => {
                let message = format!("{} can't be read as a plan: {reason}", path.display());
                let found = Diagnostic::error("plan-invalid", message)
                    .with_help("a plan is what `terrane plan --format json` writes");
                let output = Output { json: args.json };
                output.fail(found, Exit::Unreadable).map(|_| None)
            }
        };
    }
    let manifest = ManifestArgs {
        manifest: path.to_owned(),
        hypervisor: args.hypervisor.clone(),
        modules: Vec::new(),
        json: args.json,
    };
    let mut findings = Findings::default();
    let system = match String::from_utf8(bytes) {
        // A pipe is empty the second time.
        Ok(text) if !text.is_empty() && !is_file => {
            System::plan_text(text, &manifest, &mut findings)
        }
        _ => System::plan(&manifest, Purpose::Look, &[], &mut findings),
    };
    let conflicts = Some(findings.errors());
    let goes_on = |system: &System| system.goes_on(&findings);
    let carried_out = system.as_ref().is_ok_and(goes_on);
    findings.emit(args.json, Stream::Stderr)?;
    let plan = match system {
        Ok(system) if carried_out => document(system.json().as_bytes()).ok(),
        // What the machine wouldn't do is none of its plans.
        Ok(_) => None,
        Err(Exit::Conflicts) => None,
        Err(_) => return Ok(None),
    };
    Ok(Some(Side { plan, conflicts }))
}

fn document(bytes: &[u8]) -> Result<Document, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match document.version {
        manifest::plan_json::VERSION => Ok(document),
        other => Err(format!(
            "it has version {other}, this program reads {}",
            manifest::plan_json::VERSION
        )),
    }
}

fn difference(before: &Side, after: &Side) -> Difference {
    let (mut changed, mut memory) = (Vec::new(), Vec::new());
    match (&before.plan, &after.plan) {
        (Some(before), Some(after)) => {
            changed = changes(before, after);
            memory = handed(before, after);
        }
        (None, None) => {}
        (before, _) => {
            let how = if before.is_some() {
                How::Removed
            } else {
                How::Added
            };
            changed.push(Change {
                domain: None,
                what: "plan".to_owned(),
                change: how,
                before: None,
                after: None,
            });
        }
    }
    let conflicts = match (&before.conflicts, &after.conflicts) {
        (Some(before), Some(after)) => Some(conflicts(before, after)),
        _ => None,
    };
    Difference {
        version: VERSION,
        changes: changed,
        memory,
        conflicts,
    }
}

fn conflicts(before: &[(String, String)], after: &[(String, String)]) -> Vec<Conflict> {
    let only = |these: &[(String, String)], those: &[(String, String)], change| {
        let mut those = those.to_vec();
        let mut found = Vec::new();
        for one in these {
            match those.iter().position(|other| other == one) {
                Some(index) => drop(those.remove(index)),
                None => found.push(Conflict {
                    change,
                    code: one.0.clone(),
                    message: one.1.clone(),
                }),
            }
        }
        found
    };
    let mut found = only(before, after, How::Removed);
    found.extend(only(after, before, How::Added));
    found
}

/// For people: one line for each difference, by what it belongs to.
fn text(found: &Difference) -> String {
    let mut text = String::new();
    let mut heading: Option<Option<&str>> = None;
    for change in &found.changes {
        let name = change.domain.as_deref();
        if heading != Some(name) {
            heading = Some(name);
            let title =
                name.map_or_else(|| "Machine".to_owned(), |name| format!("`{}`", shown(name)));
            let _ = writeln!(text, "{title}");
        }
        let _ = writeln!(text, "  {}", line(change));
    }
    if !found.memory.is_empty() {
        text += "RAM that changes hands\n";
    }
    for one in &found.memory {
        let bytes = layout::Size(one.size);
        let _ = writeln!(
            text,
            "  {}, {bytes}: {} -> {}",
            one.span, one.before, one.after
        );
    }
    let conflicts = found.conflicts.iter().flatten();
    for (number, one) in conflicts.enumerate() {
        if number == 0 {
            text += "Conflicts\n";
        }
        let sign = if one.change == How::Added { '+' } else { '-' };
        let _ = writeln!(text, "  {sign} {}: {}", one.code, shown(&one.message));
    }
    text
}

fn line(change: &Change) -> String {
    let how = match change.change {
        How::Added => "added",
        How::Removed => "removed",
        How::Moved => "moved",
        How::Grown => "grown",
        How::Shrunk => "shrunk",
        How::Changed => "changed",
    };
    let what = &change.what;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            let text = |value: &str| match value {
                "" => "\"\"".to_owned(),
                value => shown(value),
            };
            format!("{what} {how}: {} -> {}", text(before), text(after))
        }
        (Some(one), None) | (None, Some(one)) => format!("{what} {how}: {}", shown(one)),
        (None, None) => format!("{what} {how}"),
    }
}
