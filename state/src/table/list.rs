//! A list a key. Appending writes what is new and never what is there.
//!
//! A row is a *chunk*: `key group, key, sequence number` to items that one snapshot or spill wrote, about 64 KiB of them at most.
//! Sequence numbers come from a counter of the table that is kept over restarts, so the chunks of a key are in the order of its items.
//! A list may be larger than memory: what is appended goes to the backend when there is no room for it, and
//! [`ListTable::try_for_each`] reads the chunks one by one.

use std::ops::ControlFlow;

use hashbrown::HashTable;

use super::undo::Changes;
use super::{ErasedTable, Flush, Part};
use crate::backend::Batch;
use crate::codec::{self, StateValue};
use crate::delta::{DeltaWriter, Op};
use crate::error::Result;
use crate::hash::hash_key;
use crate::key::{Key, KeyArg, KeyGroupRange, key_group};
use crate::scope::{Cold, Scope, heap_size};

/// A chunk is closed when it has so many bytes: what a reader has in memory at once.
const CHUNK: usize = 64 << 10;
/// A list of fewer items is left alone by its own appends: every list may have that many in memory, whatever the budget.
const SMALL: usize = 256;

struct Slot<K, T> {
    key: K,
    /// All items if `whole`, else those appended since the rest was left in the backend.
    items: Vec<T>,
    /// How many of `items`, from the first on, the backend has; none of a slot that is not whole.
    flushed: usize,
    /// How many of `items` some snapshot has.
    snapped: usize,
    /// Whether `items` is the whole list.
    whole: bool,
    /// Whether the backend may have chunks of this key.
    cold: bool,
    /// Whether a snapshot may have chunks of this key.
    recorded: bool,
    dirty: bool,
    referenced: bool,
    charged: usize,
}

/// A table of one list of `T` a `K`.
pub struct ListTable<K, T> {
    scope: Scope,
    slots: HashTable<Slot<K, T>>,
    dirty: Vec<u64>,
    cold: bool,
    sequence: u64,
    hand: usize,
    /// When an item expires, if items do.
    deadline: Option<fn(&T) -> i64>,
    /// The slot from which on the search for expired items goes on.
    expiring: usize,
    changes: Changes<Before<K, T>>,
}

/// What a change has to be taken back by.
enum Before<K, T> {
    /// There were so many items less.
    Shorter(u64, K, usize),
    /// There were these.
    Items(u64, K, Vec<T>),
}

impl<K: Key, T: StateValue> ListTable<K, T> {
    pub(crate) fn open(scope: Scope, sequence: u64) -> Result<Self> {
        let cold = scope.has_cold_rows()?;
        let (slots, dirty) = (HashTable::new(), Vec::new());
        let changes = Changes::default();
        Ok(Self { scope, slots, dirty, cold, sequence, hand: 0, deadline: None, expiring: 0, changes })
    }

    pub(crate) fn expiring(self, deadline: fn(&T) -> i64) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// Appends `item` to the list of `key`; reads nothing.
    ///
    /// # Errors
    /// When entries cannot be spilled to make room.
    pub fn append(&mut self, hash: u64, key: impl KeyArg<K>, item: T) -> Result<()> {
        if self.changes.are_kept() {
            self.note_append(hash, key.borrow());
        }
        let slot = match self.slots.find_bucket_index(hash, |slot| slot.key == *key.borrow()) {
            Some(slot) => slot,
            None => self.add_slot(hash, key.into_key())?,
        };
        let found = self.slots.get_bucket_mut(slot).expect("just located");
        found.referenced = true;
        if !found.dirty {
            found.dirty = true;
            self.dirty.push(hash);
        }
        let heap = heap_size(&item);
        found.items.push(item);
        // The vector's own growth is charged when its slot is; this is what is certain.
        found.charged += heap + size_of::<T>();
        self.scope.account.charge(heap + size_of::<T>());
        self.keep_to_budget(slot)
    }

    /// Lets a list that is large by itself go to the backend if there is no room for it.
    #[inline]
    fn keep_to_budget(&mut self, slot: usize) -> Result<()> {
        let length = self.slots.get_bucket(slot).map_or(0, |found| found.items.len());
        if length >= SMALL && self.scope.is_exceeded() { self.let_go(slot) } else { Ok(()) }
    }

    /// The list of `key`, empty if there is none. Reads its chunks once if they are in the backend.
    ///
    /// # Errors
    /// When chunks cannot be read or decoded.
    pub fn get(&mut self, hash: u64, key: &K) -> Result<&[T]> {
        let slot = match self.slots.find_bucket_index(hash, |slot| slot.key == *key) {
            Some(slot) => slot,
            None if self.cold => self.add_slot(hash, key.clone())?,
            None => return Ok(&[]),
        };
        self.load(slot, hash)?;
        let found = self.slots.get_bucket_mut(slot).expect("just located");
        found.referenced = true;
        Ok(&found.items)
    }

    /// Visits the items of `key` in their order until one breaks off. Those in the backend stay there, so that a list larger than memory can
    /// be read.
    ///
    /// # Errors
    /// When chunks cannot be read or decoded.
    pub fn try_for_each(
        &mut self,
        hash: u64,
        key: &K,
        mut visit: impl FnMut(&T) -> ControlFlow<()>,
    ) -> Result<()> {
        if let Some(slot) = self.slots.find_mut(hash, |slot| slot.key == *key) {
            slot.referenced = true;
        }
        let slot = self.slots.find(hash, |slot| slot.key == *key);
        let (items, is_whole) = slot.map_or((&[][..], !self.cold), |slot| (&slot.items[..], slot.whole));
        let mut seen_enough = false;
        if !is_whole {
            let prefix = self.prefix(hash, key)?;
            self.scope.scan_rows(&prefix, |_, chunk| {
                let flow = items_of(&self.scope, chunk, |item| visit(&item))?;
                seen_enough = flow.is_break();
                Ok(flow)
            })?;
        }
        if !seen_enough {
            let _ = items.iter().try_for_each(visit);
        }
        Ok(())
    }

    /// Removes the list of `key` and returns its items.
    ///
    /// # Errors
    /// When chunks cannot be read, decoded or deleted.
    pub fn take(&mut self, hash: u64, key: &K) -> Result<Vec<T>> {
        self.note_items(hash, key)?;
        self.get(hash, key)?;
        let Some(slot) = self.slots.find_bucket_index(hash, |slot| slot.key == *key) else {
            return Ok(Vec::new());
        };
        let items = std::mem::take(&mut self.slots.get_bucket_mut(slot).expect("just located").items);
        self.remove_list(hash, key)?;
        Ok(items)
    }

    /// Removes the list of `key`.
    ///
    /// # Errors
    /// When chunks cannot be deleted.
    pub fn clear(&mut self, hash: u64, key: &K) -> Result<()> {
        self.note_items(hash, key)?;
        self.remove_list(hash, key)
    }

    /// Notes the items of `key`, if changes are kept, before they are removed.
    fn note_items(&mut self, hash: u64, key: &K) -> Result<()> {
        if self.changes.are_kept() {
            let items = self.get(hash, key)?.to_vec();
            self.changes.note(Before::Items(hash, key.clone(), items));
        }
        Ok(())
    }

    #[cold]
    fn note_append(&mut self, hash: u64, key: &K) {
        match self.changes.newest() {
            Some(Before::Shorter(_, last, count)) if last == key => *count += 1,
            _ => self.changes.note(Before::Shorter(hash, key.clone(), 1)),
        }
    }

    /// Takes the last `count` items of a list back: in memory, as far as neither the backend nor a snapshot has them; otherwise the list is
    /// written anew.
    fn shorten(&mut self, hash: u64, key: &K, mut count: usize) -> Result<()> {
        if let Some(slot) = self.slots.find_bucket_index(hash, |slot| slot.key == *key) {
            let found = self.slots.get_bucket_mut(slot).expect("just located");
            let own = found.items.len() - found.flushed.max(found.snapped);
            let doomed = found.items.drain(found.items.len() - own.min(count)..);
            count -= doomed.len();
            let bytes = doomed.map(|item| heap_size(&item) + size_of::<T>()).sum::<usize>();
            found.charged -= bytes;
            self.scope.account.refund(bytes);
            if found.whole && found.items.is_empty() && !found.cold && !found.recorded {
                self.drop_slot(slot);
            }
        }
        if count == 0 {
            return Ok(());
        }
        let mut items = self.take(hash, key)?;
        items.truncate(items.len().saturating_sub(count));
        items.into_iter().try_for_each(|item| self.append(hash, key, item))
    }

    fn remove_list(&mut self, hash: u64, key: &K) -> Result<()> {
        let (cold, recorded) = match self.slots.find(hash, |slot| slot.key == *key) {
            Some(slot) => (slot.cold, slot.recorded || slot.cold),
            None => (self.cold, self.cold),
        };
        if recorded {
            let prefix = self.prefix(hash, key)?;
            if cold {
                self.scope.delete_cold(&prefix)?;
            }
            let group = key_group(hash, self.scope.groups).0;
            self.scope.record_drop(&prefix, KeyGroupRange::new(group, group + 1));
        }
        if let Some(slot) = self.slots.find_bucket_index(hash, |slot| slot.key == *key) {
            self.drop_slot(slot);
        }
        Ok(())
    }

    fn prefix(&self, hash: u64, key: &K) -> Result<Vec<u8>> {
        let mut row = key_group(hash, self.scope.groups).0.to_be_bytes().to_vec();
        self.scope.encode(key, &mut row)?;
        Ok(row)
    }

    fn add_slot(&mut self, hash: u64, key: K) -> Result<usize> {
        if self.scope.is_exceeded() && self.slots.len() > 64 {
            self.evict_slots(self.scope.evict_batch / 8 + 1)?;
        }
        let charged = heap_size(&key) + size_of::<Slot<K, T>>() * 8 / 7;
        self.scope.account.charge(charged);
        let slot = Slot {
            key,
            items: Vec::new(),
            flushed: 0,
            snapped: 0,
            whole: !self.cold,
            cold: self.cold,
            recorded: self.cold,
            dirty: false,
            referenced: true,
            charged,
        };
        Ok(self.slots.insert_unique(hash, slot, |slot| hash_key(&slot.key)).bucket_index())
    }

    fn drop_slot(&mut self, slot: usize) {
        if let Ok(found) = self.slots.get_bucket_entry(slot) {
            self.scope.account.refund(found.remove().0.charged);
        }
    }

    /// Reads the chunks of a slot in front of the items it has.
    fn load(&mut self, slot: usize, hash: u64) -> Result<()> {
        let found = self.slots.get_bucket(slot).expect("just located");
        if found.whole {
            return Ok(());
        }
        let prefix = self.prefix(hash, &found.key)?;
        let mut items: Vec<T> = Vec::new();
        let mut heap = 0;
        self.scope.scan_rows(&prefix, |_, chunk| {
            items_of(&self.scope, chunk, |item| {
                heap += heap_size(&item) + size_of::<T>();
                items.push(item);
                ControlFlow::Continue(())
            })
        })?;
        let found = self.slots.get_bucket_mut(slot).expect("just located");
        // Those in memory are in no chunk: a slot that is not whole forgets what it flushes.
        found.snapped += items.len();
        found.flushed = items.len();
        items.append(&mut found.items);
        found.items = items;
        found.whole = true;
        found.charged += heap;
        self.scope.account.charge(heap);
        Ok(())
    }

    /// Writes the items that the backend lacks as a chunk; what the last snapshot lacks goes into the pending delta.
    fn spill(&mut self, slot: usize, cold: &mut Cold, batch: &mut Batch) -> Result<()> {
        let Self { slots, scope, sequence, .. } = self;
        let found = slots.get_bucket_mut(slot).expect("just located");
        let hash = hash_key(&found.key);
        let mut row = scope.id.to_be_bytes().to_vec();
        row.extend_from_slice(&key_group(hash, scope.groups).0.to_be_bytes());
        scope.encode(&found.key, &mut row)?;
        chunks(scope, &found.items[found.flushed..], |chunk| {
            *sequence += 1;
            let mut key = row.clone();
            key.extend_from_slice(&sequence.to_be_bytes());
            batch.put(&key, chunk);
            Ok(())
        })?;
        if !cold.rebase {
            write(scope, &row[2..], sequence, &found.items[found.snapped..], &mut cold.pending)?;
        }
        Ok(())
    }

    /// Writes what the backend lacks of a list to it, and lets go of its items.
    fn let_go(&mut self, slot: usize) -> Result<()> {
        let cold = self.scope.cold.clone();
        let mut cold = cold.lock();
        let mut batch = Batch::default();
        self.spill(slot, &mut cold, &mut batch)?;
        cold.bound_pending();
        cold.backend.apply(&batch)?;
        self.forget_items(slot);
        Ok(())
    }

    /// Lets go of the items of a slot, all of which the backend has.
    fn forget_items(&mut self, slot: usize) {
        self.cold = true;
        let found = self.slots.get_bucket_mut(slot).expect("just located");
        let items = std::mem::take(&mut found.items);
        let bytes = items.iter().map(|item| heap_size(item) + size_of::<T>()).sum::<usize>();
        (found.whole, found.cold, found.flushed, found.snapped) = (false, true, 0, 0);
        found.charged -= bytes;
        self.scope.account.refund(bytes);
    }

    fn evict_slots(&mut self, count: usize) -> Result<usize> {
        let buckets = self.slots.num_buckets();
        let mut victims = Vec::new();
        for step in 0..2 * buckets {
            if victims.len() == count {
                break;
            }
            let index = self.hand % buckets;
            self.hand = index + 1;
            let Some(slot) = self.slots.get_bucket_mut(index) else { continue };
            if slot.referenced && step < count.saturating_mul(8) && step < buckets {
                slot.referenced = false;
            } else {
                victims.push(index);
            }
        }
        victims.sort_unstable();
        victims.dedup();
        let cold = self.scope.cold.clone();
        let mut cold = cold.lock();
        let mut batch = Batch::default();
        for &victim in &victims {
            self.spill(victim, &mut cold, &mut batch)?;
        }
        batch.sort();
        cold.bound_pending();
        cold.backend.apply(&batch)?;
        self.cold |= !victims.is_empty();
        for &victim in &victims {
            self.drop_slot(victim);
        }
        Ok(victims.len())
    }
}

/// Encodes items as chunks.
fn chunks<T: StateValue>(
    scope: &Scope,
    items: &[T],
    mut chunk_is_full: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut chunk = Vec::new();
    for item in items {
        scope.encode(item, &mut chunk)?;
        if chunk.len() >= CHUNK {
            chunk_is_full(&chunk)?;
            chunk.clear();
        }
    }
    if chunk.is_empty() { Ok(()) } else { chunk_is_full(&chunk) }
}

/// Visits the items of a chunk until one breaks off.
fn items_of<T: StateValue>(
    scope: &Scope,
    mut chunk: &[u8],
    mut visit: impl FnMut(T) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    while !chunk.is_empty() {
        let (item, used) = codec::decode_prefix::<T>(chunk).map_err(|error| scope.codec_error(error))?;
        if visit(item).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        chunk = &chunk[used..];
    }
    Ok(ControlFlow::Continue(()))
}

/// Writes items of one list into a delta.
fn write<T: StateValue>(
    scope: &Scope,
    prefix: &[u8],
    sequence: &mut u64,
    items: &[T],
    delta: &mut DeltaWriter,
) -> Result<()> {
    chunks(scope, items, |chunk| {
        *sequence += 1;
        let row = |out: &mut Vec<u8>| {
            out.extend_from_slice(prefix);
            out.extend_from_slice(&sequence.to_be_bytes());
            Ok(())
        };
        let value = |out: &mut Vec<u8>| {
            out.extend_from_slice(chunk);
            Ok(())
        };
        delta.put(scope.id, row, value).map_err(|error| scope.codec_error(error))
    })
}

impl<K, T> std::fmt::Debug for ListTable<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.describe("ListTable", f)
    }
}

impl<K: Key, T: StateValue> ErasedTable for ListTable<K, T> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn encode(&mut self, part: Part, delta: &mut DeltaWriter) -> Result<()> {
        let Self { slots, scope, dirty, sequence, .. } = self;
        let mut encode = |slot: &mut Slot<K, T>| {
            let hash = hash_key(&slot.key);
            let from = match part {
                Part::Changed => slot.snapped,
                Part::Unflushed => slot.flushed,
            };
            slot.dirty = false;
            slot.snapped = slot.items.len();
            if from == slot.items.len() {
                return Ok(());
            }
            slot.recorded = true;
            let mut prefix = key_group(hash, scope.groups).0.to_be_bytes().to_vec();
            scope.encode(&slot.key, &mut prefix)?;
            write(scope, &prefix, sequence, &slot.items[from..], delta)
        };
        match part {
            Part::Changed => {
                for &hash in dirty.iter() {
                    // Slots of another hash may come along: their own counts.
                    slots.iter_hash_mut(hash).filter(|slot| slot.dirty).try_for_each(&mut encode)?;
                }
            }
            Part::Unflushed => {
                for slot in slots.iter_mut() {
                    encode(slot)?;
                }
            }
        }
        dirty.clear();
        Ok(())
    }

    fn flush(&mut self, which: Flush) -> Result<()> {
        let cold = self.scope.cold.clone();
        let mut cold = cold.lock();
        let mut batch = Batch::default();
        for index in 0..self.slots.num_buckets() {
            let Some(slot) = self.slots.get_bucket_mut(index) else { continue };
            if which == Flush::Unused && std::mem::take(&mut slot.referenced) {
                continue;
            }
            // A rebase follows: the pending delta is not needed.
            slot.snapped = slot.items.len();
            self.spill(index, &mut cold, &mut batch)?;
            let slot = self.slots.get_bucket_mut(index).expect("just seen");
            slot.cold = true;
            self.cold = true;
            if slot.whole {
                slot.flushed = slot.items.len();
                continue;
            }
            // Reading it takes all chunks anyway. Nothing that a chunk has is then in memory twice, so a chunk may go.
            self.forget_items(index);
        }
        batch.sort();
        cold.backend.apply(&batch)
    }

    fn evict(&mut self, count: usize) -> Result<usize> {
        self.evict_slots(count)
    }

    /// A list of which more than half has expired is written anew, one of which all has is removed. Of one that is not wholly in memory
    /// nothing is known; its chunks are the backend's to remove.
    fn expire(&mut self, horizon: i64, buckets: usize) -> Result<bool> {
        let Some(deadline) = self.deadline else { return Ok(true) };
        let until = self.slots.num_buckets().min(self.expiring.saturating_add(buckets));
        for index in self.expiring..until {
            let Some(slot) = self.slots.get_bucket(index).filter(|slot| slot.whole) else { continue };
            let is_over = |item: &T| deadline(item) <= horizon;
            let over = slot.items.iter().filter(|item| is_over(item)).count();
            if over == 0 || over * 2 < slot.items.len() {
                continue;
            }
            let (key, hash) = (slot.key.clone(), hash_key(&slot.key));
            for item in self.take(hash, &key)?.into_iter().filter(|item| !is_over(item)) {
                self.append(hash, &key, item)?;
            }
        }
        self.expiring = if until < self.slots.num_buckets() { until } else { 0 };
        Ok(self.expiring == 0)
    }

    fn keep_changes(&mut self) {
        self.changes.keep();
    }

    fn mark(&mut self) {
        self.changes.mark();
    }

    fn undo(&mut self) -> Result<()> {
        for before in self.changes.take() {
            match before {
                Before::Items(hash, key, items) => {
                    items.into_iter().try_for_each(|item| self.append(hash, &key, item))?;
                }
                Before::Shorter(hash, key, count) => self.shorten(hash, &key, count)?,
            }
        }
        self.changes.keep();
        Ok(())
    }

    fn restore(&mut self, op: Op<'_>) -> Result<()> {
        let row = match op {
            Op::Put { row, .. } | Op::Delete { row } => row,
            Op::Drop { prefix, .. } => prefix,
        };
        let key: K = codec::decode_prefix(&row[2..]).map_err(|error| self.scope.codec_error(error))?.0;
        let hash = hash_key(&key);
        let slot = self.slots.find_bucket_index(hash, |slot| slot.key == key);
        match op {
            Op::Put { value: mut chunk, .. } => {
                let slot = match slot {
                    Some(slot) => slot,
                    None => self.add_slot(hash, key)?,
                };
                let Self { slots, scope, .. } = self;
                let found = slots.get_bucket_mut(slot).expect("just located");
                while !chunk.is_empty() {
                    let (item, used) =
                        codec::decode_prefix::<T>(chunk).map_err(|error| scope.codec_error(error))?;
                    let heap = heap_size(&item) + size_of::<T>();
                    found.charged += heap;
                    scope.account.charge(heap);
                    found.items.push(item);
                    chunk = &chunk[used..];
                }
                found.snapped = found.items.len();
                found.recorded = true;
                self.keep_to_budget(slot)?;
            }
            Op::Delete { .. } => {}
            Op::Drop { prefix, groups } => {
                if groups.intersection(self.scope.range).is_empty() {
                    return Ok(());
                }
                if self.cold {
                    self.scope.delete_cold(prefix)?;
                }
                if let Some(slot) = slot {
                    self.drop_slot(slot);
                }
            }
        }
        Ok(())
    }

    fn counter(&self) -> u64 {
        self.sequence
    }
}
