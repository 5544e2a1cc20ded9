//! /proc/iomem and /proc/ioports: who has which addresses.
//!
//! Linux, Documentation/filesystems/proc.rst. Who isn't root sees zeros for every address.

use layout::{MachineAddress, MachineRange};

use super::files::{Files, as_root};
use crate::diagnostics::Diagnostic;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How many others it lies within.
    pub depth: usize,
    /// Its addresses.
    pub range: MachineRange,
    /// Who has them.
    pub name: String,
}

/// The lines of such a file.
///
/// # Errors
/// It can't be read, or shows no addresses.
pub fn read(files: &Files, path: &str) -> Result<Vec<Entry>, Diagnostic> {
    let text = files.text(path)?;
    let entries: Option<Vec<Entry>> = text.lines().map(entry).collect();
    let entries = entries.ok_or_else(|| files.nonsense(path))?;
    // A port's first entry begins at 0 and ends elsewhere.
    if !entries.is_empty() && entries.iter().all(|it| it.range.end().raw() <= 1) {
        let message = format!("{} has zeros for all addresses", files.shown(path));
        return Err(as_root(Diagnostic::error("host-unreadable", message)));
    }
    Ok(entries)
}

/// `  00100000-bfffffff : System RAM`; both ends belong to it.
fn entry(line: &str) -> Option<Entry> {
    let (range, name) = line.split_once(" : ")?;
    let addresses = range.trim_start();
    let (first, last) = addresses.split_once('-')?;
    let number = |digits: &str| u64::from_str_radix(digits.trim(), 16).ok();
    let (first, last) = (number(first)?, number(last)?);
    let size = last.checked_sub(first)?.saturating_add(1);
    Some(Entry {
        // Two spaces a level.
        depth: (range.len() - addresses.len()) / 2,
        range: MachineRange::saturating(MachineAddress::new(first), size),
        name: name.to_owned(),
    })
}
