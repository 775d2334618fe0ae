//! Visiting a hash table in the order of its rows, whatever part of them is in memory.
//!
//! 1. The keys in memory are encoded and sorted: about their size in memory again for as long as the visit takes, and 24 bytes each.
//! 2. The backend's rows come sorted; the two are merged. A row whose key is in memory too is an older version, and passed over without being
//!    decoded.
//!
//! A hash table's own order depends on what was evicted and when, and would make what a function finds first depend on it.

use std::ops::{ControlFlow, Range};

use super::hot::{Entry, HotMap};
use crate::codec::StateValue;
use crate::error::Result;
use crate::hash::hash_key;
use crate::key::Key;
use crate::scope::{Scope, Under};

impl<K: Key, V: StateValue> HotMap<K, V> {
    /// Visits every pair, in memory or cold, in the order of their encoded keys, until one breaks off.
    pub fn try_for_each(
        &self,
        scope: &Scope,
        rows: &Under<'_>,
        mut visit: impl FnMut(&K, &V) -> ControlFlow<()>,
    ) -> Result<()> {
        let (keys, sorted) = self.sorted(scope)?;
        let mut hot = sorted.iter().map(|(key, entry)| (&keys[key.clone()], *entry)).peekable();
        let mut flow = ControlFlow::Continue(());
        if self.cold {
            let (from, to) = scope.cold_range(rows.prefix);
            let start = 2 + rows.prefix.len();
            scope.lock().backend.scan(&from, &to, &mut |row, value| {
                let row = &row[start..];
                while let Some((_, entry)) = hot.next_if(|(key, _)| *key < row) {
                    flow = visit(&entry.key, &entry.value);
                    if flow.is_break() {
                        return Ok(flow);
                    }
                }
                if hot.peek().is_some_and(|(key, _)| *key == row) {
                    return Ok(flow);
                }
                let key: K = scope.decode(row)?;
                if self.absent.find(hash_key(&key), |absent| absent.key == key).is_none() {
                    flow = visit(&key, &scope.decode(value)?);
                }
                Ok(flow)
            })?;
        }
        if flow.is_continue() {
            let _ = hot.try_for_each(|(_, entry)| visit(&entry.key, &entry.value));
        }
        Ok(())
    }

    /// The entries in memory with their encoded keys, in the order of these.
    fn sorted(&self, scope: &Scope) -> Result<Sorted<'_, K, V>> {
        let (mut keys, mut sorted) = (Vec::new(), Vec::with_capacity(self.live.len()));
        for entry in &self.live {
            let from = keys.len();
            scope.encode(&entry.key, &mut keys)?;
            sorted.push((from..keys.len(), entry));
        }
        sorted.sort_unstable_by(|(a, _), (b, _)| keys[a.clone()].cmp(&keys[b.clone()]));
        Ok((keys, sorted))
    }
}

/// Encoded keys, and where in them each entry's is.
type Sorted<'e, K, V> = (Vec<u8>, Vec<(Range<usize>, &'e Entry<K, V>)>);
