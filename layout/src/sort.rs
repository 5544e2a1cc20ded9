//! One sort for every list of the planner.
//!
//! The standard library's sorts are compiled anew for each type of element, several KiB each,
//! and the hypervisor's image is small. Here only the keys are sorted, which have one type.

use alloc::vec::Vec;

/// What lists are sorted by, the first number before the second, the second before the third.
pub(crate) type Key = [u64; 3];

/// Sorts stably. Takes n log n steps.
pub(crate) fn sort_by_key<T>(items: &mut Vec<T>, key: impl Fn(&T) -> Key) {
    let keys = items
        .iter()
        .enumerate()
        .map(|(place, item)| (key(item), place));
    let mut keys: Vec<(Key, usize)> = keys.collect();
    if keys.is_sorted() {
        return;
    }
    keys.sort_unstable();
    let mut unsorted: Vec<Option<T>> = items.drain(..).map(Some).collect();
    items.extend(
        keys.into_iter()
            .filter_map(|(_, place)| unsorted[place].take()),
    );
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
