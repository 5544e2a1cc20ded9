//! Aligned tables, and paragraphs.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use crate::cells;

/// A table without lines, its first row a heading.
pub struct Columns(Table);

impl Columns {
    /// An empty table, in lines of at most `width` cells if there is such a limit.
    pub fn new<const N: usize>(header: [&str; N], width: Option<usize>) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        if let Some(width) = width.and_then(|width| u16::try_from(width.saturating_sub(1)).ok()) {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        Self(table)
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.0.add_row(cells);
    }

    /// Lets a column of numbers end on one line.
    pub fn align_right(&mut self, column: usize) {
        if let Some(column) = self.0.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }

    /// Never folds these columns: an address in two lines can't be read.
    pub fn keep_whole(&mut self, columns: &[usize]) {
        for column in columns {
            if let Some(column) = self.0.column_mut(*column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }

    /// The table without the blanks that pad each line's end.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self
            .0
            .lines()
            .map(|line| format!(" {}", line.trim_end()))
            .collect();
        lines.join("\n")
    }
}

/// A paragraph, each line behind so many blanks.
pub fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let length = indent + cells::width(&line) + 1 + cells::width(word);
        if !line.is_empty() && length > width {
            push(&mut lines, &line, indent);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        push(&mut lines, &line, indent);
    }
    lines
}

fn push(lines: &mut String, line: &str, indent: usize) {
    lines.push_str(&" ".repeat(indent));
    lines.push_str(line);
    lines.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_wrapped_at_blanks() {
        assert_eq!(wrapped("aa bb cc", 2, 7), "  aa bb\n  cc\n");
        assert_eq!(wrapped("a-long-word b", 1, 5), " a-long-word\n b\n");
        assert_eq!(wrapped("網域 bb cc", 2, 9), "  網域 bb\n  cc\n");
        assert_eq!(wrapped("", 2, 7), "");
    }
}
