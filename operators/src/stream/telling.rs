//! What the operators that tell time have in common: how far time has come goes to their consumers, and to the tasks that follow.

use crate::clocks::{Clock, TimeGroup};
use crate::context::{OperatorMetrics, TaskContext};
use crate::edge::{Output, Signal};
use crate::error::Result;
use crate::partitions::{PartitionEntry, Partitions};
use crate::plan::TaskBuilder;
use crate::time::Timestamp;
use std::sync::Arc;

/// What one task of such an operator has told.
pub(super) struct Telling {
    name: Arc<str>,
    metrics: Arc<OperatorMetrics>,
    table: Arc<Partitions>,
    group: TimeGroup,
    /// The watermark that was passed on, or that everything downstream was restored to.
    sent: Timestamp,
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
            sent: builder.restored_watermark(),
            told: false,
        }
    }

    /// The watermark that was passed on, or that everything downstream was restored to.
    pub(super) fn sent(&self) -> Timestamp {
        self.sent
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
    pub(super) fn follow(&self) -> Option<Timestamp> {
        self.table.clocks().follow(&self.group, &self.table)
    }

    /// Passes on how far time has come, if it has: to `least`, the minimum over this task's active partitions, or where it has none that of all
    /// tasks.
    pub(super) fn pass_on<T>(
        &mut self,
        least: Option<Timestamp>,
        out: &mut Output<T>,
        cx: &mut TaskContext<'_>,
    ) -> Result<()> {
        let reached = least.or_else(|| {
            self.table.clocks().begin_to_follow();
            self.follow()
        });
        let reached = reached.unwrap_or(Timestamp::MIN);
        if reached > self.sent || !self.told && reached == self.sent && reached > Timestamp::MIN {
            (self.sent, self.told) = (reached, true);
            self.metrics.set_watermark(reached);
            out.signal(Signal::Watermark(reached), cx)?;
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
