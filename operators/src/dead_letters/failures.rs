//! The failing operator's side.

use super::OnError;
use super::{RawRecord, letters};
use crate::batch::Stamp;
use crate::context::{OperatorMetrics, TaskContext, Watch};
use crate::edge::{Output, Signal};
use crate::error::{BoxError, Result};
use crate::exchange::Keyed;
use crate::plan::TaskBuilder;
use rivermark_state::StateError;
use std::sync::Arc;

/// What failed, beside the stamp of the record that it failed on.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(super) operator: Arc<str>,
    pub(super) error: String,
    /// The record's bytes, where they are at hand.
    pub(super) raw: Option<RawRecord>,
}

/// A failure, under the index of the record's source partition.
pub(crate) type Failed = Keyed<u16, Failure>;

/// What an operator does with the records that its function fails on.
pub(crate) struct Failures {
    name: Arc<str>,
    metrics: Arc<OperatorMetrics>,
    /// `None` if they stop the job.
    out: Option<Output<Failed>>,
}

impl Failures {
    /// As the user chose for the node being built.
    pub(crate) fn open(builder: &mut TaskBuilder<'_>) -> Failures {
        let port = builder.failures_port().filter(|_| builder.on_error() == OnError::DeadLetter);
        let out = port.map(|port| builder.output::<Failed>(port));
        Failures { name: builder.name(), metrics: builder.metrics(), out }
    }

    /// Whether they become dead letters.
    #[inline]
    pub(crate) fn are_kept(&self) -> bool {
        self.out.is_some()
    }

    /// Takes the record that `watch` looks at, whose stamp is `stamp`.
    ///
    /// # Errors
    /// It stops the job.
    #[cold]
    pub(crate) fn take(&mut self, stamp: &Stamp, error: BoxError, watch: &Watch<'_>) -> Result<()> {
        let error = self.describe(error, watch)?;
        self.push(*stamp, error, None);
        Ok(())
    }

    /// What a letter says of this error.
    ///
    /// # Errors
    /// It stops the job.
    #[cold]
    pub(crate) fn describe(&self, error: BoxError, watch: &Watch<'_>) -> Result<String> {
        if self.out.is_none() || is_of_state(&*error) {
            Err(watch.fail(error))
        } else {
            Ok(with_sources(&*error))
        }
    }

    /// Takes a record whose bytes are at hand.
    pub(crate) fn push(&mut self, stamp: Stamp, error: String, raw: Option<RawRecord>) {
        let Some(out) = &mut self.out else { return };
        self.metrics.add_dead_letter();
        let failure = Failure { operator: Arc::clone(&self.name), error, raw };
        out.push(stamp, letters::keyed(&stamp, failure));
    }

    /// Whether enough have come to be sent.
    #[inline]
    pub(crate) fn are_many(&self) -> bool {
        self.out.as_ref().is_some_and(Output::is_full)
    }

    pub(crate) fn send(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.as_mut().map_or(Ok(()), |out| out.send(cx))
    }

    pub(crate) fn signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.as_mut().map_or(Ok(()), |out| out.signal(signal, cx))
    }

    pub(crate) fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.as_mut().map_or(Ok(()), |out| out.flush(cx))
    }
}

/// Whether the state failed and not the function.
fn is_of_state(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<StateError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The error and those behind it, each once: many say what their source says.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}
