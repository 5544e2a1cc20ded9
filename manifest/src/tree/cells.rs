//! The 32-bit big-endian cells that most property values are made of.
//!
//! Source: Devicetree Specification 0.4, section 2.2.4.

/// Takes cells off the front of a property's value.
#[derive(Debug, Clone, Copy)]
pub struct Cells<'a> {
    rest: &'a [u8],
}

impl<'a> Cells<'a> {
    /// The cells of a value.
    #[must_use]
    pub fn new(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    /// Whether fewer than one cell is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.len() < 4
    }

    /// The next cell.
    pub fn next_u32(&mut self) -> Option<u32> {
        let (first, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*first))
    }

    /// A number of `cells` cells. Of more than two, the upper ones must be zero.
    pub fn next_number(&mut self, cells: usize) -> Option<u64> {
        let mut number = 0u64;
        for _ in 0..cells {
            if number >> 32 != 0 {
                return None;
            }
            number = number << 32 | u64::from(self.next_u32()?);
        }
        Some(number)
    }

    /// Steps over `cells` cells.
    pub fn skip(&mut self, cells: usize) -> Option<()> {
        self.take(cells).map(|_| ())
    }

    /// The next `cells` cells as bytes.
    pub fn take(&mut self, cells: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(cells.checked_mul(4)?)?;
        self.rest = rest;
        Some(taken)
    }
}
