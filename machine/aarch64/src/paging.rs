//! VMSAv8-64 translation tables with a 4 KiB granule: walking, mapping, unmapping, splitting.
//!
//! Used for both stage 1 of EL2 and stage 2 of a domain, which differ in their attribute bits
//! only ([`crate::stage1`], [`crate::stage2`]). Where the tables lie and how stale translations are
//! dropped is the caller's business, behind [`Tables`]; so all of this runs under tests on a
//! workstation. Arm ARM DDI 0487, chapter D8.

/// Bytes mapped by an entry of the last level, and the size of a table.
pub const PAGE_SIZE: u64 = 4096;

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 2;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const LAST_LEVEL: u8 = 3;
/// Blocks exist from level 1 (1 GiB) on; level 0 holds tables only.
const FIRST_BLOCK_LEVEL: u8 = 1;

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
pub struct Regime {
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

const fn is_table(entry: u64, level: u8) -> bool {
    entry & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE && level < LAST_LEVEL
}

fn leaf(output: u64, attributes: u64, level: u8) -> u64 {
    let kind = if level == LAST_LEVEL {
        VALID | TABLE_OR_PAGE
    } else {
        VALID
    };
    output | attributes | kind
}

impl Regime {
    /// A regime of `input_bits` (at most 48) whose walk starts at `start_level`.
    pub const fn new(root: u64, input_bits: u8, start_level: u8) -> Self {
        Self {
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
            if entry & VALID == 0 {
                return None;
            }
            if is_table(entry, at.level) {
                at = Position {
                    table: entry & ADDRESS,
                    level: at.level + 1,
                    base: at.base + index * size,
                };
                continue;
            }
            let offset = address & (size - 1);
            return Some(Translation {
                output: (entry & ADDRESS) + offset,
                attributes: entry & !(ADDRESS | VALID | TABLE_OR_PAGE),
                remaining: size - offset,
            });
        }
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
        apply(
            tables,
            self.top(),
            Piece { start: 0, end },
            0,
            Change::Unmap,
        );
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
        if needed(tables, Some(self.top()), self.start_level, 0, piece, change) > tables.available()
        {
            return Err(PagingError::OutOfTables);
        }
        apply(tables, self.top(), piece, piece.start, change);
        Ok(())
    }
}

/// Whether one entry of `level` can hold the whole of `entry_range` after the change.
fn fits(change: Change, level: u8, entry: Piece, piece: Piece, origin: u64) -> bool {
    if entry.start < piece.start || entry.end > piece.end {
        return false;
    }
    match change {
        Change::Unmap => true,
        Change::Map { output, .. } => {
            let output = output + (entry.start - origin);
            level >= FIRST_BLOCK_LEVEL && output & (entry.end - entry.start - 1) == 0
        }
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

/// How many new tables a change takes. `at` is `None` below an entry that holds no table yet: nothing
/// is mapped there (and the change maps), or a block that is to be split covers all of it.
fn needed<T: Tables>(
    tables: &T,
    at: Option<Position>,
    level: u8,
    base: u64,
    piece: Piece,
    change: Change,
) -> usize {
    needed_from(tables, at, level, base, piece, (piece.start, change))
}

fn needed_from<T: Tables>(
    tables: &T,
    at: Option<Position>,
    level: u8,
    base: u64,
    piece: Piece,
    (origin, change): (u64, Change),
) -> usize {
    let mut count = 0;
    for (index, range) in entries(level, base, piece) {
        let part = clip(piece, range);
        if fits(change, level, range, part, origin) {
            continue;
        }
        let entry = at.map_or(0, |at| tables.read(at.table, index));
        let below = if is_table(entry, level) {
            Some(Position {
                table: entry & ADDRESS,
                level: level + 1,
                base: range.start,
            })
        } else {
            if at.is_some() && entry & VALID == 0 && matches!(change, Change::Unmap) {
                continue;
            }
            count += 1;
            None
        };
        if level + 1 < LAST_LEVEL {
            count += needed_from(
                tables,
                below,
                level + 1,
                range.start,
                part,
                (origin, change),
            );
        }
    }
    count
}

fn apply<T: Tables>(tables: &mut T, at: Position, piece: Piece, origin: u64, change: Change) {
    for (index, range) in entries(at.level, at.base, piece) {
        let part = clip(piece, range);
        let old = tables.read(at.table, index);
        if fits(change, at.level, range, part, origin) {
            let new = match change {
                Change::Unmap => 0,
                Change::Map { output, attributes } => {
                    leaf(output + (range.start - origin), attributes, at.level)
                }
            };
            replace(tables, at, index, range, new);
            if is_table(old, at.level) {
                release(tables, old & ADDRESS, at.level + 1);
            }
            continue;
        }
        let table = if is_table(old, at.level) {
            old & ADDRESS
        } else if old & VALID == 0 && matches!(change, Change::Unmap) {
            continue;
        } else {
            // `needed` counted this table before anything was changed.
            let Some(table) = split(tables, old, at.level) else {
                return;
            };
            replace(tables, at, index, range, table | VALID | TABLE_OR_PAGE);
            table
        };
        let below = Position {
            table,
            level: at.level + 1,
            base: range.start,
        };
        apply(tables, below, part, origin, change);
    }
}

/// A new table that maps exactly what the block (or invalid entry) `old` of `level` maps.
fn split<T: Tables>(tables: &mut T, old: u64, level: u8) -> Option<u64> {
    let table = tables.allocate()?;
    if old & VALID != 0 {
        let attributes = old & !(ADDRESS | VALID | TABLE_OR_PAGE);
        let step = 1u64 << shift(level + 1);
        for index in 0..512u16 {
            let output = (old & ADDRESS) + u64::from(index) * step;
            tables.write(
                table,
                usize::from(index),
                leaf(output, attributes, level + 1),
            );
        }
    }
    Some(table)
}

/// Break before make: no CPU ever has the old and the new translation at once.
fn replace<T: Tables>(tables: &mut T, at: Position, index: usize, range: Piece, new: u64) {
    let old = tables.read(at.table, index);
    if old == new {
        return;
    }
    if old & VALID != 0 {
        tables.write(at.table, index, 0);
        tables.invalidate(range.start, range.end - range.start);
    }
    if new != 0 {
        tables.write(at.table, index, new);
    }
}

/// Gives a table and those below it back to the pool.
fn release<T: Tables>(tables: &mut T, table: u64, level: u8) {
    if level < LAST_LEVEL {
        for index in 0..512 {
            let entry = tables.read(table, index);
            if is_table(entry, level) {
                release(tables, entry & ADDRESS, level + 1);
            }
        }
    }
    tables.free(table);
}

#[cfg(test)]
#[path = "paging_tests.rs"]
mod tests;
