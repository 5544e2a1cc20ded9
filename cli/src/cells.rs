//! Text in the cells of a terminal or of a font whose letters are of one width: a letter takes none, one or two.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

/// How many cells a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A text of at most `room` cells: its beginning and `mark`, if it is longer.
pub fn cut<'a>(text: &'a str, room: usize, mark: &str) -> Cow<'a, str> {
    if width(text) <= room {
        return Cow::Borrowed(text);
    }
    let left = room.saturating_sub(width(mark));
    let ends = text.char_indices().map(|(at, _)| at);
    let beginnings = ends.map(|end| text.get(..end).unwrap_or_default());
    let fitting = beginnings.take_while(|beginning| width(beginning) <= left);
    let longest = fitting.last().unwrap_or_default();
    Cow::Owned(format!("{longest}{mark}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_may_take_two_cells_or_none() {
        assert_eq!(["net", "網域", "e\u{301}", ""].map(width), [3, 4, 1, 0]);
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("control", 7, ".."), "control");
        assert_eq!(cut("control", 6, ".."), "cont..");
        assert_eq!(cut("網域網域", 8, "…"), "網域網域");
        // The third letter would end one cell behind the room.
        assert_eq!(cut("網域網域", 6, "…"), "網域…");
        // A mark stays with its letter.
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}", 2, "…"), "e\u{301}…");
        assert_eq!(cut("control", 1, "…"), "…");
    }
}
