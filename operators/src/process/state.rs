//! Keyed state as functions use it: under a typed constant, for the key in hand.

use crate::error::BoxError;
use rivermark_state::{
    Key, KeyedStore, List, ListTable, Map, MapTable, Reducing, StateError, StateValue, Value, ValueTable,
};
use std::ops::ControlFlow;

/// A typed constant that names keyed state: [`Value`], [`List`], [`Map`] or [`Reducing`].
pub trait StateHandle<K: Key> {
    /// Access to the state of one key.
    type State<'a>;

    /// The state's name.
    fn name(&self) -> &'static str;

    /// Opens the state, from what was restored of it.
    ///
    /// # Errors
    /// What was restored does not fit the handle.
    fn open(self, store: &mut KeyedStore) -> Result<(), StateError>;

    /// The state of `key`.
    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> Self::State<'a>;
}

/// One value of one key.
pub struct ValueState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ValueTable<K, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ValueState<'a, K, T> {
    /// The value, if there is one.
    pub fn get(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key)?.cloned())
    }

    /// Reads the value in place, if there is one: for values whose copy costs.
    pub fn read<R>(self, read: impl FnOnce(Option<&T>) -> R) -> Result<R, BoxError> {
        Ok(read(self.table?.get(self.hash, self.key)?))
    }

    /// Sets the value, and answers the one before: one look-up for both.
    pub fn replace(self, value: T) -> Result<Option<T>, BoxError> {
        let mut value = Some(value);
        let stored = self.table?.upsert(self.hash, self.key, || value.take().expect("init runs once"))?;
        Ok(value.map(|value| std::mem::replace(stored, value)))
    }

    /// Sets the value.
    pub fn set(self, value: T) -> Result<(), BoxError> {
        Ok(self.table?.set(self.hash, self.key, value)?)
    }

    /// Changes the value in place, beginning with `initial` where there is none: one look-up for reading and writing.
    pub fn update<R>(
        self,
        initial: impl FnOnce() -> T,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, BoxError> {
        Ok(change(self.table?.upsert(self.hash, self.key, initial)?))
    }

    /// Changes the value in place if there is one; answers what `change` does.
    pub fn change<R>(self, change: impl FnOnce(&mut T) -> R) -> Result<Option<R>, BoxError> {
        Ok(self.table?.get_mut(self.hash, self.key)?.map(change))
    }

    /// Removes the value and answers it.
    pub fn take(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.remove(self.hash, self.key)?)
    }

    /// Removes the value.
    pub fn clear(self) -> Result<(), BoxError> {
        self.take().map(|_| ())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for Value<T> {
    type State<'a> = ValueState<'a, K, T>;

    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.value_table::<K, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> ValueState<'a, K, T> {
        ValueState { table: store.value(self), hash, key }
    }
}

/// One value of one key, that new values are merged into.
pub struct ReducingState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ValueTable<K, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ReducingState<'a, K, T> {
    /// The value, if there is one.
    pub fn get(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key)?.cloned())
    }

    /// Merges `value` in by `reduce`; it becomes the value where there is none.
    pub fn add(self, value: T, reduce: impl FnOnce(&mut T, T)) -> Result<(), BoxError> {
        self.table?.reduce(self.hash, self.key, value, reduce)?;
        Ok(())
    }

    /// Removes the value.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.remove(self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for Reducing<T> {
    type State<'a> = ReducingState<'a, K, T>;

    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.reducing_table::<K, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> ReducingState<'a, K, T> {
        ReducingState { table: store.reducing(self), hash, key }
    }
}

/// A list of one key.
pub struct ListState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ListTable<K, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ListState<'a, K, T> {
    /// All elements, in the order in which they were added.
    pub fn get(self) -> Result<Vec<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key)?.to_vec())
    }

    /// Visits all elements, in the order in which they were added. A list may be larger than memory: it is read piece by piece, and none of it
    /// stays for it.
    ///
    /// # Errors
    /// An error of `visit` ends the visit and is the answer.
    pub fn for_each(self, mut visit: impl FnMut(&T) -> Result<(), BoxError>) -> Result<(), BoxError> {
        self.find_map(|element| visit(element).err())?.map_or(Ok(()), Err)
    }

    /// Visits elements as [`for_each`](Self::for_each) does until `find` answers something, which is the answer: no more of the list is read.
    pub fn find_map<R>(self, mut find: impl FnMut(&T) -> Option<R>) -> Result<Option<R>, BoxError> {
        let mut found = None;
        self.table?.try_for_each(self.hash, self.key, |element| {
            found = find(element);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// Adds an element at the end, without reading what is there.
    pub fn push(self, element: T) -> Result<(), BoxError> {
        Ok(self.table?.append(self.hash, self.key, element)?)
    }

    /// Removes all elements and answers them, in the order in which they were added. Where there is none, it costs a look-up.
    pub fn take(self) -> Result<Vec<T>, BoxError> {
        let table = self.table?;
        let elements = table.get(self.hash, self.key)?.to_vec();
        if !elements.is_empty() {
            table.clear(self.hash, self.key)?;
        }
        Ok(elements)
    }

    /// Removes all elements.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.clear(self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for List<T> {
    type State<'a> = ListState<'a, K, T>;

    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.list_table::<K, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> ListState<'a, K, T> {
        ListState { table: store.list(self), hash, key }
    }
}

/// A map of one key. Each entry is read and written alone.
pub struct MapState<'a, K: Key, M: Key, T: StateValue> {
    table: Result<&'a mut MapTable<K, M, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, M: Key, T: StateValue> MapState<'a, K, M, T> {
    /// The entry under `at`, if there is one.
    pub fn get(self, at: &M) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key, at)?.cloned())
    }

    /// Sets the entry under `at`.
    pub fn put(self, at: M, value: T) -> Result<(), BoxError> {
        Ok(self.table?.put(self.hash, self.key, at, value)?)
    }

    /// Removes the entry under `at`.
    pub fn remove(self, at: &M) -> Result<(), BoxError> {
        self.table?.remove(self.hash, self.key, at)?;
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
    /// there for it.
    ///
    /// # Errors
    /// An error of `visit` ends the visit and is the answer.
    pub fn for_each(self, mut visit: impl FnMut(&M, &T) -> Result<(), BoxError>) -> Result<(), BoxError> {
        self.find_map(|at, value| visit(at, value).err())?.map_or(Ok(()), Err)
    }

    /// Visits entries as [`for_each`](Self::for_each) does until `find` answers something, which is the answer: no more of the map is read.
    pub fn find_map<R>(self, mut find: impl FnMut(&M, &T) -> Option<R>) -> Result<Option<R>, BoxError> {
        let mut found = None;
        self.table?.try_for_each(self.hash, self.key, |at, value| {
            found = find(at, value);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// Removes all entries.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.clear(self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, M: Key, T: StateValue> StateHandle<K> for Map<M, T> {
    type State<'a> = MapState<'a, K, M, T>;

    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn open(self, store: &mut KeyedStore) -> Result<(), StateError> {
        store.map_table::<K, M, T>(self).map(|_| ())
    }

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> MapState<'a, K, M, T> {
        MapState { table: store.map(self), hash, key }
    }
}
