//! Characters of a source and of what it includes: comments and line markers are passed over here, [words](word) are taken.

mod word;

use std::ops::Range;

use super::fault::Faults;
use super::text::{Span, Text, Texts, small};
use word::{Run, unescape};

/// Bytes of all files together. The largest sources of boards stay below 1 MiB after preprocessing.
pub(super) const MAX_SOURCE_BYTES: usize = 8 << 20;

/// How deep files may include each other.
const MAX_INCLUDES: usize = 32;

/// How included files are found.
pub trait Files {
    /// The file `name` as it is written in the file `from`: the name that it is shown with, and those bytes of `part`
    /// that it has. No others are read, since a file may be larger than the memory.
    ///
    /// # Errors
    /// Why there is none, in a few words.
    fn open(
        &mut self,
        from: &str,
        name: &str,
        part: Range<u64>,
    ) -> Result<(String, Vec<u8>), String>;
}

/// Nothing can be included.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles;

impl Files for NoFiles {
    fn open(&mut self, _: &str, _: &str, _: Range<u64>) -> Result<(String, Vec<u8>), String> {
        Err("files can't be included here".to_owned())
    }
}

/// A file that is being read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    file: u32,
    at: usize,
}

pub(super) struct Scanner<'f> {
    pub(super) texts: Texts,
    pub(super) faults: Faults,
    files: &'f mut dyn Files,
    open: Vec<Frame>,
    bytes: usize,
    /// Lines for the C preprocessor were met: names where numbers belong follow from that.
    pub(super) is_unprocessed: bool,
    /// The last that a label was looked for in.
    run: Run,
    /// Characters that were looked at for labels.
    #[cfg(test)]
    pub(super) counted: usize,
    /// Where the last thing that was taken ended.
    pub(super) last: Span,
}

const DIRECTIVES: [&str; 13] = [
    "include", "define", "undef", "if", "ifdef", "ifndef", "else", "elif", "endif", "pragma",
    "error", "warning", "line",
];

impl<'f> Scanner<'f> {
    pub(super) fn new(name: String, bytes: Vec<u8>, files: &'f mut dyn Files) -> Self {
        let mut scanner = Self {
            texts: Texts::default(),
            faults: Faults::default(),
            files,
            open: Vec::new(),
            bytes: 0,
            is_unprocessed: false,
            run: Run::default(),
            #[cfg(test)]
            counted: 0,
            last: Span::default(),
        };
        scanner.push(name, bytes, Span::default());
        scanner
    }

    /// Reads on in another file. `asked` is where it is named.
    fn push(&mut self, name: String, bytes: Vec<u8>, asked: Span) {
        if bytes.len() > MAX_SOURCE_BYTES - self.bytes {
            let why = format!(
                "the source has more than {} MiB with all that it includes",
                MAX_SOURCE_BYTES >> 20
            );
            // Something must be there to point into.
            if self.texts.files.is_empty() {
                self.texts.files.push(Text::new(name, Vec::new()));
            }
            self.faults.add(asked, "too much", why, "");
            return;
        }
        self.bytes += bytes.len();
        let file = small(self.texts.files.len());
        self.texts.files.push(Text::new(name, bytes));
        self.open.push(Frame { file, at: 0 });
    }

    /// Nothing more is read.
    pub(super) fn stop(&mut self) {
        self.open.clear();
        self.faults.close();
    }

    fn frame(&self) -> Option<(&Text, Frame)> {
        let frame = *self.open.last()?;
        Some((self.texts.files.get(frame.file as usize)?, frame))
    }

    /// What is left of the file that is being read.
    fn rest(&self) -> &str {
        self.frame()
            .and_then(|(text, frame)| text.text.get(frame.at..))
            .unwrap_or_default()
    }

    /// What is left, as bytes.
    fn bytes(&self) -> &[u8] {
        self.rest().as_bytes()
    }

    fn advance(&mut self, bytes: usize) {
        if let Some(frame) = self.open.last_mut() {
            frame.at += bytes;
        }
    }

    /// `length` bytes from here, or what is left of the file; whole characters.
    pub(super) fn span(&self, length: usize) -> Span {
        match self.frame() {
            Some((text, frame)) => {
                let mut end = (frame.at + length).min(text.text.len());
                while !text.text.is_char_boundary(end) {
                    end += 1;
                }
                Span {
                    file: frame.file,
                    start: small(frame.at),
                    end: small(end),
                }
            }
            // At the end of everything.
            None => self.behind(),
        }
    }

    /// From the start of `start` to what was taken last.
    pub(super) fn since(&self, start: Span) -> Span {
        let end = if self.last.file == start.file {
            self.last.end.max(start.end)
        } else {
            start.end
        };
        Span { end, ..start }
    }

    /// The last character of what was taken last: where something is missing behind it.
    pub(super) fn behind(&self) -> Span {
        let text = self.texts.files.get(self.last.file as usize);
        let taken = text.and_then(|text| text.text.get(..self.last.end as usize));
        let last = taken.and_then(|taken| taken.chars().next_back());
        let length = small(last.map_or(0, char::len_utf8));
        Span {
            start: self.last.end.saturating_sub(length),
            ..self.last
        }
    }

    fn take(&mut self, length: usize) -> Span {
        let span = self.span(length);
        self.advance(length);
        self.last = span;
        span
    }

    fn is_line_start(&self) -> bool {
        self.frame().is_some_and(|(text, frame)| {
            let before = text.text.get(..frame.at).unwrap_or_default();
            let before = before.trim_end_matches([' ', '\t']);
            before.is_empty() || before.ends_with('\n')
        })
    }

    /// Passes over what means nothing: white space, comments, lines of the preprocessor, ends of included files.
    /// Included files are entered.
    fn skip(&mut self) {
        if self.faults.is_full() {
            self.stop();
        }
        loop {
            let bytes = self.bytes();
            match bytes {
                [] if self.open.len() > 1 => {
                    self.open.pop();
                }
                [] => return,
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => {
                    let blank = |byte: &&u8| byte.is_ascii_whitespace() || **byte == 0x0b;
                    let length = bytes.iter().take_while(blank).count();
                    self.advance(length);
                }
                [b'/', b'/', ..] => {
                    let length = self.rest().find('\n').unwrap_or(self.rest().len());
                    self.advance(length);
                }
                [b'/', b'*', ..] => self.comment(),
                [b'#', ..] if self.is_line_start() => {
                    if !self.preprocessor_line() {
                        return;
                    }
                }
                _ if self.rest().starts_with("/include/") => self.include(),
                _ => return,
            }
        }
    }

    fn comment(&mut self) {
        match self.rest().get(2..).and_then(|rest| rest.find("*/")) {
            Some(length) => self.advance(length + 4),
            None => {
                let span = self.span(2);
                self.faults.add(
                    span,
                    "it begins here",
                    "this comment has no end",
                    "close it by */",
                );
                self.advance(self.rest().len());
            }
        }
    }

    /// A line that begins with `#`: a marker of the preprocessor is obeyed, its input refused. What is neither, such as a
    /// property `#size-cells`, is left.
    fn preprocessor_line(&mut self) -> bool {
        let rest = self.rest();
        let line = rest.lines().next().unwrap_or_default();
        let length = line.len();
        if let Some((number, file)) = marker(line) {
            let span = self.span(length);
            if let Some(text) = self.texts.files.get_mut(span.file as usize) {
                text.mark(span.start, file, number);
            }
            self.advance(length);
            return true;
        }
        let words = line.trim_start_matches('#').trim_start();
        let word: String = words
            .chars()
            .take_while(char::is_ascii_alphabetic)
            .collect();
        let behind = words.as_bytes().get(word.len());
        let ends = behind.is_none_or(|byte| b" \t\r\"<(/!".contains(byte));
        let is_property = words
            .trim_start_matches(word.as_str())
            .trim_start()
            .starts_with('=');
        if !DIRECTIVES.contains(&word.as_str()) || !ends || is_property {
            return false;
        }
        // The rest of its kind needs no word of its own.
        if !self.is_unprocessed {
            let span = self.span(length);
            self.faults.add(
                span,
                format!("#{word}"),
                "this source hasn't been through the C preprocessor",
                "run it through cpp first: `cpp -nostdinc -undef -x assembler-with-cpp -I INCLUDES FILE > OUT.dts`",
            );
        }
        self.is_unprocessed = true;
        let mut continued = length;
        while self
            .rest()
            .get(..continued)
            .is_some_and(|line| line.trim_end_matches('\r').ends_with('\\'))
        {
            let more = self.rest().get(continued + 1..).unwrap_or_default();
            if more.is_empty() {
                break;
            }
            continued += 1 + more.lines().next().unwrap_or_default().len();
        }
        self.advance(continued.min(self.rest().len()));
        true
    }

    fn include(&mut self) {
        let word = self.take("/include/".len());
        let blank = self
            .bytes()
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace());
        let blank = blank.count();
        self.advance(blank);
        if self.bytes().first() != Some(&b'"') {
            let why = "/include/ is followed by a file's name";
            self.faults
                .add(word, "no name", why, "write /include/ \"FILE\"");
            return;
        }
        let (name, span) = self.string();
        let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
        self.enter(&name, span);
    }

    fn enter(&mut self, name: &str, span: Span) {
        let from = self
            .frame()
            .map(|(text, _)| text.name.clone())
            .unwrap_or_default();
        if self.open.len() >= MAX_INCLUDES {
            let why = format!("files include each other more than {MAX_INCLUDES} deep");
            self.faults.add(span, "too deep", why, "");
            return;
        }
        // One byte above what is left tells that there is too much.
        let part = 0..(MAX_SOURCE_BYTES - self.bytes) as u64 + 1;
        match self.files.open(&from, name, part) {
            Ok((name, bytes)) => {
                let is_open = self.open.iter().any(|frame| {
                    let text = self.texts.files.get(frame.file as usize);
                    text.is_some_and(|text| text.name == name)
                });
                if is_open {
                    let why = format!("{name} includes itself");
                    self.faults
                        .add(span, "included again", why, "take one of the two out");
                } else {
                    self.push(name, bytes, span);
                }
            }
            Err(why) => {
                let why = format!("can't include {name}: {why}");
                let help = "a relative path counts from the folder of the file that names it";
                self.faults.add(span, "named here", why, help);
            }
        }
    }

    /// Some bytes of a file that is named here, for `/incbin/`.
    pub(super) fn included_bytes(
        &mut self,
        name: &str,
        part: Range<u64>,
    ) -> Result<Vec<u8>, String> {
        let from = self
            .frame()
            .map(|(text, _)| text.name.clone())
            .unwrap_or_default();
        Ok(self.files.open(&from, name, part)?.1)
    }

    /// The next byte that means something; `None` at the end.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip();
        self.bytes().first().copied()
    }

    /// Whether this comes next; nothing is taken.
    pub(super) fn is_next(&mut self, text: &str) -> bool {
        self.skip();
        self.rest().starts_with(text)
    }

    /// Takes this if it comes next.
    pub(super) fn eat(&mut self, text: &str) -> Option<Span> {
        self.is_next(text).then(|| self.take(text.len()))
    }

    /// Takes one character, whatever it is.
    pub(super) fn skip_one(&mut self) -> Span {
        self.skip();
        let length = self.rest().chars().next().map_or(0, char::len_utf8);
        self.take(length)
    }
}

/// The number and the name in `# 12 "file" 1 2`, or in `#line 12 "file"`.
fn marker(line: &str) -> Option<(u32, String)> {
    let rest = line.strip_prefix('#')?;
    let rest = rest.strip_prefix("line").unwrap_or(rest);
    let trimmed = rest.trim_start_matches([' ', '\t']);
    if trimmed.len() == rest.len() {
        return None;
    }
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let number = trimmed.get(..digits)?.parse().ok()?;
    let rest = trimmed.get(digits..)?.trim_start_matches([' ', '\t']);
    let name = rest.strip_prefix('"')?;
    let end = name.rfind('"')?;
    let name = unescape(name.get(..end)?.as_bytes());
    Some((number, String::from_utf8_lossy(&name).into_owned()))
}
