//! Moving entries of a hash table to the backend: second chance, in sorted batches.
//!
//! 1. The hand goes over the buckets. An entry that was used since the last turn gets a second chance; after eight times as many buckets
//!    as entries wanted it gets none, so that one call stays short.
//! 2. Victims that differ from the backend are written to it in one sorted batch, and those that changed since the last snapshot
//!    also into the pending delta: the next snapshot must hold them.
//! 3. A table grows only if the budget allows for both the old and the new allocation; otherwise it makes room at the size it
//!    has. Entries that were removed leave marks, which take room as entries do; a table that is full of entries and marks is written anew
//!    at its size, without marks. It keeps a quarter free, so that this happens once in an eighth of a table of insertions. It shrinks as
//!    soon as a table of half its size would do.

use super::Flush;
use super::hot::{COLD, Entry, HotMap, REFERENCED, SNAPPED, UNFLUSHED};
use crate::backend::Batch;
use crate::codec::{self, CodecError, StateValue};
use crate::error::Result;
use crate::hash::hash_key;
use crate::key::Key;
use crate::scope::{Cold, Rows, Scope};

/// A table of fewer entries is left alone by its own insertions: every table may have that many, whatever the budget.
const SMALL: usize = 256;
/// A flush writes batches of this many bytes: enough for a table file of their own.
const FLUSH_BATCH: usize = 32 << 20;

impl<K: Key, V: StateValue> HotMap<K, V> {
    /// Whether something should be evicted before another entry is added.
    #[inline]
    pub fn needs_room(&self, scope: &Scope) -> bool {
        if self.live.len() < SMALL {
            return false;
        }
        let full = self.live.len() >= self.live.num_buckets() / 4 * 3 || self.may_grow();
        scope.would_exceed(if full { 2 * self.live.allocation_size() } else { 0 })
    }

    /// Whether the next insertion may make the table grow: no bucket is free of entries and marks but those that have to be.
    fn may_grow(&self) -> bool {
        self.live.len() == self.live.capacity()
    }

    /// Evicts a batch, and sees to it that the next insertion does not make the table grow.
    pub fn make_room(&mut self, scope: &mut Scope, rows: &impl Rows<K>) -> Result<()> {
        self.evict(scope, rows, scope.evict_batch)?;
        if self.may_grow() {
            self.rebuild(scope, self.live.len() + 1);
        }
        Ok(())
    }

    /// Evicts up to `count` entries, and as many absent keys; how many it was.
    pub fn evict(&mut self, scope: &mut Scope, rows: &impl Rows<K>, count: usize) -> Result<usize> {
        let victims = self.choose(count);
        let mut batch = Batch::default();
        let absent = {
            let mut cold = scope.lock();
            for &index in &victims {
                let entry = self.live.get_bucket(index).expect("chosen among full buckets");
                if entry.has(UNFLUSHED) {
                    spill(scope, &mut cold, rows, entry, self.is_dirty(entry), &mut batch)
                        .map_err(|error| scope.codec_error(error))?;
                }
            }
            let absent = self.evict_absent(scope, rows, count, &mut batch)?;
            cold.bound_pending();
            batch.sort();
            cold.backend.apply(&batch)?;
            absent
        };
        for &index in &victims {
            if let Ok(entry) = self.live.get_bucket_entry(index) {
                let (entry, _) = entry.remove();
                scope.account.refund(entry.charged());
            }
        }
        scope.account.refund(absent.1);
        self.cold |= !victims.is_empty();
        self.shrink(scope);
        Ok(victims.len() + absent.0)
    }

    /// The next victims in the clock's order.
    fn choose(&mut self, count: usize) -> Vec<usize> {
        let buckets = self.live.num_buckets();
        if count >= self.live.len() {
            return (0..buckets).filter(|&index| self.live.get_bucket(index).is_some()).collect();
        }
        let mut victims = Vec::with_capacity(count);
        for step in 0..2 * buckets {
            if victims.len() == count {
                break;
            }
            let index = self.hand % buckets;
            self.hand = index + 1;
            let Some(entry) = self.live.get_bucket_mut(index) else { continue };
            if entry.has(REFERENCED) && step < count.saturating_mul(8) && step < buckets {
                entry.clear(REFERENCED);
            } else {
                victims.push(index);
            }
        }
        victims.sort_unstable();
        victims.dedup();
        victims
    }

    /// Takes up to `count` absent keys out; deletions go into `batch`. How many, and what was charged for them.
    fn evict_absent(
        &mut self,
        scope: &Scope,
        rows: &impl Rows<K>,
        count: usize,
        batch: &mut Batch,
    ) -> Result<(usize, usize)> {
        let (mut taken, mut charged) = (0, 0);
        for absent in self.absent.extract_if(|_| true).take(count) {
            taken += 1;
            charged += absent.charged;
            if absent.unflushed {
                let mut row = scope.id.to_be_bytes().to_vec();
                rows.write(hash_key(&absent.key), &absent.key, &mut row)
                    .map_err(|error| scope.codec_error(error))?;
                batch.delete(&row);
            }
        }
        Ok((taken, charged))
    }

    /// Gives memory back if a table of half the size would do.
    pub(super) fn shrink(&mut self, scope: &mut Scope) {
        if self.live.num_buckets() > 64 && self.live.len() < self.live.num_buckets() / 8 * 3 {
            self.rebuild(scope, self.live.len());
        }
    }

    /// Moves the entries into a table for `entries` of them.
    fn rebuild(&mut self, scope: &mut Scope, entries: usize) {
        let before = self.live.allocation_size();
        let mut table = hashbrown::HashTable::with_capacity(entries.max(self.live.len()));
        for entry in self.live.drain() {
            table.insert_unique(hash_key(&entry.key), entry, |entry| hash_key(&entry.key));
        }
        scope.account.adjust(before, table.allocation_size());
        self.live = table;
        self.hand = 0;
        self.expiring = 0;
        self.first_bucket = 0;
    }

    /// Writes entries that differ from the backend to it, as part of a rebase: they count as unchanged and snapshotted.
    pub fn flush(&mut self, scope: &mut Scope, rows: &impl Rows<K>, which: Flush) -> Result<()> {
        let mut batch = Batch::default();
        let mut row = Vec::new();
        let mut value = Vec::new();
        let mut cold = scope.lock();
        for entry in self.live.iter_mut() {
            if which == Flush::Unused && entry.has(REFERENCED) {
                entry.clear(REFERENCED);
                continue;
            }
            if !entry.has(UNFLUSHED) {
                continue;
            }
            encode(scope.id, rows, entry, &mut row, &mut value).map_err(|error| scope.codec_error(error))?;
            batch.put(&row, &value);
            entry.clear(UNFLUSHED);
            entry.set(COLD | SNAPPED);
            self.cold = true;
            self.snapped = true;
            if batch.bytes() >= FLUSH_BATCH {
                batch.sort();
                cold.backend.apply(&batch)?;
                batch.clear();
            }
        }
        let (_, charged) = self.evict_absent(scope, rows, usize::MAX, &mut batch)?;
        batch.sort();
        cold.backend.apply(&batch)?;
        drop(cold);
        scope.account.refund(charged);
        Ok(())
    }
}

/// The row of an entry as the backend holds it.
fn encode<K: Key, V: StateValue>(
    id: u16,
    rows: &impl Rows<K>,
    entry: &Entry<K, V>,
    row: &mut Vec<u8>,
    value: &mut Vec<u8>,
) -> Result<(), CodecError> {
    row.clear();
    row.extend_from_slice(&id.to_be_bytes());
    rows.write(hash_key(&entry.key), &entry.key, row)?;
    value.clear();
    codec::encode_into(&entry.value, value)
}

/// Adds an entry's row to the batch, and to the pending delta if the last snapshot does not have it.
fn spill<K: Key, V: StateValue>(
    scope: &Scope,
    cold: &mut Cold,
    rows: &impl Rows<K>,
    entry: &Entry<K, V>,
    dirty: bool,
    batch: &mut Batch,
) -> Result<(), CodecError> {
    let mut row = Vec::new();
    let mut value = Vec::new();
    encode(scope.id, rows, entry, &mut row, &mut value)?;
    if dirty && !cold.rebase {
        let copy = |bytes: &[u8], out: &mut Vec<u8>| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        cold.pending.put(scope.id, |out| copy(&row[2..], out), |out| copy(&value, out))?;
    }
    batch.put(&row, &value);
    Ok(())
}
