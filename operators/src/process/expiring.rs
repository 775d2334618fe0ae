//! Keyed state with a time to live, as functions use it: the states of [`state`](super::state), in which what has expired is not there.
//!
//! 1. An operation happens at the time of the record or timer in hand; of a late record, at the watermark of its source partition.
//! 2. It sees what that time is below the deadline of. Nothing else decides, so what a function sees is the same in a replay as far as the
//!    order in which it sees its records is: in event-time order, always.
//! 3. The operator's watermark is how far time has come for all of them. What had expired there is removed at some time, and nobody can
//!    tell when. The end of a bounded stream, where the watermark goes to the end of time, removes nothing: the stream may go on.

use super::StateHandle;
use crate::error::BoxError;
use rivermark_state::{
    Access, Expiring, ExpiringListTable, ExpiringMapTable, ExpiringValueTable, Key, KeyedStore, List, Map,
    Reducing, StateError, StateValue, Value,
};
use std::ops::ControlFlow;

/// One value of one key, with a time to live.
pub struct ExpiringValueState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ExpiringValueTable<K, T>, StateError>,
    access: Access,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ExpiringValueState<'a, K, T> {
    /// The value, if there is one.
    pub fn get(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get_live(self.access, self.hash, self.key)?.cloned())
    }

    /// Sets the value; it begins to live anew.
    pub fn set(self, value: T) -> Result<(), BoxError> {
        Ok(self.table?.set_live(self.access, self.hash, self.key, value)?)
    }

    /// Changes the value in place, beginning with `initial` where there is none: one look-up for reading and writing.
    pub fn update<R>(
        self,
        initial: impl FnOnce() -> T,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, BoxError> {
        Ok(change(self.table?.upsert_live(self.access, self.hash, self.key, initial)?))
    }

    /// Changes the value in place if there is one; answers what `change` does.
    pub fn change<R>(self, change: impl FnOnce(&mut T) -> R) -> Result<Option<R>, BoxError> {
        Ok(self.table?.change_live(self.access, self.hash, self.key)?.map(change))
    }

    /// Removes the value and answers it.
    pub fn take(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.remove_live(self.access, self.hash, self.key)?)
    }

    /// Removes the value.
    pub fn clear(self) -> Result<(), BoxError> {
        self.take().map(|_| ())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for Expiring<Value<T>> {
    type State<'a> = ExpiringValueState<'a, K, T>;

    fn name(&self) -> &'static str {
        self.handle().name()
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.expiring_value_table::<K, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> Self::State<'a> {
        let access = store.access(self.ttl());
        ExpiringValueState { table: store.expiring_value(self), access, hash, key }
    }
}

/// One value of one key, that new values are merged into, with a time to live.
pub struct ExpiringReducingState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ExpiringValueTable<K, T>, StateError>,
    access: Access,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ExpiringReducingState<'a, K, T> {
    /// The value, if there is one.
    pub fn get(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get_live(self.access, self.hash, self.key)?.cloned())
    }

    /// Merges `value` in by `reduce`; it becomes the value where there is none.
    pub fn add(self, value: T, reduce: impl FnOnce(&mut T, T)) -> Result<(), BoxError> {
        Ok(self.table?.reduce_live(self.access, self.hash, self.key, value, reduce)?)
    }

    /// Removes the value.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.remove_live(self.access, self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for Expiring<Reducing<T>> {
    type State<'a> = ExpiringReducingState<'a, K, T>;

    fn name(&self) -> &'static str {
        self.handle().name()
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.expiring_reducing_table::<K, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> Self::State<'a> {
        let access = store.access(self.ttl());
        ExpiringReducingState { table: store.expiring_reducing(self), access, hash, key }
    }
}

/// A list of one key, each of whose elements has a time to live.
pub struct ExpiringListState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ExpiringListTable<K, T>, StateError>,
    access: Access,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ExpiringListState<'a, K, T> {
    /// All elements, in the order in which they were added.
    pub fn get(self) -> Result<Vec<T>, BoxError> {
        Ok(self.table?.live(self.access, self.hash, self.key)?)
    }

    /// Visits all elements, in the order in which they were added. A list may be larger than memory: it is read piece by piece, and none of it
    /// stays for it; but where reading renews ([`Ttl::after_access`](crate::Ttl::after_access)), the list is written anew, and has to fit into memory.
    ///
    /// # Errors
    /// An error of `visit` ends the visit and is the answer.
    pub fn for_each(self, mut visit: impl FnMut(&T) -> Result<(), BoxError>) -> Result<(), BoxError> {
        self.find_map(|element| visit(element).err())?.map_or(Ok(()), Err)
    }

    /// Visits elements as [`for_each`](Self::for_each) does until `find` answers something, which is the answer: no more of the list is read, or
    /// renewed.
    pub fn find_map<R>(self, mut find: impl FnMut(&T) -> Option<R>) -> Result<Option<R>, BoxError> {
        let mut found = None;
        self.table?.try_for_each_live(self.access, self.hash, self.key, |element| {
            found = find(element);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// Adds an element at the end, without reading what is there.
    pub fn push(self, element: T) -> Result<(), BoxError> {
        Ok(self.table?.append_live(self.access, self.hash, self.key, element)?)
    }

    /// Removes all elements.
    pub fn clear(self) -> Result<(), BoxError> {
        Ok(self.table?.clear(self.hash, self.key)?)
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for Expiring<List<T>> {
    type State<'a> = ExpiringListState<'a, K, T>;

    fn name(&self) -> &'static str {
        self.handle().name()
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.expiring_list_table::<K, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> Self::State<'a> {
        let access = store.access(self.ttl());
        ExpiringListState { table: store.expiring_list(self), access, hash, key }
    }
}

/// A map of one key, each of whose entries has a time to live.
pub struct ExpiringMapState<'a, K: Key, M: Key, T: StateValue> {
    table: Result<&'a mut ExpiringMapTable<K, M, T>, StateError>,
    access: Access,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, M: Key, T: StateValue> ExpiringMapState<'a, K, M, T> {
    /// The entry under `at`, if there is one.
    pub fn get(self, at: &M) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get_live(self.access, self.hash, self.key, at)?.cloned())
    }

    /// Sets the entry under `at`; it begins to live anew.
    pub fn put(self, at: M, value: T) -> Result<(), BoxError> {
        Ok(self.table?.put_live(self.access, self.hash, self.key, at, value)?)
    }

    /// Removes the entry under `at`.
    pub fn remove(self, at: &M) -> Result<(), BoxError> {
        self.table?.remove_live(self.access, self.hash, self.key, at)?;
        Ok(())
    }

    /// All entries, in the order of [`for_each`](Self::for_each).
    pub fn entries(self) -> Result<Vec<(M, T)>, BoxError> {
        let mut entries = Vec::new();
        self.for_each(|at, value| {
            entries.push((at.clone(), value.clone()));
            Ok(())
        })?;
        Ok(entries)
    }

    /// Visits all entries, in the order of the bytes that their keys are encoded to. It is no order to rely on but for one thing: it is the same
    /// for the same keys, in a replay too. A map may be larger than memory: entries that are not in memory are read one by one, and none stays
    /// there for it; but where reading renews ([`Ttl::after_access`](crate::Ttl::after_access)), the keys of all of them are in memory meanwhile.
    ///
    /// # Errors
    /// An error of `visit` ends the visit and is the answer.
    pub fn for_each(self, mut visit: impl FnMut(&M, &T) -> Result<(), BoxError>) -> Result<(), BoxError> {
        self.find_map(|at, value| visit(at, value).err())?.map_or(Ok(()), Err)
    }

    /// Visits entries as [`for_each`](Self::for_each) does until `find` answers something, which is the answer: no more of the map is read, or
    /// renewed.
    pub fn find_map<R>(self, mut find: impl FnMut(&M, &T) -> Option<R>) -> Result<Option<R>, BoxError> {
        let mut found = None;
        self.table?.try_for_each_live(self.access, self.hash, self.key, |at, value| {
            found = find(at, value);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// Removes all entries.
    pub fn clear(self) -> Result<(), BoxError> {
        Ok(self.table?.clear(self.hash, self.key)?)
    }
}

impl<K: Key, M: Key, T: StateValue> StateHandle<K> for Expiring<Map<M, T>> {
    type State<'a> = ExpiringMapState<'a, K, M, T>;

    fn name(&self) -> &'static str {
        self.handle().name()
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.expiring_map_table::<K, M, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> Self::State<'a> {
        let access = store.access(self.ttl());
        ExpiringMapState { table: store.expiring_map(self), access, hash, key }
    }
}
