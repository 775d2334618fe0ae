//! `reduce`: each record together with all before it of its key (the rolling reduce of Flink).
//!
//! Records run in event-time order. Each is merged into what came before it, and the result is told at the record's time. So the results are
//! a property of the log, also where the order of merging matters.

use super::{KeyedStream, Stream};
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, States};
use rivermark_state::{Key, Reducing, StateValue};
use std::marker::PhantomData;

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// Merges the records of each key, in event-time order: `reduce(all_before, next)`. Every record gives one result, at its time; the first of a
    /// key gives itself.
    ///
    /// Records wait for the watermark, and late ones are left out, as in [`KeyedStream::in_event_time_order`]. The state is one value a key, and
    /// nothing lets go of it: for results of a limited time, reduce windows ([`WindowedStream::reduce`](crate::WindowedStream::reduce)); to let go of a key that
    /// has been silent for a while, write a function with [`Reducing::expiring`](crate::Reducing::expiring).
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // What is in each account; 30 comes in before 20 is taken out, whichever is read first.
    ///     let (transfers, stream) = it.input::<(char, i64)>();
    ///     let balances = stream.key_by(|(account, _)| *account).reduce(|balance, next| balance.1 += next.1);
    ///     let rows = it.output(balances);
    ///     it.push(&transfers, at(2), ('a', -20));
    ///     it.push(&transfers, at(1), ('a', 30));
    ///     it.push(&transfers, at(3), ('b', 5));
    ///     it.end(&transfers);
    ///     it.expect_at(&rows, [(at(1), ('a', 30)), (at(2), ('a', 10)), (at(3), ('b', 5))]);
    /// });
    /// ```
    pub fn reduce(self, reduce: impl Fn(&mut V, V) + Clone + Send + Sync + 'static) -> Stream<V> {
        let function = Rolling { reduce, records: PhantomData };
        self.surely_in_event_time_order().process_as("reduce", true, function)
    }
}

struct Rolling<F, V> {
    reduce: F,
    records: PhantomData<fn(V)>,
}

impl<F: Clone, V> Clone for Rolling<F, V> {
    fn clone(&self) -> Self {
        Rolling { reduce: self.reduce.clone(), records: PhantomData }
    }
}

impl<F, V: StateValue> Rolling<F, V> {
    const TOTAL: Reducing<V> = Reducing::new("total");
}

impl<K: Key, V: StateValue, F: Fn(&mut V, V) + Clone + Send + Sync + 'static> ProcessFunction<K, V>
    for Rolling<F, V>
{
    type Out = V;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(Self::TOTAL);
    }

    fn on_record(&mut self, _key: &K, record: V, cx: &mut Context<'_, K, V>) -> Result<(), BoxError> {
        cx.state(Self::TOTAL).add(record, &self.reduce)?;
        if let Some(total) = cx.state(Self::TOTAL).get()? {
            cx.emit(total);
        }
        Ok(())
    }
}
