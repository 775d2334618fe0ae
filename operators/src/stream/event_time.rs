//! `event_time`: tells each record's time and the watermark of its partition.
//!
//! 1. Each source partition that this task reads has a watermark generator of its own, moved after every record.
//! 2. A record's stamp takes its time, and its partition's watermark as it was just before: all that lateness will ever depend on.
//! 3. The task's watermark is the minimum over its active partitions. Idle partitions are left out until they speak again, and those that
//!    appear later until they are found; then they begin at the watermark that did not wait for them. A task without an active
//!    partition passes on the time of the others ([`crate::clocks`]).
//! 4. At a barrier the partitions' watermarks go into the checkpoint beside their positions, so they move with them to another worker, and
//!    with them the decisions of point 3 that have made records late, so that a replay can repeat them.

use super::Stream;
use super::telling::Telling;
use crate::batch::Batch;
use crate::clocks::{Clock, Status};
use crate::context::{BlameCell, PartitionStatePart, TaskContext};
use crate::edge::{Operator, Output, PartitionChange, Signal};
use crate::error::{Error, Result};
use crate::partitions::PartitionEntry;
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
        spec.tells_time = true;
        self.then(spec, move |builder, port| {
            let out = builder.output::<T>(port);
            let telling = Telling::of(builder);
            builder.attach(
                0,
                TellingTime {
                    name: builder.name(),
                    blame: builder.blame(),
                    telling,
                    watermarks: watermarks.clone(),
                    time: time.clone(),
                    partitions: Vec::new(),
                    current: None,
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
    status: Status,
    clock: Arc<Clock>,
}

impl Partition {
    fn set(&mut self, status: Status) {
        self.status = status;
        self.clock.set(status);
    }

    /// Tells everybody how far it has come.
    fn publish(&self) {
        self.entry.set_watermark(self.watermark.watermark());
        self.clock.advance(self.watermark.watermark());
    }
}

struct TellingTime<F, T> {
    name: Arc<str>,
    blame: BlameCell,
    telling: Telling,
    watermarks: Watermarks,
    time: F,
    partitions: Vec<Partition>,
    /// Which of them the last record was from.
    current: Option<usize>,
    out: Output<T>,
}

impl<F, T> TellingTime<F, T> {
    /// Starts a partition's watermark, from the checkpoint if there is one, and not below what others may have reached without it.
    fn open(&mut self, index: u16) -> Result<()> {
        let entry = self.telling.entry(index);
        let mut watermark = self.watermarks.start();
        let known = match (entry.restored(&self.name), entry.earlier(&self.name)) {
            (Some(saved), _) => watermark.restore(saved),
            (None, Some(earlier)) => watermark.repeat(earlier),
            (None, None) => true,
        };
        if !known {
            let attempt = format!("restoring the watermark of {}", entry.name);
            return Err(Error::state(&self.name, attempt, "the checkpoint's bytes are not a watermark"));
        }
        watermark.raise(self.telling.sent());
        entry.set_max_drift(self.watermarks.max_drift.map_or(i64::MAX, span_millis));
        let clock = self.telling.clock(index, watermark.watermark());
        let partition = Partition { entry, watermark, status: Status::Active, clock };
        partition.publish();
        self.partitions.push(partition);
        Ok(())
    }

    fn change(&mut self, change: PartitionChange) -> Result<()> {
        let (PartitionChange::Opened(index)
        | PartitionChange::Idle(index)
        | PartitionChange::Active(index)
        | PartitionChange::Ended(index)) = change;
        if let PartitionChange::Opened(_) = change {
            return self.open(index);
        }
        let of_index = |partition: &&mut Partition| partition.entry.index == index;
        let Some(partition) = self.partitions.iter_mut().find(of_index) else { return Ok(()) };
        // Another branch of the flow may have asked for idleness; here it counts only where this one did.
        let may_idle = self.watermarks.idle_after.is_some();
        match change {
            PartitionChange::Idle(_) if may_idle => {
                partition.entry.set_idle(true);
                partition.set(Status::Idle);
            }
            PartitionChange::Active(_) if may_idle => {
                partition.watermark.raise(self.telling.sent());
                partition.publish();
                partition.entry.set_idle(false);
                partition.set(Status::Active);
            }
            PartitionChange::Ended(_) => {
                partition.entry.set_ended();
                partition.set(Status::Ended);
            }
            PartitionChange::Opened(_) | PartitionChange::Idle(_) | PartitionChange::Active(_) => {}
        }
        Ok(())
    }

    /// Passes on how far time has come: the minimum over this task's active partitions, or where it has none that of all tasks.
    fn settle(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        let active = self.partitions.iter().filter(|partition| partition.status == Status::Active);
        let least = active.map(|partition| partition.watermark.watermark()).min();
        self.telling.pass_on(least, &mut self.out, cx)
    }

    /// Whether time may have moved though none of this task's partitions has: others have it to themselves, or it stands where
    /// the checkpoint left it and has not been told since.
    fn may_have_moved(&self) -> bool {
        let active = self.partitions.iter().any(|partition| partition.status == Status::Active);
        !active || !self.telling.told() && self.telling.follow().is_some()
    }

    fn save(&mut self, cx: &mut TaskContext<'_>) {
        cx.parts.watermarks.push((Arc::clone(&self.name), self.telling.sent()));
        for partition in &mut self.partitions {
            // Who takes it over may not have passed on so much. At the end of time there is nothing to be behind of.
            if partition.status != Status::Active && self.telling.sent() < Timestamp::MAX {
                partition.watermark.raise(self.telling.sent());
            }
            cx.parts.partition_states.push(PartitionStatePart {
                operator: Arc::clone(&self.name),
                partition: partition.entry.index,
                state: partition.watermark.save(),
            });
        }
    }
}

impl<T, F: Fn(&T) -> Timestamp> Operator<T> for TellingTime<F, T> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        let (stamps, values) = batch.columns_mut();
        // A batch of one reader is of one partition; a union's may change in between.
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
            let before = watermark.watermark();
            for (stamp, value) in stamps[start..start + run].iter_mut().zip(&values[start..]) {
                watch.at(stamp);
                stamp.time = (self.time)(value);
                stamp.watermark = watermark.on_record(stamp.origin.offset().unwrap_or_default(), stamp.time);
            }
            touched.push((at, before));
            start += run;
        }
        drop(watch);
        self.out.forward(batch, cx)?;
        let (mut moved, mut held) = (false, false);
        for (at, before) in touched {
            let partition = &self.partitions[at];
            if partition.watermark.watermark() > before {
                partition.publish();
                moved = true;
                // Only what held time back can let it pass.
                held |= before <= self.telling.sent();
            }
        }
        if moved {
            self.telling.wake_followers(cx);
        }
        if held { self.settle(cx) } else { Ok(()) }
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // What was known of time upstream is replaced.
            Signal::Watermark(_) | Signal::Idle | Signal::Active => Ok(()),
            Signal::Partition(change) => {
                self.change(change)?;
                self.out.signal(signal, cx)?;
                self.telling.wake_followers(cx);
                // While partitions are handed out, the first must not speak for those to come.
                if let PartitionChange::Opened(_) = change { Ok(()) } else { self.settle(cx) }
            }
            Signal::Barrier(_) => {
                // The last barrier comes when all have ended, and with it the end of time.
                self.settle(cx)?;
                self.save(cx);
                self.out.signal(signal, cx)
            }
            Signal::End => self.out.signal(signal, cx),
        }
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.may_have_moved() {
            self.settle(cx)?;
        }
        self.out.flush(cx)
    }
}
