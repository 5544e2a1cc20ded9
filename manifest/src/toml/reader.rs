//! Typed access to a TOML document: whatever is wrong becomes a conflict with its place, and
//! reading goes on.

use std::ops::Range;

use layout::{Code, Conflict, Located, Origin, Severity, Side, StaticRange};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mend::{self, Wanted};
use super::number;
use crate::origin::{LineColumn, Origins, Position};
use crate::tree::system::words::Word;

/// A value with its key.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
    /// It is an item of the key's list.
    is_item: bool,
}

impl<'a> Value<'a> {
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// The string, if it is one.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.get_ref().as_str()
    }

    pub(super) fn is_empty_list(&self) -> bool {
        let list = self.value.get_ref().as_array();
        list.is_some_and(|list| list.is_empty())
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }
}

/// The value of a key.
pub(super) fn value<'a>(table: &'a DeTable<'a>, key: &str) -> Option<Value<'a>> {
    let (key, value) = table.get_key_value(key)?;
    Some(Value {
        key: key.get_ref(),
        value,
        is_item: false,
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
        self.problem_at(code, origin, what, why, help);
    }

    /// Notes an error about what was said at this origin.
    pub(super) fn problem_at(
        &mut self,
        code: Code,
        origin: Origin,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) {
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

    /// Notes an error about several places, each with what it is.
    pub(super) fn clash(
        &mut self,
        code: Code,
        places: impl IntoIterator<Item = (Range<usize>, String)>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) {
        let sides = places.into_iter().map(|(span, what)| Side {
            what,
            origin: self.origin(span),
            domain: self.domain,
        });
        let sides = sides.collect();
        self.problems.push(Conflict {
            code,
            severity: Severity::Error,
            sides,
            why: why.into(),
            help: help.into(),
        });
    }

    /// Notes that a key is missing from the table or the item in these bytes.
    pub(super) fn missing(&mut self, key: &str, span: Range<usize>, why: &str) {
        let help = match mend::example(key) {
            Some(example) => format!("add `{key} = {example}`, with the value that you mean"),
            None => format!("add `{key}`"),
        };
        self.problem(Code::KeyMissing, span, format!("no `{key}`"), why, help);
    }

    /// Notes each key of `table` that isn't in `known`, with the nearest that is.
    pub(super) fn check_keys(&mut self, table: &DeTable<'_>, known: &[&str], place: &str) {
        for key in table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
        {
            let name = key.get_ref();
            let near = mend::nearest(name, known.iter().copied());
            let near =
                near.filter(|(distance, other)| *distance <= name.len().max(other.len()) / 2);
            let help = match near {
                Some((_, other)) if table.contains_key(other) => {
                    format!("leave `{name}` out: `{other}`, the nearest key, is here already")
                }
                Some((_, other)) => format!("the nearest key that is known is `{other}`"),
                None => format!("leave `{name}` out; known here: {}", known.join(", ")),
            };
            let why = format!("`{name}` is no key of {place}");
            self.problem(Code::UnknownKey, key.span(), "not known", why, help);
        }
    }

    fn wrong_type(&mut self, value: &Value<'_>, wanted: Wanted) {
        let is = value.value.get_ref().type_str();
        let is = format!("{} {is}", article(is));
        let (key, phrase) = (value.key, wanted.phrase());
        let items = if value.is_item {
            "a list, each item "
        } else {
            ""
        };
        let why = format!("`{key}` takes {items}{phrase}, and this is {is}");
        let help = self.retyped(value, wanted);
        self.problem(Code::WrongType, value.span(), is, why, help);
    }

    /// How to write a value in the type that is wanted.
    fn retyped(&self, value: &Value<'_>, wanted: Wanted) -> String {
        let source = self.text.get(value.span()).unwrap_or_default();
        let key = value.key;
        // The header of a table stands where its value would.
        if wanted == Wanted::List && value.is_table() && source.starts_with('[') {
            return format!("write `[[{key}]]`, not `[{key}]`");
        }
        let (before, after) = if value.is_item {
            (String::new(), String::new())
        } else {
            (format!("{key} = "), format!(", or leave `{key}` out"))
        };
        let converted = mend::converted(key, value.value.get_ref(), source, wanted);
        let example = match wanted {
            Wanted::List | Wanted::Table if key == "memory" => mend::example("static-mem"),
            _ => mend::example(key),
        };
        match (converted, example) {
            (Some(converted), _) if converted.len() < 120 => format!("write `{before}{converted}`"),
            (_, Some(example)) => match wanted {
                Wanted::List => format!("write {}, such as `{before}[{example}]`", wanted.phrase()),
                _ => format!("write {}, such as `{before}{example}`", wanted.phrase()),
            },
            _ if value.is_item => format!("write {}, or leave it out of `{key}`", wanted.phrase()),
            _ if mend::can_be_left_out(key) => format!("write {}{after}", wanted.phrase()),
            _ => format!("write {}", wanted.phrase()),
        }
    }

    /// A string.
    pub(super) fn text(&mut self, value: &Value<'_>) -> Option<String> {
        let text = value.as_text();
        if text.is_none() {
            self.wrong_type(value, Wanted::Text);
        }
        if let Some((before, _)) = text.and_then(|text| text.split_once('\0')) {
            let why = "a text goes into a device tree, where NUL ends it";
            let help = format!("write {before:?}");
            self.problem(Code::ValueInvalid, value.span(), "NUL in a text", why, help);
        }
        text.map(str::to_owned)
    }

    /// true or false.
    pub(super) fn flag(&mut self, value: &Value<'_>) -> Option<bool> {
        let flag = value.value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(value, Wanted::Flag);
        }
        flag
    }

    /// A size or an address: an integer, or a string with one.
    pub(super) fn number(&mut self, value: &Value<'_>) -> Option<u64> {
        let parsed = match value.value.get_ref() {
            DeValue::Integer(integer) => number::parse_digits(integer.as_str(), integer.radix()),
            DeValue::String(text) => number::parse(text),
            _ => {
                self.wrong_type(value, Wanted::Number);
                return None;
            }
        };
        if parsed.is_none() {
            let why = format!(
                "`{}` takes a size or an address of at most 64 bits",
                value.key
            );
            let near = mend::number_near(value.value.get_ref());
            let near = near.or_else(|| mend::example(value.key).map(str::to_owned));
            let form = "an integer, or a string such as \"256MiB\" or \"0x4000_0000\"";
            let help = match near {
                Some(near) if !value.is_item => format!("write `{} = {near}`: {form}", value.key),
                _ => format!("write {form}"),
            };
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
            self.wrong_type(value, Wanted::Count);
            return None;
        };
        let parsed = number::parse_digits(integer.as_str(), integer.radix());
        let count = parsed.and_then(|count| u32::try_from(count).ok());
        if count.is_none() {
            let why = format!("`{}` takes an integer from 0 to {}", value.key, u32::MAX);
            let help = match mend::example(value.key) {
                Some(example) if value.is_item => format!("write a number such as `{example}`"),
                Some(example) => format!("write a number such as `{} = {example}`", value.key),
                None => String::new(),
            };
            self.problem(Code::ValueInvalid, value.span(), "out of range", why, help);
        }
        count
    }

    /// One of the words of a choice.
    pub(super) fn word<W: Word>(&mut self, value: &Value<'_>) -> Option<W> {
        let text = self.text(value)?;
        let word = W::from_word(&text);
        if word.is_none() {
            let words = W::WORDS.iter().map(|(word, _)| *word);
            let why = format!("`{}` doesn't take \"{text}\"", value.key);
            let help = one_of(&text, words);
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
            self.wrong_type(value, Wanted::Table);
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
                    is_item: true,
                })
                .collect(),
            None => {
                self.wrong_type(value, Wanted::List);
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
            // A key that isn't known is most likely the one that is missing.
            let is_known = table
                .keys()
                .all(|key| known.contains(&key.get_ref().as_ref()));
            let mut field = |key| match self::value(table, key) {
                Some(field) => self.number(&field),
                None if !is_known => None,
                None => {
                    let why = format!("an item of `{}` has a start and a size", value.key);
                    let written = self.text.get(item.span()).unwrap_or_default();
                    let help = completed(key, written);
                    self.problem(
                        Code::KeyMissing,
                        item.span(),
                        format!("no `{key}`"),
                        why,
                        help,
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

/// The help for a word that is none of these.
pub(super) fn one_of<'a>(word: &str, words: impl Iterator<Item = &'a str> + Clone) -> String {
    let all: Vec<String> = words.clone().map(|word| format!("\"{word}\"")).collect();
    match mend::nearest(word, words) {
        Some((_, near)) if all.len() > 1 => {
            format!("the nearest is \"{near}\"; it takes {}", all.join(", "))
        }
        _ => format!("write {}", all.join(", ")),
    }
}

/// The help for an item without its start or its size; `written` is the item.
fn completed(key: &str, written: &str) -> String {
    let example = mend::example(key).unwrap_or_default();
    let inner = written.trim_start_matches('{').trim_end_matches('}').trim();
    let whole = match key {
        _ if inner.is_empty() || inner.len() > 120 || inner.contains('\n') => {
            return format!("add `{key} = {example}`");
        }
        "start" => format!("{{ {key} = {example}, {inner} }}"),
        _ => format!("{{ {inner}, {key} = {example} }}"),
    };
    format!("write {whole}, with the {key} that you mean")
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
