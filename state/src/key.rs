//! Keys, key groups and which worker owns which group, as Flink does it.
//!
//! A flow has a fixed number of key groups, the unit in which state moves when the number of workers changes. Worker
//! `w` of `n` owns a contiguous range of them, so a task's rows lie together in a snapshot.

use std::borrow::Borrow;
use std::hash::Hash;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// How many key groups a flow has unless told otherwise: the most workers it can ever use, and the unit in which state moves between them.
pub const DEFAULT_KEY_GROUPS: u16 = 128;

/// What records may be keyed by. Implemented for every such type.
///
/// `Hash` and `Serialize` must be functions of the value alone (no `HashMap` inside a key), and equal keys must encode
/// to equal bytes.
pub trait Key: Hash + Eq + Clone + Serialize + DeserializeOwned + Send + 'static {}
impl<K: Hash + Eq + Clone + Serialize + DeserializeOwned + Send + 'static> Key for K {}

/// A key handed in by value or by reference; a reference is cloned only when a new entry is made.
pub trait KeyArg<K>: Borrow<K> {
    /// The key itself, for a new entry.
    fn into_key(self) -> K;
}
impl<K: Key> KeyArg<K> for K {
    #[inline]
    fn into_key(self) -> K {
        self
    }
}
impl<K: Key> KeyArg<K> for &K {
    #[inline]
    fn into_key(self) -> K {
        self.clone()
    }
}

/// One of a flow's key groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroup(pub u16);

/// The key groups `start..end` that one task owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first group of the range.
    pub start: u16,
    /// One past the last.
    pub end: u16,
}

impl KeyGroupRange {
    /// The groups `start..end`.
    pub const fn new(start: u16, end: u16) -> Self {
        Self { start, end }
    }

    /// All groups of a flow that has `groups` of them.
    pub const fn all(groups: u16) -> Self {
        Self { start: 0, end: groups }
    }

    /// Whether `group` is one of these.
    #[inline]
    pub const fn contains(self, group: KeyGroup) -> bool {
        self.start <= group.0 && group.0 < self.end
    }

    /// The groups in both; empty when there are none.
    pub fn intersection(self, other: Self) -> Self {
        let start = self.start.max(other.start);
        Self { start, end: self.end.min(other.end).max(start) }
    }

    /// Whether the range holds no group: a worker beyond the number of groups.
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// The key group of a hash: a function of its bits 24 to 55.
///
/// The tables take their buckets from the low bits and their tags from the top seven, so that a task which owns
/// few groups still has well spread tables.
#[inline]
pub const fn key_group(hash: u64, groups: u16) -> KeyGroup {
    KeyGroup(((((hash >> 24) as u32) as u64 * groups as u64) >> 32) as u16)
}

/// The worker that owns `group`.
#[inline]
pub const fn worker_of(group: KeyGroup, groups: u16, workers: u16) -> u16 {
    (group.0 as u32 * workers as u32 / groups as u32) as u16
}

/// The groups that `worker` owns.
pub const fn range_of(worker: u16, groups: u16, workers: u16) -> KeyGroupRange {
    let start = (worker as u32 * groups as u32).div_ceil(workers as u32);
    let end = ((worker as u32 + 1) * groups as u32).div_ceil(workers as u32);
    KeyGroupRange { start: start as u16, end: end as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_key;

    #[test]
    fn ranges_partition_the_groups_and_agree_with_worker_of() {
        for groups in [1u16, 7, 128, 1024] {
            for workers in 1..=20u16 {
                let mut next = 0;
                for worker in 0..workers {
                    let range = range_of(worker, groups, workers);
                    assert_eq!(range.start, next, "{groups} groups, {workers} workers");
                    for group in range.start..range.end {
                        assert_eq!(worker_of(KeyGroup(group), groups, workers), worker);
                    }
                    next = range.end;
                }
                assert_eq!(next, groups);
            }
        }
    }

    #[test]
    fn even_ids_reach_every_group_evenly() {
        let mut counts = [0u32; 128];
        for id in 0..128_000u64 {
            counts[key_group(hash_key(&(id * 2)), 128).0 as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (850..1150).contains(&n)), "{counts:?}");
    }

    #[test]
    fn intersections_of_disjoint_ranges_are_empty() {
        assert!(KeyGroupRange::new(0, 5).intersection(KeyGroupRange::new(7, 9)).is_empty());
        assert_eq!(KeyGroupRange::new(0, 5).intersection(KeyGroupRange::new(3, 9)), KeyGroupRange::new(3, 5));
    }
}
