//! Numbers of bytes as text.

use core::fmt;

/// A number of bytes, exact, in the largest unit that leaves no remainder: as people read it ("256 MiB", "17 B"), and by
/// `{:#}` as a manifest writes it ("256MiB", "17").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        let unit = units.into_iter().find(|(shift, _)| whole(*shift));
        let (number, unit) = match unit {
            Some((shift, unit)) => (self.0 >> shift, unit),
            None => (self.0, if f.alternate() { "" } else { "B" }),
        };
        let blank = if f.alternate() { "" } else { " " };
        write!(f, "{number}{blank}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn sizes_have_the_unit_that_says_them_exactly() {
        let text = |bytes| format!("{0}, {0:#}", Size(bytes));
        assert_eq!(text(0), "0 B, 0");
        assert_eq!(text(4097), "4097 B, 4097");
        assert_eq!(text(4096), "4 KiB, 4KiB");
        assert_eq!(text(1536 << 20), "1536 MiB, 1536MiB");
        assert_eq!(text(4 << 30), "4 GiB, 4GiB");
        assert_eq!(text(1 << 40), "1 TiB, 1TiB");
    }
}
