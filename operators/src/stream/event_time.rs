//! `event_time`: tells each record's time and the watermark of its partition.
//!
//! 1. Each source partition that this task reads has a watermark generator of its own, moved after every record.
//! 2. A record's stamp takes its time, and its partition's watermark as it was just before: all that lateness will ever depend on.
//! 3. The task's watermark is the minimum over its partitions ([`Frontier`]); idle partitions are left out until they speak again,
//!    and then begin at the watermark that did not wait for them.
//! 4. At a barrier the partitions' watermarks go into the checkpoint beside their positions, so they move with them to another worker.

use super::Stream;
use crate::batch::Batch;
use crate::context::{BlameCell, OperatorMetrics, PartitionStatePart, TaskContext};
use crate::edge::{Operator, Output, PartitionChange, Signal};
use crate::error::{Error, Result};
use crate::frontier::{Frontier, Moved};
use crate::partitions::{PartitionEntry, Partitions};
use crate::plan::{NodeKind, NodeSpec};
use crate::time::{Timestamp, span_millis};
use crate::watermark::{PartitionWatermark, Watermarks};
use std::sync::Arc;

impl<T: Send + 'static> Stream<T> {
    /// Tells event time: `time` reads it from a record, `watermarks` says how far out of order records may be.
    ///
    /// Call it before [`Stream::key_by`]: watermarks are told apart by source partition, and an exchange mixes those. Behind one it is an
    /// error of [`Flow::into_plan`](crate::Flow::into_plan); what comes out of windows and functions has event time already. So is a union
    /// of two streams of one source: the order of its records, which watermarks depend on, would depend on the moment.
    pub fn event_time(
        self,
        time: impl Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
        watermarks: Watermarks,
    ) -> Stream<T> {
        self.set_idle_after(watermarks.idle_after);
        let mut spec = NodeSpec::new("event_time", NodeKind::Transform, vec![], 1);
        spec.gives_event_time = true;
        spec.needs_partitions = true;
        self.then(spec, move |builder, port| {
            let out = builder.output::<T>(port);
            builder.attach(
                0,
                TellingTime {
                    name: builder.name(),
                    blame: builder.blame(),
                    metrics: builder.metrics(),
                    table: Arc::clone(&builder.environment().partitions),
                    watermarks: watermarks.clone(),
                    time: time.clone(),
                    partitions: Vec::new(),
                    current: None,
                    frontier: Frontier::new(0),
                    out,
                },
            );
            Ok(())
        })
    }
}

struct Partition {
    entry: Arc<PartitionEntry>,
    watermark: PartitionWatermark,
}

struct TellingTime<F, T> {
    name: Arc<str>,
    blame: BlameCell,
    metrics: Arc<OperatorMetrics>,
    table: Arc<Partitions>,
    watermarks: Watermarks,
    time: F,
    /// In the order of the frontier's inputs.
    partitions: Vec<Partition>,
    /// Which of them the last record was from.
    current: Option<usize>,
    frontier: Frontier,
    out: Output<T>,
}

impl<F, T> TellingTime<F, T> {
    fn position(&self, index: u16) -> Option<usize> {
        self.partitions.iter().position(|partition| partition.entry.index == index)
    }

    /// Starts a partition's watermark, from the checkpoint if there is one.
    fn open(&mut self, index: u16) -> Result<()> {
        let entry = self.table.get(index).expect("the source announces partitions of the table");
        let mut watermark = self.watermarks.start();
        if let Some(saved) = entry.restored(&self.name)
            && !watermark.restore(saved)
        {
            let attempt = format!("restoring the watermark of {}", entry.name);
            return Err(Error::state(&self.name, attempt, "the checkpoint's bytes are not a watermark"));
        }
        entry.set_watermark(watermark.watermark());
        entry.set_max_drift(self.watermarks.max_drift.map_or(i64::MAX, span_millis));
        self.frontier.add(watermark.watermark());
        self.partitions.push(Partition { entry, watermark });
        Ok(())
    }

    fn change(&mut self, change: PartitionChange) -> Result<Moved> {
        let (PartitionChange::Opened(index)
        | PartitionChange::Idle(index)
        | PartitionChange::Active(index)
        | PartitionChange::Ended(index)) = change;
        if let PartitionChange::Opened(_) = change {
            self.open(index)?;
            return Ok(Moved::Nothing);
        }
        let Some(at) = self.position(index) else { return Ok(Moved::Nothing) };
        let combined = self.frontier.watermark();
        let partition = &mut self.partitions[at];
        // Another branch of the flow may have asked for idleness; here it counts only where this one did.
        let may_idle = self.watermarks.idle_after.is_some();
        Ok(match change {
            PartitionChange::Idle(_) if may_idle => {
                partition.entry.set_idle(true);
                self.frontier.idle(at)
            }
            PartitionChange::Active(_) if may_idle => {
                partition.watermark.raise(combined);
                partition.entry.set_watermark(partition.watermark.watermark());
                partition.entry.set_idle(false);
                self.frontier.active(at)
            }
            PartitionChange::Ended(_) => {
                partition.entry.set_ended();
                self.frontier.end(at)
            }
            PartitionChange::Opened(_) | PartitionChange::Idle(_) | PartitionChange::Active(_) => {
                Moved::Nothing
            }
        })
    }

    fn moved(&mut self, moved: Moved, cx: &mut TaskContext<'_>) -> Result<()> {
        for signal in moved.signals() {
            if let Signal::Watermark(to) = signal {
                self.metrics.set_watermark(to);
            }
            self.out.signal(signal, cx)?;
        }
        Ok(())
    }
}

impl<T, F: Fn(&T) -> Timestamp> Operator<T> for TellingTime<F, T> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        let (stamps, values) = batch.columns_mut();
        // A batch of one reader is of one partition; a union's may change in between, and then moves the frontier each time.
        let mut start = 0;
        let mut touched = Vec::new();
        while start < stamps.len() {
            let index = stamps[start].origin.partition();
            let run = stamps[start..].iter().take_while(|stamp| stamp.origin.partition() == index).count();
            let at = match self.current {
                Some(at) if Some(self.partitions[at].entry.index) == index => at,
                _ => index
                    .and_then(|index| self.partitions.iter().position(|p| p.entry.index == index))
                    .expect("event_time follows a source in the same task, which announces its partitions"),
            };
            self.current = Some(at);
            let watermark = &mut self.partitions[at].watermark;
            for (stamp, value) in stamps[start..start + run].iter_mut().zip(&values[start..]) {
                watch.at(stamp);
                stamp.time = (self.time)(value);
                stamp.watermark = watermark.on_record(stamp.time);
            }
            touched.push(at);
            start += run;
        }
        drop(watch);
        self.out.forward(batch, cx)?;
        for at in touched {
            let partition = &self.partitions[at];
            let watermark = partition.watermark.watermark();
            partition.entry.set_watermark(watermark);
            let moved = self.frontier.advance(at, watermark);
            self.moved(moved, cx)?;
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // What was known of time upstream is replaced.
            Signal::Watermark(_) => Ok(()),
            Signal::Partition(change) => {
                let moved = self.change(change)?;
                self.out.signal(signal, cx)?;
                self.moved(moved, cx)
            }
            Signal::Barrier(_) => {
                for partition in &self.partitions {
                    cx.parts.partition_states.push(PartitionStatePart {
                        operator: Arc::clone(&self.name),
                        partition: partition.entry.index,
                        state: partition.watermark.save(),
                    });
                }
                self.out.signal(signal, cx)
            }
            Signal::Idle | Signal::Vacant | Signal::Active | Signal::End => self.out.signal(signal, cx),
        }
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}
