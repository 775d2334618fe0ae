//! `event_time`: tells each record's time and the watermark of its partition.
//!
//! 1. Each source partition that this task reads has a watermark generator of its own, moved after every record.
//! 2. A record's stamp takes its time, and its partition's watermark as it was just before: all that lateness will ever depend on. What the
//!    record itself says of time counts from the next one on; what says nothing else goes no further.
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
use crate::watermark::{Alignment, PartitionWatermark, Punctuation, Watermarks};
use std::sync::Arc;

impl<T: Send + 'static> Stream<T> {
    /// Tells event time: `time` reads it from a record, `watermarks` says how far out of order records may be.
    ///
    /// Call it before [`Stream::key_by`]: watermarks are told apart by source partition, and an exchange mixes those. Behind one it is an
    /// error of [`Flow::into_plan`](crate::Flow::into_plan); what comes out of windows and functions has event time already. So is a union
    /// of two streams of one source: the order of its records, which watermarks depend on, would depend on the moment.
    ///
    /// ```
    /// use rivermark_operators::{Stream, Timestamp, Watermarks, Windows, minutes, secs};
    ///
    /// fn per_minute(clicks: Stream<(String, i64)>) {
    ///     // Clicks have their time in seconds, and are up to five seconds out of order.
    ///     clicks
    ///         .event_time(|click| Timestamp::from_secs(click.1), Watermarks::bounded(secs(5)))
    ///         .key_by(|click| click.0.clone())
    ///         .window(Windows::tumbling(minutes(1)))
    ///         .count();
    /// }
    /// ```
    pub fn event_time(
        self,
        time: impl Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
        watermarks: Watermarks,
    ) -> Stream<T> {
        let nothing_moves_it = watermarks.is_punctuated().then(|| {
            "no record says anything of time, and `Watermarks::punctuated()` lets nothing else move it: call `.event_time_punctuated(..)`, or \
             choose other watermarks".to_string()
        });
        self.telling_time(time, watermarks, |_| Punctuation::None, nothing_moves_it)
    }

    /// Tells event time where the data carries watermarks ("punctuated" ones): `time` reads a record's time, and `says` what it promises about
    /// those that follow it in its partition: an `Option<Timestamp>`, or a [`Punctuation`] where some records are nothing but a promise.
    ///
    /// A promise that no record below t follows holds from just behind the record, and combines with `watermarks`: the higher of the two counts.
    /// [`Watermarks::punctuated`] trusts promises alone. What has been promised is part of the log, so a replay judges every record as the
    /// live run did. A record that is a [`Punctuation::Heartbeat`] is not passed on; where it is data for others, use
    /// [`Punctuation::Promise`], and drop it with [`Stream::filter`] behind this. A heartbeat is a record: its partition is not idle.
    ///
    /// Where to call it: as [`Stream::event_time`]. (Flink's `WatermarkGenerator.onEvent` with `emitWatermark`, formerly
    /// `AssignerWithPunctuatedWatermarks`; the punctuation of Tucker et al., "Exploiting Punctuation Semantics in Continuous Data Streams",
    /// TKDE 2003.)
    ///
    /// ```
    /// use rivermark_operators::{Punctuation, Stream, Timestamp, Watermarks, Windows, minutes, secs};
    ///
    /// enum Line {
    ///     Sale { at: Timestamp, shop: u32 },
    ///     /// The till has sent everything up to here.
    ///     Cleared(Timestamp),
    /// }
    /// # fn describe(lines: Stream<Line>) {
    /// let at = |line: &Line| match line {
    ///     Line::Sale { at, .. } | Line::Cleared(at) => *at,
    /// };
    /// let says = |line: &Line| match line {
    ///     Line::Sale { .. } => Punctuation::None,
    ///     Line::Cleared(up_to) => Punctuation::Heartbeat(*up_to),
    /// };
    /// // Sales are at most an hour out of order; as a rule a till is cleared long before that is over.
    /// let sales = lines.event_time_punctuated(at, Watermarks::bounded(minutes(60)), says);
    /// sales
    ///     .filter_map(|line| match line {
    ///         Line::Sale { shop, .. } => Some(shop),
    ///         Line::Cleared(_) => None,
    ///     })
    ///     .key_by(|shop| *shop)
    ///     .window(Windows::tumbling(secs(60)))
    ///     .count();
    /// # }
    /// ```
    pub fn event_time_punctuated<P: Into<Punctuation>>(
        self,
        time: impl Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
        watermarks: Watermarks,
        says: impl Fn(&T) -> P + Clone + Send + Sync + 'static,
    ) -> Stream<T> {
        self.telling_time(time, watermarks, move |record| says(record).into(), None)
    }

    fn telling_time(
        self,
        time: impl Fn(&T) -> Timestamp + Clone + Send + Sync + 'static,
        watermarks: Watermarks,
        says: impl Fn(&T) -> Punctuation + Clone + Send + Sync + 'static,
        problem: Option<String>,
    ) -> Stream<T> {
        self.set_idle_after(watermarks.idle_after);
        let mut spec = NodeSpec::new("event_time", NodeKind::Transform, vec![], 1);
        spec.problem = problem;
        spec.gives_event_time = true;
        spec.needs_partitions = true;
        spec.tells_time = true;
        self.then(spec, move |builder, port| {
            let out = builder.output::<T>(port);
            let telling = Telling::of(builder);
            if let Some(Alignment { group, drift }) = &watermarks.alignment {
                builder.environment().partitions.align(
                    &builder.sources(),
                    group.as_ref(),
                    span_millis(*drift),
                );
            }
            builder.attach(
                0,
                TellingTime {
                    name: builder.name(),
                    blame: builder.blame(),
                    telling,
                    watermarks: watermarks.clone(),
                    time: time.clone(),
                    says: says.clone(),
                    partitions: Vec::new(),
                    current: None,
                    heartbeats: Vec::new(),
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
        self.watermark.set_idle(matches!(status, Status::Idle | Status::Unheard));
        self.clock.set(status);
    }

    /// Tells everybody how far it has come.
    fn publish(&self) {
        self.entry.set_watermark(self.watermark.watermark());
        self.clock.advance(self.watermark.watermark());
    }
}

struct TellingTime<F, P, T> {
    name: Arc<str>,
    blame: BlameCell,
    telling: Telling,
    watermarks: Watermarks,
    time: F,
    says: P,
    partitions: Vec<Partition>,
    /// Which of them the last record was from.
    current: Option<usize>,
    /// Places of heartbeats in the batch.
    heartbeats: Vec<usize>,
    out: Output<T>,
}

impl<F, P, T> TellingTime<F, P, T> {
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
        let clock = self.telling.clock(index, watermark.watermark());
        let was_idle = watermark.is_idle() && self.watermarks.idle_after.is_some();
        let mut partition = Partition { entry, watermark, status: Status::Active, clock };
        partition.set(if was_idle { Status::Unheard } else { Status::Active });
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
                partition.status = Status::Ended;
                self.telling.leave(&partition.clock);
            }
            PartitionChange::Opened(_) | PartitionChange::Idle(_) | PartitionChange::Active(_) => {}
        }
        Ok(())
    }

    /// Passes on how far time has come: the minimum over this task's active partitions, or where it has none that of all tasks.
    fn settle(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        let active = self.partitions.iter().filter(|partition| partition.status.holds_back());
        let least = active.map(|partition| partition.watermark.watermark()).min();
        self.telling.pass_on(least, &mut self.out, cx)
    }

    /// Whether time may have moved though none of this task's partitions has: others have it to themselves, or it stands where
    /// the checkpoint left it and has not been told since.
    fn may_have_moved(&self) -> bool {
        let active = self.partitions.iter().any(|partition| partition.status.holds_back());
        !active || !self.telling.told() && self.telling.follow().is_some()
    }

    /// Takes out of a batch what is no data.
    #[cold]
    fn drop_heartbeats(&mut self, batch: &mut Batch<T>) {
        let (mut at, mut next) = (0, 0);
        batch.retain(|_, _| {
            let is_heartbeat = self.heartbeats.get(next) == Some(&at);
            at += 1;
            next += usize::from(is_heartbeat);
            !is_heartbeat
        });
        self.heartbeats.clear();
    }

    fn save(&mut self, cx: &mut TaskContext<'_>) {
        self.telling.save(cx);
        for partition in &mut self.partitions {
            // Who takes it over may not have passed on so much.
            if !partition.status.holds_back() {
                partition.watermark.raise(self.telling.reached());
            }
            cx.parts.partition_states.push(PartitionStatePart {
                operator: Arc::clone(&self.name),
                partition: partition.entry.index,
                state: partition.watermark.save(),
            });
        }
    }
}

impl<T, F: Fn(&T) -> Timestamp, P: Fn(&T) -> Punctuation> Operator<T> for TellingTime<F, P, T> {
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
            for (at, value) in (start..).zip(&values[start..start + run]) {
                let stamp = &mut stamps[at];
                watch.at(stamp);
                let says = (self.says)(value);
                if let Punctuation::Heartbeat(to) = says {
                    watermark.promise(to);
                    self.heartbeats.push(at);
                    continue;
                }
                stamp.time = (self.time)(value);
                stamp.watermark = watermark.on_record(stamp.origin.offset().unwrap_or_default(), stamp.time);
                if let Punctuation::Promise(to) = says {
                    watermark.promise(to);
                }
            }
            touched.push((at, before));
            start += run;
        }
        drop(watch);
        if !self.heartbeats.is_empty() {
            self.drop_heartbeats(batch);
        }
        self.out.forward(batch, cx)?;
        let (mut moved, mut held) = (false, false);
        for (at, before) in touched {
            let partition = &mut self.partitions[at];
            if partition.status == Status::Unheard {
                partition.set(Status::Active);
            }
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
