//! Tables: keyed streams of upserts and deletes.
//!
//! A [`Table`] has at most one row a key, at each event time. What travels is its [`Change`]s, each with the row that it takes back, so that
//! filters, aggregations and joins of tables stay right when rows are corrected or deleted (KTable of Kafka Streams, changelog streams of
//! Flink).
//!
//! 1. A table begins with [`KeyedStream::to_table`] (the newest record of a key wins) or with upserts and tombstones, such as those of a
//!    compacted topic ([`Stream::to_table`]). Newest is what comes last in event-time order, then by source partition and offset.
//! 2. [`Table::filter`] and [`Table::map_values`] keep no state: a change has all they need.
//! 3. [`Table::group_by`] and joins wait until all changes of one event time have come, and tell one change for them. So what they tell does not
//!    depend on the order in which workers' changes arrive, and nobody sees the halves of what happened at once.
//! 4. [`Table::changes`] and [`Table::to_stream`] lead back to streams.
//!
//! # What is deterministic, and what it costs
//! Everything runs in event-time order, so a table's changes are a property of the log, with two exceptions: records that were computed (they
//! have no place in a source) and have the same key and the same time are told apart by their arrival; and a partition that was declared idle
//! can be overtaken. Functions given to a table must be
//! pure, since a row that is taken back is computed again. Records that are late for their own partition are counted and left out;
//! [`KeyedStream::in_event_time_order_with_late_output`] before `to_table` gives them a stream.
//!
//! The state is a row a key for a table and for each side of a join, and an accumulator a group. It is let go when the row is deleted,
//! and bounded by nothing else: a table is as large as its keys are many. Beyond memory it lies in RocksDB, as all keyed state.
//!
//! ```
//! use rivermark_operators::table::Change;
//! use rivermark_operators::{Timestamp, testing};
//!
//! let at = Timestamp::from_millis;
//! testing::check(|it| {
//!     // Who lives where; how many live in each town.
//!     let (moves, stream) = it.input::<(u32, &str)>();
//!     let people = stream.map(|(who, town)| (who, town.to_string())).key_by(|(who, _)| *who).to_table();
//!     let towns = people.group_by(|_, (_, town)| town.clone()).count();
//!     let rows = it.output(towns.changes());
//!
//!     it.push(&moves, at(1), (7, "Bonn"));
//!     it.push(&moves, at(2), (8, "Bonn"));
//!     it.push(&moves, at(3), (7, "Rome"));
//!     it.push(&moves, at(4), (8, "Rome"));
//!     it.end(&moves);
//!     let mut told = it.take_at(&rows);
//!     told.sort();
//!     let town = |name: &str, change| (name.to_string(), change);
//!     assert_eq!(told, [
//!         (at(1), town("Bonn", Change::Insert(1))),
//!         (at(2), town("Bonn", Change::Update { before: 1, after: 2 })),
//!         (at(3), town("Bonn", Change::Update { before: 2, after: 1 })),
//!         (at(3), town("Rome", Change::Insert(1))),
//!         (at(4), town("Bonn", Change::Delete(1))),
//!         (at(4), town("Rome", Change::Update { before: 1, after: 2 })),
//!     ]);
//! });
//! ```

mod change;
mod foreign_key;
mod group;
mod join;
mod latest;
mod top_n;

pub use change::{Change, Upsert};
pub use foreign_key::ForeignKeyJoin;
pub use group::{GroupedTable, Retractable};
pub use join::TableJoin;

use crate::batch::{Batch, Stamp};
use crate::context::TaskContext;
use crate::edge::{Operator, Output, Signal};
use crate::error::Result;
use crate::exchange::Keyed;
use crate::plan::{NodeKind, NodeSpec};
use crate::stream::{KeyedStream, Stream};
use rivermark_state::{Key, StateValue, hash_key};

/// A keyed stream of upserts and deletes; see the [module](self).
pub struct Table<K, V> {
    changes: Stream<Keyed<K, Change<V>>>,
}

/// Gives a second consumer the same table.
impl<K: Key, V: StateValue> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Table { changes: self.changes.clone() }
    }
}

impl<K: Key, V: StateValue> Table<K, V> {
    /// Names the operator that tells the table's changes: in metrics, in errors, and as what its state is found by after a restart.
    pub fn named(self, name: &str) -> Self {
        Table { changes: self.changes.named(name) }
    }

    /// The table of the rows for which `keep` answers true. A row that is no longer kept is deleted.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (prices, stream) = it.input::<(char, i64)>();
    ///     let table = stream.key_by(|(article, _)| *article).to_table();
    ///     let dear = table.map_values(|_, (_, price)| price).filter(|_, price| *price >= 10);
    ///     let rows = it.output(dear.changes());
    ///     [(1, 'a', 5), (2, 'b', 20), (3, 'a', 30)].into_iter().for_each(|(time, key, n)| it.push(&prices, at(time), (key, n)));
    ///     it.end(&prices);
    ///     it.expect(&rows, [('b', Change::Insert(20)), ('a', Change::Insert(30))]);
    /// });
    /// ```
    pub fn filter(self, keep: impl Fn(&K, &V) -> bool + Clone + Send + Sync + 'static) -> Table<K, V> {
        let changes = self.changes.filter_map(move |Keyed { hash, key, value }| {
            let value = value.filter(|row| keep(&key, row))?;
            Some(Keyed { hash, key, value })
        });
        Table { changes }
    }

    /// The table of what `f` makes of each row. The function is called anew for a row that is taken back, and must answer the same.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (prices, stream) = it.input::<(char, i64)>();
    ///     let table = stream.key_by(|(article, _)| *article).to_table();
    ///     let cents = table.map_values(|_, (_, price)| price * 100);
    ///     let rows = it.output(cents.changes());
    ///     [(1, 'a', 5), (2, 'b', 20), (3, 'a', 30)].into_iter().for_each(|(time, key, n)| it.push(&prices, at(time), (key, n)));
    ///     it.end(&prices);
    ///     it.expect(&rows, [('a', Change::Insert(500)), ('b', Change::Insert(2000)), ('a', Change::Update { before: 500, after: 3000 })]);
    /// });
    /// ```
    pub fn map_values<R: StateValue>(
        self,
        f: impl Fn(&K, V) -> R + Clone + Send + Sync + 'static,
    ) -> Table<K, R> {
        let changes = self.changes.map(move |Keyed { hash, key, value }| {
            let value = value.map(|row| f(&key, row));
            Keyed { hash, key, value }
        });
        Table { changes }
    }

    /// The changes, each with its key, at the time at which it came to be. Those of one key come in order.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (prices, stream) = it.input::<(char, i64)>();
    ///     let table = stream.key_by(|(article, _)| *article).to_table();
    ///     let rows = it.output(table.map_values(|_, (_, price)| price).changes());
    ///     [(1, 'a', 5), (2, 'b', 20), (3, 'a', 30)].into_iter().for_each(|(time, key, n)| it.push(&prices, at(time), (key, n)));
    ///     it.end(&prices);
    ///     it.expect(&rows, [('a', Change::Insert(5)), ('b', Change::Insert(20)), ('a', Change::Update { before: 5, after: 30 })]);
    /// });
    /// ```
    pub fn changes(self) -> Stream<(K, Change<V>)> {
        self.changes.map(|Keyed { key, value, .. }| (key, value))
    }

    /// The changes as upserts and tombstones: what a compacted topic holds.
    ///
    /// ```
    /// use rivermark_operators::table::Upsert;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (prices, stream) = it.input::<(char, i64)>();
    ///     let table = stream.key_by(|(article, _)| *article).to_table();
    ///     let rows = it.output(table.map_values(|_, (_, price)| price).to_stream().map(|Upsert { key, value, time }| (time, key, value)));
    ///     [(1, 'a', 5), (2, 'b', 20), (3, 'a', 30)].into_iter().for_each(|(time, key, n)| it.push(&prices, at(time), (key, n)));
    ///     it.end(&prices);
    ///     it.expect(&rows, [(at(1), 'a', Some(5)), (at(2), 'b', Some(20)), (at(3), 'a', Some(30))]);
    /// });
    /// ```
    pub fn to_stream(self) -> Stream<Upsert<K, V>> {
        self.changes.then(NodeSpec::new("to_stream", NodeKind::Transform, vec![], 1), |builder, port| {
            let out = builder.output(port);
            builder.attach::<Keyed<K, Change<V>>>(0, Upserting { out });
            Ok(())
        })
    }

    /// The changes by key, for what follows in this crate.
    pub(crate) fn keyed(self) -> KeyedStream<K, Change<V>> {
        KeyedStream { keyed: self.changes, order: None }
    }

    pub(crate) fn of(changes: Stream<Keyed<K, Change<V>>>) -> Table<K, V> {
        Table { changes }
    }
}

/// A record with its key, as what follows in a table wants it.
fn keyed<K: Key, V>(key: &K, value: V) -> Keyed<K, V> {
    Keyed { hash: hash_key(key), key: key.clone(), value }
}

struct Upserting<K, V> {
    out: Output<Upsert<K, V>>,
}

impl<K: Key, V: StateValue> Operator<Keyed<K, Change<V>>> for Upserting<K, V> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, Change<V>>>, cx: &mut TaskContext<'_>) -> Result<()> {
        batch.try_drain(|stamp: &Stamp, Keyed { key, value, .. }| {
            self.out.push(*stamp, Upsert { key, value: value.into_after(), time: stamp.time });
            Ok(())
        })?;
        self.out.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}
