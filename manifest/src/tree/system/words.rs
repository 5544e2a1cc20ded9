//! The manifest's words for choices, one table for tree and TOML.

use layout::{Kind, OnConflict, OnStop, OnStrayAccess, Scrub, ShareRole};

/// A choice that a word stands for.
pub trait Word: Copy + PartialEq + 'static {
    /// Every choice with its word; the default first.
    const WORDS: &'static [(&'static str, Self)];

    /// The choice behind a word.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(name, _)| *name == word)
            .map(|&(_, choice)| choice)
    }

    /// The word for a choice.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|&&(_, choice)| choice == self)
            .map_or("", |&(word, _)| word)
    }
}

impl Word for Kind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pvh", Self::Pvh), ("hvm", Self::Hvm), ("pv", Self::Pv)];
}

impl Word for OnConflict {
    const WORDS: &'static [(&'static str, Self)] =
        &[("halt", Self::Halt), ("skip-domain", Self::SkipDomain)];
}

impl Word for Scrub {
    const WORDS: &'static [(&'static str, Self)] = &[("reused", Self::Reused), ("all", Self::All)];
}

impl Word for OnStrayAccess {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("fault", Self::Fault),
        ("ignore", Self::Ignore),
        ("stop", Self::Stop),
    ];
}

impl Word for ShareRole {
    const WORDS: &'static [(&'static str, Self)] =
        &[("owner", Self::Owner), ("borrower", Self::Borrower)];
}

impl Word for OnStop {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("stop", Self::Stop),
        ("restart", Self::Restart),
        ("halt-machine", Self::HaltMachine),
        ("reboot-machine", Self::RebootMachine),
    ];
}
