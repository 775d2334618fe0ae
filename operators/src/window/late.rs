//! Late records: counted always, passed on where somebody wants them.

use super::Late;
use crate::batch::Stamp;
use crate::context::{CheckpointParts, OperatorMetrics, TaskContext};
use crate::edge::{Output, Signal};
use crate::error::Result;
use std::sync::Arc;

pub(crate) struct LateRecords<K, V> {
    out: Option<Output<Late<K, V>>>,
    metrics: Arc<OperatorMetrics>,
    /// Since this task was built; the checkpoint adds up those of all tasks and attempts.
    count: u64,
}

impl<K, V> LateRecords<K, V> {
    pub(crate) fn new(out: Option<Output<Late<K, V>>>, metrics: Arc<OperatorMetrics>) -> Self {
        LateRecords { out, metrics, count: 0 }
    }

    pub(crate) fn take(&mut self, stamp: Stamp, key: K, value: V, windows_missed: u64) {
        self.count += 1;
        self.metrics.add_late(1);
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
        parts.counters.push((Arc::clone(&self.metrics.name), self.count));
    }
}
