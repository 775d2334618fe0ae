//! `distinct`: of each key the first record, and never another (`SELECT DISTINCT`).

use super::{KeyedStream, Stream};
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, States};
use rivermark_state::{Key, StateValue, Value};
use std::marker::PhantomData;

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// Keeps the first record of each key in event-time order, and drops all others. To compare whole records, key them by themselves.
    ///
    /// Records wait for the watermark, and late ones are left out, as in [`KeyedStream::in_event_time_order`]. The state is a mark a key, and
    /// nothing lets go of it. A `distinct` that forgets a key after a time is [`KeyedStream::deduplicate`] with [`Keep::First`](crate::Keep::First): of each key
    /// the first record, and again the first that comes later than that.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (visits, stream) = it.input::<&str>();
    ///     let visitors = stream.map(str::to_string).key_by(String::clone).distinct();
    ///     let rows = it.output(visitors);
    ///     it.push(&visits, at(5), "ann");
    ///     it.push(&visits, at(9), "bob");
    ///     it.push(&visits, at(2), "ann");
    ///     it.end(&visits);
    ///     it.expect_at(&rows, [(at(2), "ann".to_string()), (at(9), "bob".to_string())]);
    /// });
    /// ```
    pub fn distinct(self) -> Stream<V> {
        self.surely_in_event_time_order().process_as("distinct", true, Distinct { records: PhantomData })
    }
}

struct Distinct<V> {
    records: PhantomData<fn(V)>,
}

impl<V> Clone for Distinct<V> {
    fn clone(&self) -> Self {
        Distinct { records: PhantomData }
    }
}

const SEEN: Value<()> = Value::new("seen");

impl<K: Key, V: Send + 'static> ProcessFunction<K, V> for Distinct<V> {
    type Out = V;

    fn states(&self, states: &mut States<'_, K>) {
        states.has(SEEN);
    }

    fn on_record(&mut self, _key: &K, record: V, cx: &mut Context<'_, K, V>) -> Result<(), BoxError> {
        let mut is_first = false;
        cx.state(SEEN).update(|| is_first = true, |()| ())?;
        if is_first {
            cx.emit(record);
        }
        Ok(())
    }
}
