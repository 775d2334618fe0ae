//! `flat_map`, `try_flat_map`, `filter_map`: one record in, any number out.

use super::Stream;
use crate::batch::Batch;
use crate::context::{BlameCell, TaskContext};
use crate::dead_letters::Failures;
use crate::edge::{Operator, Output, Signal};
use crate::error::{BoxError, Result};
use crate::plan::{NodeKind, NodeSpec};
use std::sync::Arc;

impl<T: Send + 'static> Stream<T> {
    /// Replaces each record by all that `f` makes of it, in order. Each result has the record's time and provenance.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// testing::check(|it| {
    ///     let (lines, stream) = it.input::<&str>();
    ///     let words = it.output(stream.flat_map(|line| line.split(' ')));
    ///     it.push(&lines, Timestamp::MIN, "to be or");
    ///     it.push(&lines, Timestamp::MIN, "not");
    ///     it.expect(&words, ["to", "be", "or", "not"]);
    /// });
    /// ```
    pub fn flat_map<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(T) -> I + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.flat_mapping("flat_map", false, move |value| Ok(f(value)))
    }

    /// As [`Stream::flat_map`], for functions that can fail: an error stops the job and names the record, or makes the record a dead letter
    /// ([`Stream::on_error`]).
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// testing::check(|it| {
    ///     let (lines, stream) = it.input::<&str>();
    ///     let numbers = it.output(stream.try_flat_map(|line| Ok(line.split(' ').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>()?)));
    ///     it.push(&lines, Timestamp::MIN, "3 1 4");
    ///     it.expect(&numbers, [3, 1, 4]);
    /// });
    /// ```
    pub fn try_flat_map<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        f: impl Fn(T) -> Result<I, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.flat_mapping("flat_map", true, f)
    }

    /// Keeps what `f` makes of records where it makes something: a `map` and a `filter` in one.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<u64>();
    ///     let rows = it.output(stream.filter_map(|n| n.checked_sub(2)));
    ///     (1..=4).for_each(|n| it.push(&numbers, Timestamp::MIN, n));
    ///     it.expect(&rows, [0, 1, 2]);
    /// });
    /// ```
    pub fn filter_map<U: Send + 'static>(
        self,
        f: impl Fn(T) -> Option<U> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        self.flat_mapping("filter_map", false, move |value| Ok(f(value)))
    }

    fn flat_mapping<U: Send + 'static, I: IntoIterator<Item = U>>(
        self,
        label: &'static str,
        can_fail: bool,
        f: impl Fn(T) -> Result<I, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        let spec = NodeSpec { can_fail, ..NodeSpec::new(label, NodeKind::Transform, vec![], 1) };
        self.then(spec, move |builder, port| {
            let (out, failures) = (builder.output::<U>(port), Failures::open(builder));
            let (name, blame) = (builder.name(), builder.blame());
            builder.attach(0, FlatMapping { name, blame, f: f.clone(), out, failures });
            Ok(())
        })
    }
}

struct FlatMapping<F, U> {
    name: Arc<str>,
    blame: BlameCell,
    f: F,
    out: Output<U>,
    failures: Failures,
}

impl<T, U, I: IntoIterator<Item = U>, F: Fn(T) -> Result<I, BoxError>> Operator<T> for FlatMapping<F, U> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        batch.try_drain(|stamp, value| {
            watch.at(stamp);
            let results = match (self.f)(value) {
                Ok(results) => results,
                Err(error) => return self.failures.take(stamp, error, &watch),
            };
            for result in results {
                self.out.push(*stamp, result);
                // One record may become millions: they go on in batches, not in one.
                if self.out.is_full() {
                    self.out.send(cx)?;
                }
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
