//! A map a key, each of whose entries is read and written alone.
//!
//! A slot of the outer table holds the entries of one key that are in memory, as a table of its own over the rows
//! `key group, key, map key`. A slot whose entries were all evicted is dropped; `cold` in a new one makes it ask the backend. So a map
//! may be larger than memory: its entries come and go one by one.

use std::ops::ControlFlow;

use hashbrown::HashTable;

use super::hot::HotMap;
use super::undo::Changes;
use super::{ErasedTable, Flush, Part};
use crate::codec::{self, StateValue};
use crate::delta::{DeltaWriter, Op};
use crate::error::Result;
use crate::hash::hash_key;
use crate::key::{Key, KeyArg, KeyGroupRange, key_group};
use crate::scope::{Scope, Under, heap_size};

struct Slot<K, MK, MV> {
    key: K,
    map: HotMap<MK, MV>,
    dirty: bool,
    referenced: bool,
    charged: usize,
}

/// A table of one map from `MK` to `MV` a `K`.
///
/// An operation on an entry in memory costs two look-ups. The inner hash is computed inside.
pub struct MapTable<K, MK, MV> {
    scope: Scope,
    slots: HashTable<Slot<K, MK, MV>>,
    dirty: Vec<u64>,
    cold: bool,
    hand: usize,
    row: Vec<u8>,
    /// When an entry expires, if entries do.
    deadline: Option<fn(&MV) -> i64>,
    /// The slot from which on the search for expired entries goes on.
    expiring: usize,
    changes: Changes<(u64, K, MK, Option<MV>)>,
}

impl<K: Key, MK: Key, MV: StateValue> MapTable<K, MK, MV> {
    pub(crate) fn open(scope: Scope) -> Result<Self> {
        let cold = scope.has_cold_rows()?;
        let (slots, dirty, row) = (HashTable::new(), Vec::new(), Vec::new());
        let changes = Changes::default();
        Ok(Self { scope, slots, dirty, cold, hand: 0, row, deadline: None, expiring: 0, changes })
    }

    pub(crate) fn expiring(self, deadline: fn(&MV) -> i64) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The value of `map_key` in the map of `key`.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    pub fn get(&mut self, hash: u64, key: &K, map_key: &MK) -> Result<Option<&MV>> {
        let Some(slot) = self.existing(hash, key)? else { return Ok(None) };
        let Some(index) = self.locate(hash, slot, map_key)? else { return Ok(None) };
        Ok(Some(self.slot(slot).map.read(index)))
    }

    /// The value of `map_key` in the map of `key`, for changing it in place.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    pub fn get_mut(&mut self, hash: u64, key: &K, map_key: &MK) -> Result<Option<&mut MV>> {
        if self.get(hash, key, map_key)?.is_none() {
            return Ok(None);
        }
        if self.changes.are_kept() {
            self.note(hash, key, map_key)?;
        }
        let slot = self.for_change(hash, key)?;
        let index = self.locate(hash, slot, map_key)?;
        Ok(index.map(|index| self.slot(slot).map.write(hash_key(map_key), index)))
    }

    /// Whether the map of `key` has `map_key`.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    pub fn contains(&mut self, hash: u64, key: &K, map_key: &MK) -> Result<bool> {
        Ok(self.get(hash, key, map_key)?.is_some())
    }

    /// The value of `map_key` in the map of `key` for changing it in place, made by `init` if there is none.
    ///
    /// # Errors
    /// When its row cannot be read or decoded, or entries cannot be spilled to make room.
    pub fn upsert(
        &mut self,
        hash: u64,
        key: impl KeyArg<K>,
        map_key: impl KeyArg<MK>,
        init: impl FnOnce() -> MV,
    ) -> Result<&mut MV> {
        if self.changes.are_kept() {
            self.note(hash, key.borrow(), map_key.borrow())?;
        }
        let slot = self.for_change(hash, key)?;
        self.make_room(hash, slot)?;
        let inner = hash_key(map_key.borrow());
        let found = self.locate(hash, slot, map_key.borrow())?;
        let Self { slots, scope, .. } = self;
        let map = &mut slots.get_bucket_mut(slot).expect("just located").map;
        Ok(match found {
            Some(index) => map.write(inner, index),
            None => map.insert(scope, inner, map_key.into_key(), init()),
        })
    }

    /// Sets the value of `map_key` in the map of `key`; does not read its row.
    ///
    /// # Errors
    /// When entries cannot be spilled to make room.
    pub fn put(&mut self, hash: u64, key: impl KeyArg<K>, map_key: impl KeyArg<MK>, value: MV) -> Result<()> {
        if self.changes.are_kept() {
            self.note(hash, key.borrow(), map_key.borrow())?;
        }
        let slot = self.for_change(hash, key)?;
        self.make_room(hash, slot)?;
        let inner = hash_key(map_key.borrow());
        let Self { slots, scope, .. } = self;
        let map = &mut slots.get_bucket_mut(slot).expect("just located").map;
        match map.find(inner, map_key.borrow()) {
            Some(index) => *map.write(inner, index) = value,
            None => {
                map.insert(scope, inner, map_key.into_key(), value);
            }
        }
        Ok(())
    }

    /// Removes `map_key` from the map of `key` and returns the value it had.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    pub fn remove(&mut self, hash: u64, key: &K, map_key: &MK) -> Result<Option<MV>> {
        if self.changes.are_kept() {
            self.note(hash, key, map_key)?;
        }
        let Some(slot) = self.existing(hash, key)? else { return Ok(None) };
        let Some(index) = self.locate(hash, slot, map_key)? else { return Ok(None) };
        let prefix = self.prefix(hash, key)?;
        let Self { slots, scope, .. } = self;
        let found = slots.get_bucket_mut(slot).expect("just located");
        let value = found.map.remove_at(scope, &Under { prefix: &prefix }, hash_key(map_key), index)?;
        if found.map.is_vacant() && !self.cold {
            self.drop_slot(slot);
        }
        self.row = prefix;
        Ok(Some(value))
    }

    /// Visits the entries of `key` in no particular order, those in the backend included, which stay there: however many there are, none
    /// takes memory for it.
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn for_each(&mut self, hash: u64, key: &K, visit: impl FnMut(&MK, &MV)) -> Result<()> {
        self.visit(hash, key, |map, scope, rows| map.for_each(scope, rows, visit))
    }

    /// Visits the entries of `key` in the order of their encoded keys, which is the same whatever is in memory, until one breaks off. Those in
    /// the backend stay there. Keys that are in memory are encoded and sorted first, which takes about the memory that they have again.
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn try_for_each(
        &mut self,
        hash: u64,
        key: &K,
        visit: impl FnMut(&MK, &MV) -> ControlFlow<()>,
    ) -> Result<()> {
        self.visit(hash, key, |map, scope, rows| map.try_for_each(scope, rows, visit))
    }

    fn visit(
        &mut self,
        hash: u64,
        key: &K,
        visit: impl FnOnce(&HotMap<MK, MV>, &Scope, &Under<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(slot) = self.existing(hash, key)? else { return Ok(()) };
        let prefix = self.prefix(hash, key)?;
        self.slot(slot).referenced = true;
        let map = &self.slots.get_bucket(slot).expect("just located").map;
        visit(map, &self.scope, &Under { prefix: &prefix })?;
        self.row = prefix;
        Ok(())
    }

    /// Removes all entries of `key`.
    ///
    /// # Errors
    /// When rows cannot be deleted.
    pub fn clear(&mut self, hash: u64, key: &K) -> Result<()> {
        if self.changes.are_kept() {
            self.note_all(hash, key)?;
        }
        let Some(slot) = self.existing(hash, key)? else { return Ok(()) };
        let prefix = self.prefix(hash, key)?;
        let (cold, snapped) = {
            let map = &self.slot(slot).map;
            (map.cold, map.snapped)
        };
        if cold {
            self.scope.delete_cold(&prefix)?;
        }
        if cold || snapped {
            let group = key_group(hash, self.scope.groups).0;
            self.scope.record_drop(&prefix, KeyGroupRange::new(group, group + 1));
        }
        self.drop_slot(slot);
        self.row = prefix;
        Ok(())
    }

    /// Notes what an entry is, before it changes.
    #[cold]
    fn note(&mut self, hash: u64, key: &K, map_key: &MK) -> Result<()> {
        let before = self.get(hash, key, map_key)?.cloned();
        self.changes.note((hash, key.clone(), map_key.clone(), before));
        Ok(())
    }

    #[cold]
    fn note_all(&mut self, hash: u64, key: &K) -> Result<()> {
        let mut entries = Vec::new();
        self.for_each(hash, key, |map_key, value| entries.push((map_key.clone(), value.clone())))?;
        let notes = entries.into_iter().map(|(map_key, value)| (hash, key.clone(), map_key, Some(value)));
        notes.for_each(|note| self.changes.note(note));
        Ok(())
    }

    fn slot(&mut self, slot: usize) -> &mut Slot<K, MK, MV> {
        self.slots.get_bucket_mut(slot).expect("just located")
    }

    /// The slot of `key` if anything may be in its map.
    fn existing(&mut self, hash: u64, key: &K) -> Result<Option<usize>> {
        match self.slots.find_bucket_index(hash, |slot| slot.key == *key) {
            Some(slot) => Ok(Some(slot)),
            None if self.cold => self.add_slot(hash, key.clone()).map(Some),
            None => Ok(None),
        }
    }

    /// The slot of `key`, marked as changed.
    fn for_change(&mut self, hash: u64, key: impl KeyArg<K>) -> Result<usize> {
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
        Ok(slot)
    }

    fn add_slot(&mut self, hash: u64, key: K) -> Result<usize> {
        if self.scope.is_exceeded() && self.slots.len() > 64 {
            self.evict_slots(self.scope.evict_batch / 8 + 1)?;
        }
        let map = if self.cold { HotMap::over_cold_rows() } else { HotMap::default() };
        let charged = heap_size(&key) + size_of::<Slot<K, MK, MV>>() * 8 / 7;
        self.scope.account.charge(charged);
        let slot = Slot { key, map, dirty: false, referenced: true, charged };
        Ok(self.slots.insert_unique(hash, slot, |slot| hash_key(&slot.key)).bucket_index())
    }

    /// Gives the memory of a slot back; what is in it must be dropped or in the backend.
    fn drop_slot(&mut self, slot: usize) {
        if let Ok(found) = self.slots.get_bucket_entry(slot) {
            let (mut slot, _) = found.remove();
            slot.map.release(&mut self.scope);
            self.scope.account.refund(slot.charged);
        }
    }

    /// The entry `map_key` in a slot, read from the backend if need be.
    fn locate(&mut self, hash: u64, slot: usize, map_key: &MK) -> Result<Option<usize>> {
        let inner = hash_key(map_key);
        let found = self.slots.get_bucket(slot).expect("just located");
        if let Some(index) = found.map.find(inner, map_key) {
            return Ok(Some(index));
        }
        if !found.map.cold {
            return Ok(None);
        }
        let key = found.key.clone();
        self.make_room(hash, slot)?;
        let prefix = self.prefix(hash, &key)?;
        let Self { slots, scope, .. } = self;
        let map = &mut slots.get_bucket_mut(slot).expect("just located").map;
        let loaded = map.load(scope, &Under { prefix: &prefix }, inner, map_key);
        self.row = prefix;
        loaded
    }

    /// `key group, key`, in the scratch buffer, which the caller may give back.
    fn prefix(&mut self, hash: u64, key: &K) -> Result<Vec<u8>> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.extend_from_slice(&key_group(hash, self.scope.groups).0.to_be_bytes());
        self.scope.encode(key, &mut row)?;
        Ok(row)
    }

    /// Lets a map that is large by itself evict some of its entries before it grows.
    #[inline]
    fn make_room(&mut self, hash: u64, slot: usize) -> Result<()> {
        let found = self.slots.get_bucket(slot).expect("just located");
        if !found.map.needs_room(&self.scope) {
            return Ok(());
        }
        let key = found.key.clone();
        let prefix = self.prefix(hash, &key)?;
        let Self { slots, scope, .. } = self;
        let map = &mut slots.get_bucket_mut(slot).expect("just located").map;
        map.make_room(scope, &Under { prefix: &prefix })?;
        self.cold |= map.cold;
        self.row = prefix;
        Ok(())
    }

    /// Evicts about `count` entries: maps as wholes, but for one that is large. Answers how many entries it was.
    fn evict_slots(&mut self, count: usize) -> Result<usize> {
        let buckets = self.slots.num_buckets();
        let (mut entries, mut steps) = (0, 0);
        while entries < count && steps < 2 * buckets {
            let index = self.hand % buckets;
            self.hand = index + 1;
            steps += 1;
            let Some(slot) = self.slots.get_bucket_mut(index) else { continue };
            if slot.referenced && steps < count.saturating_mul(8) {
                slot.referenced = false;
                continue;
            }
            let key = slot.key.clone();
            let prefix = self.prefix(hash_key(&key), &key)?;
            let Self { slots, scope, .. } = self;
            let map = &mut slots.get_bucket_mut(index).expect("just seen").map;
            // The overhead of an empty map is that of an entry.
            entries += map.evict(scope, &Under { prefix: &prefix }, count - entries)?.max(1);
            self.cold = true;
            self.row = prefix;
            if map.holds_nothing() {
                self.drop_slot(index);
            } else {
                // Its own hand goes on where it stands.
                self.hand = index;
            }
        }
        Ok(entries)
    }

    fn key_of(&self, row: &[u8]) -> Result<(K, usize)> {
        codec::decode_prefix::<K>(&row[2..])
            .map(|(key, used)| (key, used + 2))
            .map_err(|error| self.scope.codec_error(error))
    }
}

impl<K, MK, MV> std::fmt::Debug for MapTable<K, MK, MV> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.describe("MapTable", f)
    }
}

impl<K: Key, MK: Key, MV: StateValue> ErasedTable for MapTable<K, MK, MV> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn encode(&mut self, part: Part, delta: &mut DeltaWriter) -> Result<()> {
        let Self { slots, scope, dirty, row, .. } = self;
        let mut encode = |slot: &mut Slot<K, MK, MV>| {
            let hash = hash_key(&slot.key);
            row.clear();
            row.extend_from_slice(&key_group(hash, scope.groups).0.to_be_bytes());
            scope.encode(&slot.key, row)?;
            slot.dirty = false;
            slot.map.encode(scope, &Under { prefix: row }, part, delta)
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
        let Self { slots, scope, row, cold, .. } = self;
        for slot in slots.iter_mut() {
            row.clear();
            row.extend_from_slice(&key_group(hash_key(&slot.key), scope.groups).0.to_be_bytes());
            scope.encode(&slot.key, row)?;
            slot.map.flush(scope, &Under { prefix: row }, which)?;
            *cold |= slot.map.cold;
        }
        Ok(())
    }

    fn evict(&mut self, count: usize) -> Result<usize> {
        self.evict_slots(count)
    }

    fn expire(&mut self, horizon: i64, buckets: usize) -> Result<bool> {
        let Some(deadline) = self.deadline else { return Ok(true) };
        let mut left = buckets;
        while left > 0 {
            if self.expiring >= self.slots.num_buckets() {
                self.expiring = 0;
                return Ok(true);
            }
            left -= 1;
            let Some(slot) = self.slots.get_bucket(self.expiring) else {
                self.expiring += 1;
                continue;
            };
            let key = slot.key.clone();
            let prefix = self.prefix(hash_key(&key), &key)?;
            let Self { slots, scope, .. } = self;
            let map = &mut slots.get_bucket_mut(self.expiring).expect("just seen").map;
            let seen =
                map.expire(scope, &Under { prefix: &prefix }, left, |value| deadline(value) <= horizon)?;
            let is_empty = map.holds_nothing();
            self.row = prefix;
            // One that is not through goes on the next time.
            let Some(rest) = seen else { return Ok(false) };
            left = rest;
            if is_empty {
                self.drop_slot(self.expiring);
            }
            self.expiring += 1;
        }
        Ok(false)
    }

    fn keep_changes(&mut self) {
        self.changes.keep();
    }

    fn mark(&mut self) {
        self.changes.mark();
    }

    fn undo(&mut self) -> Result<()> {
        for (hash, key, map_key, before) in self.changes.take() {
            match before {
                Some(value) => self.put(hash, &key, &map_key, value)?,
                None => drop(self.remove(hash, &key, &map_key)?),
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
        let (key, used) = self.key_of(row)?;
        let hash = hash_key(&key);
        match op {
            Op::Put { row, value } => {
                let slot = match self.slots.find_bucket_index(hash, |slot| slot.key == key) {
                    Some(slot) => slot,
                    None => self.add_slot(hash, key)?,
                };
                let (map_key, value) = (self.scope.decode(&row[used..])?, self.scope.decode(value)?);
                self.make_room(hash, slot)?;
                let Self { slots, scope, .. } = self;
                slots.get_bucket_mut(slot).expect("just located").map.restore_put(scope, map_key, value);
            }
            Op::Delete { row } => {
                let Some(slot) = self.existing(hash, &key)? else { return Ok(()) };
                let map_key = self.scope.decode(&row[used..])?;
                let Self { slots, scope, .. } = self;
                slots.get_bucket_mut(slot).expect("just located").map.restore_delete(scope, map_key);
            }
            Op::Drop { prefix, groups } => {
                if groups.intersection(self.scope.range).is_empty() {
                    return Ok(());
                }
                if self.cold {
                    self.scope.delete_cold(prefix)?;
                }
                if let Some(slot) = self.slots.find_bucket_index(hash, |slot| slot.key == key) {
                    self.drop_slot(slot);
                }
            }
        }
        Ok(())
    }
}
