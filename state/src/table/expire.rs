//! Removing entries of a hash table that have expired: a hand over its buckets, some at a time.

use super::hot::{COLD, HotMap, UNFLUSHED};
use crate::codec::StateValue;
use crate::error::Result;
use crate::hash::hash_key;
use crate::key::Key;
use crate::scope::{Rows, Scope};

impl<K: Key, V: StateValue> HotMap<K, V> {
    /// Looks at up to `buckets` buckets more and removes what `is_over`. Answers how many of them are left when it has seen all of the
    /// table, and begins at the front the next time.
    ///
    /// An entry that the last snapshot has as it is, and the backend too if it has any, goes without a trace: they bring back an entry
    /// that is as expired. Of any other an older version, with whatever deadline, may be there, and its removal is recorded.
    pub fn expire(
        &mut self,
        scope: &mut Scope,
        rows: &impl Rows<K>,
        buckets: usize,
        is_over: impl Fn(&V) -> bool,
    ) -> Result<Option<usize>> {
        let from = self.expiring;
        let until = self.live.num_buckets().min(from.saturating_add(buckets));
        for index in from..until {
            let Some(entry) = self.live.get_bucket(index).filter(|entry| is_over(&entry.value)) else {
                continue;
            };
            let is_behind = entry.has(UNFLUSHED) && entry.has(COLD);
            if self.is_dirty(entry) || is_behind {
                let hash = hash_key(&entry.key);
                self.remove_at(scope, rows, hash, index)?;
            } else if let Ok(entry) = self.live.get_bucket_entry(index) {
                let (entry, _) = entry.remove();
                scope.account.refund(entry.charged());
            }
        }
        self.expiring = until;
        if until < self.live.num_buckets() {
            return Ok(None);
        }
        self.expiring = 0;
        self.shrink(scope);
        Ok(Some(buckets - until.saturating_sub(from)))
    }
}
