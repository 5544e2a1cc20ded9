//! What a wrong value was most likely meant to be, as text that can be put in its place.

use std::path::Path;

use toml::de::DeValue;

use super::number;

/// An example for each key whose value can't be guessed.
const EXAMPLES: &[(&str, &str)] = &[
    ("manifest-version", "1"),
    ("cpus", "1"),
    ("affinity", "0"),
    ("memory", "\"256MiB\""),
    ("size", "\"256MiB\""),
    ("start", "0x6000_0000"),
    ("address", "0x2200_0000"),
    ("id", "\"ring0\""),
    ("role", "\"owner\""),
    ("port", "10"),
    ("peer", "\"driver\""),
    ("peer-port", "11"),
    ("memory-below", "\"4GiB\""),
    ("dma-mask", "0xffff_ffff"),
    ("max-event-channels", "1023"),
    ("max-grant-frames", "64"),
    ("name", "\"domain\""),
    ("kernel", "\"vmlinuz\""),
    ("path", "\"/soc/ethernet@1000000\""),
    ("machine", "\"virt,gic-version=3\""),
    ("arch", "\"aarch64\""),
    ("cpu", "\"cortex-a57\""),
    ("static-mem", "{ start = 0x6000_0000, size = \"256MiB\" }"),
    ("reserved", "{ start = 0x6000_0000, size = \"16MiB\" }"),
    ("host", "{ description = \"FILE\" }"),
];

/// Keys without which a table says nothing; all others can be left out.
const NEEDED: &[&str] = &[
    "manifest-version",
    "host",
    "domain",
    "name",
    "kernel",
    "memory",
    "path",
    "start",
    "size",
    "machine",
    "arch",
    "cpu",
];

/// Keys that take a list of ranges.
const RANGES: &[&str] = &["memory", "static-mem", "reserved"];

/// Keys that take any text, so that a number there is most likely meant as text.
const FREE_TEXT: &[&str] = &[
    "name", "kernel", "ramdisk", "cmdline", "machine", "cpu", "id",
];

/// The type that a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Text,
    Flag,
    /// A size or an address, of 64 bits.
    Number,
    /// A number of things, of 32 bits.
    Count,
    Table,
    List,
}

impl Wanted {
    /// What it is called in a message.
    pub(super) fn phrase(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::Count => "an integer",
            Self::Table => "a table",
            Self::List => "a list",
        }
    }
}

/// An example of what this key takes.
pub(super) fn example(key: &str) -> Option<&'static str> {
    let found = EXAMPLES.iter().find(|(name, _)| *name == key);
    found.map(|(_, example)| *example)
}

/// Whether the key can be left out.
pub(super) fn can_be_left_out(key: &str) -> bool {
    !NEEDED.contains(&key)
}

/// The value of `key` in the type that is wanted, if it can be meant so. `source` is how it is written.
pub(super) fn converted(
    key: &str,
    value: &DeValue<'_>,
    source: &str,
    wanted: Wanted,
) -> Option<String> {
    match wanted {
        Wanted::Text if FREE_TEXT.contains(&key) => as_text(value, source),
        Wanted::Text => None,
        Wanted::Flag => as_flag(value),
        Wanted::Number | Wanted::Count => as_number(value, source),
        Wanted::List if RANGES.contains(&key) && !source.starts_with('{') => None,
        Wanted::List => (!source.starts_with('[')).then(|| format!("[{source}]")),
        Wanted::Table => as_range(value, source),
    }
}

fn as_text(value: &DeValue<'_>, source: &str) -> Option<String> {
    match value {
        DeValue::Integer(_) | DeValue::Float(_) => Some(format!("\"{source}\"")),
        DeValue::Array(items) => {
            let items: Option<Vec<&str>> =
                items.iter().map(|item| item.get_ref().as_str()).collect();
            let items = items.filter(|items| !items.is_empty())?;
            Some(format!("{:?}", items.join(" ")))
        }
        _ => None,
    }
}

fn as_flag(value: &DeValue<'_>) -> Option<String> {
    let text = match value {
        DeValue::String(text) => text.to_ascii_lowercase(),
        DeValue::Integer(integer) => integer.as_str().to_owned(),
        _ => return None,
    };
    let flag = match text.as_str() {
        "true" | "yes" | "on" | "1" => true,
        "false" | "no" | "off" | "0" => false,
        _ => return None,
    };
    Some(flag.to_string())
}

fn as_number(value: &DeValue<'_>, source: &str) -> Option<String> {
    match value {
        DeValue::String(text) => number::parse(text).map(|number| number.to_string()),
        DeValue::Float(_) => {
            let (whole, _) = source.split_once('.')?;
            number::parse(whole)
                .filter(|number| *number > 0)
                .map(|_| whole.to_owned())
        }
        _ => None,
    }
}

/// A range that is written as a list of start and size, or as a start alone.
fn as_range(value: &DeValue<'_>, source: &str) -> Option<String> {
    let (start, size) = match value {
        DeValue::Array(items) => match items.iter().as_slice() {
            [start, size] => (integer(start.get_ref())?, integer(size.get_ref())?),
            _ => return None,
        },
        DeValue::Integer(_) => (source.to_owned(), "\"256MiB\"".to_owned()),
        _ => return None,
    };
    Some(format!("{{ start = {start}, size = {size} }}"))
}

fn integer(value: &DeValue<'_>) -> Option<String> {
    let DeValue::Integer(integer) = value else {
        return None;
    };
    let number = number::parse_digits(integer.as_str(), integer.radix())?;
    Some(format!("{number:#x}"))
}

/// A size or an address that is no number, with the unit or the sign put right.
pub(super) fn number_near(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(integer) => {
            let digits = integer.as_str().strip_prefix('-')?;
            number::parse_digits(digits, integer.radix()).map(|number| number.to_string())
        }
        DeValue::String(text) => unit(text).map(|near| format!("\"{near}\"")),
        _ => None,
    }
}

/// A size with the unit and the sign put right ("256MB", "-1 gib").
pub(super) fn unit(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches(['-', '+']);
    let unit =
        text.trim_start_matches(|letter: char| letter.is_ascii_digit() || "_. ".contains(letter));
    let digits = text.strip_suffix(unit)?.trim().split('.').next()?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => "",
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        "t" | "tb" | "tib" => "TiB",
        _ => return None,
    };
    let near = format!("{digits}{unit}");
    number::parse(&near)
        .filter(|number| *number > 0)
        .map(|_| near)
}

/// The word of `words` that is most like `word`; of several the first. One that begins so is most like it.
pub(super) fn nearest<'a>(
    word: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<(usize, &'a str)> {
    let distances = words
        .into_iter()
        .map(|other| (distance(word, other), other));
    distances.min_by_key(|(distance, _)| *distance)
}

fn distance(word: &str, other: &str) -> usize {
    const SHORTEST_BEGINNING: usize = 3;
    if word.len() >= SHORTEST_BEGINNING && other.starts_with(word) {
        return 1;
    }
    strsim::damerau_levenshtein(word, other)
}

/// A name that a domain can have, made from one that it can't.
pub(super) fn plain_name(name: &str) -> String {
    let plain = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || "-_.".contains(letter) => letter,
        _ => '-',
    };
    let plain: String = name.chars().map(plain).collect();
    match plain.as_str() {
        "terrane" => "terrane-domain".to_owned(),
        _ => plain,
    }
}

/// A file beside the one that isn't there, under a name most like its own; as `written` would name it.
pub(super) fn file_near(path: &Path, written: &str) -> Option<String> {
    const MOST_LOOKED_AT: usize = 4096;
    let wanted = path.file_name()?.to_str()?;
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return None,
    };
    let entries = std::fs::read_dir(parent)
        .ok()?
        .take(MOST_LOOKED_AT)
        .flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    let (distance, near) = nearest(wanted, names.iter().map(String::as_str))?;
    (distance <= wanted.len().max(4) / 2)
        .then(|| format!("{}{near}", written.strip_suffix(wanted).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> String {
        format!("x = {text}")
    }

    fn near(text: &str, wanted: Wanted) -> Option<String> {
        let document = value(text);
        let table = toml::de::DeTable::parse(&document).unwrap();
        let (_, value) = table.get_ref().get_key_value("x").unwrap();
        converted("name", value.get_ref(), text, wanted)
    }

    #[test]
    fn a_value_of_another_type_is_converted_where_it_can_be_meant() {
        let is = |text, wanted, expected: &str| {
            assert_eq!(near(text, wanted).as_deref(), Some(expected), "{text}")
        };
        is("5", Wanted::Text, "\"5\"");
        is("[\"a\", \"b\"]", Wanted::Text, "\"a b\"");
        is("\"yes\"", Wanted::Flag, "true");
        is("0", Wanted::Flag, "false");
        is("\"2\"", Wanted::Count, "2");
        is("1.5", Wanted::Count, "1");
        is("\"x\"", Wanted::List, "[\"x\"]");
        is("[16, 32]", Wanted::Table, "{ start = 0x10, size = 0x20 }");
        for (text, wanted) in [
            ("0.5", Wanted::Count),
            ("true", Wanted::Text),
            ("\"maybe\"", Wanted::Flag),
        ] {
            assert_eq!(near(text, wanted), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_put_right_by_its_unit_or_its_sign() {
        for (text, expected) in [
            ("\"256MB\"", Some("\"256MiB\"")),
            ("\"2 gib\"", Some("\"2GiB\"")),
            ("\"1.5GiB\"", Some("\"1GiB\"")),
            ("-4096", Some("4096")),
            ("\"all\"", None),
            ("\"0.5MiB\"", None),
        ] {
            let document = value(text);
            let table = toml::de::DeTable::parse(&document).unwrap();
            let (_, value) = table.get_ref().get_key_value("x").unwrap();
            assert_eq!(number_near(value.get_ref()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_domains_name_loses_what_a_console_line_cannot_have() {
        assert_eq!(plain_name("net driver"), "net-driver");
        assert_eq!(plain_name("terrane"), "terrane-domain");
    }
}
