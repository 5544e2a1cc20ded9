//! Sorted lists of some tens of items. The library's sorts are faster on long ones and take
//! kilobytes of code for each type; the hypervisor sorts at boot only.

use alloc::vec::Vec;

/// Puts an item into a sorted list, after those with the same key.
pub(crate) fn insert<T, K: Ord>(list: &mut Vec<T>, item: T, key: impl Fn(&T) -> K) {
    let place = list.partition_point(|other| key(other) <= key(&item));
    list.insert(place, item);
}
