//! `deduplicate`: of the records of a key that come within some time of each other, one.
//!
//! 1. Records run in event-time order. The first of a key opens a span of that time, both ends in.
//! 2. Others of the key within the span are duplicates: they neither open a span nor make it longer. One after its end opens the next.
//! 3. Of each span the first record is told at once, or the last one when the span is over.
//!
//! So which records are kept is a property of the log. A timer at the end of each span clears its state. (Deduplication of Flink SQL keeps the
//! first or last row by event time; there a TTL of processing time bounds its state, and replays differ.)

use super::{KeyedStream, Stream};
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction};
use crate::time::{Timestamp, span_millis};
use rivermark_state::{Key, StateValue, Value};
use std::marker::PhantomData;
use std::time::Duration;

/// Which of several records that are duplicates of each other is kept.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The first in event-time order. It is told at its own time.
    First,
    /// The last in event-time order. It is told when nothing can replace it any more, at the end of the span: as the row of a window, it has that
    /// event time and not its own.
    Last,
}

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// Keeps one record of each key of those `within` a time of the first of them (both ends in), and drops the others.
    ///
    /// Records wait for the watermark, and late ones are left out, as in [`KeyedStream::in_event_time_order`]. The state is a mark or a record for
    /// each key with an open span, and a timer. The end of a bounded stream ends the open spans.
    ///
    /// ```
    /// use rivermark_operators::{Keep, Timestamp, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (orders, stream) = it.input::<(u32, &str)>();
    ///     let orders_by_id = stream.map(|(id, text)| (id, text.to_string())).key_by(|(id, _)| *id);
    ///     let rows = it.output(orders_by_id.deduplicate(Keep::First, millis(100)));
    ///     it.push(&orders, at(120), (7, "sent again"));
    ///     it.push(&orders, at(50), (7, "sent"));
    ///     it.push(&orders, at(151), (7, "sent much later"));
    ///     it.end(&orders);
    ///     let expected = [(at(50), (7, "sent".to_string())), (at(151), (7, "sent much later".to_string()))];
    ///     it.expect_at(&rows, expected);
    /// });
    /// ```
    pub fn deduplicate(self, keep: Keep, within: Duration) -> Stream<V> {
        let within = span_millis(within);
        let ordered = self.surely_in_event_time_order();
        match keep {
            Keep::First => ordered.process_as("deduplicate", true, First { within, records: PhantomData }),
            Keep::Last => ordered.process_as("deduplicate", true, Last { within, records: PhantomData }),
        }
    }
}

/// When the span is over that a record of `time` opens: the first moment behind it.
fn over_at(time: Timestamp, within: i64) -> Timestamp {
    time.plus_millis(within).plus_millis(1)
}

struct First<V> {
    within: i64,
    records: PhantomData<fn(V)>,
}

impl<V> Clone for First<V> {
    fn clone(&self) -> Self {
        First { ..*self }
    }
}

/// That a span is open.
const OPEN: Value<()> = Value::new("open");

impl<K: Key, V: Send + 'static> ProcessFunction<K, V> for First<V> {
    type Out = V;

    fn on_record(&mut self, _key: &K, record: V, cx: &mut Context<'_, K, V>) -> Result<(), BoxError> {
        let mut is_first = false;
        cx.state(OPEN).update(|| is_first = true, |()| ())?;
        if !is_first {
            return Ok(());
        }
        let over_at = over_at(cx.time(), self.within);
        cx.emit(record);
        cx.timer(over_at)
    }

    fn on_timer(&mut self, _key: &K, _: Timestamp, cx: &mut Context<'_, K, V>) -> Result<(), BoxError> {
        cx.state(OPEN).clear()
    }
}

struct Last<V> {
    within: i64,
    records: PhantomData<fn(V)>,
}

impl<V> Clone for Last<V> {
    fn clone(&self) -> Self {
        Last { ..*self }
    }
}

impl<V: StateValue> Last<V> {
    /// The last record of the open span.
    const LAST: Value<V> = Value::new("last");
}

impl<K: Key, V: StateValue> ProcessFunction<K, V> for Last<V> {
    type Out = V;

    fn on_record(&mut self, _key: &K, record: V, cx: &mut Context<'_, K, V>) -> Result<(), BoxError> {
        let replaced = cx.state(Self::LAST).take()?;
        cx.state(Self::LAST).set(record)?;
        match replaced {
            Some(_) => Ok(()),
            None => cx.timer(over_at(cx.time(), self.within)),
        }
    }

    fn on_timer(&mut self, _key: &K, _: Timestamp, cx: &mut Context<'_, K, V>) -> Result<(), BoxError> {
        if let Some(record) = cx.state(Self::LAST).take()? {
            cx.emit_settled(record);
        }
        Ok(())
    }
}
