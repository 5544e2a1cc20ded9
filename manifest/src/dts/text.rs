//! The files of a source, and positions in them: by bytes while reading, by line and column for people.

use std::ops::Range;

use crate::origin::LineColumn;

/// Bytes of one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The file, by its index in [`Texts`].
    pub(super) file: u32,
    /// The first byte.
    pub(super) start: u32,
    /// One past the last byte.
    pub(super) end: u32,
}

/// A place as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's name. After a line marker of the C preprocessor it is the name that the marker gives.
    pub file: String,
    /// Line and column.
    pub start: LineColumn,
    /// The bytes in [`Text::text`] of the file of this name. Behind a line marker there is no such text; then they count
    /// in the preprocessor's output.
    pub span: Range<usize>,
}

/// A file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The name that it is shown with.
    pub name: String,
    /// What it says. Bytes that aren't UTF-8 are replaced.
    pub text: String,
    /// Whether some were.
    pub(super) is_lossy: bool,
    /// Where each line begins.
    lines: Vec<u32>,
    /// Line markers, in their order.
    markers: Vec<Marker>,
}

/// `# LINE "FILE"`: where the lines behind it come from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marker {
    /// The first line that it is about, from 0.
    from: usize,
    file: String,
    line: u32,
}

impl Text {
    pub(super) fn new(name: String, bytes: Vec<u8>) -> Self {
        let (text, is_lossy) = match String::from_utf8(bytes) {
            Ok(text) => (text, false),
            Err(error) => {
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                (text, true)
            }
        };
        let breaks = text.match_indices('\n').map(|(at, _)| small(at + 1));
        let lines = std::iter::once(0).chain(breaks).collect();
        Self {
            name,
            text,
            is_lossy,
            lines,
            markers: Vec::new(),
        }
    }

    /// The line of a byte, from 0.
    fn line(&self, offset: u32) -> usize {
        self.lines
            .partition_point(|&start| start <= offset)
            .saturating_sub(1)
    }

    /// Notes that the line behind the one of this byte is `line` of `file`.
    pub(super) fn mark(&mut self, offset: u32, file: String, line: u32) {
        // A preprocessor's output that is named like its input would be shown with the wrong lines.
        if file != self.name {
            let from = self.line(offset) + 1;
            self.markers.push(Marker { from, file, line });
        }
    }

    fn place(&self, span: Span) -> Place {
        let line = self.line(span.start);
        let line_start = self.lines.get(line).copied().unwrap_or(0);
        let before = self.text.get(line_start as usize..span.start as usize);
        let column = before.map_or(0, |before| before.chars().count()) + 1;
        let known = self
            .markers
            .partition_point(|marker| marker.from <= line)
            .checked_sub(1)
            .and_then(|marker| self.markers.get(marker));
        let (file, line) = match known {
            Some(marker) => {
                let behind = small(line - marker.from);
                (marker.file.clone(), marker.line.saturating_add(behind))
            }
            None => (self.name.clone(), small(line + 1)),
        };
        let column = small(column);
        Place {
            file,
            start: LineColumn { line, column },
            span: span.start as usize..span.end.max(span.start) as usize,
        }
    }
}

/// All files of a source, in the order of their inclusion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    pub(super) files: Vec<Text>,
}

impl Texts {
    /// The files: the source itself first. A file that is included twice is there twice.
    pub fn files(&self) -> &[Text] {
        &self.files
    }

    pub(super) fn place(&self, span: Span) -> Place {
        match self.files.get(span.file as usize) {
            Some(text) => text.place(span),
            None => Place {
                file: String::new(),
                start: LineColumn { line: 1, column: 1 },
                span: 0..0,
            },
        }
    }
}

/// Files are bounded far below 4 GiB.
pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
