//! `reduce`: the records of a window merged into one of their kind.

use super::{Aggregate, Windowed, WindowedStream};
use crate::stream::Stream;
use rivermark_state::{Key, StateValue};

impl<K: Key, V: StateValue + Sync> WindowedStream<K, V> {
    /// Merges the records of each window into one. Slices and sessions are merged in no particular order, so the function must be associative and
    /// commutative; where the order matters, see [`KeyedStream::reduce`](crate::KeyedStream::reduce).
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // The coldest and warmest of each ten milliseconds.
    ///     let (degrees, stream) = it.input::<(i32, i32)>();
    ///     let windows = stream.key_by(|_| "roof".to_string()).window(Windows::tumbling(millis(10)));
    ///     let spans = windows.reduce(|span, next| *span = (span.0.min(next.0), span.1.max(next.1)));
    ///     let rows = it.output(spans.map(|row| row.value));
    ///     [(1, 21), (5, 19), (12, 25)].into_iter().for_each(|(time, n)| it.push(&degrees, at(time), (n, n)));
    ///     it.end(&degrees);
    ///     it.expect(&rows, [(19, 21), (25, 25)]);
    /// });
    /// ```
    pub fn reduce(
        self,
        reduce: impl Fn(&mut V, &V) + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, V>> {
        self.aggregate(Reduce(reduce))
    }
}

/// An aggregate that merges records with each other.
#[derive(Clone)]
pub(super) struct Reduce<F>(pub(super) F);

impl<V: StateValue + Sync, F: Fn(&mut V, &V) + Clone + Send + Sync + 'static> Aggregate<V> for Reduce<F> {
    type Acc = Option<V>;
    type Out = V;

    fn create(&self) -> Option<V> {
        None
    }

    fn add(&self, acc: &mut Option<V>, value: &V) {
        match acc {
            None => *acc = Some(value.clone()),
            Some(total) => (self.0)(total, value),
        }
    }

    fn merge(&self, acc: &mut Option<V>, other: &Option<V>) {
        if let Some(other) = other {
            self.add(acc, other);
        }
    }

    fn finish(&self, acc: &Option<V>) -> V {
        acc.clone().expect("a window that fires has at least one record")
    }
}
