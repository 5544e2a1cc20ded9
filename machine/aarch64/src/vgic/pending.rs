//! A set of interrupt numbers that many CPUs add to and one takes from, without a lock.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

/// Numbers from `first` on, a bit each, and over every 32 words a bit that says "perhaps not zero".
#[derive(Debug)]
pub(crate) struct PendingSet {
    first: u32,
    words: Box<[AtomicU32]>,
    summary: Box<[AtomicU32]>,
}

fn zeroes(count: usize) -> Box<[AtomicU32]> {
    (0..count).map(|_| AtomicU32::new(0)).collect()
}

impl PendingSet {
    /// An empty set of the numbers from `first` on; `count` is rounded up to a multiple of 32.
    pub(crate) fn new(first: u32, count: u32) -> Self {
        let words = count.div_ceil(32) as usize;
        Self {
            first,
            words: zeroes(words),
            summary: zeroes(words.div_ceil(32)),
        }
    }

    /// Where the number's bit is, `None` if it is no number of this set.
    #[inline]
    fn place(&self, intid: u32) -> Option<(usize, u32)> {
        let index = intid.checked_sub(self.first)?;
        let word = index as usize / 32;
        (word < self.words.len()).then_some((word, 1 << (index % 32)))
    }

    #[inline]
    pub(crate) fn insert(&self, intid: u32) {
        if let Some((word, bit)) = self.place(intid) {
            self.words[word].fetch_or(bit, Ordering::Release);
            self.summary[word / 32].fetch_or(1 << (word % 32), Ordering::Release);
        }
    }

    #[inline]
    pub(crate) fn contains(&self, intid: u32) -> bool {
        self.place(intid)
            .is_some_and(|(word, bit)| self.words[word].load(Ordering::Acquire) & bit != 0)
    }

    /// Takes a number out; whether it was there.
    #[inline]
    pub(crate) fn remove(&self, intid: u32) -> bool {
        self.place(intid).is_some_and(|(word, bit)| {
            self.words[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
        })
    }

    /// Whether nothing can be in it. A stale "perhaps" costs a scan, never an interrupt.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.summary
            .iter()
            .all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// The 32 bits that start at number `first + 32 * word`.
    #[inline]
    pub(crate) fn word(&self, word: usize) -> u32 {
        self.words
            .get(word)
            .map_or(0, |bits| bits.load(Ordering::Acquire))
    }

    /// Takes the bits of `mask` out of one word; those that were there.
    pub(crate) fn remove_bits(&self, word: usize, mask: u32) -> u32 {
        self.words
            .get(word)
            .map_or(0, |bits| bits.fetch_and(!mask, Ordering::AcqRel) & mask)
    }

    /// Empties it.
    pub(crate) fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::Release);
        }
    }

    /// The member with the lowest value of `urgency`, and that value; `None` of it leaves a member out.
    pub(crate) fn most_urgent(&self, urgency: impl Fn(u32) -> Option<u8>) -> Option<(u32, u8)> {
        let mut best: Option<(u32, u8)> = None;
        for (group, summary) in self.summary.iter().enumerate() {
            let mut groups = summary.load(Ordering::Acquire);
            while groups != 0 {
                let bit = groups.trailing_zeros();
                groups &= groups - 1;
                let word = group * 32 + bit as usize;
                let mut bits = self.words[word].load(Ordering::Acquire);
                if bits == 0 {
                    self.forget(group, bit, word);
                    continue;
                }
                while bits != 0 {
                    let intid = self.first + word as u32 * 32 + bits.trailing_zeros();
                    bits &= bits - 1;
                    if let Some(value) = urgency(intid)
                        && best.is_none_or(|(_, lowest)| value < lowest)
                    {
                        best = Some((intid, value));
                    }
                }
            }
        }
        best
    }

    /// Clears a summary bit over an empty word, and sets it again if somebody filled the word meanwhile.
    fn forget(&self, group: usize, bit: u32, word: usize) {
        self.summary[group].fetch_and(!(1 << bit), Ordering::AcqRel);
        if self.words[word].load(Ordering::Acquire) != 0 {
            self.summary[group].fetch_or(1 << bit, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn nothing_gets_lost_between_threads() {
        const COUNT: u32 = if cfg!(miri) { 64 } else { 2048 };
        let set = PendingSet::new(0, COUNT);
        std::thread::scope(|scope| {
            for start in 0..4 {
                let set = &set;
                scope.spawn(move || {
                    (start..COUNT)
                        .step_by(4)
                        .for_each(|intid| set.insert(intid))
                });
            }
            let mut seen = BTreeSet::new();
            while seen.len() < COUNT as usize {
                if let Some((intid, _)) = set.most_urgent(|intid| Some(intid as u8)) {
                    assert!(set.remove(intid) && seen.insert(intid));
                }
            }
        });
        assert_eq!(set.most_urgent(|_| Some(0)), None);
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((any::<bool>(), 8100_u32..10_500), 1..200)) {
            let set = PendingSet::new(8192, 2048);
            let mut model = BTreeSet::new();
            for (add, intid) in steps {
                if add {
                    set.insert(intid);
                    if (8192..8192 + 2048).contains(&intid) {
                        model.insert(intid);
                    }
                } else {
                    prop_assert_eq!(set.remove(intid), model.remove(&intid));
                }
                prop_assert!(set.is_empty() <= model.is_empty());
            }
            let urgency = |intid: u32| (intid & 3 != 0).then_some((intid % 251) as u8);
            let wanted = model.iter().filter_map(|&intid| urgency(intid)).min();
            prop_assert_eq!(set.most_urgent(urgency).map(|found| found.1), wanted);
            let all: Vec<u32> = model.iter().copied().collect();
            for intid in all {
                prop_assert!(set.contains(intid));
                set.remove(intid);
            }
            prop_assert_eq!(set.most_urgent(|_| Some(0)), None);
            prop_assert!(set.is_empty());
        }
    }
}
