//! Translation tables with pages of 4 KiB and 9 bits a level: walking, mapping, unmapping, splitting.
//!
//! What a descriptor looks like is a [`Format`]; where the tables lie and how stale translations are
//! dropped is the caller's business, behind [`Tables`]. So all of this runs under tests on a
//! workstation. Levels count from 0 (an entry covers 512 GiB) to 3 (4 KiB).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate alloc;

/// Bytes mapped by an entry of the last level, and the size of a table.
pub const PAGE_SIZE: u64 = 4096;

/// The level whose entries map single pages.
pub const LAST_LEVEL: u8 = 3;

/// What descriptors look like. An entry of 0 is invalid in every format.
pub trait Format: Copy {
    /// The bits of an entry that hold an address, of a table or of what a leaf maps.
    const ADDRESS: u64;
    /// Whether the entry leads anywhere.
    fn is_valid(self, entry: u64) -> bool;
    /// Whether a valid entry of `level`, below [`LAST_LEVEL`], leads to a table.
    fn is_table(self, entry: u64) -> bool;
    /// An entry that leads to a table.
    fn table(self, address: u64) -> u64;
    /// An entry of `level` that maps `output` with `attributes`.
    fn leaf(self, output: u64, attributes: u64, level: u8) -> u64;
    /// The attributes that a leaf of `level` was made with.
    fn attributes(self, entry: u64, level: u8) -> u64;
    /// The first level that may hold leaves.
    fn first_leaf_level(self) -> u8;
}

/// Where translation tables are kept, and how the CPU is told of changes.
pub trait Tables {
    /// Takes a table from the pool, all its entries invalid. `None` when the pool is empty.
    fn allocate(&mut self) -> Option<u64>;
    /// Gives back a table that no entry refers to any more.
    fn free(&mut self, table: u64);
    /// How many tables [`Tables::allocate`] can still give.
    fn available(&self) -> usize;
    /// Reads an entry. `table` came from `allocate` or is the root.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Writes an entry, visible to the table walker of every CPU when it returns.
    fn write(&mut self, table: u64, index: usize, entry: u64);
    /// Drops every cached translation of `size` bytes from `address` on every CPU. Called between
    /// the break and the make of an entry that was valid.
    fn invalidate(&mut self, address: u64, size: u64);
    /// An entry that was valid and mapped `size` bytes from `address` is gone, and nothing is made in its place by this
    /// change. Its cached translations may be dropped later, but before anything is made there and before
    /// a table that it led to is used anew.
    fn removed(&mut self, address: u64, size: u64) {
        self.invalidate(address, size);
    }
}

/// Why a range was not mapped or unmapped. Nothing was changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagingError {
    /// The pool of tables has fewer left than the change may need.
    OutOfTables,
    /// Part of the range is above what this regime translates, or the range wraps.
    OutOfRange,
    /// An address or the size is not a multiple of 4 KiB, or the size is zero.
    Misaligned,
}

/// What an input address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The output address of exactly the byte asked for.
    pub output: u64,
    /// The entry's attribute bits (everything but address and type).
    pub attributes: u64,
    /// Bytes from `output` to the end of the entry that maps it.
    pub remaining: u64,
}

/// A translation regime: its root table and the width of input addresses.
///
/// A root may be several tables side by side (concatenated, as stage 2 allows), so that its index is
/// wider than 9 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Regime<F> {
    format: F,
    root: u64,
    input_bits: u8,
    start_level: u8,
}

/// What a change makes of each entry inside its range.
#[derive(Clone, Copy)]
enum Change {
    Map { output: u64, attributes: u64 },
    Unmap,
}

/// One table within a walk: where it is, its level and the input address of its first entry.
#[derive(Clone, Copy)]
struct Position {
    table: u64,
    level: u8,
    base: u64,
}

/// A half-open piece of the input address space.
#[derive(Clone, Copy)]
struct Piece {
    start: u64,
    end: u64,
}

const fn shift(level: u8) -> u32 {
    12 + 9 * (LAST_LEVEL - level) as u32
}

/// The table below an entry of `level`, if there is one.
fn table_below<F: Format>(format: F, entry: u64, level: u8) -> Option<u64> {
    let leads = level < LAST_LEVEL && format.is_valid(entry) && format.is_table(entry);
    leads.then_some(entry & F::ADDRESS)
}

impl<F: Format> Regime<F> {
    /// A regime of `input_bits` (at most 48) whose walk starts at `start_level`.
    pub const fn new(format: F, root: u64, input_bits: u8, start_level: u8) -> Self {
        Self {
            format,
            root,
            input_bits,
            start_level,
        }
    }

    /// Address of the root table.
    pub const fn root(&self) -> u64 {
        self.root
    }

    fn top(&self) -> Position {
        Position {
            table: self.root,
            level: self.start_level,
            base: 0,
        }
    }

    /// Looks an input address up.
    pub fn translate<T: Tables>(&self, tables: &T, address: u64) -> Option<Translation> {
        if address >> self.input_bits != 0 {
            return None;
        }
        let mut at = self.top();
        loop {
            let size = 1u64 << shift(at.level);
            let index = (address - at.base) >> shift(at.level);
            let entry = tables.read(at.table, usize::try_from(index).ok()?);
            if !self.format.is_valid(entry) {
                return None;
            }
            if let Some(table) = table_below(self.format, entry, at.level) {
                at = Position {
                    table,
                    level: at.level + 1,
                    base: at.base + index * size,
                };
                continue;
            }
            let offset = address & (size - 1);
            return Some(Translation {
                output: (entry & F::ADDRESS) + offset,
                attributes: self.format.attributes(entry, at.level),
                remaining: size - offset,
            });
        }
    }

    /// Whether nothing is mapped in `size` bytes, not 0, from an input address on; nothing is beyond what this regime
    /// translates.
    pub fn is_unmapped<T: Tables>(&self, tables: &T, input: u64, size: u64) -> bool {
        let limit = 1 << self.input_bits;
        let (start, end) = (input, input.saturating_add(size).min(limit));
        start >= end || self.is_empty(tables, self.top(), Piece { start, end })
    }

    fn is_empty<T: Tables>(&self, tables: &T, at: Position, piece: Piece) -> bool {
        entries(at.level, at.base, piece).all(|(index, range)| {
            let entry = tables.read(at.table, index);
            let Some(table) = table_below(self.format, entry, at.level) else {
                return !self.format.is_valid(entry);
            };
            let below = Position {
                table,
                level: at.level + 1,
                base: range.start,
            };
            self.is_empty(tables, below, clip(piece, range))
        })
    }

    /// Maps `size` bytes from `input` to `output`, with the largest blocks that fit. What was mapped
    /// there before is replaced, break before make.
    ///
    /// # Errors
    /// [`PagingError`]; nothing has changed then.
    pub fn map<T: Tables>(
        &self,
        tables: &mut T,
        input: u64,
        output: u64,
        size: u64,
        attributes: u64,
    ) -> Result<(), PagingError> {
        if !output.is_multiple_of(PAGE_SIZE) {
            return Err(PagingError::Misaligned);
        }
        if output.checked_add(size).is_none_or(|end| end > 1 << 48) {
            return Err(PagingError::OutOfRange);
        }
        let change = Change::Map { output, attributes };
        self.change(tables, input, size, change)
    }

    /// Removes whatever is mapped in `size` bytes from `input`; a block that reaches beyond is split.
    ///
    /// # Errors
    /// [`PagingError`]; nothing has changed then.
    pub fn unmap<T: Tables>(
        &self,
        tables: &mut T,
        input: u64,
        size: u64,
    ) -> Result<(), PagingError> {
        self.change(tables, input, size, Change::Unmap)
    }

    /// Removes everything, and gives all tables but the root back.
    pub fn clear<T: Tables>(&self, tables: &mut T) {
        let end = 1 << self.input_bits;
        // Whole entries of the root are dropped, which takes no table.
        let all = Piece { start: 0, end };
        self.apply(tables, self.top(), all, 0, Change::Unmap);
    }

    fn change<T: Tables>(
        &self,
        tables: &mut T,
        input: u64,
        size: u64,
        change: Change,
    ) -> Result<(), PagingError> {
        if !input.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) || size == 0 {
            return Err(PagingError::Misaligned);
        }
        let end = input.checked_add(size).ok_or(PagingError::OutOfRange)?;
        if end > 1 << self.input_bits {
            return Err(PagingError::OutOfRange);
        }
        let piece = Piece { start: input, end };
        let top = self.top();
        if self.needed(tables, Some(top), top, piece, (input, change)) > tables.available() {
            return Err(PagingError::OutOfTables);
        }
        self.apply(tables, top, piece, input, change);
        Ok(())
    }

    /// Whether one entry of `level` can hold the whole of `entry` after the change.
    fn fits(&self, change: Change, level: u8, entry: Piece, piece: Piece, origin: u64) -> bool {
        if entry.start < piece.start || entry.end > piece.end {
            return false;
        }
        match change {
            Change::Unmap => true,
            Change::Map { output, .. } => {
                let output = output + (entry.start - origin);
                level >= self.format.first_leaf_level()
                    && output & (entry.end - entry.start - 1) == 0
            }
        }
    }

    /// How many new tables a change takes at `place` and below. `at` is `None` below an entry that
    /// holds no table yet: nothing is mapped there (and the change maps), or a leaf that is to be
    /// split covers all of it.
    fn needed<T: Tables>(
        &self,
        tables: &T,
        at: Option<Position>,
        place: Position,
        piece: Piece,
        (origin, change): (u64, Change),
    ) -> usize {
        let mut count = 0;
        for (index, range) in entries(place.level, place.base, piece) {
            let part = clip(piece, range);
            if self.fits(change, place.level, range, part, origin) {
                continue;
            }
            let entry = at.map_or(0, |at| tables.read(at.table, index));
            let table = table_below(self.format, entry, place.level);
            if table.is_none() {
                let empty = at.is_some() && !self.format.is_valid(entry);
                if empty && matches!(change, Change::Unmap) {
                    continue;
                }
                count += 1;
            }
            if place.level + 1 < LAST_LEVEL {
                let below = Position {
                    table: table.unwrap_or(0),
                    level: place.level + 1,
                    base: range.start,
                };
                count += self.needed(tables, table.map(|_| below), below, part, (origin, change));
            }
        }
        count
    }

    fn apply<T: Tables>(
        &self,
        tables: &mut T,
        at: Position,
        piece: Piece,
        origin: u64,
        change: Change,
    ) {
        for (index, range) in entries(at.level, at.base, piece) {
            let part = clip(piece, range);
            let old = tables.read(at.table, index);
            let old_table = table_below(self.format, old, at.level);
            if self.fits(change, at.level, range, part, origin) {
                let new = match change {
                    Change::Unmap => 0,
                    Change::Map { output, attributes } => {
                        let output = output + (range.start - origin);
                        self.format.leaf(output, attributes, at.level)
                    }
                };
                self.replace(tables, at, index, range, new);
                if let Some(table) = old_table {
                    self.release(tables, table, at.level + 1);
                }
                continue;
            }
            let table = if let Some(table) = old_table {
                table
            } else if !self.format.is_valid(old) && matches!(change, Change::Unmap) {
                continue;
            } else {
                // `needed` counted this table before anything was changed.
                let Some(table) = self.split(tables, old, at.level) else {
                    return;
                };
                self.replace(tables, at, index, range, self.format.table(table));
                table
            };
            let below = Position {
                table,
                level: at.level + 1,
                base: range.start,
            };
            self.apply(tables, below, part, origin, change);
        }
    }

    /// A new table that maps exactly what the leaf (or invalid entry) `old` of `level` maps.
    fn split<T: Tables>(&self, tables: &mut T, old: u64, level: u8) -> Option<u64> {
        let table = tables.allocate()?;
        if self.format.is_valid(old) {
            let attributes = self.format.attributes(old, level);
            let step = 1u64 << shift(level + 1);
            for index in 0..512u16 {
                let output = (old & F::ADDRESS) + u64::from(index) * step;
                let entry = self.format.leaf(output, attributes, level + 1);
                tables.write(table, usize::from(index), entry);
            }
        }
        Some(table)
    }

    /// Break before make: no CPU ever has the old and the new translation at once.
    fn replace<T: Tables>(
        &self,
        tables: &mut T,
        at: Position,
        index: usize,
        range: Piece,
        new: u64,
    ) {
        let old = tables.read(at.table, index);
        if old == new {
            return;
        }
        let size = range.end - range.start;
        if self.format.is_valid(old) {
            tables.write(at.table, index, 0);
            if new == 0 {
                tables.removed(range.start, size);
            } else {
                tables.invalidate(range.start, size);
            }
        }
        if new != 0 {
            tables.write(at.table, index, new);
        }
    }

    /// Gives a table and those below it back to the pool.
    fn release<T: Tables>(&self, tables: &mut T, table: u64, level: u8) {
        if level < LAST_LEVEL {
            for index in 0..512 {
                let entry = tables.read(table, index);
                if let Some(below) = table_below(self.format, entry, level) {
                    self.release(tables, below, level + 1);
                }
            }
        }
        tables.free(table);
    }
}

/// The entries of a table at (`level`, `base`) that a piece touches: index and input range of each.
fn entries(level: u8, base: u64, piece: Piece) -> impl Iterator<Item = (usize, Piece)> {
    let size = 1u64 << shift(level);
    let first = (piece.start - base) / size;
    let last = (piece.end - 1 - base) / size;
    (first..=last).filter_map(move |index| {
        let start = base + index * size;
        let end = start + size;
        Some((usize::try_from(index).ok()?, Piece { start, end }))
    })
}

fn clip(piece: Piece, entry: Piece) -> Piece {
    Piece {
        start: piece.start.max(entry.start),
        end: piece.end.min(entry.end),
    }
}

#[cfg(test)]
mod tests;
