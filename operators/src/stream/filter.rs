//! `filter`, `inspect`: the same records, fewer of them or just looked at.

use super::Stream;
use crate::batch::Batch;
use crate::context::{BlameCell, TaskContext};
use crate::edge::{Operator, Output, Signal};
use crate::error::Result;
use crate::plan::{NodeKind, NodeSpec};
use std::sync::Arc;

impl<T: Send + 'static> Stream<T> {
    /// Keeps the records for which `keep` answers true.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<u64>();
    ///     let rows = it.output(stream.filter(|n| n % 2 == 0));
    ///     (1..=4).for_each(|n| it.push(&numbers, Timestamp::MIN, n));
    ///     it.expect(&rows, [2, 4]);
    /// });
    /// ```
    pub fn filter(self, keep: impl Fn(&T) -> bool + Clone + Send + Sync + 'static) -> Stream<T> {
        self.filtering("filter", keep)
    }

    /// Shows each record to `look` and passes it on unchanged.
    ///
    /// ```
    /// use rivermark_operators::{Stream, Timestamp};
    ///
    /// /// Shows what comes by, for as long as one wonders.
    /// fn shown(stream: Stream<(String, Timestamp)>) -> Stream<(String, Timestamp)> {
    ///     stream.inspect(|(page, at)| println!("{at}: {page}"))
    /// }
    /// ```
    pub fn inspect(self, look: impl Fn(&T) + Clone + Send + Sync + 'static) -> Stream<T> {
        self.filtering("inspect", move |value| {
            look(value);
            true
        })
    }

    fn filtering(
        self,
        label: &'static str,
        keep: impl Fn(&T) -> bool + Clone + Send + Sync + 'static,
    ) -> Stream<T> {
        self.then(NodeSpec::new(label, NodeKind::Transform, vec![], 1), move |builder, port| {
            let out = builder.output::<T>(port);
            builder.attach(
                0,
                Filtering { name: builder.name(), blame: builder.blame(), keep: keep.clone(), out },
            );
            Ok(())
        })
    }
}

struct Filtering<F, T> {
    name: Arc<str>,
    blame: BlameCell,
    keep: F,
    out: Output<T>,
}

impl<T, F: Fn(&T) -> bool> Operator<T> for Filtering<F, T> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        batch.retain(|stamp, value| {
            watch.at(stamp);
            (self.keep)(value)
        });
        drop(watch);
        self.out.forward(batch, cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}
