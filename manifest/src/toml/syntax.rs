//! What is wrong with a file that isn't TOML, and what was most likely meant.

use std::ops::Range;

use toml::de::{DeTable, Error};

use super::mend;
use super::reader::line_column;
use crate::origin::LineColumn;

/// One thing that isn't TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// What the parser says.
    pub message: String,
    /// The bytes that it means.
    pub span: Range<usize>,
    /// Where they begin.
    pub start: LineColumn,
    /// The same key where it stands first, if it is there twice.
    pub first: Option<(Range<usize>, LineColumn)>,
    /// The nearest change that works; empty if none is known.
    pub help: String,
}

/// More than so many errors of one file follow from the others.
const MOST_ERRORS: usize = 8;

/// The document, if it is TOML.
///
/// # Errors
/// Each thing that isn't, at most 8, at most one a line.
pub(super) fn read(text: &str) -> Result<DeTable<'_>, Vec<SyntaxError>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(document.into_inner());
    }
    let found = foremost(errors, text);
    Err(found
        .into_iter()
        .map(|(span, error)| describe(span, &error, text))
        .collect())
}

/// The first error of each line, in their order, at most 8. To describe one takes a walk through the text, and almost
/// each byte can be an error.
fn foremost(errors: Vec<Error>, text: &str) -> Vec<(Range<usize>, Error)> {
    let with_span = |error: Error| (error.span().unwrap_or_default(), error);
    let mut errors: Vec<_> = errors.into_iter().map(with_span).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let mut line_end = None;
    // The rest of a line that wasn't understood isn't either.
    let first_of_line = errors.into_iter().filter(|(span, _)| {
        let is_first = line_end.is_none_or(|end| span.start > end);
        if is_first {
            let rest = text.as_bytes().get(span.start..).unwrap_or_default();
            let length = rest.iter().position(|&byte| byte == b'\n');
            line_end = Some(span.start + length.unwrap_or(rest.len()));
        }
        is_first
    });
    first_of_line.take(MOST_ERRORS).collect()
}

fn describe(span: Range<usize>, error: &Error, text: &str) -> SyntaxError {
    let message = error.message().to_owned();
    let first = (message == "duplicate key")
        .then(|| first_of(text, &span))
        .flatten();
    let help = help(text, &span, &message, first.is_some());
    SyntaxError {
        start: line_column(text, span.start),
        first: first.map(|span| (span.clone(), line_column(text, span.start))),
        message,
        span,
        help,
    }
}

fn help(text: &str, span: &Range<usize>, message: &str, twice: bool) -> String {
    let said = text.get(span.clone()).unwrap_or_default();
    if twice {
        return format!("leave `{said}` out here, or there");
    }
    if let Some(whole) = in_quotes(text, span) {
        return format!("a string stands in quotes: {whole}");
    }
    match message.split_once("expected ") {
        Some((_, expected)) => format!("write {expected} there"),
        None => String::new(),
    }
}

/// The line `key = value` with quotes around a value that stands without.
fn in_quotes(text: &str, span: &Range<usize>) -> Option<String> {
    let start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..)?.lines().next()?;
    let (key, value) = line.split_once('=')?;
    let value = value.split('#').next()?.trim();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/ :@".contains(letter);
    if value.is_empty() || !value.chars().all(plain) {
        return None;
    }
    let whole = match super::parse_number(value.trim_start_matches(['-', '+'])) {
        Some(_) => format!("{} = \"{value}\"", key.trim()),
        // A unit that there is not is told at once with it.
        None => match mend::unit(value) {
            Some(near) => format!("{} = \"{near}\"", key.trim()),
            None => format!("{} = \"{value}\"", key.trim()),
        },
    };
    DeTable::parse(&whole).is_ok().then_some(whole)
}

/// Where the key in these bytes stands first: in its table, or as a table of its own.
fn first_of(text: &str, span: &Range<usize>) -> Option<Range<usize>> {
    let key = text.get(span.clone())?.trim_matches(['[', ']', ' ']);
    let before = text.get(..span.start)?;
    let mut found = None;
    let mut at = 0;
    for line in before.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let begins = at + (line.len() - trimmed.len());
        if trimmed
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
        {
            found = Some(begins..begins + key.len());
        } else if let Some(rest) = trimmed.strip_prefix('[') {
            let name = rest.trim_start_matches('[');
            let is_key = name
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(']'));
            // Keys of an earlier table don't count.
            found = is_key
                .then(|| begins + trimmed.len() - name.len())
                .map(|start| start..start + key.len());
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_is_told_with_what_was_meant() {
        let text = "a = 1\nb = 256MiB\n[t]\nc = 1\nc = 2\n";
        let errors = read(text).unwrap_err();
        let told: Vec<(u32, &str)> = errors
            .iter()
            .map(|error| (error.start.line, error.help.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (2, "a string stands in quotes: b = \"256MiB\""),
                (5, "leave `c` out here, or there")
            ]
        );
        assert_eq!(errors[1].first.as_ref().unwrap().1.line, 4);
    }

    #[test]
    fn only_what_is_told_is_described() {
        let lines = "a = = ] ] 'x\n\n".repeat(1000);
        let (_, errors) = DeTable::parse_recoverable(&lines);
        assert!(errors.len() > 1000);
        let foremost = foremost(errors, &lines);
        assert_eq!(foremost.len(), 8);
        let told = read(&lines).unwrap_err();
        let told: Vec<u32> = told.iter().map(|error| error.start.line).collect();
        assert_eq!(told, [1, 3, 5, 7, 9, 11, 13, 15]);
    }

    #[test]
    fn a_line_ends_with_its_break() {
        // A string without an end is an error at the break itself.
        let told = read("a = \"x\nb = ]\nc = 1 ]\n").unwrap_err();
        let told: Vec<u32> = told.iter().map(|error| error.start.line).collect();
        assert_eq!(told, [1, 2, 3]);
    }
}
