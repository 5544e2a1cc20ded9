//! One sort for every list of the planner.
//!
//! The standard library's sorts are compiled anew for each type of element, several KiB each,
//! and the hypervisor's image is small. Here only the keys are sorted, which have one type.

use alloc::vec::Vec;

/// What lists are sorted by, the first number before the second, the second before the third.
pub(crate) type Key = [u64; 3];

/// Sorts stably. Takes n log n steps; n, and no memory, if nothing is out of place.
pub(crate) fn sort_by_key<T>(items: &mut [T], key: impl Fn(&T) -> Key) {
    if items.is_sorted_by_key(&key) {
        return;
    }
    let keys = items
        .iter()
        .enumerate()
        .map(|(place, item)| (key(item), place));
    let mut keys: Vec<(Key, usize)> = keys.collect();
    keys.sort_unstable();
    // Each circle of items that take each other's places is gone round once.
    for first in 0..keys.len() {
        let mut at = first;
        while keys[at].1 != first {
            let from = core::mem::replace(&mut keys[at].1, at);
            items.swap(at, from);
            at = from;
        }
        keys[at].1 = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn sorts_stably() {
        let mut items = vec![(2, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (0, 'e')];
        sort_by_key(&mut items, |item| [item.0, 0, 0]);
        assert_eq!(items, [(0, 'e'), (1, 'b'), (1, 'd'), (2, 'a'), (2, 'c')]);
    }
}
