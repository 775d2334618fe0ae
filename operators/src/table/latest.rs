//! `to_table`: of each key the newest record.
//!
//! Records run in event-time order. Each is compared with the row that its key has, and told as the change that it makes.

use super::{Change, Table, Upsert, keyed};
use crate::error::BoxError;
use crate::exchange::Keyed;
use crate::process::{Context, ProcessFunction, States};
use crate::stream::{KeyedStream, Stream};
use rivermark_state::{Key, StateValue, Value};

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// The table of each key's newest record, in event-time order. Each record is told as one change; nothing deletes.
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
    pub fn to_table(self) -> Table<K, V> {
        latest(self, Some)
    }
}

impl<K: Key, V: StateValue> Stream<Upsert<K, V>> {
    /// The table that upserts and tombstones describe, in event-time order. A tombstone of a key without a row tells nothing.
    ///
    /// ```
    /// use rivermark_operators::table::{Change, Upsert};
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (guests, stream) = it.input::<Upsert<u32, String>>();
    ///     let rows = it.output(stream.to_table().changes());
    ///     let ann = || "Ann".to_string();
    ///     it.push(&guests, at(1), Upsert { key: 7, value: Some(ann()), time: at(1) });
    ///     it.push(&guests, at(4), Upsert { key: 7, value: None, time: at(4) });
    ///     it.end(&guests);
    ///     it.expect_at(&rows, [(at(1), (7, Change::Insert(ann()))), (at(4), (7, Change::Delete(ann())))]);
    /// });
    /// ```
    pub fn to_table(self) -> Table<K, V> {
        latest(self.key_by(|upsert| upsert.key.clone()), |upsert| upsert.value)
    }
}

fn latest<K: Key, I: StateValue, V: StateValue>(
    records: KeyedStream<K, I>,
    read: fn(I) -> Option<V>,
) -> Table<K, V> {
    let ordered = records.surely_in_event_time_order();
    Table::of(ordered.process_as("table", true, Latest { read }))
}

struct Latest<I, V> {
    read: fn(I) -> Option<V>,
}

impl<I, V> Clone for Latest<I, V> {
    fn clone(&self) -> Self {
        Latest { read: self.read }
    }
}

impl<I, V: StateValue> Latest<I, V> {
    const ROW: Value<V> = Value::new("row");
}

impl<K: Key, I: StateValue, V: StateValue> ProcessFunction<K, I> for Latest<I, V> {
    type Out = Keyed<K, Change<V>>;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::ROW);
    }

    fn on_record(&mut self, key: &K, record: I, cx: &mut Context<'_, K, Self::Out>) -> Result<(), BoxError> {
        let after = (self.read)(record);
        let before = match &after {
            Some(row) => cx.state(Self::ROW).replace(row.clone())?,
            None => cx.state(Self::ROW).take()?,
        };
        if let Some(change) = Change::between(before, after) {
            cx.emit(keyed(key, change));
        }
        Ok(())
    }
}
