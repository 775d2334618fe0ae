//! The window join: pairs of records that are in the same window.
//!
//! 1. A record is kept for the windows that hold it and are not over.
//! 2. When the watermark passes a window's end plus the allowed lateness, the window fires, once: its rows are made of all that came for it. With
//!    allowed lateness rows come that much later, and are final; nothing is corrected.
//! 3. A record is dropped when the last of its windows has fired.
//!
//! A record is late for a window if the watermark of its own source partition, just before it, is past the end plus the allowed lateness. So
//! which records a window holds is a property of the log, and since they are sorted by time, partition and offset before they are
//! joined, so are the order of rows (records that were computed have no place in a source, and keep the order of their arrival).
//!
//! The window join of Flink, with its outer kinds, for tumbling and sliding windows. Rows of one key and window are all pairs of it, and are held
//! in memory while the window fires.

use super::{Either, Pair};
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, Side, States, UseLate};
use crate::stream::{KeyedStream, Stream};
use crate::time::{Timestamp, span_millis};
use crate::window::{Late, Shape, Slices, Window, Windows};
use rivermark_state::{Key, StateValue, Value};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

impl<K: Key, A: StateValue> KeyedStream<K, A> {
    /// Joins records with those of `right` that are in the same window. Say next which rows are wanted: [`WindowJoin::inner`],
    /// [`WindowJoin::left`], [`WindowJoin::right`] or [`WindowJoin::full`]. A key keeps its records until their last window fires, and a timer
    /// for each window that holds any.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((asked, questions), (told, answers)) = (it.input::<&str>(), it.input::<u32>());
    ///     let windows = Windows::tumbling(millis(10));
    ///     let joined = questions.map(str::to_string).key_by(|_| 0_u8).window_join(answers.key_by(|_| 0_u8), windows);
    ///     let rows = it.output(joined.left(|_, _, question, answer| (question.clone(), answer.copied())));
    ///     it.push(&told, at(7), 42);
    ///     it.push(&asked, at(3), "a");
    ///     it.push(&asked, at(12), "b");
    ///     it.end(&asked);
    ///     it.end(&told);
    ///     it.expect(&rows, [("a".to_string(), Some(42)), ("b".to_string(), None)]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If the windows are sessions, which have no bounds before both streams are known, or global ones, which have no end; and as [`KeyedStream::connect`].
    pub fn window_join<B: StateValue>(
        self,
        right: KeyedStream<K, B>,
        windows: Windows,
    ) -> WindowJoin<K, A, B> {
        let Shape::Sliding(slices) = windows.shape else {
            panic!("a window join needs tumbling or sliding windows, and these are {windows}");
        };
        WindowJoin { connected: self.connect(right), slices, lateness: 0, late: None }
    }
}

/// A window join, waiting to be told which rows are wanted. A row has the last moment at which something could have come for its window: one
/// millisecond before the end, plus the allowed lateness.
pub struct WindowJoin<K, A, B> {
    connected: KeyedStream<K, Either<A, B>>,
    slices: Slices,
    lateness: i64,
    late: Option<UseLate<K, Either<A, B>>>,
}

impl<K: Key, A: StateValue, B: StateValue> WindowJoin<K, A, B> {
    /// Lets windows wait so long for late records before they fire. Default: not at all.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = span_millis(lateness);
        self
    }

    /// Gives the records that are late for at least one of their windows as a stream of their own; they are counted in any case.
    pub fn late_output(mut self, late: impl FnOnce(Stream<Late<K, Either<A, B>>>) + 'static) -> Self {
        self.late = Some(Box::new(late));
        self
    }

    /// A row for each pair of a window.
    pub fn inner<R: Send + 'static>(
        self,
        join: impl Fn(&K, Window, &A, &B) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, window, pair| pair.inner().map(|(left, right)| join(key, window, left, right)))
    }

    /// As [`WindowJoin::inner`], and a row for each left record of a window that has no right ones.
    pub fn left<R: Send + 'static>(
        self,
        join: impl Fn(&K, Window, &A, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, window, pair| pair.left().map(|(left, right)| join(key, window, left, right)))
    }

    /// As [`WindowJoin::inner`], and a row for each right record of a window that has no left ones.
    pub fn right<R: Send + 'static>(
        self,
        join: impl Fn(&K, Window, Option<&A>, &B) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, window, pair| pair.right().map(|(left, right)| join(key, window, left, right)))
    }

    /// Both outer rows: [`WindowJoin::left`] and [`WindowJoin::right`] in one. One of the two is always there.
    pub fn full<R: Send + 'static>(
        self,
        join: impl Fn(&K, Window, Option<&A>, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, window, pair| {
            let (left, right) = pair.full();
            Some(join(key, window, left, right))
        })
    }

    fn rows<R: Send + 'static>(
        self,
        join: impl Fn(&K, Window, Pair<'_, A, B>) -> Option<R> + Send + Sync + 'static,
    ) -> Stream<R> {
        let firing = Firing { slices: self.slices, lateness: self.lateness };
        let function = Joining { firing, join: Arc::new(join), records: PhantomData::<fn(K, A, B)> };
        let rows = self.connected.process_ending("window_join", function);
        if let Some(late) = self.late {
            late(rows.side_output(Joining::<(), K, A, B>::LATE));
        }
        rows
    }
}

/// When windows fire.
#[derive(Copy, Clone)]
struct Firing {
    slices: Slices,
    lateness: i64,
}

impl Firing {
    /// When the window with this end fires.
    fn at(&self, end: Timestamp) -> Timestamp {
        end.plus_millis(self.lateness)
    }

    /// The ends of the windows that fire at `now`: one, but for the end of time, where all do that are left.
    fn ends(&self, now: Timestamp, waiting: impl Iterator<Item = (Timestamp, Timestamp)>) -> Vec<Timestamp> {
        if now < Timestamp::MAX {
            return vec![now.minus_millis(self.lateness)];
        }
        let mut ends: Vec<Timestamp> = waiting.flat_map(|(from, last)| self.between(from, last)).collect();
        ends.retain(|end| self.at(*end) == now);
        ends.sort();
        ends.dedup();
        ends
    }

    fn between(&self, from: Timestamp, last: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        let slices = self.slices;
        std::iter::successors(Some(from), move |end| (*end < last).then(|| slices.next_end(*end)))
    }
}

/// A record that waits for its windows: those that end from `from` to `last`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting<T> {
    time: Timestamp,
    origin: u64,
    from: Timestamp,
    last: Timestamp,
    record: T,
}

impl<T> Waiting<T> {
    fn is_in(&self, end: Timestamp) -> bool {
        self.from <= end && end <= self.last
    }
}

/// One side's records of a key, by time, partition and offset.
type Records<T> = Vec<Waiting<T>>;

fn keep<T>(records: &mut Records<T>, waiting: Waiting<T>) {
    let place = (waiting.time, waiting.origin);
    let at = records.partition_point(|other| (other.time, other.origin) <= place);
    records.insert(at, waiting);
}

struct Joining<J, K, A, B> {
    firing: Firing,
    join: Arc<J>,
    records: PhantomData<fn(K, A, B)>,
}

impl<J, K, A, B> Clone for Joining<J, K, A, B> {
    fn clone(&self) -> Self {
        Joining { join: Arc::clone(&self.join), ..*self }
    }
}

impl<J, K: Key, A: StateValue, B: StateValue> Joining<J, K, A, B> {
    const LEFT: Value<Records<A>> = Value::new("left");
    const RIGHT: Value<Records<B>> = Value::new("right");
    const LATE: Side<Late<K, Either<A, B>>> = Side::new("late");
}

/// The rows of one window.
fn pairs<'a, A, B>(left: &'a [&A], right: &'a [&B], mut each: impl FnMut(Pair<'a, A, B>)) {
    match (left, right) {
        (left, []) => left.iter().for_each(|record| each(Pair::Left(record))),
        ([], right) => right.iter().for_each(|record| each(Pair::Right(record))),
        (left, right) => {
            for a in left {
                right.iter().for_each(|b| each(Pair::Both(a, b)));
            }
        }
    }
}

impl<K: Key, A: StateValue, B: StateValue, R: Send + 'static, J> ProcessFunction<K, Either<A, B>>
    for Joining<J, K, A, B>
where
    J: Fn(&K, Window, Pair<'_, A, B>) -> Option<R> + Send + Sync + 'static,
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
        let Firing { slices, .. } = self.firing;
        let (time, origin) = (cx.time(), cx.origin().to_bits());
        let slice = slices.slice_of(time);
        let (first, last) = (slices.first_end(slice), slices.last_end(slice));
        // The second is more only where a partition that was declared idle was overtaken: what has fired, fires once.
        let watermark = cx.partition_watermark().max(cx.watermark());
        let is_over = |end: &Timestamp| self.firing.at(*end) <= watermark;
        let missed = self.firing.between(first, last).take_while(is_over).count();
        if missed > 0 {
            cx.count_late();
            let late = Late { key: key.clone(), value: record.clone(), windows_missed: missed as u64 };
            cx.emit_to(Self::LATE, late);
        }
        let mut ends = self.firing.between(first, last).skip(missed).peekable();
        let Some(&from) = ends.peek() else { return Ok(()) };
        ends.try_for_each(|end| cx.timer(self.firing.at(end)))?;
        match record {
            Either::Left(record) => {
                let waiting = Waiting { time, origin, from, last, record };
                cx.state(Self::LEFT).update(Vec::new, |records| keep(records, waiting))
            }
            Either::Right(record) => {
                let waiting = Waiting { time, origin, from, last, record };
                cx.state(Self::RIGHT).update(Vec::new, |records| keep(records, waiting))
            }
        }
    }

    fn on_timer(&mut self, key: &K, now: Timestamp, cx: &mut Context<'_, K, R>) -> Result<(), BoxError> {
        let mut left = cx.state(Self::LEFT).take()?.unwrap_or_default();
        let mut right = cx.state(Self::RIGHT).take()?.unwrap_or_default();
        let spans = left.iter().map(|w| (w.from, w.last)).chain(right.iter().map(|w| (w.from, w.last)));
        let at = now.minus_millis(1);
        for end in self.firing.ends(now, spans) {
            let window = self.firing.slices.window(end);
            let lefts: Vec<&A> = left.iter().filter(|w| w.is_in(end)).map(|w| &w.record).collect();
            let rights: Vec<&B> = right.iter().filter(|w| w.is_in(end)).map(|w| &w.record).collect();
            pairs(&lefts, &rights, |pair| {
                if let Some(row) = (self.join)(key, window, pair) {
                    cx.emit_at(at, row);
                }
            });
        }
        left.retain(|waiting| self.firing.at(waiting.last) > now);
        right.retain(|waiting| self.firing.at(waiting.last) > now);
        if !left.is_empty() {
            cx.state(Self::LEFT).set(left)?;
        }
        if !right.is_empty() {
            cx.state(Self::RIGHT).set(right)?;
        }
        Ok(())
    }
}
