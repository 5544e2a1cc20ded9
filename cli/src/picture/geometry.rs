//! Where everything stands in the picture, in pixels.

use std::borrow::Cow;

use crate::cells;
use crate::view::scale::{Scale, magnitude};
use crate::view::{Guest, View};

/// The width of the addresses left of the machine's column.
pub const GUTTER: u32 = 148;
/// The width of a column.
pub const COLUMN: u32 = 180;
/// Between two columns: the lines that join them can be seen there.
pub const BETWEEN: u32 = 44;
/// Above the columns: their titles.
pub const HEADER: u32 = 44;
/// Below and right of everything.
pub const MARGIN: u32 = 16;
/// A line of text.
pub const LINE: u32 = 15;
/// The height of a cut through addresses where nothing lies.
pub const GAP: u32 = 26;
/// The coloured strip at a block's left edge.
pub const STRIP: u32 = 12;
/// The least height of a block: one line of text.
const LEAST: u32 = 18;

/// A picture's measures.
pub struct Geometry {
    /// The scale; its page begins below [`HEADER`].
    pub scale: Scale,
    /// The picture's width.
    pub width: u32,
    /// The picture's height.
    pub height: u32,
}

impl Geometry {
    /// The measures for a view.
    pub fn of(view: &View) -> Self {
        let guests = view.guests.iter().flat_map(|guest: &Guest| &guest.regions);
        let regions = view.host.iter().chain(guests);
        let count = u32::try_from(regions.clone().count()).unwrap_or(u32::MAX);
        // Where there is much to show, size counts less: sixteenths of a pixel for each doubling.
        let step = (1600 / count.max(1)).clamp(4, 64);
        let scale = Scale::of(regions, |bytes| LEAST + magnitude(bytes) * step / 16, GAP);
        let columns = u32::try_from(view.guests.len()).unwrap_or(0);
        Self {
            width: GUTTER + COLUMN + columns * (BETWEEN + COLUMN) + MARGIN,
            height: HEADER + scale.height() + LINE + MARGIN,
            scale,
        }
    }

    /// Where an address stands.
    pub fn y(&self, address: u64) -> u32 {
        HEADER + self.scale.place(address)
    }

    /// The left edge of a column: 0 for the machine's, then the domains'.
    pub fn x(column: usize) -> u32 {
        GUTTER + u32::try_from(column).unwrap_or(0) * (COLUMN + BETWEEN)
    }
}

/// A text cut to so many pixels, in the picture's one font: monospaced, at most 6.7 pixels a cell
/// at its size of 11.
pub fn fitted(text: &str, pixels: u32) -> Cow<'_, str> {
    let room = usize::try_from(pixels * 10 / 67).unwrap_or(0);
    cells::cut(text, room, "…")
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn a_text_is_cut_where_its_room_ends() {
        assert_eq!(fitted("control", 67), "control");
        assert_eq!(fitted("control-domain", 67), "control-d…");
        // Some letters are twice as wide.
        assert_eq!(fitted("網域網域網", 67), "網域網域網");
        assert_eq!(fitted("網域網域網域", 67), "網域網域…");
    }
}
