//! What the operators that tell time have in common: how far time has come goes to their consumers, and to the tasks that follow.

use crate::clocks::{Clock, Followed, TimeGroup};
use crate::context::{OperatorMetrics, TaskContext};
use crate::edge::{Output, Signal};
use crate::error::Result;
use crate::partitions::{PartitionEntry, Partitions};
use crate::plan::TaskBuilder;
use crate::reached::Reached;
use crate::time::Timestamp;
use std::sync::Arc;

/// What one task of such an operator has told.
pub(super) struct Telling {
    name: Arc<str>,
    metrics: Arc<OperatorMetrics>,
    table: Arc<Partitions>,
    group: TimeGroup,
    /// The watermark that was passed on, or that everything downstream was restored to.
    sent: Reached,
    /// It was passed on in this run.
    told: bool,
}

impl Telling {
    /// For the node being built.
    pub(super) fn of(builder: &TaskBuilder<'_>) -> Telling {
        Telling {
            name: builder.name(),
            metrics: builder.metrics(),
            table: Arc::clone(&builder.environment().partitions),
            group: builder.time_group(),
            sent: Reached::restored(builder.restored_watermark()),
            told: false,
        }
    }

    /// The watermark that was passed on, or that everything downstream was restored to.
    pub(super) fn sent(&self) -> Timestamp {
        self.sent.watermark
    }

    /// How far time has come for who reads on: at the end of the stream as far as the partition that is furthest on.
    pub(super) fn reached(&self) -> Timestamp {
        self.sent.time
    }

    /// Tells the checkpoint how far time has come.
    pub(super) fn save(&self, cx: &mut TaskContext<'_>) {
        cx.parts.watermarks.push((Arc::clone(&self.name), self.sent.watermark));
        self.sent.save(&self.name, cx.parts);
    }

    /// Whether [`Telling::sent`] has been passed on in this run.
    pub(super) fn told(&self) -> bool {
        self.told
    }

    /// A partition that the source announces.
    pub(super) fn entry(&self, index: u16) -> Arc<PartitionEntry> {
        self.table.get(index).expect("the source announces partitions of the table")
    }

    /// The clock of a partition that is opened.
    pub(super) fn clock(&self, partition: u16, watermark: Timestamp) -> Arc<Clock> {
        self.table.clocks().open(&self.name, partition, watermark)
    }

    /// Where time is by the partitions of all tasks; see [`crate::clocks::Clocks::follow`].
    pub(super) fn follow(&self) -> Option<Followed> {
        self.table.clocks().follow(&self.group, &self.table)
    }

    /// The partition of `clock` has ended.
    pub(super) fn leave(&self, clock: &Clock) {
        self.table.clocks().leave(clock, &self.group, &self.table);
    }

    /// Passes on how far time has come, if it has: to `least`, the minimum over this task's active partitions, or where it has none that of all
    /// tasks.
    pub(super) fn pass_on<T>(
        &mut self,
        least: Option<Timestamp>,
        out: &mut Output<T>,
        cx: &mut TaskContext<'_>,
    ) -> Result<()> {
        let followed = least.map(Followed::At).or_else(|| {
            self.table.clocks().begin_to_follow();
            self.follow()
        });
        match followed {
            None => Ok(()),
            Some(Followed::At(at)) => self.tell(at, out, cx),
            Some(Followed::Ended(at)) => {
                // First how far it had come: where a next run goes on.
                self.tell(at, out, cx)?;
                self.tell(Timestamp::MAX, out, cx)
            }
        }
    }

    fn tell<T>(&mut self, to: Timestamp, out: &mut Output<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let sent = self.sent.watermark;
        if to > sent || !self.told && to == sent && to > Timestamp::MIN {
            self.sent.advance(to, None);
            self.told = true;
            self.metrics.set_watermark(to);
            out.signal(Signal::Watermark(to), cx)?;
        }
        Ok(())
    }

    /// Tells those who follow that a clock has moved.
    pub(super) fn wake_followers(&self, cx: &mut TaskContext<'_>) {
        if self.table.clocks().are_followed() {
            cx.transport.wake_all();
        }
    }
}
