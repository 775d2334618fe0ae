//! One value a key.

use super::hot::HotMap;
use super::undo::Changes;
use super::{ErasedTable, Flush, Part};
use crate::codec::StateValue;
use crate::delta::{DeltaWriter, Op};
use crate::error::Result;
use crate::key::{Key, KeyArg};
use crate::scope::{Grouped, Scope};

/// A table of one `V` a `K`.
///
/// Every operation takes the key's [`hash_key`](crate::hash_key), which the caller computed once a record. An operation on a key in
/// memory costs one look-up; on one that was spilled, a read of the backend.
pub struct ValueTable<K, V> {
    scope: Scope,
    map: HotMap<K, V>,
    /// When an entry expires, if entries do.
    deadline: Option<fn(&V) -> i64>,
    changes: Changes<(u64, K, Option<V>)>,
}

impl<K: Key, V: StateValue> ValueTable<K, V> {
    pub(crate) fn open(scope: Scope) -> Result<Self> {
        let map = if scope.has_cold_rows()? { HotMap::over_cold_rows() } else { HotMap::default() };
        Ok(Self { scope, map, deadline: None, changes: Changes::default() })
    }

    pub(crate) fn expiring(self, deadline: fn(&V) -> i64) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    #[inline(always)]
    pub fn get(&mut self, hash: u64, key: &K) -> Result<Option<&V>> {
        if let Some(value) = self.map.peek(hash, key) {
            // SAFETY: as in `upsert`: the borrow that made `value` is the one returned.
            return Ok(Some(unsafe { &*std::ptr::from_ref(value) }));
        }
        let index = self.load(hash, key)?;
        Ok(index.map(|index| self.map.read(index)))
    }

    /// The value of `key` for changing it in place.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &K) -> Result<Option<&mut V>> {
        if self.changes.are_kept() {
            self.note(hash, key)?;
        }
        if let Some(value) = self.map.update(&mut self.scope, hash, key) {
            // SAFETY: as in `upsert`: the borrow that made `value` is the one returned.
            return Ok(Some(unsafe { &mut *std::ptr::from_mut(value) }));
        }
        let index = self.load(hash, key)?;
        Ok(index.map(|index| self.map.write(hash, index)))
    }

    /// The value of `key` for changing it in place, made by `init` if there is none.
    ///
    /// # Errors
    /// When its row cannot be read or decoded, or entries cannot be spilled to make room.
    #[inline]
    pub fn upsert(&mut self, hash: u64, key: impl KeyArg<K>, init: impl FnOnce() -> V) -> Result<&mut V> {
        if self.changes.are_kept() {
            self.note(hash, key.borrow())?;
        }
        if let Some(value) = self.map.update(&mut self.scope, hash, key.borrow()) {
            // SAFETY: the borrow of `self.map` that made `value` is the one returned here, and nothing else happens on this path.
            // The borrow checker extends it over the other path (rust-lang/rust#54663); an index instead costs a tenth.
            return Ok(unsafe { &mut *std::ptr::from_mut(value) });
        }
        self.upsert_missing(hash, key.into_key(), init)
    }

    #[inline(never)]
    fn upsert_missing(&mut self, hash: u64, key: K, init: impl FnOnce() -> V) -> Result<&mut V> {
        if let Some(index) = self.load(hash, &key)? {
            return Ok(self.map.write(hash, index));
        }
        self.make_room()?;
        Ok(self.map.insert(&mut self.scope, hash, key, init()))
    }

    /// Sets the value of `key`; does not read its row.
    ///
    /// # Errors
    /// When entries cannot be spilled to make room.
    #[inline]
    pub fn set(&mut self, hash: u64, key: impl KeyArg<K>, value: V) -> Result<()> {
        if self.changes.are_kept() {
            self.note(hash, key.borrow())?;
        }
        if let Some(current) = self.map.update(&mut self.scope, hash, key.borrow()) {
            *current = value;
            return Ok(());
        }
        self.make_room()?;
        self.map.insert(&mut self.scope, hash, key.into_key(), value);
        Ok(())
    }

    /// Merges `value` into what `key` has: `merge(old, value)`, or `value` itself if there is none.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    #[inline]
    pub fn reduce(
        &mut self,
        hash: u64,
        key: impl KeyArg<K>,
        value: V,
        merge: impl FnOnce(&mut V, V),
    ) -> Result<&V> {
        let mut value = Some(value);
        let mut fresh = false;
        let current = self.upsert(hash, key, || {
            fresh = true;
            value.take().expect("init runs once")
        })?;
        if let (false, Some(value)) = (fresh, value) {
            merge(current, value);
        }
        Ok(current)
    }

    /// Removes `key` and returns the value it had.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    pub fn remove(&mut self, hash: u64, key: &K) -> Result<Option<V>> {
        if self.changes.are_kept() {
            self.note(hash, key)?;
        }
        let index = match self.map.find(hash, key) {
            Some(index) => Some(index),
            None => self.load(hash, key)?,
        };
        let rows = Grouped { namespace: &[], groups: self.scope.groups };
        index.map(|index| self.map.remove_at(&mut self.scope, &rows, hash, index)).transpose()
    }

    /// Visits every pair in no particular order, those in the backend included.
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn for_each(&self, visit: impl FnMut(&K, &V)) -> Result<()> {
        self.map.for_each(&self.scope, &Grouped { namespace: &[], groups: self.scope.groups }, visit)
    }

    /// How many keys are in memory.
    pub fn resident(&self) -> usize {
        self.map.len()
    }

    /// Notes what `key` has, before it changes.
    #[cold]
    fn note(&mut self, hash: u64, key: &K) -> Result<()> {
        let before = self.get(hash, key)?.cloned();
        self.changes.note((hash, key.clone(), before));
        Ok(())
    }

    fn load(&mut self, hash: u64, key: &K) -> Result<Option<usize>> {
        if !self.map.cold {
            return Ok(None);
        }
        self.make_room()?;
        let rows = Grouped { namespace: &[], groups: self.scope.groups };
        self.map.load(&mut self.scope, &rows, hash, key)
    }

    #[inline]
    fn make_room(&mut self) -> Result<()> {
        if self.map.needs_room(&self.scope) {
            let rows = Grouped { namespace: &[], groups: self.scope.groups };
            self.map.make_room(&mut self.scope, &rows)?;
        }
        Ok(())
    }
}

impl<K, V> std::fmt::Debug for ValueTable<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.describe("ValueTable", f)
    }
}

impl<K: Key, V: StateValue> ErasedTable for ValueTable<K, V> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn warm(&self, hashes: &[u64]) {
        self.map.warm(hashes);
    }

    fn encode(&mut self, part: Part, delta: &mut DeltaWriter) -> Result<()> {
        let rows = Grouped { namespace: &[], groups: self.scope.groups };
        self.map.encode(&mut self.scope, &rows, part, delta)
    }

    fn flush(&mut self, which: Flush) -> Result<()> {
        let rows = Grouped { namespace: &[], groups: self.scope.groups };
        self.map.flush(&mut self.scope, &rows, which)
    }

    fn evict(&mut self, count: usize) -> Result<usize> {
        let rows = Grouped { namespace: &[], groups: self.scope.groups };
        self.map.evict(&mut self.scope, &rows, count)
    }

    fn expire(&mut self, horizon: i64, buckets: usize) -> Result<bool> {
        let Some(deadline) = self.deadline else { return Ok(true) };
        let rows = Grouped { namespace: &[], groups: self.scope.groups };
        let left = self.map.expire(&mut self.scope, &rows, buckets, |value| deadline(value) <= horizon)?;
        Ok(left.is_some())
    }

    fn keep_changes(&mut self) {
        self.changes.keep();
    }

    fn mark(&mut self) {
        self.changes.mark();
    }

    fn undo(&mut self) -> Result<()> {
        for (hash, key, before) in self.changes.take() {
            match before {
                Some(value) => self.set(hash, &key, value)?,
                None => drop(self.remove(hash, &key)?),
            }
        }
        self.changes.keep();
        Ok(())
    }

    fn restore(&mut self, op: Op<'_>) -> Result<()> {
        match op {
            Op::Put { row, value } => {
                let (key, value) = (self.scope.decode(&row[2..])?, self.scope.decode(value)?);
                self.map.restore_put(&mut self.scope, key, value);
                self.make_room()
            }
            Op::Delete { row } => {
                let key = self.scope.decode(&row[2..])?;
                self.map.restore_delete(&mut self.scope, key);
                Ok(())
            }
            Op::Drop { .. } => Ok(()),
        }
    }
}
