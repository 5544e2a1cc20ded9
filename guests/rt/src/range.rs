//! Ranges of physical addresses.

/// A range of physical addresses, in bytes. `start + size` doesn't wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Its first address.
    pub start: u64,
    /// Its length.
    pub size: u64,
}

impl Range {
    /// The address after its last one.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: u64) -> bool {
        address >= self.start && address - self.start < self.size
    }
}
