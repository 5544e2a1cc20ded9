//! What every attack says and is given, whatever the architecture.

use core::sync::atomic::{AtomicU64, Ordering};

use rt::{arguments, say};

/// Violations seen; each was printed.
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts and prints something that a domain must not be able to do; after 20 lines it only counts.
pub fn violation(what: core::fmt::Arguments<'_>) {
    if VIOLATIONS.fetch_add(1, Ordering::Relaxed) < 20 {
        say!("attacker: fail {what}");
    }
}

/// The last lines.
pub fn verdict() {
    match VIOLATIONS.load(Ordering::Relaxed) {
        0 => say!("attacker: pass"),
        count => say!("attacker: fail {count} violations"),
    }
}

/// Whether the argument `only` leaves this part in.
pub fn wants(words: &str, part: &str) -> bool {
    arguments::value(words, "only").is_none_or(|list| list.split(',').any(|one| one == part))
}

/// The addresses that matter to an attack.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// The lowest of the guest's own RAM.
    pub start: u64,
    /// The end of its own RAM, exclusive.
    pub end: u64,
    /// The end of the host's RAM, exclusive.
    pub top: u64,
}
