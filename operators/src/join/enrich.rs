//! Enrichment: each record with what the other stream says of its key at the record's time. The as-of join and the stream-table join are made
//! of it, and differ in what they remember.
//!
//! 1. Both streams run in event-time order, so that nothing is missed because it came late in processing time: a record waits for the
//!    watermark of both.
//! 2. What the other stream says is remembered. A record waits on, until everything of its own time has come, and is joined then.

use super::Either;
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, States};
use crate::stream::{KeyedStream, Stream};
use crate::time::Timestamp;
use rivermark_state::{Key, StateValue, Value};
use std::marker::PhantomData;
use std::sync::Arc;

/// What is remembered of the other stream's records, which are of type `C`.
pub(super) trait Remembers<K: Key, C>: Clone + Send + Sync + 'static {
    /// What a record is joined with.
    type Row: StateValue;

    /// Which states it has.
    fn states(&self, states: &mut States<'_, K>);

    /// Takes a record of the other stream.
    fn take<Out>(&self, record: C, cx: &mut Context<'_, K, Out>) -> Result<(), BoxError>;

    /// What is valid at `time`; everything up to then has been taken.
    fn valid_at<Out>(
        &self,
        time: Timestamp,
        cx: &mut Context<'_, K, Out>,
    ) -> Result<Option<Self::Row>, BoxError>;
}

/// Joins each left record with what `memory` has for it; a row has the record's time.
pub(super) fn enrich<K, A, C, M, R>(
    label: &'static str,
    connected: KeyedStream<K, Either<A, C>>,
    memory: M,
    join: impl Fn(&K, A, Option<&M::Row>) -> Option<R> + Send + Sync + 'static,
) -> Stream<R>
where
    K: Key,
    A: StateValue,
    C: Send + 'static,
    M: Remembers<K, C>,
    R: Send + 'static,
{
    connected.process_as(label, true, Enriching { memory, join: Arc::new(join), records: PhantomData })
}

struct Enriching<M, J, A> {
    memory: M,
    join: Arc<J>,
    records: PhantomData<fn(A)>,
}

impl<M: Clone, J, A> Clone for Enriching<M, J, A> {
    fn clone(&self) -> Self {
        Enriching { memory: self.memory.clone(), join: Arc::clone(&self.join), records: PhantomData }
    }
}

impl<M, J, A: StateValue> Enriching<M, J, A> {
    /// Records of the time at hand, which wait for the other stream's of that time.
    const WAITING: Value<Vec<A>> = Value::new("waiting");
}

impl<K: Key, A: StateValue, C, M, R, J> ProcessFunction<K, Either<A, C>> for Enriching<M, J, A>
where
    M: Remembers<K, C>,
    R: Send + 'static,
    J: Fn(&K, A, Option<&M::Row>) -> Option<R> + Send + Sync + 'static,
{
    type Out = R;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::WAITING);
        self.memory.states(states);
    }

    fn on_record(
        &mut self,
        _key: &K,
        record: Either<A, C>,
        cx: &mut Context<'_, K, R>,
    ) -> Result<(), BoxError> {
        match record {
            Either::Left(record) => {
                cx.state(Self::WAITING).update(Vec::new, |waiting| waiting.push(record))?;
                cx.settle_later()
            }
            Either::Right(record) => self.memory.take(record, cx),
        }
    }

    fn on_timer(&mut self, key: &K, _time: Timestamp, cx: &mut Context<'_, K, R>) -> Result<(), BoxError> {
        let Some(waiting) = cx.state(Self::WAITING).take()? else { return Ok(()) };
        let row = self.memory.valid_at(cx.settled_time(), cx)?;
        for record in waiting {
            if let Some(joined) = (self.join)(key, record, row.as_ref()) {
                cx.emit_settled(joined);
            }
        }
        Ok(())
    }
}
