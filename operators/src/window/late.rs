//! Late records: counted always, passed on where somebody wants them.

use super::Late;
use crate::batch::Stamp;
use crate::context::{CheckpointParts, OperatorMetrics, TaskContext};
use crate::edge::{Output, Signal};
use crate::error::Result;
use std::cell::Cell;
use std::sync::Arc;

/// How many records were late.
pub(crate) struct LateCount {
    metrics: Arc<OperatorMetrics>,
    /// Since this task was built; the checkpoint adds up those of all tasks and attempts.
    count: Cell<u64>,
}

impl LateCount {
    pub(crate) fn new(metrics: Arc<OperatorMetrics>) -> Self {
        LateCount { metrics, count: Cell::new(0) }
    }

    pub(crate) fn add_one(&self) {
        self.count.set(self.count.get() + 1);
        self.metrics.add_late(1);
    }

    pub(crate) fn save(&self, parts: &mut CheckpointParts) {
        parts.counters.push((Arc::clone(&self.metrics.name), self.count.get()));
    }
}

pub(crate) struct LateRecords<K, V> {
    out: Option<Output<Late<K, V>>>,
    count: LateCount,
}

impl<K, V> LateRecords<K, V> {
    pub(crate) fn new(out: Option<Output<Late<K, V>>>, metrics: Arc<OperatorMetrics>) -> Self {
        LateRecords { out, count: LateCount::new(metrics) }
    }

    pub(crate) fn take(&mut self, stamp: Stamp, key: K, value: V, windows_missed: u64) {
        self.count.add_one();
        if let Some(out) = &mut self.out {
            out.push(stamp, Late { key, value, windows_missed });
        }
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

    pub(crate) fn save(&self, parts: &mut CheckpointParts) {
        self.count.save(parts);
    }
}
