//! All pairs of choices in few combinations.
//!
//! Greedy: each combination begins with a pair that isn't covered yet, and every further choice is the one that covers
//! most. Deterministic, so that a scenario keeps its name from run to run.

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Combinations, one choice per axis, in which each pair of choices of two axes occurs at least once. `sizes` are the
/// numbers of choices.
pub fn pairs(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut open: BTreeSet<[(usize, usize); 2]> = BTreeSet::new();
    for left in 0..sizes.len() {
        for right in left + 1..sizes.len() {
            for a in 0..sizes[left] {
                open.extend((0..sizes[right]).map(|b| [(left, a), (right, b)]));
            }
        }
    }
    // Axes with many choices first: those with few fit in wherever they are put.
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&axis| Reverse(sizes[axis]));
    let mut combinations = Vec::new();
    while let Some(&[first, second]) = open.first() {
        let mut chosen: Vec<Option<usize>> = vec![None; sizes.len()];
        chosen[first.0] = Some(first.1);
        chosen[second.0] = Some(second.1);
        for &axis in &order {
            if chosen[axis].is_none() {
                // The last of the best, so that the first choices aren't worn out.
                chosen[axis] =
                    (0..sizes[axis]).max_by_key(|&choice| gain(&open, &chosen, (axis, choice)));
            }
        }
        let combination: Vec<usize> = chosen.into_iter().flatten().collect();
        open.retain(|pair| {
            !pair
                .iter()
                .all(|&(axis, choice)| combination[axis] == choice)
        });
        combinations.push(combination);
    }
    combinations
}

/// How many open pairs a choice closes together with the choices already made.
fn gain(
    open: &BTreeSet<[(usize, usize); 2]>,
    chosen: &[Option<usize>],
    choice: (usize, usize),
) -> usize {
    let made = chosen
        .iter()
        .enumerate()
        .filter_map(|(axis, made)| made.map(|made| (axis, made)));
    made.filter(|&other| open.contains(&[other.min(choice), other.max(choice)]))
        .count()
}

/// Every combination.
pub fn all(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut combinations = vec![Vec::new()];
    for &size in sizes {
        combinations = combinations
            .into_iter()
            .flat_map(|begun: Vec<usize>| {
                (0..size).map(move |choice| begun.iter().copied().chain([choice]).collect())
            })
            .collect();
    }
    combinations
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 6] = [3, 3, 3, 3, 2, 2];

    #[test]
    fn every_pair_of_choices_occurs() {
        let combinations = pairs(&SIZES);
        for left in 0..SIZES.len() {
            for right in left + 1..SIZES.len() {
                for a in 0..SIZES[left] {
                    for b in 0..SIZES[right] {
                        assert!(
                            combinations
                                .iter()
                                .any(|one| one[left] == a && one[right] == b),
                            "axes {left} and {right}: {a} with {b}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn few_combinations_do() {
        assert_eq!(pairs(&SIZES).len(), 10);
        assert_eq!(pairs(&[3, 3, 3, 2, 3, 2]).len(), 10);
        assert_eq!(all(&SIZES).len(), 324);
    }
}
