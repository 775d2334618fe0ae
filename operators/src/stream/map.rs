//! `map`, `try_map`: one record in, one out.

use super::Stream;
use crate::batch::Batch;
use crate::context::{BlameCell, TaskContext};
use crate::dead_letters::Failures;
use crate::edge::{Operator, Output, Signal};
use crate::error::{BoxError, Result};
use crate::plan::{NodeKind, NodeSpec};
use std::sync::Arc;

impl<T: Send + 'static> Stream<T> {
    /// Replaces each record by what `f` makes of it. Time and provenance stay.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<u64>();
    ///     let rows = it.output(stream.map(|n| format!("{n}!")));
    ///     (1..=4).for_each(|n| it.push(&numbers, Timestamp::MIN, n));
    ///     it.expect(&rows, ["1!", "2!", "3!", "4!"].map(str::to_string));
    /// });
    /// ```
    pub fn map<U: Send + 'static>(self, f: impl Fn(T) -> U + Clone + Send + Sync + 'static) -> Stream<U> {
        self.mapping(false, move |value| Ok(f(value)))
    }

    /// As [`Stream::map`], for functions that can fail: an error stops the job and names the record, or makes the record a dead letter
    /// ([`Stream::on_error`]).
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// testing::check(|it| {
    ///     let (texts, stream) = it.input::<&str>();
    ///     let numbers = it.output(stream.try_map(|text| Ok(text.parse::<u32>()?)));
    ///     it.push(&texts, Timestamp::MIN, "17");
    ///     it.expect(&numbers, [17]);
    /// });
    ///
    /// let mut it = testing::Harness::new();
    /// let (texts, stream) = it.input::<&str>();
    /// it.output(stream.try_map(|text| Ok(text.parse::<u32>()?)));
    /// assert!(it.try_push(&texts, Timestamp::MIN, "seventeen").is_err());
    /// ```
    pub fn try_map<U: Send + 'static>(
        self,
        f: impl Fn(T) -> Result<U, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.mapping(true, f)
    }

    fn mapping<U: Send + 'static>(
        self,
        can_fail: bool,
        f: impl Fn(T) -> Result<U, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        let spec = NodeSpec { can_fail, ..NodeSpec::new("map", NodeKind::Transform, vec![], 1) };
        self.then(spec, move |builder, port| {
            let (out, failures) = (builder.output::<U>(port), Failures::open(builder));
            let (name, blame) = (builder.name(), builder.blame());
            builder.attach(0, Mapping { name, blame, f: f.clone(), out, failures });
            Ok(())
        })
    }
}

struct Mapping<F, U> {
    name: Arc<str>,
    blame: BlameCell,
    f: F,
    out: Output<U>,
    failures: Failures,
}

impl<T, U, F: Fn(T) -> Result<U, BoxError>> Operator<T> for Mapping<F, U> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        batch.try_drain(|stamp, value| {
            watch.at(stamp);
            match (self.f)(value) {
                Ok(value) => self.out.push(*stamp, value),
                Err(error) => self.failures.take(stamp, error, &watch)?,
            }
            Ok(())
        })?;
        drop(watch);
        self.failures.send(cx)?;
        self.out.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.failures.signal(signal, cx)?;
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.failures.flush(cx)?;
        self.out.flush(cx)
    }
}
