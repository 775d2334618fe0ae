//! `map`, `try_map`: one record in, one out.

use super::Stream;
use crate::batch::Batch;
use crate::context::{BlameCell, TaskContext};
use crate::edge::{Operator, Output, Signal};
use crate::error::{BoxError, Result};
use crate::plan::{NodeKind, NodeSpec};
use std::sync::Arc;

impl<T: Send + 'static> Stream<T> {
    /// Replaces each record by what `f` makes of it. Time and provenance stay.
    pub fn map<U: Send + 'static>(self, f: impl Fn(T) -> U + Clone + Send + Sync + 'static) -> Stream<U> {
        self.try_map(move |value| Ok(f(value)))
    }

    /// As [`Stream::map`], for functions that can fail: an error stops the job and names the record.
    pub fn try_map<U: Send + 'static>(
        self,
        f: impl Fn(T) -> Result<U, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.then(NodeSpec::new("map", NodeKind::Transform, vec![], 1), move |builder, port| {
            let out = builder.output::<U>(port);
            builder.attach(0, Mapping { name: builder.name(), blame: builder.blame(), f: f.clone(), out });
            Ok(())
        })
    }
}

struct Mapping<F, U> {
    name: Arc<str>,
    blame: BlameCell,
    f: F,
    out: Output<U>,
}

impl<T, U, F: Fn(T) -> Result<U, BoxError>> Operator<T> for Mapping<F, U> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        batch.try_drain(|stamp, value| {
            watch.at(stamp);
            let value = (self.f)(value).map_err(|e| watch.fail(e))?;
            self.out.push(*stamp, value);
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
