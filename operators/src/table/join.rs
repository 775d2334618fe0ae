//! The join of two tables on their key.
//!
//! 1. Both sides' rows of a key are kept. A change replaces its side's.
//! 2. When all changes of one time have come, the joined row is compared with what it was before that time, and told as one change.
//!
//! So the result is the join of both tables at each event time, whichever side's changes come first (KTable-KTable join of Kafka Streams,
//! regular join of Flink, without the intermediate rows that those tell).

use super::{Change, Table, keyed};
use crate::error::BoxError;
use crate::exchange::Keyed;
use crate::join::Either;
use crate::process::{Context, ProcessFunction, States};
use crate::stream::KeyedStream;
use crate::time::Timestamp;
use rivermark_state::{Key, StateValue, Value};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::sync::Arc;

impl<K: Key, A: StateValue> Table<K, A> {
    /// Joins the rows of two tables that have the same key. Say next which are wanted: [`TableJoin::inner`], [`TableJoin::left`],
    /// [`TableJoin::right`] or [`TableJoin::full`]. The function that makes a row is called anew for one that is taken back, and must answer the
    /// same.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((stocks, stock), (prices, price)) = (it.input::<u32>(), it.input::<u32>());
    ///     let worth = stock.key_by(|_| 'a').to_table().join(price.key_by(|_| 'a').to_table());
    ///     let rows = it.output(worth.inner(|_, stock, price| stock * price).changes());
    ///     it.push(&stocks, at(1), 3);
    ///     it.push(&stocks, at(5), 4);
    ///     it.push(&prices, at(2), 10);
    ///     it.push(&prices, at(5), 20);
    ///     it.end(&stocks);
    ///     it.end(&prices);
    ///     // Both change at 5: one change is told.
    ///     it.expect(&rows, [('a', Change::Insert(30)), ('a', Change::Update { before: 30, after: 80 })]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If the tables belong to different flows.
    pub fn join<B: StateValue>(self, right: Table<K, B>) -> TableJoin<K, A, B> {
        TableJoin { connected: self.keyed().connect(right.keyed()) }
    }
}

/// A join of tables, waiting to be told which rows are wanted.
pub struct TableJoin<K, A, B> {
    connected: KeyedStream<K, Either<Change<A>, Change<B>>>,
}

impl<K: Key, A: StateValue, B: StateValue> TableJoin<K, A, B> {
    /// The rows of keys that are in both tables.
    pub fn inner<R: StateValue>(self, join: impl Fn(&K, &A, &B) -> R + Send + Sync + 'static) -> Table<K, R> {
        self.rows(move |key, left, right| Some(join(key, left?, right?)))
    }

    /// The rows of keys that are in the left table.
    pub fn left<R: StateValue>(
        self,
        join: impl Fn(&K, &A, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.rows(move |key, left, right| Some(join(key, left?, right)))
    }

    /// The rows of keys that are in the right table.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((stocks, stock), (prices, price)) = (it.input::<u32>(), it.input::<u32>());
    ///     let offers = stock.key_by(|_| 'a').to_table().join(price.key_by(|_| 'a').to_table());
    ///     // What has a price is on offer, whether it is there or not.
    ///     let rows = it.output(offers.right(|_, stock, price| (*price, stock.copied())).changes().map(|(_, change)| change));
    ///     it.push(&prices, at(1), 10);
    ///     it.push(&stocks, at(2), 3);
    ///     it.end(&stocks);
    ///     it.end(&prices);
    ///     it.expect(&rows, [Change::Insert((10, None)), Change::Update { before: (10, None), after: (10, Some(3)) }]);
    /// });
    /// ```
    pub fn right<R: StateValue>(
        self,
        join: impl Fn(&K, Option<&A>, &B) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.rows(move |key, left, right| Some(join(key, left, right?)))
    }

    /// The rows of keys that are in either table. One of the two is always there.
    pub fn full<R: StateValue>(
        self,
        join: impl Fn(&K, Option<&A>, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.rows(move |key, left, right| (left.is_some() || right.is_some()).then(|| join(key, left, right)))
    }

    fn rows<R: StateValue>(
        self,
        join: impl Fn(&K, Option<&A>, Option<&B>) -> Option<R> + Send + Sync + 'static,
    ) -> Table<K, R> {
        let function = Joining { join: Arc::new(join), rows: PhantomData };
        Table::of(self.connected.in_event_time_order().process_as("table_join", true, function))
    }
}

/// What both tables have of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pair<A, B> {
    left: Option<A>,
    right: Option<B>,
}

/// What they have, and what they had before the time at hand, once there is a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rows<A, B> {
    now: Pair<A, B>,
    before: Option<Pair<A, B>>,
}

struct Joining<J, A, B> {
    join: Arc<J>,
    rows: PhantomData<fn(A, B)>,
}

impl<J, A, B> Clone for Joining<J, A, B> {
    fn clone(&self) -> Self {
        Joining { join: Arc::clone(&self.join), rows: PhantomData }
    }
}

impl<J, A: StateValue, B: StateValue> Joining<J, A, B> {
    const ROWS: Value<Rows<A, B>> = Value::new("rows");
}

impl<K: Key, A: StateValue, B: StateValue, R: StateValue, J> ProcessFunction<K, Either<Change<A>, Change<B>>>
    for Joining<J, A, B>
where
    J: Fn(&K, Option<&A>, Option<&B>) -> Option<R> + Send + Sync + 'static,
{
    type Out = Keyed<K, Change<R>>;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::ROWS);
    }

    fn on_record(
        &mut self,
        _key: &K,
        change: Either<Change<A>, Change<B>>,
        cx: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), BoxError> {
        let empty = || Rows { now: Pair { left: None, right: None }, before: None };
        cx.state(Self::ROWS).update(empty, |rows| {
            if rows.before.is_none() {
                rows.before = Some(rows.now.clone());
            }
            match change {
                Either::Left(change) => rows.now.left = change.into_after(),
                Either::Right(change) => rows.now.right = change.into_after(),
            }
        })?;
        cx.settle_later();
        Ok(())
    }

    fn on_timer(
        &mut self,
        key: &K,
        _time: Timestamp,
        cx: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), BoxError> {
        let join = |pair: &Pair<A, B>| (self.join)(key, pair.left.as_ref(), pair.right.as_ref());
        let told = cx.state(Self::ROWS).change(|rows| {
            let before = rows.before.take().as_ref().and_then(join);
            let is_empty = rows.now.left.is_none() && rows.now.right.is_none();
            (Change::between(before, join(&rows.now)), is_empty)
        })?;
        let Some((change, is_empty)) = told else { return Ok(()) };
        if is_empty {
            cx.state(Self::ROWS).clear()?;
        }
        if let Some(change) = change {
            cx.emit_settled(keyed(key, change));
        }
        Ok(())
    }
}
