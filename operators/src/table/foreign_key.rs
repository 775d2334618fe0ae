//! The foreign-key join: each row of a table with the row of another one that it refers to.
//!
//! 1. A left row goes to the worker of the key that it refers to, which keeps the rows that refer to a key beside that key's row.
//! 2. When all changes of one time have come, that worker tells for each row that is concerned what it was joined to and no longer is
//!    (*out*), and what it is joined to now (*in*). A change of the right row concerns all that refer to it: they are held in memory for that
//!    moment.
//! 3. They go back to the worker of the left key. A row that refers to another key at some time is taken out at one worker and put in
//!    at another at that time; both have come when the watermark passes it, and one change is told.
//!
//! The foreign-key join of Kafka Streams (KIP-213), which tells rows apart by a hash of the left row where this one uses event time.

use super::{Change, Table, keyed};
use crate::error::BoxError;
use crate::exchange::Keyed;
use crate::join::Either;
use crate::process::{Context, ProcessFunction, States};
use crate::stream::KeyedStream;
use crate::time::Timestamp;
use rivermark_state::{Key, Map, StateValue, Value};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

/// A left row that refers to a key from now on, or no longer does.
type Reference<K, A> = (K, Option<A>);

impl<K: Key, A: StateValue> Table<K, A> {
    /// Joins each row with the row of `right` whose key `refers_to` gives. Say next whether rows that refer to nothing are kept:
    /// [`ForeignKeyJoin::left`] or [`ForeignKeyJoin::inner`]. Functions are called anew for rows that are taken back, and must answer the same.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // Flights refer to planes by number; planes have seats.
    ///     let ((flights, flight), (planes, plane)) = (it.input::<(&str, u32)>(), it.input::<(u32, u32)>());
    ///     let flights_now = flight.map(|(name, plane)| (name.to_string(), plane)).key_by(|(name, _)| name.clone()).to_table();
    ///     let planes_now = plane.key_by(|(plane, _)| *plane).to_table();
    ///     let seats = flights_now.join_on(planes_now, |_, (_, plane)| *plane).inner(|_, _, (_, seats)| *seats);
    ///     let rows = it.output(seats.changes());
    ///     it.push(&planes, at(1), (7, 100));
    ///     it.push(&planes, at(4), (7, 120));
    ///     it.push(&flights, at(2), ("RM1", 7));
    ///     it.end(&flights);
    ///     it.end(&planes);
    ///     let flight = "RM1".to_string();
    ///     it.expect(&rows, [(flight.clone(), Change::Insert(100)), (flight, Change::Update { before: 100, after: 120 })]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If the tables belong to different flows.
    pub fn join_on<F: Key, B: StateValue>(
        self,
        right: Table<F, B>,
        refers_to: impl Fn(&K, &A) -> F + Clone + Send + Sync + 'static,
    ) -> ForeignKeyJoin<K, A, F, B> {
        let references = self.changes.flat_map(move |Keyed { key, value, .. }| {
            let (before, after) = value.into_rows();
            let old = before.map(|row| refers_to(&key, &row));
            let new = after.map(|row| (refers_to(&key, &row), row));
            let gone = old.filter(|old| new.as_ref().is_none_or(|(new, _)| new != old));
            let gone = gone.map(|old| keyed(&old, (key.clone(), None)));
            let come = new.map(|(new, row)| keyed(&new, (key.clone(), Some(row))));
            gone.into_iter().chain(come).collect::<Vec<_>>()
        });
        let references = KeyedStream { keyed: references, order: None };
        ForeignKeyJoin { connected: references.connect(right.keyed()) }
    }
}

/// A foreign-key join, waiting to be told which rows are wanted.
pub struct ForeignKeyJoin<K, A, F, B> {
    connected: KeyedStream<F, Either<Reference<K, A>, Change<B>>>,
}

impl<K: Key, A: StateValue, F: Key, B: StateValue> ForeignKeyJoin<K, A, F, B> {
    /// The left rows that refer to a row.
    pub fn inner<R: StateValue>(self, join: impl Fn(&K, &A, &B) -> R + Send + Sync + 'static) -> Table<K, R> {
        self.rows(move |key, left, right| right.map(|right| join(key, left, right)))
    }

    /// All left rows.
    pub fn left<R: StateValue>(
        self,
        join: impl Fn(&K, &A, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Table<K, R> {
        self.rows(move |key, left, right| Some(join(key, left, right)))
    }

    fn rows<R: StateValue>(
        self,
        join: impl Fn(&K, &A, Option<&B>) -> Option<R> + Send + Sync + 'static,
    ) -> Table<K, R> {
        let function = Referring { join: Arc::new(join), rows: PhantomData };
        let steps = self.connected.in_event_time_order().process_as("foreign_key_join", true, function);
        let steps = KeyedStream { keyed: steps, order: None }.in_event_time_order();
        Table::of(steps.process_as("foreign_key_rows", true, Gathering { rows: PhantomData }))
    }
}

/// What was joined at one key: in, or out.
type Step<R> = Option<R>;

struct Referring<J, K, A, B> {
    join: Arc<J>,
    rows: PhantomData<fn(K, A, B)>,
}

impl<J, K, A, B> Clone for Referring<J, K, A, B> {
    fn clone(&self) -> Self {
        Referring { join: Arc::clone(&self.join), rows: PhantomData }
    }
}

impl<J, K: Key, A: StateValue, B: StateValue> Referring<J, K, A, B> {
    /// The rows that refer to the key.
    const LEFT: Map<K, A> = Map::new("left");
    /// What those of them were before the time at hand that have changed.
    const LEFT_BEFORE: Map<K, Option<A>> = Map::new("left before");
    const RIGHT: Value<B> = Value::new("right");
    /// What the right row was before the time at hand, if it has changed.
    const RIGHT_BEFORE: Value<Option<B>> = Value::new("right before");
}

impl<K: Key, A: StateValue, F: Key, B: StateValue, R: StateValue, J>
    ProcessFunction<F, Either<Reference<K, A>, Change<B>>> for Referring<J, K, A, B>
where
    J: Fn(&K, &A, Option<&B>) -> Option<R> + Send + Sync + 'static,
{
    type Out = Keyed<K, Step<R>>;

    fn states(&self, states: &mut States<'_, F>) {
        states.has(Self::LEFT);
        states.has(Self::LEFT_BEFORE);
        states.has(Self::RIGHT);
        states.has(Self::RIGHT_BEFORE);
    }

    fn on_record(
        &mut self,
        _key: &F,
        record: Either<Reference<K, A>, Change<B>>,
        cx: &mut Context<'_, F, Self::Out>,
    ) -> Result<(), BoxError> {
        match record {
            Either::Left((key, row)) => {
                if cx.state(Self::LEFT_BEFORE).get(&key)?.is_none() {
                    let before = cx.state(Self::LEFT).get(&key)?;
                    cx.state(Self::LEFT_BEFORE).put(key.clone(), before)?;
                }
                match row {
                    Some(row) => cx.state(Self::LEFT).put(key, row)?,
                    None => cx.state(Self::LEFT).remove(&key)?,
                }
            }
            Either::Right(change) => {
                let before = cx.state(Self::RIGHT).take()?;
                if let Some(row) = change.into_after() {
                    cx.state(Self::RIGHT).set(row)?;
                }
                // The first change of a time knows what was before it.
                cx.state(Self::RIGHT_BEFORE).update(|| before, |_| ())?;
            }
        }
        cx.settle_later();
        Ok(())
    }

    fn on_timer(
        &mut self,
        _key: &F,
        _time: Timestamp,
        cx: &mut Context<'_, F, Self::Out>,
    ) -> Result<(), BoxError> {
        let mut before: HashMap<K, Option<A>> = cx.state(Self::LEFT_BEFORE).entries()?.into_iter().collect();
        cx.state(Self::LEFT_BEFORE).clear()?;
        let right = cx.state(Self::RIGHT).get()?;
        let right_before = cx.state(Self::RIGHT_BEFORE).take()?;
        let mut concerned: Vec<(K, Option<A>, Option<A>)> = Vec::new();
        if right_before.is_some() {
            for (key, row) in cx.state(Self::LEFT).entries()? {
                let was = before.remove(&key).unwrap_or_else(|| Some(row.clone()));
                concerned.push((key, was, Some(row)));
            }
        }
        for (key, was) in before {
            let row = cx.state(Self::LEFT).get(&key)?;
            concerned.push((key, was, row));
        }
        let right_before = right_before.unwrap_or_else(|| right.clone());
        let join = |key: &K, left: Option<A>, right: &Option<B>| {
            left.and_then(|left| (self.join)(key, &left, right.as_ref()))
        };
        for (key, was, is) in concerned {
            let (was, is) = (join(&key, was, &right_before), join(&key, is, &right));
            if was.is_some() || is.is_some() {
                cx.emit_settled(keyed(&key, is));
            }
        }
        Ok(())
    }
}

/// A key's row, and what has been heard of it at the time at hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Gathered<R> {
    told: Option<R>,
    is_out: bool,
    is_in: Option<R>,
}

/// Makes one change of what several workers tell of a row at one time.
struct Gathering<R> {
    rows: PhantomData<fn(R)>,
}

impl<R> Clone for Gathering<R> {
    fn clone(&self) -> Self {
        Gathering { rows: PhantomData }
    }
}

impl<R: StateValue> Gathering<R> {
    const ROW: Value<Gathered<R>> = Value::new("row");
}

impl<K: Key, R: StateValue> ProcessFunction<K, Step<R>> for Gathering<R> {
    type Out = Keyed<K, Change<R>>;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::ROW);
    }

    fn on_record(
        &mut self,
        _key: &K,
        step: Step<R>,
        cx: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), BoxError> {
        let empty = || Gathered { told: None, is_out: false, is_in: None };
        cx.state(Self::ROW).update(empty, |row| match step {
            // A row refers to one key at a time, so of all that tell of it, one at most has it in.
            Some(joined) => row.is_in = Some(joined),
            None => row.is_out = true,
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
        let change = cx.state(Self::ROW).change(|row| {
            let before = row.told.take();
            row.told = match (row.is_in.take(), std::mem::take(&mut row.is_out)) {
                (Some(joined), _) => Some(joined),
                (None, true) => None,
                (None, false) => before.clone(),
            };
            Change::between(before, row.told.clone())
        })?;
        let Some(Some(change)) = change else { return Ok(()) };
        if change.after().is_none() {
            cx.state(Self::ROW).clear()?;
        }
        cx.emit_settled(keyed(key, change));
        Ok(())
    }
}
