//! `flat_map`, `filter_map`: one record in, any number out.

use super::Stream;
use crate::batch::Batch;
use crate::context::{BlameCell, TaskContext};
use crate::edge::{Operator, Output, Signal};
use crate::error::Result;
use crate::plan::{NodeKind, NodeSpec};
use std::sync::Arc;

impl<T: Send + 'static> Stream<T> {
    /// Replaces each record by all that `f` makes of it, in order. Each result has the record's time and provenance.
    pub fn flat_map<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(T) -> I + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.flat_mapping("flat_map", f)
    }

    /// Keeps what `f` makes of records where it makes something: a `map` and a `filter` in one.
    pub fn filter_map<U: Send + 'static>(
        self,
        f: impl Fn(T) -> Option<U> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.flat_mapping("filter_map", f)
    }

    fn flat_mapping<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        label: &'static str,
        f: impl Fn(T) -> I + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.then(NodeSpec::new(label, NodeKind::Transform, vec![], 1), move |builder, port| {
            let out = builder.output::<U>(port);
            builder
                .attach(0, FlatMapping { name: builder.name(), blame: builder.blame(), f: f.clone(), out });
            Ok(())
        })
    }
}

struct FlatMapping<F, U> {
    name: Arc<str>,
    blame: BlameCell,
    f: F,
    out: Output<U>,
}

impl<T, U, I: IntoIterator<Item = U>, F: Fn(T) -> I> Operator<T> for FlatMapping<F, U> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        batch.try_drain(|stamp, value| {
            watch.at(stamp);
            for result in (self.f)(value) {
                self.out.push(*stamp, result);
                // One record may become millions: they go on in batches, not in one.
                if self.out.is_full() {
                    self.out.send(cx)?;
                }
            }
            Ok(())
        })?;
        drop(watch);
        self.out.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}
