//! Writes JSON on one line: what plan and host description have in common.
//!
//! Addresses are strings in hexadecimal, since a JSON number need not hold 64 bits; sizes are numbers, in bytes.

use alloc::string::String;
use core::fmt::Write as _;

use layout::{MachineRange, MfnRange};

/// JSON in the making. Commas are put where the last byte calls for one.
#[derive(Default)]
pub(crate) struct Json {
    text: String,
}

impl Json {
    /// What was written.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn separate(&mut self) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.text.push(',');
        }
    }

    pub(crate) fn key(&mut self, key: &str) {
        self.quoted(key);
        self.text.push(':');
    }

    pub(crate) fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.separate();
        self.text.push('{');
        fields(self);
        self.text.push('}');
    }

    pub(crate) fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.key(key);
        self.text.push('[');
        for one in items {
            item(self, one);
        }
        self.text.push(']');
    }

    pub(crate) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.word("null"),
        }
    }

    pub(crate) fn null(&mut self, key: &str) {
        self.key(key);
        self.word("null");
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.word(if value { "true" } else { "false" });
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.plain(value);
    }

    pub(crate) fn address(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.text, "\"{value:#x}\"");
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        self.quoted(value);
    }

    pub(crate) fn frames(&mut self, frames: &MfnRange) {
        self.range(&frames.bytes());
    }

    pub(crate) fn range(&mut self, range: &MachineRange) {
        self.object(|json| {
            json.address("start", range.start().raw());
            json.number("size", range.size());
        });
    }

    pub(crate) fn plain(&mut self, value: u64) {
        self.separate();
        let _ = write!(self.text, "{value}");
    }

    pub(crate) fn word(&mut self, word: &str) {
        self.separate();
        self.text.push_str(word);
    }

    pub(crate) fn quoted(&mut self, value: &str) {
        self.separate();
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                control if u32::from(control) < 0x20 => {
                    let _ = write!(self.text, "\\u{:04x}", u32::from(control));
                }
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }
}
