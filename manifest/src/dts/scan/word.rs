//! What is taken from a source: names, labels, references, numbers and strings.
//!
//! Which characters make a name depends on where it stands, so that there is no list of tokens: the parser asks for what
//! may come next.

use super::{Frame, Scanner};
use crate::dts::text::Span;
use crate::tree::blob::MAX_PROPERTY_NAME;

/// Bytes of a name or a label. The Devicetree Specification allows 31; boards have longer ones.
const MAX_NAME: usize = MAX_PROPERTY_NAME;

/// What may stand in the name of a node or a property.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b",._+*#?@-".contains(&byte)
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A run of characters that can make a label. Within one of hexadecimal digits a label could begin at every byte, so
/// that its end is looked for once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    file: u32,
    /// One past its last byte.
    end: usize,
}

impl Scanner<'_> {
    /// Whether what comes next begins a statement: a name with `=` or `{` behind it.
    pub(in crate::dts) fn is_statement(&mut self) -> bool {
        self.skip();
        let rest = self.rest();
        // A longer one is no name; it is looked at again from each of its characters that is refused.
        let most = rest.bytes().take(MAX_NAME + 1);
        let length = most.take_while(|&byte| is_name(byte)).count();
        let behind = rest.get(length..).unwrap_or_default().trim_ascii_start();
        length > 0
            && !rest.as_bytes().first().is_some_and(u8::is_ascii_digit)
            && behind.starts_with(['=', '{'])
    }

    /// Takes a label with its colon.
    pub(in crate::dts) fn label(&mut self) -> Option<(String, Span)> {
        self.skip();
        let length = self.label_length();
        let bytes = self.bytes();
        let first = bytes.first()?;
        if first.is_ascii_digit() || length == 0 || bytes.get(length) != Some(&b':') {
            return None;
        }
        let name = self.rest().get(..length.min(MAX_NAME))?.to_owned();
        let span = self.take(length + 1);
        self.check_length(length, span);
        Some((name, span))
    }

    /// How many characters that can make a label come next.
    fn label_length(&mut self) -> usize {
        let Some((_, Frame { file, at })) = self.frame() else {
            return 0;
        };
        if self.run.file != file || self.run.end <= at {
            let bytes = self.bytes().iter();
            let end = at + bytes.take_while(|&&byte| is_label(byte)).count();
            self.run = Run { file, end };
            #[cfg(test)]
            {
                self.counted += end - at;
            }
        }
        self.run.end - at
    }

    /// Takes the name of a node or a property.
    pub(in crate::dts) fn name(&mut self) -> Option<(String, Span)> {
        self.skip();
        if self.bytes().first() == Some(&b'\\') && self.bytes().get(1).is_some_and(|&b| is_name(b))
        {
            self.advance(1);
        }
        let length = self
            .bytes()
            .iter()
            .take_while(|&&byte| is_name(byte))
            .count();
        if length == 0 {
            return None;
        }
        let name = self.rest().get(..length.min(MAX_NAME))?.to_owned();
        let span = self.take(length);
        self.check_length(length, span);
        Some((name, span))
    }

    fn check_length(&mut self, length: usize, span: Span) {
        if length > MAX_NAME {
            let why = format!("a name has at most {MAX_NAME} characters");
            self.faults.add(span, "too long", why, "");
        }
    }

    /// Takes `&label` or `&{/path}`: what is named, without `&` and braces.
    pub(in crate::dts) fn reference(&mut self) -> Option<(String, Span)> {
        self.skip();
        let rest = self.rest().strip_prefix('&')?;
        if let Some(path) = rest.strip_prefix('{') {
            let length = path
                .bytes()
                .take_while(|&byte| is_name(byte) || byte == b'/')
                .count();
            if path.as_bytes().get(length) != Some(&b'}') {
                return None;
            }
            let name = path.get(..length)?.to_owned();
            let span = self.take(length + 3);
            return Some((name, span));
        }
        let length = rest.bytes().take_while(|&byte| is_label(byte)).count();
        if length == 0 || rest.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let name = rest.get(..length.min(MAX_NAME))?.to_owned();
        let span = self.take(length + 1);
        self.check_length(length, span);
        Some((name, span))
    }

    /// Takes letters, digits and `_`: a number, or a name where none belongs.
    pub(in crate::dts) fn word(&mut self) -> Option<(String, Span)> {
        self.skip();
        let length = self
            .bytes()
            .iter()
            .take_while(|&&byte| is_label(byte))
            .count();
        let word = self.rest().get(..length).filter(|word| !word.is_empty())?;
        let word = word.to_owned();
        let span = self.take(length);
        Some((word, span))
    }

    /// Takes two hexadecimal digits.
    pub(in crate::dts) fn byte(&mut self) -> Option<(u8, Span)> {
        self.skip();
        let digits = self.rest().get(..2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok()?;
        Some((byte, self.take(2)))
    }

    /// Takes a string with its quotes, which must come next; gives its bytes, nothing if it has no end.
    pub(in crate::dts) fn string(&mut self) -> (Option<Vec<u8>>, Span) {
        self.quoted(b'"', "this string has no end")
    }

    /// Takes a character literal with its quotes, which must come next; gives its bytes.
    pub(in crate::dts) fn character(&mut self) -> (Option<Vec<u8>>, Span) {
        self.quoted(b'\'', "this character has no end")
    }

    fn quoted(&mut self, quote: u8, endless: &str) -> (Option<Vec<u8>>, Span) {
        let bytes = self.bytes();
        let mut at = 1;
        let end = loop {
            match bytes.get(at) {
                None => break None,
                Some(b'\\') => at += 2,
                Some(byte) if *byte == quote => break Some(at),
                Some(_) => at += 1,
            }
        };
        if let Some(end) = end {
            let inside = bytes.get(1..end).unwrap_or_default();
            let value = unescape(inside);
            let has_lost = self.frame().is_some_and(|(text, _)| text.is_lossy)
                && String::from_utf8_lossy(inside).contains('\u{fffd}');
            let span = self.take(end + 1);
            if has_lost {
                let why = "this string has bytes that aren't UTF-8";
                self.faults
                    .add(span, "not UTF-8", why, "write such a byte as \\xNN");
            }
            return (Some(value), span);
        }
        // Most likely only this line is meant.
        let line = self.rest().lines().next().unwrap_or_default().len().max(1);
        let span = self.span(1);
        let help = format!("close it by {}", char::from(quote));
        self.faults.add(span, "it begins here", endless, help);
        self.take(line);
        (None, span)
    }
}

/// C's escapes, as dtc takes them.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'\\' {
            value.push(*first);
            continue;
        }
        let Some((&letter, more)) = rest.split_first() else {
            break;
        };
        let (byte, left) = match letter {
            b'a' => (7, more),
            b'b' => (8, more),
            b't' => (b'\t', more),
            b'n' => (b'\n', more),
            b'v' => (11, more),
            b'f' => (12, more),
            b'r' => (b'\r', more),
            b'0'..=b'7' => digits(rest, 3, 8),
            b'x' => digits(more, 2, 16),
            other => (other, more),
        };
        value.push(byte);
        rest = left;
    }
    value
}

/// The number that at most `most` digits make, cut to a byte, and what follows them.
fn digits(text: &[u8], most: usize, radix: u32) -> (u8, &[u8]) {
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let length = text.iter().take(most).take_while(is_digit).count();
    let (digits, rest) = text.split_at(length);
    let value = digits.iter().fold(0, |value: u32, &digit| {
        value * radix + char::from(digit).to_digit(radix).unwrap_or(0)
    });
    let [byte, ..] = value.to_le_bytes();
    (byte, rest)
}
