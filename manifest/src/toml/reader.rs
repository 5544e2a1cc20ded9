//! Typed access to a TOML document: whatever is wrong becomes a conflict with its place, and
//! reading goes on.

use std::ops::Range;

use layout::{Code, Conflict, Located, Origin, Severity, Side, StaticRange};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::number;
use crate::origin::{LineColumn, Origins, Position};
use crate::tree::system::words::Word;

/// A value with its key.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// The string, if it is one.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.get_ref().as_str()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }
}

/// The value of a key.
pub(super) fn value<'a>(table: &'a DeTable<'a>, key: &str) -> Option<Value<'a>> {
    let (key, value) = table.get_key_value(key)?;
    Some(Value {
        key: key.get_ref(),
        value,
    })
}

/// Reads one document.
pub(super) struct Reader<'t> {
    text: &'t str,
    file: usize,
    pub(super) origins: Origins,
    pub(super) problems: Vec<Conflict>,
    /// The domain that is being read, by its index.
    pub(super) domain: Option<usize>,
}

impl<'t> Reader<'t> {
    /// A reader of `text`, which is shown as the file `name`.
    pub(super) fn new(name: &str, text: &'t str) -> Self {
        let mut origins = Origins::new();
        let file = origins.add_file(name.to_owned());
        Self {
            text,
            file,
            origins,
            problems: Vec::new(),
            domain: None,
        }
    }

    /// The origin of these bytes.
    pub(super) fn origin(&mut self, span: Range<usize>) -> Origin {
        let start = line_column(self.text, span.start);
        self.origins.add(Position::Text {
            file: self.file,
            span,
            start,
        })
    }

    /// The value with its origin.
    pub(super) fn located<T>(&mut self, value: T, at: &Value<'_>) -> Located<T> {
        Located::new(value, self.origin(at.span()))
    }

    /// Notes an error about these bytes.
    pub(super) fn problem(
        &mut self,
        code: Code,
        span: Range<usize>,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) {
        let origin = self.origin(span);
        self.problems.push(Conflict {
            code,
            severity: Severity::Error,
            sides: vec![Side {
                what: what.into(),
                origin,
                domain: self.domain,
            }],
            why: why.into(),
            help: help.into(),
        });
    }

    /// Notes each key of `table` that isn't in `known`, with the nearest that is.
    pub(super) fn check_keys(&mut self, table: &DeTable<'_>, known: &[&str], place: &str) {
        for key in table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
        {
            let name = key.get_ref();
            let nearest = known
                .iter()
                .map(|other| (strsim::damerau_levenshtein(name, other), *other))
                .min()
                .filter(|(distance, other)| *distance <= other.len().max(6) / 2);
            let help = match nearest {
                Some((_, other)) => format!("the nearest key that is known is `{other}`"),
                None => format!("known here: {}", known.join(", ")),
            };
            let why = format!("`{name}` is no key of {place}");
            self.problem(Code::UnknownKey, key.span(), "not known", why, help);
        }
    }

    fn wrong_type(&mut self, value: &Value<'_>, wanted: &str) {
        let is = value.value.get_ref().type_str();
        let why = format!(
            "`{}` takes {wanted}, and this is {} {is}",
            value.key,
            article(is)
        );
        let help = format!("write {wanted}");
        self.problem(
            Code::WrongType,
            value.span(),
            format!("{} {is}", article(is)),
            why,
            help,
        );
    }

    /// A string.
    pub(super) fn text(&mut self, value: &Value<'_>) -> Option<String> {
        let text = value.as_text();
        if text.is_none() {
            self.wrong_type(value, "a string");
        }
        text.map(str::to_owned)
    }

    /// true or false.
    pub(super) fn flag(&mut self, value: &Value<'_>) -> Option<bool> {
        let flag = value.value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(value, "true or false");
        }
        flag
    }

    /// A size or an address: an integer, or a string with one.
    pub(super) fn number(&mut self, value: &Value<'_>) -> Option<u64> {
        let parsed = match value.value.get_ref() {
            DeValue::Integer(integer) => number::parse_digits(integer.as_str(), integer.radix()),
            DeValue::String(text) => number::parse(text),
            _ => {
                self.wrong_type(value, "a number");
                return None;
            }
        };
        if parsed.is_none() {
            let why = format!(
                "`{}` takes a size or an address of at most 64 bits",
                value.key
            );
            let help = "write an integer, or a string such as \"256MiB\" or \"0x4000_0000\"";
            self.problem(
                Code::ValueInvalid,
                value.span(),
                "not such a number",
                why,
                help,
            );
        }
        parsed
    }

    /// A count: an integer from 0 to 2^32 - 1.
    pub(super) fn count(&mut self, value: &Value<'_>) -> Option<u32> {
        let DeValue::Integer(integer) = value.value.get_ref() else {
            self.wrong_type(value, "an integer");
            return None;
        };
        let parsed = number::parse_digits(integer.as_str(), integer.radix());
        let count = parsed.and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            let why = format!("`{}` takes an integer from 0 to {}", value.key, u32::MAX);
            self.problem(Code::ValueInvalid, value.span(), "out of range", why, "");
        }
        count
    }

    /// One of the words of a choice.
    pub(super) fn word<W: Word>(&mut self, value: &Value<'_>) -> Option<W> {
        let text = self.text(value)?;
        let word = W::from_word(&text);
        if word.is_none() {
            let words: Vec<String> = W::WORDS
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            let why = format!("`{}` doesn't take \"{text}\"", value.key);
            let help = format!("write one of {}", words.join(", "));
            self.problem(
                Code::ValueInvalid,
                value.span(),
                "not one of its words",
                why,
                help,
            );
        }
        word
    }

    /// A table.
    pub(super) fn table<'a>(&mut self, value: &Value<'a>) -> Option<&'a DeTable<'a>> {
        let table = value.value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, "a table");
        }
        table
    }

    /// The items of a list.
    pub(super) fn list<'a>(&mut self, value: &Value<'a>) -> Vec<Value<'a>> {
        match value.value.get_ref().as_array() {
            Some(items) => items
                .iter()
                .map(|item| Value {
                    key: value.key,
                    value: item,
                })
                .collect(),
            None => {
                self.wrong_type(value, "a list");
                Vec::new()
            }
        }
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, value: &Value<'_>) -> Vec<String> {
        let items = self.list(value);
        items.iter().filter_map(|item| self.text(item)).collect()
    }

    /// A list of tables with `start` and `size`, and the keys in `more`, which `read` takes.
    pub(super) fn ranges<'a, T>(
        &mut self,
        value: &Value<'a>,
        more: &[&str],
        mut read: impl FnMut(&mut Self, StaticRange, &'a DeTable<'a>) -> T,
    ) -> Vec<T> {
        let known: Vec<&str> = ["start", "size"].iter().chain(more).copied().collect();
        let mut ranges = Vec::new();
        for item in self.list(value) {
            let Some(table) = self.table(&item) else {
                continue;
            };
            self.check_keys(table, &known, &format!("an item of `{}`", value.key));
            let mut field = |key| match self::value(table, key) {
                Some(field) => self.number(&field),
                None => {
                    let why = format!("an item of `{}` has a start and a size", value.key);
                    self.problem(
                        Code::KeyMissing,
                        item.span(),
                        format!("no `{key}`"),
                        why,
                        "",
                    );
                    None
                }
            };
            if let (Some(start), Some(size)) = (field("start"), field("size")) {
                let origin = self.origin(item.span());
                ranges.push(read(
                    self,
                    StaticRange {
                        start,
                        size,
                        origin,
                    },
                    table,
                ));
            }
        }
        ranges
    }
}

/// "an array", "a string".
fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// Line and column of a byte, both from 1.
pub(crate) fn line_column(text: &str, offset: usize) -> LineColumn {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    LineColumn {
        line: small(line),
        column: small(column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let at = |offset| {
            let at = line_column("äb\ncd", offset);
            (at.line, at.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (1, 2));
        assert_eq!(at(4), (2, 1));
        assert_eq!(at(99), (2, 3));
    }
}
