//! What the user is told about a wrong manifest: rustc's look for people, one JSON object a line for programs.
//!
//! Knows nothing of planning: whoever finds something fills in a [`Diagnostic`].

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use manifest::origin::LineColumn;
use serde::Serialize;

use crate::stream::Stream;
use crate::view::shown as spelled;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Exit status 1 or 2.
    Error,
    /// Worth knowing; changes no exit status.
    Warning,
}

/// A position in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it is shown.
    pub file: String,
    /// Counted from 1; 0 if the file has no lines (a device tree blob).
    pub line: usize,
    /// In characters, counted from 1; 0 as above.
    pub column: usize,
    /// The bytes in the file's text that are meant.
    pub span: Option<Range<usize>>,
}

impl Place {
    /// A place in a text.
    pub fn at(file: String, start: LineColumn, span: Range<usize>) -> Self {
        Self {
            file,
            line: usize::try_from(start.line).unwrap_or_default(),
            column: usize::try_from(start.column).unwrap_or_default(),
            span: Some(span),
        }
    }

    /// A place in something without lines.
    pub fn without_lines(name: String) -> Self {
        Self {
            file: name,
            line: 0,
            column: 0,
            span: None,
        }
    }
}

/// One of the things that clash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// What it is.
    pub what: String,
    /// Where it was said, if anywhere.
    pub place: Option<Place>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The stable code.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What clashes.
    pub sides: Vec<Side>,
    /// The nearest change that works.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a position.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            severity: Severity::Error,
            message: message.into(),
            sides: Vec::new(),
            help: None,
        }
    }

    /// The same with a way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The texts of the files that places refer to, by the name they are shown with.
pub type Sources = BTreeMap<String, String>;

/// The form in which diagnostics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people, with the lines of the file.
    Text,
    /// For programs: docs/json.md, "A diagnostic".
    Json,
}

/// Writes all `diagnostics` and, for people, how many they are.
///
/// # Errors
/// The stream can't be written.
pub fn emit(
    diagnostics: &[Diagnostic],
    sources: &Sources,
    form: Form,
    stream: Stream,
) -> io::Result<()> {
    let mut text = String::new();
    for diagnostic in diagnostics {
        match form {
            Form::Text => {
                text += &render(diagnostic, sources);
                text += "\n\n";
            }
            Form::Json => {
                text += &json(diagnostic)?;
                text.push('\n');
            }
        }
    }
    if form == Form::Text {
        text += &tally(diagnostics);
    }
    stream.text(&text)
}

/// One diagnostic in rustc's look, with colours; `anstream` takes them out where they don't belong.
fn render(diagnostic: &Diagnostic, sources: &Sources) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(
        level
            .primary_title(spelled(&diagnostic.message))
            .id(diagnostic.code.as_str()),
    );
    for snippet in snippets(diagnostic, sources) {
        group = group.element(snippet);
    }
    for side in &diagnostic.sides {
        if let Some(note) = note(side, sources) {
            group = group.element(Level::NOTE.message(spelled(&note)));
        }
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(spelled(help)));
    }
    Renderer::styled().render(&[group])
}

/// One snippet for each file that a side points into, in the sides' order. The first side is the primary one.
fn snippets<'a>(
    diagnostic: &'a Diagnostic,
    sources: &'a Sources,
) -> Vec<Snippet<'a, Annotation<'a>>> {
    let mut files: Vec<(&str, Vec<Annotation<'a>>)> = Vec::new();
    for (index, side) in diagnostic.sides.iter().enumerate() {
        let Some((place, span)) = shown(side, sources) else {
            continue;
        };
        let kind = if index == 0 {
            AnnotationKind::Primary
        } else {
            AnnotationKind::Context
        };
        let annotation = kind.span(span).label(spelled(&side.what));
        match files.iter_mut().find(|(file, _)| *file == place.file) {
            Some((_, annotations)) => annotations.push(annotation),
            None => files.push((&place.file, vec![annotation])),
        }
    }
    files
        .into_iter()
        .filter_map(|(file, annotations)| {
            let source = sources.get(file)?;
            Some(
                Snippet::source(source.as_str())
                    .path(spelled(file))
                    .annotations(annotations),
            )
        })
        .collect()
}

/// The place and the bytes to underline, if the side points into a text that is at hand.
fn shown<'a>(side: &'a Side, sources: &Sources) -> Option<(&'a Place, Range<usize>)> {
    let place = side.place.as_ref()?;
    let source = sources.get(&place.file)?;
    let span = place.span.clone()?;
    source.get(span.clone())?;
    Some((place, span))
}

/// A side that no snippet shows, as a sentence.
fn note(side: &Side, sources: &Sources) -> Option<String> {
    match &side.place {
        None => Some(side.what.clone()),
        Some(_) if shown(side, sources).is_some() => None,
        Some(place) if place.line == 0 => Some(format!("{} ({})", side.what, place.file)),
        Some(place) => Some(format!(
            "{} ({}:{}:{})",
            side.what, place.file, place.line, place.column
        )),
    }
}

fn tally(diagnostics: &[Diagnostic]) -> String {
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    };
    let plural = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let parts: Vec<String> = [
        plural(count(Severity::Error), "error"),
        plural(count(Severity::Warning), "warning"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("{}\n", parts.join(", "))
    }
}

/// The JSON form: version 1 of the schema in docs/json.md.
#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    version: u32,
    code: &'a str,
    severity: Severity,
    message: &'a str,
    sides: Vec<JsonSide<'a>>,
    help: Option<&'a str>,
    docs: String,
}

#[derive(Serialize)]
struct JsonSide<'a> {
    file: Option<&'a str>,
    line: Option<usize>,
    column: Option<usize>,
    what: &'a str,
}

fn json(diagnostic: &Diagnostic) -> io::Result<String> {
    let sides = diagnostic.sides.iter().map(|side| {
        let position = side.place.as_ref().filter(|place| place.line > 0);
        JsonSide {
            file: side.place.as_ref().map(|place| place.file.as_str()),
            line: position.map(|place| place.line),
            column: position.map(|place| place.column),
            what: &side.what,
        }
    });
    serde_json::to_string(&JsonDiagnostic {
        version: 1,
        code: &diagnostic.code,
        severity: diagnostic.severity,
        message: &diagnostic.message,
        sides: sides.collect(),
        help: diagnostic.help.as_deref(),
        docs: format!("docs/conflicts.md#{}", diagnostic.code),
    })
    .map_err(io::Error::other)
}

/// A file that can't be read: the finding that leads to exit status 2.
pub fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::error(
        "file-unreadable",
        format!("can't read {}: {error}", path.display()),
    )
}

/// A file that can't be written.
pub fn unwritable(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::error(
        "cannot-write",
        format!("can't write {}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\nb = [\n  2,\n]\n";

    fn place(span: Range<usize>, line: usize, column: usize) -> Option<Place> {
        Some(Place {
            file: "m.toml".to_owned(),
            line,
            column,
            span: Some(span),
        })
    }

    fn sample() -> Diagnostic {
        Diagnostic {
            code: "overlap-domain-domain".to_owned(),
            severity: Severity::Error,
            message: "a frame has one owner".to_owned(),
            sides: vec![
                Side {
                    what: "`net` wants 1".to_owned(),
                    place: place(4..5, 1, 5),
                },
                Side {
                    what: "`disk` wants 2".to_owned(),
                    place: place(14..15, 3, 3),
                },
                Side {
                    what: "RAM ends".to_owned(),
                    place: None,
                },
            ],
            help: Some("move one".to_owned()),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn both_sides_are_shown_with_their_lines() {
        let sources = Sources::from([("m.toml".to_owned(), TEXT.to_owned())]);
        let expected = "\
error[overlap-domain-domain]: a frame has one owner
 --> m.toml:1:5
  |
1 | a = 1
  |     ^ `net` wants 1
2 | b = [
3 |   2,
  |   - `disk` wants 2
  |
  = note: RAM ends
  = help: move one";
        assert_eq!(plain(&render(&sample(), &sources)), expected);
    }

    #[test]
    fn a_side_without_source_becomes_a_note() {
        let text = plain(&render(&sample(), &Sources::new()));
        assert!(
            text.contains("= note: `disk` wants 2 (m.toml:3:3)"),
            "{text}"
        );
    }

    #[test]
    fn names_give_a_terminal_no_orders() {
        let order = |text: &str| format!("{text}\u{1b}]0;pwned\u{7}");
        let mut diagnostic = sample();
        diagnostic.message = order("message");
        diagnostic.help = diagnostic.help.as_deref().map(order);
        for side in &mut diagnostic.sides {
            side.what = order(&side.what);
            if let Some(place) = &mut side.place {
                place.file = order(&place.file);
            }
        }
        for sources in [
            Sources::new(),
            Sources::from([(order("m.toml"), TEXT.to_owned())]),
        ] {
            let text = render(&diagnostic, &sources);
            assert!(!text.contains("\u{1b}]"), "{text:?}");
            assert!(!text.contains('\u{7}'), "{text:?}");
            assert!(text.contains("\\u{1b}]0;pwned\\u{7}"), "{text:?}");
        }
    }

    #[test]
    fn a_span_outside_the_text_is_no_panic() {
        let mut diagnostic = sample();
        diagnostic.sides[0].place = place(90..95, 9, 1);
        let sources = Sources::from([("m.toml".to_owned(), TEXT.to_owned())]);
        assert!(plain(&render(&diagnostic, &sources)).contains("(m.toml:9:1)"));
    }

    #[test]
    fn the_json_form_has_the_documented_keys() {
        let value: serde_json::Value = serde_json::from_str(&json(&sample()).unwrap()).unwrap();
        let expected = serde_json::json!({
            "version": 1,
            "code": "overlap-domain-domain",
            "severity": "error",
            "message": "a frame has one owner",
            "sides": [
                {"file": "m.toml", "line": 1, "column": 5, "what": "`net` wants 1"},
                {"file": "m.toml", "line": 3, "column": 3, "what": "`disk` wants 2"},
                {"file": null, "line": null, "column": null, "what": "RAM ends"},
            ],
            "help": "move one",
            "docs": "docs/conflicts.md#overlap-domain-domain",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn the_tally_counts_by_severity() {
        let warning = Diagnostic {
            severity: Severity::Warning,
            ..sample()
        };
        assert_eq!(
            tally(&[sample(), sample(), warning]),
            "2 errors, 1 warning\n"
        );
        assert_eq!(tally(&[]), "");
    }
}
