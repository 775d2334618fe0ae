//! The as-of join: each record with the version that was valid at its time.
//!
//! 1. Both streams run in event-time order, so that a version is never missed because it came late in processing time: a record waits for
//!    the watermark of both.
//! 2. The newest version of a key is kept. A record is joined when all versions up to its time have been seen, also those of the same time
//!    (`enrich`).
//! 3. Records and versions that are late for their own partition are counted and left out; [`AsOfJoin::late_output`] gives them a stream.
//!
//! As `ASOF JOIN` of DuckDB and kdb+, and the temporal table join of Flink with an event-time versioned table.

use super::Either;
use super::enrich::{Remembers, enrich};
use crate::error::BoxError;
use crate::process::{Context, States, UseLate};
use crate::stream::{KeyedStream, Stream};
use crate::time::span_millis;
use crate::window::Late;
use rivermark_state::{Key, StateValue, Value};
use std::marker::PhantomData;
use std::time::Duration;

impl<K: Key, A: StateValue> KeyedStream<K, A> {
    /// Joins each record with the newest record of `versions` that is not newer than it and at most `within` older (both ends in).
    /// Say next whether records without a version are kept: [`AsOfJoin::left`] or [`AsOfJoin::inner`].
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((payments, paid), (rates, rate)) = (it.input::<u32>(), it.input::<u32>());
    ///     let valued = paid.key_by(|_| "EUR".to_string()).as_of_join(rate.key_by(|_| "EUR".to_string()), millis(10));
    ///     let rows = it.output(valued.left(|_, amount, rate| (amount, rate.copied())));
    ///     it.push(&payments, at(4), 100);
    ///     it.push(&payments, at(9), 200);
    ///     it.push(&payments, at(30), 300);
    ///     it.push(&rates, at(5), 3);
    ///     it.push(&rates, at(9), 4);
    ///     it.end(&payments);
    ///     it.end(&rates);
    ///     // Before the first rate; at the time of the second; when that is too old.
    ///     it.expect(&rows, [(100, None), (200, Some(4)), (300, None)]);
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`KeyedStream::connect`].
    pub fn as_of_join<B: StateValue>(
        self,
        versions: KeyedStream<K, B>,
        within: Duration,
    ) -> AsOfJoin<K, A, B> {
        AsOfJoin { connected: self.connect(versions), within: span_millis(within), late: None }
    }
}

/// An as-of join, waiting to be told what to make of records and versions.
pub struct AsOfJoin<K, A, B> {
    connected: KeyedStream<K, Either<A, B>>,
    within: i64,
    late: Option<UseLate<K, Either<A, B>>>,
}

impl<K: Key, A: StateValue, B: StateValue> AsOfJoin<K, A, B> {
    /// Gives the records and versions that are late for their own partition as a stream of their own; they are counted in any case.
    pub fn late_output(mut self, late: impl FnOnce(Stream<Late<K, Either<A, B>>>) + 'static) -> Self {
        self.late = Some(Box::new(late));
        self
    }

    /// A row for each record, with its version if there is one. It has the record's time.
    pub fn left<R: Send + 'static>(
        self,
        join: impl Fn(&K, A, Option<&B>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, record, version| Some(join(key, record, version)))
    }

    /// A row for each record that has a version.
    pub fn inner<R: Send + 'static>(
        self,
        join: impl Fn(&K, A, &B) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(move |key, record, version| version.map(|version| join(key, record, version)))
    }

    fn rows<R: Send + 'static>(
        self,
        join: impl Fn(&K, A, Option<&B>) -> Option<R> + Send + Sync + 'static,
    ) -> Stream<R> {
        let memory = Newest { within: self.within, versions: PhantomData };
        enrich("as_of_join", self.connected, self.late, memory, join)
    }
}

/// Remembers the newest version, with its time.
struct Newest<B> {
    within: i64,
    versions: PhantomData<fn(B)>,
}

impl<B> Clone for Newest<B> {
    fn clone(&self) -> Self {
        Newest { ..*self }
    }
}

impl<B: StateValue> Newest<B> {
    const VERSION: Value<(i64, B)> = Value::new("version");
}

impl<K: Key, B: StateValue> Remembers<K, B> for Newest<B> {
    type Row = B;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::VERSION);
    }

    fn take<Out>(&self, version: B, cx: &mut Context<'_, K, Out>) -> Result<(), BoxError> {
        let since = cx.time().millis();
        cx.state(Self::VERSION).set((since, version))
    }

    fn read<Out, T>(
        &self,
        cx: &mut Context<'_, K, Out>,
        read: impl FnOnce(Option<&B>) -> T,
    ) -> Result<T, BoxError> {
        let oldest = cx.time().minus_millis(self.within).millis();
        cx.state(Self::VERSION)
            .read(|newest| read(newest.filter(|(since, _)| *since >= oldest).map(|(_, version)| version)))
    }
}
