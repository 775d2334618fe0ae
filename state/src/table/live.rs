//! Reading and writing entries with a time to live: what has expired is not there.
//!
//! An operation is an [`Access`] at a time. It finds what lives then; it renews what it writes and, if the time to live says so, what it
//! reads; and what it comes across that no access can see any more it removes.

use std::ops::ControlFlow;

use super::list::ListTable;
use super::map::MapTable;
use super::value::ValueTable;
use crate::codec::StateValue;
use crate::error::Result;
use crate::expire::{Timed, Ttl};
use crate::key::{Key, KeyArg};

/// When an operation happens, on entries that live for how long; see [`KeyedStore::access`](crate::KeyedStore::access).
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub(crate) at: i64,
    pub(crate) horizon: i64,
    pub(crate) ttl: Ttl,
}

/// What an access makes of an entry.
#[derive(PartialEq, Eq)]
enum Found {
    /// It is there.
    Live,
    /// It is there, and lives longer from now on.
    Renewed,
    /// It is not there for this access, and for no other.
    Over,
    /// It is not there for this access, but for another that is earlier.
    Hidden,
}

impl Access {
    fn finds<V>(&self, entry: &Timed<V>) -> Found {
        if !entry.is_live(self.at) {
            return if entry.is_live(self.horizon) { Found::Hidden } else { Found::Over };
        }
        if entry.needs_renewal(self.ttl, self.at) { Found::Renewed } else { Found::Live }
    }

    fn new_entry<V>(&self, value: V) -> Timed<V> {
        Timed::until(self.ttl.deadline(self.at), value)
    }

    /// The value of an entry that is being written, `init` if it has expired.
    fn write<V>(&self, entry: &mut Timed<V>, init: impl FnOnce() -> V) {
        if entry.is_live(self.at) {
            entry.renew(self.ttl, self.at);
        } else {
            *entry = self.new_entry(init());
        }
    }
}

impl<K: Key, V: StateValue> ValueTable<K, Timed<V>> {
    /// The value of `key`, if it lives.
    ///
    /// # Errors
    /// When its row cannot be read or decoded, and, for all of these, when entries cannot be spilled to make room.
    pub fn get_live(&mut self, access: Access, hash: u64, key: &K) -> Result<Option<&V>> {
        match self.get(hash, key)?.map(|entry| access.finds(entry)) {
            None | Some(Found::Hidden) => return Ok(None),
            Some(Found::Over) => {
                self.remove(hash, key)?;
                return Ok(None);
            }
            Some(Found::Live) => {}
            Some(Found::Renewed) => {
                self.change_live(access, hash, key)?;
            }
        }
        Ok(self.get(hash, key)?.map(Timed::value))
    }

    /// Sets the value of `key`; does not read its row.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_live(&mut self, access: Access, hash: u64, key: impl KeyArg<K>, value: V) -> Result<()> {
        self.set(hash, key, access.new_entry(value))
    }

    /// The value of `key` for changing it in place, if it lives.
    ///
    /// # Errors
    /// As [`get_live`](Self::get_live).
    pub fn change_live(&mut self, access: Access, hash: u64, key: &K) -> Result<Option<&mut V>> {
        if self.get(hash, key)?.is_none_or(|entry| !entry.is_live(access.at)) {
            return Ok(None);
        }
        Ok(self.get_mut(hash, key)?.map(|entry| {
            entry.renew(access.ttl, access.at);
            entry.value_mut()
        }))
    }

    /// The value of `key` for changing it in place, made by `init` if none lives.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    pub fn upsert_live(
        &mut self,
        access: Access,
        hash: u64,
        key: impl KeyArg<K>,
        init: impl FnOnce() -> V,
    ) -> Result<&mut V> {
        let mut init = Some(init);
        let mut make = || init.take().expect("a value is made once")();
        let mut is_new = false;
        let entry = self.upsert(hash, key, || {
            is_new = true;
            access.new_entry(make())
        })?;
        if !is_new {
            access.write(entry, make);
        }
        Ok(entry.value_mut())
    }

    /// Merges `value` into what lives of `key`; it becomes the value where nothing does.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    pub fn reduce_live(
        &mut self,
        access: Access,
        hash: u64,
        key: impl KeyArg<K>,
        value: V,
        merge: impl FnOnce(&mut V, V),
    ) -> Result<()> {
        let mut value = Some(value);
        let current = self.upsert_live(access, hash, key, || value.take().expect("a value is made once"))?;
        if let Some(value) = value {
            merge(current, value);
        }
        Ok(())
    }

    /// Removes `key`, and answers its value if it lived.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_live(&mut self, access: Access, hash: u64, key: &K) -> Result<Option<V>> {
        let entry = self.remove(hash, key)?;
        Ok(entry.filter(|entry| entry.is_live(access.at)).map(Timed::into_value))
    }
}

impl<K: Key, MK: Key, V: StateValue> MapTable<K, MK, Timed<V>> {
    /// The value of `map_key` in the map of `key`, if it lives.
    ///
    /// # Errors
    /// As [`get`](Self::get). So for all of these.
    pub fn get_live(&mut self, access: Access, hash: u64, key: &K, map_key: &MK) -> Result<Option<&V>> {
        match self.get(hash, key, map_key)?.map(|entry| access.finds(entry)) {
            None | Some(Found::Hidden) => return Ok(None),
            Some(Found::Over) => {
                self.remove(hash, key, map_key)?;
                return Ok(None);
            }
            Some(Found::Live) => {}
            Some(Found::Renewed) => self.renew(access, hash, key, map_key)?,
        }
        Ok(self.get(hash, key, map_key)?.map(Timed::value))
    }

    /// Sets the value of `map_key` in the map of `key`; does not read its row.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_live(
        &mut self,
        access: Access,
        hash: u64,
        key: impl KeyArg<K>,
        map_key: impl KeyArg<MK>,
        value: V,
    ) -> Result<()> {
        self.put(hash, key, map_key, access.new_entry(value))
    }

    /// Removes `map_key` from the map of `key`, and answers its value if it lived.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_live(&mut self, access: Access, hash: u64, key: &K, map_key: &MK) -> Result<Option<V>> {
        let entry = self.remove(hash, key, map_key)?;
        Ok(entry.filter(|entry| entry.is_live(access.at)).map(Timed::into_value))
    }

    /// Visits the entries of `key` that live, in the order of [`try_for_each`](Self::try_for_each), until one breaks off. What was visited is
    /// renewed where reading renews.
    ///
    /// # Errors
    /// As [`try_for_each`](Self::try_for_each). The keys of entries that it renews are held meanwhile.
    pub fn try_for_each_live(
        &mut self,
        access: Access,
        hash: u64,
        key: &K,
        mut visit: impl FnMut(&MK, &V) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut renewed = Vec::new();
        self.try_for_each(hash, key, |map_key, entry| match access.finds(entry) {
            Found::Over | Found::Hidden => ControlFlow::Continue(()),
            Found::Live => visit(map_key, entry.value()),
            Found::Renewed => {
                renewed.push(map_key.clone());
                visit(map_key, entry.value())
            }
        })?;
        renewed.iter().try_for_each(|map_key| self.renew(access, hash, key, map_key))
    }

    fn renew(&mut self, access: Access, hash: u64, key: &K, map_key: &MK) -> Result<()> {
        if let Some(entry) = self.get_mut(hash, key, map_key)? {
            entry.renew(access.ttl, access.at);
        }
        Ok(())
    }
}

impl<K: Key, T: StateValue> ListTable<K, Timed<T>> {
    /// Appends `item` to the list of `key`; reads nothing.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_live(&mut self, access: Access, hash: u64, key: impl KeyArg<K>, item: T) -> Result<()> {
        self.append(hash, key, access.new_entry(item))
    }

    /// The items of `key`'s list that live. Where reading renews, or most have expired, the list is written anew.
    ///
    /// # Errors
    /// As [`get`](Self::get), [`clear`](Self::clear) and [`append`](Self::append).
    pub fn live(&mut self, access: Access, hash: u64, key: &K) -> Result<Vec<T>> {
        let items = self.get(hash, key)?;
        let live: Vec<T> =
            items.iter().filter(|item| item.is_live(access.at)).map(|item| item.value().clone()).collect();
        let over = items.iter().filter(|item| access.finds(item) == Found::Over).count();
        let renews = items.iter().any(|item| access.finds(item) == Found::Renewed);
        if renews || over * 2 > items.len() {
            self.rewrite(access, hash, key, usize::MAX)?;
        }
        Ok(live)
    }

    /// Visits the items of `key`'s list that live, in their order, until one breaks off; those in the backend stay there. What was visited is
    /// renewed where reading renews: then the list is written anew, and is in memory as a whole while it is.
    ///
    /// # Errors
    /// As [`try_for_each`](Self::try_for_each), [`clear`](Self::clear) and [`append`](Self::append).
    pub fn try_for_each_live(
        &mut self,
        access: Access,
        hash: u64,
        key: &K,
        mut visit: impl FnMut(&T) -> ControlFlow<()>,
    ) -> Result<()> {
        let (mut seen, mut renews) = (0, false);
        self.try_for_each(hash, key, |item| {
            seen += 1;
            match access.finds(item) {
                Found::Over | Found::Hidden => return ControlFlow::Continue(()),
                Found::Live => {}
                Found::Renewed => renews = true,
            }
            visit(item.value())
        })?;
        if renews { self.rewrite(access, hash, key, seen) } else { Ok(()) }
    }

    /// Writes a list anew without what has expired, the first `seen` items renewed.
    fn rewrite(&mut self, access: Access, hash: u64, key: &K, seen: usize) -> Result<()> {
        for (index, mut item) in self.take(hash, key)?.into_iter().enumerate() {
            match access.finds(&item) {
                Found::Over => continue,
                Found::Renewed if index < seen => _ = item.renew(access.ttl, access.at),
                Found::Live | Found::Hidden | Found::Renewed => {}
            }
            self.append(hash, key, item)?;
        }
        Ok(())
    }
}
