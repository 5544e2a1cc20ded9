//! Writes a flattened device tree, front to back.
//!
//! The same calls give the same bytes. The size is bounded by the caller; a tree that outgrows its bound is an
//! error, found before anything is used of it.
//!
//! Source of the format: Devicetree Specification 0.4, chapter 5.

use alloc::vec::Vec;
use core::fmt;

use super::blob::MAGIC;

const HEADER_BYTES: usize = 40;

/// A tree that would be larger than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// What it would take, in bytes.
    pub bytes: usize,
    /// The bound, in bytes.
    pub limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the device tree takes {} bytes, its bound is {}",
            self.bytes, self.limit
        )
    }
}

/// A tree in the making. Begin the root with an empty name; a node's properties come before its children.
#[derive(Debug, Default)]
pub struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
    /// Where each name begins in `strings`, sorted by name.
    names: Vec<u32>,
    depth: usize,
}

impl Writer {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn word(&mut self, word: u32) {
        self.structure.extend_from_slice(&word.to_be_bytes());
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.structure.extend_from_slice(bytes);
        self.structure
            .resize(self.structure.len().next_multiple_of(4), 0);
    }

    /// Begins a node.
    pub fn begin(&mut self, name: &str) {
        self.word(1);
        self.structure.extend_from_slice(name.as_bytes());
        self.padded(&[0]);
        self.depth += 1;
    }

    /// Ends the node that was begun last.
    pub fn end(&mut self) {
        self.word(2);
        self.depth = self.depth.saturating_sub(1);
    }

    /// A node with what `inside` writes into it.
    pub fn node(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.begin(name);
        inside(self);
        self.end();
    }

    /// A property with any bytes.
    pub fn bytes(&mut self, name: &str, value: &[u8]) {
        let name_offset = self.name_offset(name);
        self.word(3);
        self.word(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.word(name_offset);
        self.padded(value);
    }

    fn name_offset(&mut self, name: &str) -> u32 {
        let strings = &self.strings;
        // A name ends with NUL and has none inside, so that what begins with it and goes on is greater.
        let place = self.names.binary_search_by(|&offset| {
            let known = strings.get(offset as usize..).unwrap_or_default();
            let (head, rest) = known.split_at_checked(name.len()).unwrap_or((known, &[]));
            head.cmp(name.as_bytes())
                .then_with(|| rest.first().cmp(&Some(&0)))
        });
        match place {
            Ok(place) => self.names.get(place).copied().unwrap_or(0),
            Err(place) => {
                let offset = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
                self.strings.extend_from_slice(name.as_bytes());
                self.strings.push(0);
                self.names.insert(place, offset);
                offset
            }
        }
    }

    /// A property without value: a flag.
    pub fn flag(&mut self, name: &str) {
        self.bytes(name, &[]);
    }

    /// A property of 32-bit cells.
    pub fn cells(&mut self, name: &str, cells: &[u32]) {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &value);
    }

    /// A property of 64-bit numbers, two cells each.
    pub fn numbers(&mut self, name: &str, numbers: &[u64]) {
        let value: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        self.bytes(name, &value);
    }

    /// A property of strings. A NUL within one would end it, so it is cut there.
    pub fn strings(&mut self, name: &str, strings: &[&str]) {
        let mut value = Vec::new();
        for string in strings {
            value.extend(string.bytes().take_while(|&byte| byte != 0));
            value.push(0);
        }
        self.bytes(name, &value);
    }

    /// A property of one string.
    pub fn string(&mut self, name: &str, string: &str) {
        self.strings(name, &[string]);
    }

    /// Ends the nodes that are still open and puts the blob together, with a memory reservation block of
    /// `(address, size)` in bytes.
    ///
    /// # Errors
    /// The blob would take more than `limit` bytes.
    pub fn finish(
        mut self,
        reservations: &[(u64, u64)],
        limit: usize,
    ) -> Result<Vec<u8>, TooLarge> {
        while self.depth > 0 {
            self.end();
        }
        self.word(9);

        let structure = HEADER_BYTES + (reservations.len() + 1) * 16;
        let strings = structure + self.structure.len();
        let total = (strings + self.strings.len()).next_multiple_of(8);
        let too_large = TooLarge {
            bytes: total,
            limit,
        };
        if total > limit {
            return Err(too_large);
        }
        let field = |value: usize| u32::try_from(value).map_err(|_| too_large);
        let header = [
            MAGIC,
            field(total)?,
            field(structure)?,
            field(strings)?,
            field(HEADER_BYTES)?,
            17,
            16,
            0,
            field(self.strings.len())?,
            field(self.structure.len())?,
        ];

        let mut blob = Vec::with_capacity(total);
        blob.extend(header.iter().flat_map(|word| word.to_be_bytes()));
        for (address, size) in reservations.iter().chain(&[(0, 0)]) {
            blob.extend_from_slice(&address.to_be_bytes());
            blob.extend_from_slice(&size.to_be_bytes());
        }
        blob.extend_from_slice(&self.structure);
        blob.extend_from_slice(&self.strings);
        blob.resize(total, 0);
        Ok(blob)
    }
}
