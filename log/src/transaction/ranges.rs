//! Sets of numbers that mostly follow on each other.

use std::collections::BTreeMap;

/// Disjoint ranges, from first to last, both inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(crate) fn contains(&self, n: u64) -> bool {
        self.0.range(..=n).next_back().is_some_and(|(_, &last)| n <= last)
    }

    pub(crate) fn insert(&mut self, n: u64) {
        if self.contains(n) {
            return;
        }
        let last = match n.checked_add(1).and_then(|next| self.0.remove(&next)) {
            Some(last) => last,
            None => n,
        };
        match self.0.range_mut(..n).next_back() {
            Some((_, before)) if *before + 1 == n => *before = last,
            _ => {
                self.0.insert(n, last);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(&first, &last)| (first, last))
    }

    pub(crate) fn from_pairs(pairs: &[(u64, u64)]) -> Ranges {
        Ranges(pairs.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn they_hold_what_was_inserted_in_as_few_ranges_as_possible(numbers in proptest::collection::vec(0_u64..40, 0..40)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for n in numbers {
                ranges.insert(n);
                model.insert(n);
            }
            for n in 0..42 {
                prop_assert_eq!(ranges.contains(n), model.contains(&n));
            }
            let starts = model.iter().filter(|n| !n.checked_sub(1).is_some_and(|before| model.contains(&before))).count();
            prop_assert_eq!(ranges.iter().count(), starts);
        }
    }

    #[test]
    fn the_greatest_number_has_its_place() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX);
        ranges.insert(u64::MAX - 1);
        assert!(ranges.contains(u64::MAX) && !ranges.contains(0));
        assert_eq!(Ranges::from_pairs(&ranges.iter().collect::<Vec<_>>()), ranges);
    }
}
