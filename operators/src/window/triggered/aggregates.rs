//! The aggregates of [`WindowedStream`](crate::WindowedStream), over each pane.

use super::TriggeredWindows;
use super::mode::Panes;
use crate::stream::Stream;
use crate::window::aggregate::{Average, Count, Fold, Max, Min, Reading, Sum, Summand};
use crate::window::reduce::Reduce;
use crate::window::top_n::TopN;
use rivermark_state::{Key, StateValue};

impl<K: Key, V: StateValue, M: Panes> TriggeredWindows<K, V, M> {
    /// Counts the records of each pane.
    pub fn count(self) -> Stream<M::Row<K, u64>> {
        self.aggregate(Count)
    }

    /// Adds up what `read` gives for each record. A sum that overflows stops the job.
    pub fn sum<N: StateValue + Sync + Summand>(
        self,
        read: impl Fn(&V) -> N + Clone + Send + Sync + 'static,
    ) -> Stream<M::Row<K, N>> {
        self.aggregate(Reading::<_, Sum>::new(read))
    }

    /// The least of what `read` gives.
    pub fn min<N: StateValue + Sync + PartialOrd>(
        self,
        read: impl Fn(&V) -> N + Clone + Send + Sync + 'static,
    ) -> Stream<M::Row<K, N>> {
        self.aggregate(Reading::<_, Min>::new(read))
    }

    /// The greatest of what `read` gives.
    pub fn max<N: StateValue + Sync + PartialOrd>(
        self,
        read: impl Fn(&V) -> N + Clone + Send + Sync + 'static,
    ) -> Stream<M::Row<K, N>> {
        self.aggregate(Reading::<_, Max>::new(read))
    }

    /// The mean of what `read` gives. Records are added in turn, so it is the same in every replay to the last bit.
    pub fn average(self, read: impl Fn(&V) -> f64 + Clone + Send + Sync + 'static) -> Stream<M::Row<K, f64>> {
        self.aggregate(Average(read))
    }

    /// Folds the records into an accumulator, in turn; `merge` adds one accumulator to another, where sessions join.
    pub fn fold<A: StateValue + Sync>(
        self,
        initial: A,
        add: impl Fn(&mut A, &V) + Clone + Send + Sync + 'static,
        merge: impl Fn(&mut A, &A) + Clone + Send + Sync + 'static,
    ) -> Stream<M::Row<K, A>> {
        self.aggregate(Fold { initial, add, merge })
    }

    /// The `n` records of each pane that have the greatest score, those first; see
    /// [`WindowedStream::top_n`](crate::WindowedStream::top_n).
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn top_n<S: Ord>(
        self,
        n: usize,
        score: impl Fn(&V) -> S + Clone + Send + Sync + 'static,
    ) -> Stream<M::Row<K, Vec<V>>>
    where
        V: Sync,
    {
        self.aggregate(TopN::new(n, score))
    }

    /// Merges the records of each pane into one, in turn; sessions that join are merged in order of their starts.
    pub fn reduce(self, reduce: impl Fn(&mut V, &V) + Clone + Send + Sync + 'static) -> Stream<M::Row<K, V>>
    where
        V: Sync,
    {
        self.aggregate(Reduce(reduce))
    }
}
