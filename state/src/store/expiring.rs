//! What a store does for states with a time to live: their tables, the time of accesses, the turns that clean up.

use super::opening::of_handle;
use super::{KeyedStore, TableId};
use crate::codec::StateValue;
use crate::error::{Result, StateError};
use crate::expire::{DeadlineOf, Expiring, Timed, Ttl, Turn, of_chunk, of_value};
use crate::handle::{List, Map, Reducing, StateKind, Value};
use crate::key::Key;
use crate::schema::schema_of;
use crate::table::ErasedTable;
use crate::table::list::ListTable;
use crate::table::live::Access;
use crate::table::map::MapTable;
use crate::table::value::ValueTable;

/// How many buckets a turn looks at in one call of [`KeyedStore::maintain`]: about as many as a batch has records, so that what expired is
/// gone before as much again has come.
const BUCKETS: usize = 1024;

/// The table of a value with a time to live.
pub type ExpiringValueTable<K, V> = ValueTable<K, Timed<V>>;
/// The table of a list whose elements have a time to live.
pub type ExpiringListTable<K, V> = ListTable<K, Timed<V>>;
/// The table of a map whose entries have a time to live.
pub type ExpiringMapTable<K, MK, V> = MapTable<K, MK, Timed<V>>;

impl KeyedStore {
    /// The time of the accesses that follow, in milliseconds of the stream's time. What lies below the horizon of
    /// [`expire_until`](Self::expire_until) is raised to it.
    #[inline]
    pub fn set_time(&mut self, at: i64) {
        self.time = at;
    }

    /// An access at that time, to entries that live for `ttl`.
    #[inline]
    pub fn access(&self, ttl: Ttl) -> Access {
        let horizon = self.horizon.unwrap_or(i64::MIN);
        Access { at: self.time.max(horizon), horizon, ttl }
    }

    /// Says that time has come as far as `horizon`, in milliseconds: no later access is below it. What has expired by then is removed at some
    /// time, and cannot be seen whether or not it is. It has to be said once, be it of the beginning of time, before a state with a time to
    /// live is opened. Costs a comparison where nothing expires.
    pub fn expire_until(&mut self, horizon: i64) {
        if self.horizon.is_some_and(|known| horizon <= known) {
            return;
        }
        self.horizon = Some(horizon);
        if self.turns.is_empty() {
            return;
        }
        if let Some(expiry) = &self.expiry {
            expiry.advance(horizon);
        }
        self.turns.iter_mut().for_each(|turn| turn.begin(horizon));
    }

    /// Looks at some more entries of the tables whose turn it is, and removes those that have expired.
    pub(super) fn clean(&mut self) -> Result<()> {
        for turn in self.turns.iter_mut().filter(|turn| turn.is_on) {
            turn.is_on = !self.tables[turn.table].expire(turn.horizon, BUCKETS)?;
            // Time may have come further while it was on.
            turn.begin(self.horizon.unwrap_or(turn.horizon));
        }
        Ok(())
    }

    /// The table of a value with a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), and when nobody has told the store how far time has come. So for all of these.
    pub fn expiring_value_table<K: Key, V: StateValue>(
        &mut self,
        handle: Expiring<Value<V>>,
    ) -> Result<TableId<ExpiringValueTable<K, V>>> {
        let (name, version) = (handle.handle().name(), handle.handle().schema_version());
        self.one_a_key(name, StateKind::Value, version, handle.ttl())
    }

    /// The table of a reducing state with a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn expiring_reducing_table<K: Key, V: StateValue>(
        &mut self,
        handle: Expiring<Reducing<V>>,
    ) -> Result<TableId<ExpiringValueTable<K, V>>> {
        let (name, version) = (handle.handle().name(), handle.handle().schema_version());
        self.one_a_key(name, StateKind::Reducing, version, handle.ttl())
    }

    /// The table of a value or a reducing state: rows of both are the same.
    fn one_a_key<K: Key, V: StateValue>(
        &mut self,
        name: &str,
        kind: StateKind,
        version: u32,
        ttl: Ttl,
    ) -> Result<TableId<ExpiringValueTable<K, V>>> {
        let asked = of_handle::<Timed<V>>(name, kind, version, vec![schema_of::<K>()]);
        let open = |scope, _| Ok(ValueTable::open(scope)?.expiring(Timed::raw_deadline));
        let table = self.open_table::<ExpiringValueTable<K, V>, Timed<V>>(asked, open)?;
        self.let_expire(table, ttl, of_value)
    }

    /// The table of a list whose elements have a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn expiring_list_table<K: Key, V: StateValue>(
        &mut self,
        handle: Expiring<List<V>>,
    ) -> Result<TableId<ExpiringListTable<K, V>>> {
        let keys = vec![schema_of::<K>()];
        let (name, version) = (handle.handle().name(), handle.handle().schema_version());
        let asked = of_handle::<Timed<V>>(name, StateKind::List, version, keys);
        let open = |scope, sequence| Ok(ListTable::open(scope, sequence)?.expiring(Timed::raw_deadline));
        let table = self.open_table::<ExpiringListTable<K, V>, Timed<V>>(asked, open)?;
        self.let_expire(table, handle.ttl(), of_chunk::<V>)
    }

    /// The table of a map whose entries have a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn expiring_map_table<K: Key, MK: Key, V: StateValue>(
        &mut self,
        handle: Expiring<Map<MK, V>>,
    ) -> Result<TableId<ExpiringMapTable<K, MK, V>>> {
        let keys = vec![schema_of::<K>(), schema_of::<MK>()];
        let (name, version) = (handle.handle().name(), handle.handle().schema_version());
        let asked = of_handle::<Timed<V>>(name, StateKind::Map, version, keys);
        let open = |scope, _| Ok(MapTable::open(scope)?.expiring(Timed::raw_deadline));
        let table = self.open_table::<ExpiringMapTable<K, MK, V>, Timed<V>>(asked, open)?;
        self.let_expire(table, handle.ttl(), of_value)
    }

    /// As [`value`](Self::value), with a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use. So for all of these.
    #[inline]
    pub fn expiring_value<K: Key, V: StateValue>(
        &mut self,
        handle: Expiring<Value<V>>,
    ) -> Result<&mut ExpiringValueTable<K, V>> {
        self.resolve(handle.handle().name(), |store| store.expiring_value_table(handle))
    }

    /// As [`reducing`](Self::reducing), with a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use.
    #[inline]
    pub fn expiring_reducing<K: Key, V: StateValue>(
        &mut self,
        handle: Expiring<Reducing<V>>,
    ) -> Result<&mut ExpiringValueTable<K, V>> {
        self.resolve(handle.handle().name(), |store| store.expiring_reducing_table(handle))
    }

    /// As [`list`](Self::list), with a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use.
    #[inline]
    pub fn expiring_list<K: Key, V: StateValue>(
        &mut self,
        handle: Expiring<List<V>>,
    ) -> Result<&mut ExpiringListTable<K, V>> {
        self.resolve(handle.handle().name(), |store| store.expiring_list_table(handle))
    }

    /// As [`map`](Self::map), with a time to live.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use.
    #[inline]
    pub fn expiring_map<K: Key, MK: Key, V: StateValue>(
        &mut self,
        handle: Expiring<Map<MK, V>>,
    ) -> Result<&mut ExpiringMapTable<K, MK, V>> {
        self.resolve(handle.handle().name(), |store| store.expiring_map_table(handle))
    }

    /// Lets the entries of a table be removed when they have expired. Its rows are of the present schema: it is open.
    fn let_expire<T: ErasedTable>(
        &mut self,
        table: TableId<T>,
        ttl: Ttl,
        deadline_of: DeadlineOf,
    ) -> Result<TableId<T>> {
        let index = table.index as usize;
        if self.horizon.is_none() {
            let state = self.tables[index].scope().state.clone();
            return Err(StateError::Timeless { operator: self.operator.clone(), state });
        }
        if self.turns.iter().all(|turn| turn.table != index) {
            self.turns.push(Turn::new(index, ttl));
            if let Some(expiry) = &self.expiry {
                expiry.add(self.tables[index].scope().id, deadline_of);
            }
        }
        Ok(table)
    }
}
