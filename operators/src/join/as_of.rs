//! The as-of join: each record with the version that was valid at its time.
//!
//! 1. Both streams run in event-time order, so that a version is never missed because it came late in processing time: a record waits for
//!    the watermark of both.
//! 2. The newest version of a key is kept. A record of time t sets a timer at t + 1, by which all versions up to t have been
//!    seen, also those of the same time; then it is joined.
//! 3. Records and versions that are late for their own partition are counted and left out; [`AsOfJoin::late_output`] gives them a stream.
//!
//! As `ASOF JOIN` of DuckDB and kdb+, and the temporal table join of Flink with an event-time versioned table.

use super::Either;
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction};
use crate::stream::{KeyedStream, Stream};
use crate::time::{Timestamp, span_millis};
use crate::window::Late;
use rivermark_state::{Key, StateValue, Value};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

impl<K: Key, A: StateValue> KeyedStream<K, A> {
    /// Joins each record with the newest record of `versions` that is not newer than it and at most `within` older (both ends in).
    /// Say next whether records without a version are kept: [`AsOfJoin::left`] or [`AsOfJoin::inner`].
    ///
    /// # Panics
    /// As [`KeyedStream::connect`].
    pub fn as_of_join<B: StateValue>(
        self,
        versions: KeyedStream<K, B>,
        within: Duration,
    ) -> AsOfJoin<K, A, B> {
        AsOfJoin { connected: self.connect(versions).in_event_time_order(), within: span_millis(within) }
    }
}

/// An as-of join, waiting to be told what to make of records and versions.
pub struct AsOfJoin<K, A, B> {
    connected: KeyedStream<K, Either<A, B>>,
    within: i64,
}

impl<K: Key, A: StateValue, B: StateValue> AsOfJoin<K, A, B> {
    /// Gives the records and versions that are late for their own partition as a stream of their own; they are counted in any case.
    pub fn late_output(mut self, late: impl FnOnce(Stream<Late<K, Either<A, B>>>) + 'static) -> Self {
        self.connected = self.connected.in_event_time_order_with_late_output(late);
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
        let function = AsOf { within: self.within, join: Arc::new(join), records: PhantomData };
        self.connected.process_as("as_of_join", true, function)
    }
}

struct AsOf<J, A, B> {
    within: i64,
    join: Arc<J>,
    records: PhantomData<fn(A, B)>,
}

impl<J, A, B> Clone for AsOf<J, A, B> {
    fn clone(&self) -> Self {
        AsOf { within: self.within, join: Arc::clone(&self.join), records: PhantomData }
    }
}

impl<J, A: StateValue, B: StateValue> AsOf<J, A, B> {
    /// The newest version, and its time.
    const VERSION: Value<(i64, B)> = Value::new("version");
    /// Records of the time at hand, which wait for versions of that time.
    const WAITING: Value<Vec<A>> = Value::new("waiting");
}

impl<K: Key, A: StateValue, B: StateValue, R: Send + 'static, J> ProcessFunction<K, Either<A, B>>
    for AsOf<J, A, B>
where
    J: Fn(&K, A, Option<&B>) -> Option<R> + Send + Sync + 'static,
{
    type Out = R;

    fn on_record(
        &mut self,
        _key: &K,
        record: Either<A, B>,
        cx: &mut Context<'_, K, R>,
    ) -> Result<(), BoxError> {
        let time = cx.time();
        match record {
            Either::Left(record) => {
                cx.state(Self::WAITING).update(Vec::new, |waiting| waiting.push(record))?;
                cx.timer(time.plus_millis(1))
            }
            Either::Right(version) => cx.state(Self::VERSION).set((time.millis(), version)),
        }
    }

    fn on_timer(&mut self, key: &K, time: Timestamp, cx: &mut Context<'_, K, R>) -> Result<(), BoxError> {
        let Some(waiting) = cx.state(Self::WAITING).take()? else { return Ok(()) };
        let at = time.minus_millis(1);
        let oldest = at.minus_millis(self.within).millis();
        let version = cx.state(Self::VERSION).get()?.filter(|(since, _)| *since >= oldest);
        let version = version.as_ref().map(|(_, version)| version);
        for record in waiting {
            if let Some(row) = (self.join)(key, record, version) {
                cx.emit_at(at, row);
            }
        }
        Ok(())
    }
}
