//! The interval join: pairs of records that are close in event time.
//!
//! 1. A record is joined with those of the other stream that are there and within the interval, and kept for those that may come.
//! 2. It is dropped when the watermark has passed everything that it could be joined with. One that was joined with none gives its
//!    time-out row then, if the join is an outer one on its side.
//! 3. A record that is late for its own partition is counted and left out (or had, by [`IntervalJoin::late_output`]): what it could be
//!    joined with may be gone or not, depending on the moment. On-time records always meet, whichever comes first, so the pairs are
//!    a property of the log.
//!
//! Flink's interval join and, with time-out rows, the stream-stream joins of Kafka Streams (left and outer).

use super::{Either, Pair};
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, Side as SideOutput, States, UseLate};
use crate::stream::{KeyedStream, Stream};
use crate::time::{Timestamp, span_millis};
use crate::window::Late;
use rivermark_state::{Key, StateValue, Value};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// How far in event time a record of the right stream may be from one of the left: from so much before it to so much after it, both ends
/// in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    before: i64,
    after: i64,
}

impl Interval {
    /// The right record is up to `before` earlier or up to `after` later than the left one.
    pub fn around(before: Duration, after: Duration) -> Interval {
        Interval { before: span_millis(before), after: span_millis(after) }
    }

    /// The right record is at the left one's time or up to `after` later.
    pub fn after(after: Duration) -> Interval {
        Self::around(Duration::ZERO, after)
    }

    /// The right record is at the left one's time or up to `before` earlier.
    pub fn before(before: Duration) -> Interval {
        Self::around(before, Duration::ZERO)
    }
}

impl<K: Key, A: StateValue> KeyedStream<K, A> {
    /// Joins records with those of `right` that are within `interval` of them. Say next which rows are wanted: [`IntervalJoin::inner`],
    /// [`IntervalJoin::left`], [`IntervalJoin::right`] or [`IntervalJoin::full`].
    ///
    /// ```
    /// use rivermark_operators::{Interval, Timestamp, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((orders, order), (payments, payment)) = (it.input::<u32>(), it.input::<u32>());
    ///     let within = Interval::after(millis(10));
    ///     let paid = order.key_by(|id| *id).interval_join(payment.key_by(|id| *id), within);
    ///     // With `inner` in the place of `full` there is a row for order 1 alone; `left` also tells of order 2, `right` of payment 3.
    ///     let rows = it.output(paid.full(|id, order, payment| (*id, order.is_some(), payment.is_some())));
    ///     it.push(&orders, at(1), 1);
    ///     it.push(&orders, at(2), 2);
    ///     it.push(&payments, at(8), 1);
    ///     it.push(&payments, at(30), 3);
    ///     it.end(&orders);
    ///     it.end(&payments);
    ///     let mut rows = it.take_at(&rows);
    ///     rows.sort();
    ///     // Payments may come until 12; nobody knows before 13 that there is none.
    ///     assert_eq!(rows[..2], [(at(8), (1, true, true)), (at(13), (2, true, false))]);
    ///     assert_eq!(rows[2].1, (3, false, true));
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`KeyedStream::connect`].
    pub fn interval_join<B: StateValue>(
        self,
        right: KeyedStream<K, B>,
        interval: Interval,
    ) -> IntervalJoin<K, A, B> {
        IntervalJoin { connected: self.connect(right), interval, late: None }
    }
}

/// An interval join, waiting to be told which rows are wanted.
pub struct IntervalJoin<K, A, B> {
    connected: KeyedStream<K, Either<A, B>>,
    interval: Interval,
    late: Option<UseLate<K, Either<A, B>>>,
}

impl<K: Key, A: StateValue, B: StateValue> IntervalJoin<K, A, B> {
    /// Gives the records that are late for their own partition as a stream of their own; they are counted in any case.
    pub fn late_output(mut self, late: impl FnOnce(Stream<Late<K, Either<A, B>>>) + 'static) -> Self {
        self.late = Some(Box::new(late));
        self
    }

    /// A row for each pair, at the later of its two times.
    pub fn inner<R: Send + 'static>(
        self,
        join: impl Fn(&K, &A, &B) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(false, false, move |key, pair| pair.inner().map(|(left, right)| join(key, left, right)))
    }

    /// As [`IntervalJoin::inner`], and a row for each left record that was joined with none, when its time is up.
    pub fn left<R: Send + 'static>(
        self,
        join: impl Fn(&K, &A, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(true, false, move |key, pair| pair.left().map(|(left, right)| join(key, left, right)))
    }

    /// As [`IntervalJoin::inner`], and a row for each right record that was joined with none, when its time is up.
    pub fn right<R: Send + 'static>(
        self,
        join: impl Fn(&K, Option<&A>, &B) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(false, true, move |key, pair| pair.right().map(|(left, right)| join(key, left, right)))
    }

    /// Both outer rows: [`IntervalJoin::left`] and [`IntervalJoin::right`] in one. One of the two is always there.
    pub fn full<R: Send + 'static>(
        self,
        join: impl Fn(&K, Option<&A>, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(true, true, move |key, pair| {
            let (left, right) = pair.full();
            Some(join(key, left, right))
        })
    }

    fn rows<R: Send + 'static>(
        self,
        outer_left: bool,
        outer_right: bool,
        join: impl Fn(&K, Pair<'_, A, B>) -> Option<R> + Send + Sync + 'static,
    ) -> Stream<R> {
        let Interval { before, after } = self.interval;
        let (left, right) = (
            Reach { before, after, outer: outer_left },
            Reach { before: after, after: before, outer: outer_right },
        );
        let function = Joining { left, right, join: Arc::new(join), records: PhantomData::<fn(K, A, B)> };
        let rows = self.connected.process_as("interval_join", true, function);
        if let Some(late) = self.late {
            late(rows.side_output(Joining::<(), K, A, B>::LATE));
        }
        rows
    }
}

/// How far a side's records reach into the other, and whether those that meet none are wanted.
#[derive(Copy, Clone)]
struct Reach {
    before: i64,
    after: i64,
    outer: bool,
}

impl Reach {
    /// From when on nothing can come any more that a record of this time could be joined with.
    fn over_at(&self, time: Timestamp) -> Timestamp {
        time.plus_millis(self.after).plus_millis(1)
    }
}

/// A record that waits for others.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting<T> {
    time: Timestamp,
    joined: bool,
    record: T,
}

/// One side's records of a key, by time.
type Side<T> = Vec<Waiting<T>>;

/// Keeps a record in its place.
fn keep<T>(side: &mut Side<T>, waiting: Waiting<T>) {
    let at = side.partition_point(|other| other.time <= waiting.time);
    side.insert(at, waiting);
}

/// The records of `side` that one of the other side at `time` is joined with; they are marked as joined.
fn meet<T>(side: &mut Side<T>, time: Timestamp, reach: Reach, mut each: impl FnMut(Timestamp, &T)) -> bool {
    let first = side.partition_point(|other| other.time < time.minus_millis(reach.before));
    let last = time.plus_millis(reach.after);
    let met = side[first..].iter_mut().take_while(|other| other.time <= last);
    let mut some = false;
    for other in met {
        some = true;
        other.joined = true;
        each(other.time.max(time), &other.record);
    }
    some
}

/// Takes the records whose time is up at `now`, and tells those that were joined with none.
fn expire<T>(side: &mut Side<T>, now: Timestamp, reach: Reach, mut alone: impl FnMut(&T)) {
    let over = side.iter().take_while(|waiting| reach.over_at(waiting.time) <= now).count();
    for waiting in side.drain(..over) {
        if reach.outer && !waiting.joined {
            alone(&waiting.record);
        }
    }
}

struct Joining<J, K, A, B> {
    left: Reach,
    right: Reach,
    join: Arc<J>,
    records: PhantomData<fn(K, A, B)>,
}

impl<J, K, A, B> Clone for Joining<J, K, A, B> {
    fn clone(&self) -> Self {
        Joining { join: Arc::clone(&self.join), ..*self }
    }
}

impl<J, K: Key, A: StateValue, B: StateValue> Joining<J, K, A, B> {
    const LEFT: Value<Side<A>> = Value::new("left");
    const RIGHT: Value<Side<B>> = Value::new("right");
    const LATE: SideOutput<Late<K, Either<A, B>>> = SideOutput::new("late");
}

impl<K: Key, A: StateValue, B: StateValue, R: Send + 'static, J> ProcessFunction<K, Either<A, B>>
    for Joining<J, K, A, B>
where
    J: Fn(&K, Pair<'_, A, B>) -> Option<R> + Send + Sync + 'static,
{
    type Out = R;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::LEFT);
        states.has(Self::RIGHT);
    }

    fn on_record(
        &mut self,
        key: &K,
        record: Either<A, B>,
        cx: &mut Context<'_, K, R>,
    ) -> Result<(), BoxError> {
        if cx.is_late() {
            cx.count_late();
            cx.emit_to(Self::LATE, Late { key: key.clone(), value: record, windows_missed: 1 });
            return Ok(());
        }
        let (time, join) = (cx.time(), &self.join);
        let mut rows: Vec<(Timestamp, R)> = Vec::new();
        let over_at = match record {
            Either::Left(record) => {
                let joined = cx.state(Self::RIGHT).change(|side| {
                    meet(side, time, self.left, |at, right| {
                        rows.extend(join(key, Pair::Both(&record, right)).map(|row| (at, row)));
                    })
                })?;
                let waiting = Waiting { time, joined: joined.unwrap_or(false), record };
                cx.state(Self::LEFT).update(Vec::new, |side| keep(side, waiting))?;
                self.left.over_at(time)
            }
            Either::Right(record) => {
                let joined = cx.state(Self::LEFT).change(|side| {
                    meet(side, time, self.right, |at, left| {
                        rows.extend(join(key, Pair::Both(left, &record)).map(|row| (at, row)));
                    })
                })?;
                let waiting = Waiting { time, joined: joined.unwrap_or(false), record };
                cx.state(Self::RIGHT).update(Vec::new, |side| keep(side, waiting))?;
                self.right.over_at(time)
            }
        };
        rows.into_iter().for_each(|(at, row)| cx.emit_at(at, row));
        cx.timer(over_at)
    }

    fn on_timer(&mut self, key: &K, now: Timestamp, cx: &mut Context<'_, K, R>) -> Result<(), BoxError> {
        let join = &self.join;
        let mut rows: Vec<R> = Vec::new();
        let left = cx.state(Self::LEFT).change(|side| {
            expire(side, now, self.left, |record| rows.extend(join(key, Pair::Left(record))));
            side.is_empty()
        })?;
        if left == Some(true) {
            cx.state(Self::LEFT).clear()?;
        }
        let right = cx.state(Self::RIGHT).change(|side| {
            expire(side, now, self.right, |record| rows.extend(join(key, Pair::Right(record))));
            side.is_empty()
        })?;
        if right == Some(true) {
            cx.state(Self::RIGHT).clear()?;
        }
        rows.into_iter().for_each(|row| cx.emit_at(now, row));
        Ok(())
    }
}
