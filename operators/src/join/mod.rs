//! Joins: two keyed streams become one.
//!
//! [`KeyedStream::connect`] brings the records of two streams to the worker that owns their key; what is done with them there is a
//! [`ProcessFunction`](crate::process::ProcessFunction) over [`Either`] (Flink's `connect` and `CoProcessFunction`). Ready made are
//! [`KeyedStream::interval_join`] of records that are close in event time, [`KeyedStream::window_join`] of those in the same window,
//! [`KeyedStream::as_of_join`] with the version that was valid, and [`KeyedStream::join_table`] with a row of a [`Table`](crate::Table).
//! [`KeyedStream::process_with_broadcast`] lets a function see all of a small table. Tables are joined with each other by
//! [`Table::join`](crate::Table::join). Which rows they give is a property of the log: neither speed nor the number of workers matters.

mod as_of;
mod broadcast;
mod enrich;
mod interval;
mod stream_table;
mod window;

pub use as_of::AsOfJoin;
pub use broadcast::{BroadcastContext, BroadcastFunction, Placed};
pub use interval::{Interval, IntervalJoin};
pub use stream_table::StreamTableJoin;
pub use window::WindowJoin;

use crate::exchange::Keyed;
use crate::stream::{KeyedStream, Stream};
use rivermark_state::Key;
use serde::{Deserialize, Serialize};

/// A record of one of two streams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Either<A, B> {
    /// Of the stream on which the method was called.
    Left(A),
    /// Of the other one.
    Right(B),
}

/// What a joined row is made of: two records, or one that meets none.
enum Pair<'a, A, B> {
    Both(&'a A, &'a B),
    Left(&'a A),
    Right(&'a B),
}

/// What each kind of join wants of it.
impl<'a, A, B> Pair<'a, A, B> {
    fn inner(self) -> Option<(&'a A, &'a B)> {
        if let Pair::Both(left, right) = self { Some((left, right)) } else { None }
    }

    fn left(self) -> Option<(&'a A, Option<&'a B>)> {
        let (left, right) = self.full();
        left.map(|left| (left, right))
    }

    fn right(self) -> Option<(Option<&'a A>, &'a B)> {
        let (left, right) = self.full();
        right.map(|right| (left, right))
    }

    fn full(self) -> (Option<&'a A>, Option<&'a B>) {
        match self {
            Pair::Both(left, right) => (Some(left), Some(right)),
            Pair::Left(left) => (Some(left), None),
            Pair::Right(right) => (None, Some(right)),
        }
    }
}

impl<K: Key, A: Send + 'static> KeyedStream<K, A> {
    /// Brings the records of both streams together by key.
    ///
    /// ```
    /// use rivermark_operators::process::{Context, ProcessFunction};
    /// use rivermark_operators::{BoxError, Either, Timestamp, Value, testing};
    ///
    /// const FACTOR: Value<u32> = Value::new("factor");
    ///
    /// /// Multiplies by the newest factor.
    /// #[derive(Clone)]
    /// struct Multiply;
    ///
    /// impl ProcessFunction<u8, Either<u32, u32>> for Multiply {
    ///     type Out = u32;
    ///
    ///     fn on_record(&mut self, _: &u8, either: Either<u32, u32>, cx: &mut Context<'_, u8, u32>) -> Result<(), BoxError> {
    ///         match either {
    ///             Either::Left(number) => {
    ///                 let factor = cx.state(FACTOR).get()?.unwrap_or(1);
    ///                 cx.emit(number * factor);
    ///             }
    ///             Either::Right(factor) => cx.state(FACTOR).set(factor)?,
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((numbers, number), (factors, factor)) = (it.input::<u32>(), it.input::<u32>());
    ///     let both = number.key_by(|_| 0_u8).connect(factor.key_by(|_| 0_u8));
    ///     // Otherwise it would depend on the moment which of the two is read first.
    ///     let rows = it.output(both.in_event_time_order().process(Multiply));
    ///     it.push(&numbers, at(1), 5);
    ///     it.push(&numbers, at(3), 6);
    ///     it.push(&factors, at(2), 10);
    ///     it.end(&numbers);
    ///     it.end(&factors);
    ///     it.expect(&rows, [5, 60]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If the streams belong to different flows, or one of them was told to run in event-time order: that is for the connected stream.
    pub fn connect<B: Send + 'static>(self, other: KeyedStream<K, B>) -> KeyedStream<K, Either<A, B>> {
        assert!(
            self.order.is_none() && other.order.is_none(),
            "call in_event_time_order behind connect, not before: two streams that are each in order are not so together"
        );
        let left = either(self.keyed, Either::Left);
        KeyedStream { keyed: left.union(either(other.keyed, Either::Right)), order: None }
    }
}

fn either<K: Key, V: Send + 'static, E: Send + 'static>(
    keyed: Stream<Keyed<K, V>>,
    wrap: impl Fn(V) -> E + Clone + Send + Sync + 'static,
) -> Stream<Keyed<K, E>> {
    keyed.map(move |Keyed { hash, key, value }| Keyed { hash, key, value: wrap(value) })
}
