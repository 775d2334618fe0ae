//! The stream-table join: each record with its key's row of a table, as the table was at the record's time.
//!
//! 1. Records and changes run in event-time order. The table's row is kept.
//! 2. A record is joined when all changes up to its time have been seen, also those of the same time (`enrich`).
//! 3. Later changes of the table concern later records only: what was joined stays as it is.
//!
//! How it differs from [`KeyedStream::as_of_join`]: that one takes a plain stream for the versions, of which each is valid for so long at the most;
//! this one takes a table, whose rows are valid until they are replaced or deleted. (Stream-table join of Kafka Streams, but by event
//! time, as with its versioned state stores; temporal join of Flink.)

use super::Either;
use super::enrich::{Remembers, enrich};
use crate::error::BoxError;
use crate::process::{Context, States, UseLate};
use crate::stream::{KeyedStream, Stream};
use crate::table::{Change, Table};
use crate::window::Late;
use rivermark_state::{Key, StateValue, Value};
use std::marker::PhantomData;

impl<K: Key, A: StateValue> KeyedStream<K, A> {
    /// Joins each record with its key's row of `table` at the record's time. Say next whether records without one are kept:
    /// [`StreamTableJoin::left`] or [`StreamTableJoin::inner`]. The state is a row a key, until it is deleted, and the records that wait for
    /// the watermark.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((orders, order_stream), (prices, price_stream)) = (it.input::<u32>(), it.input::<u64>());
    ///     let prices_now = price_stream.key_by(|_| 1_u8).to_table();
    ///     let priced = order_stream.key_by(|_| 1_u8).join_table(prices_now).left(|_, order, price| (order, price.copied()));
    ///     let rows = it.output(priced);
    ///     it.push(&orders, at(4), 1);
    ///     it.push(&orders, at(9), 2);
    ///     it.push(&prices, at(5), 70);
    ///     it.end(&orders);
    ///     it.end(&prices);
    ///     it.expect(&rows, [(1, None), (2, Some(70))]);
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`KeyedStream::connect`].
    pub fn join_table<B: StateValue>(self, table: Table<K, B>) -> StreamTableJoin<K, A, B> {
        StreamTableJoin { connected: self.connect(table.keyed()), late: None }
    }
}

/// A stream-table join, waiting to be told what to make of records and rows.
pub struct StreamTableJoin<K, A, B> {
    connected: KeyedStream<K, Either<A, Change<B>>>,
    late: Option<UseLate<K, Either<A, Change<B>>>>,
}

impl<K: Key, A: StateValue, B: StateValue> StreamTableJoin<K, A, B> {
    /// Gives the records that are late for their own partition as a stream of their own; they are counted in any case. A table's changes
    /// are never late.
    pub fn late_output(mut self, late: impl FnOnce(Stream<Late<K, Either<A, Change<B>>>>) + 'static) -> Self {
        self.late = Some(Box::new(late));
        self
    }

    /// A row for each record, with its key's row if there is one. It has the record's time.
    pub fn left<R: Send + 'static>(
        self,
        join: impl Fn(&K, A, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, record, row| Some(join(key, record, row)))
    }

    /// A row for each record whose key has a row.
    pub fn inner<R: Send + 'static>(
        self,
        join: impl Fn(&K, A, &B) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, record, row| row.map(|row| join(key, record, row)))
    }

    fn rows<R: Send + 'static>(
        self,
        join: impl Fn(&K, A, Option<&B>) -> Option<R> + Send + Sync + 'static,
    ) -> Stream<R> {
        enrich("stream_table_join", self.connected, self.late, Rows(PhantomData), join)
    }
}

/// Remembers the table's row.
struct Rows<B>(PhantomData<fn(B)>);

impl<B> Clone for Rows<B> {
    fn clone(&self) -> Self {
        Rows(PhantomData)
    }
}

impl<B: StateValue> Rows<B> {
    const ROW: Value<B> = Value::new("row");
}

impl<K: Key, B: StateValue> Remembers<K, Change<B>> for Rows<B> {
    type Row = B;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::ROW);
    }

    fn take<Out>(&self, change: Change<B>, cx: &mut Context<'_, K, Out>) -> Result<(), BoxError> {
        match change.into_after() {
            Some(row) => cx.state(Self::ROW).set(row),
            None => cx.state(Self::ROW).clear(),
        }
    }

    fn read<Out, T>(
        &self,
        cx: &mut Context<'_, K, Out>,
        read: impl FnOnce(Option<&B>) -> T,
    ) -> Result<T, BoxError> {
        cx.state(Self::ROW).read(read)
    }
}
