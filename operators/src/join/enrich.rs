//! Enrichment: each record with what the other stream says of its key at the record's time. The as-of join and the stream-table join are made
//! of it, and differ in what they remember.
//!
//! 1. Both streams run in event-time order, so that nothing is missed because it came late in processing time: a record waits for the
//!    watermark of both.
//! 2. What the other stream says is remembered. It says it before the records of its time run, so each record is joined when it runs.

use super::Either;
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, States, UseLate};
use crate::stream::{KeyedStream, Stream};
use rivermark_state::{Key, StateValue};
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

    /// Reads what is valid at the time in hand; everything up to then has been taken.
    fn read<Out, T>(
        &self,
        cx: &mut Context<'_, K, Out>,
        read: impl FnOnce(Option<&Self::Row>) -> T,
    ) -> Result<T, BoxError>;
}

/// Joins each left record with what `memory` has for it; a row has the record's time.
pub(super) fn enrich<K, A, C, M, R>(
    label: &'static str,
    connected: KeyedStream<K, Either<A, C>>,
    late: Option<UseLate<K, Either<A, C>>>,
    memory: M,
    join: impl Fn(&K, A, Option<&M::Row>) -> Option<R> + Send + Sync + 'static,
) -> Stream<R>
where
    K: Key,
    A: StateValue,
    C: StateValue,
    M: Remembers<K, C>,
    R: Send + 'static,
{
    let ordered = connected.in_event_time_order_with_first(late, |record| matches!(record, Either::Right(_)));
    ordered.process_as(label, true, Enriching { memory, join: Arc::new(join), records: PhantomData })
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

impl<K: Key, A: StateValue, C, M, R, J> ProcessFunction<K, Either<A, C>> for Enriching<M, J, A>
where
    M: Remembers<K, C>,
    R: Send + 'static,
    J: Fn(&K, A, Option<&M::Row>) -> Option<R> + Send + Sync + 'static,
{
    type Out = R;

    fn states(&self, states: &mut States<'_, K>) {
        self.memory.states(states);
        // Records of the time in hand; none when a checkpoint comes.
        states.had("waiting");
    }

    fn on_record(
        &mut self,
        key: &K,
        record: Either<A, C>,
        cx: &mut Context<'_, K, R>,
    ) -> Result<(), BoxError> {
        match record {
            Either::Left(record) => {
                let joined = self.memory.read(cx, |row| (self.join)(key, record, row))?;
                joined.into_iter().for_each(|joined| cx.emit(joined));
                Ok(())
            }
            Either::Right(record) => self.memory.take(record, cx),
        }
    }
}
