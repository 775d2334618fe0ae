//! What a job has done, as numbers: of operators, of checkpoints, of the job as a whole.
//!
//! Operators count batch by batch, and workers step by step; nothing is counted record by record, and reading disturbs nobody.

use rivermark_checkpoint::Epoch;
use rivermark_operators::Timestamp;
use rivermark_operators::plan::NodeKind;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Checkpoints that the metrics remember.
const REMEMBERED_CHECKPOINTS: usize = 1000;
/// Checkpoints that have failed that the metrics remember.
const REMEMBERED_FAILURES: usize = 100;

/// One completed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointMetrics {
    /// Its number.
    pub epoch: Epoch,
    /// When it was stored, by the machine's clock.
    pub stored_at: Timestamp,
    /// From the barrier until it was stored; the commit of the sinks comes after that.
    pub duration: Duration,
    /// Size of all state files that it needs.
    pub state_bytes: u64,
    /// Size of those that were new.
    pub uploaded_bytes: u64,
}

/// A checkpoint that came to nothing. Output is not lost by it: what was prepared for it is committed with a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCheckpoint {
    /// Its number.
    pub epoch: Epoch,
    /// When it failed, by the machine's clock.
    pub failed_at: Timestamp,
    /// How long it had been taken until then.
    pub duration: Duration,
    /// Why.
    pub reason: String,
}

/// What sort of operator it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperatorKind {
    /// Reads the outside world.
    Source,
    /// Changes records one by one.
    Transform,
    /// Moves records to the worker that owns their key.
    Exchange,
    /// Keeps state a key.
    Stateful,
    /// Writes the outside world.
    Sink,
}

impl OperatorKind {
    pub(crate) fn of(kind: &NodeKind) -> OperatorKind {
        match kind {
            NodeKind::Source => Self::Source,
            NodeKind::Transform => Self::Transform,
            NodeKind::Exchange(_) => Self::Exchange,
            NodeKind::Stateful => Self::Stateful,
            NodeKind::Sink => Self::Sink,
        }
    }
}

impl fmt::Display for OperatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Source => "source",
            Self::Transform => "transform",
            Self::Exchange => "exchange",
            Self::Stateful => "stateful",
            Self::Sink => "sink",
        })
    }
}

/// Counters of one operator over all workers, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSnapshot {
    /// Its name in the flow.
    pub name: String,
    /// What sort of operator it is.
    pub kind: OperatorKind,
    /// Where its inputs come from: indices into [`Metrics::operators`], each less than its own.
    pub inputs: Vec<usize>,
    /// Records that came in since the job's start.
    pub records_in: u64,
    /// Records that went out since the job's start.
    pub records_out: u64,
    /// Bytes read or written outside since the job's start.
    pub bytes: u64,
    /// Records late for one of their windows, since the flow's first start.
    pub late: u64,
    /// Records that its function failed on and that became dead letters, since the job's start; those read again after a failure count
    /// again.
    pub dead_letters: u64,
    /// The watermark that it reported last.
    pub watermark: Timestamp,
    /// Of an exchange: for how long, since the job's start and summed over the workers, what was sent into it has found no room, because what is
    /// behind it is slower than what is before it. To the millisecond; as a share of the time that has passed and the number of
    /// [workers](Metrics::workers), it is the backpressure.
    pub backpressured: Duration,
}

/// What a job has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Every operator, producers before consumers.
    pub operators: Vec<OperatorSnapshot>,
    /// Records read from all sources since the job's start; those read again after a failure count again.
    pub records_read: u64,
    /// Records that were late for one of their windows, since the flow's first start.
    pub late_records: u64,
    /// Records that became dead letters, over all operators, since the job's start.
    pub dead_letters: u64,
    /// The lowest watermark of a partition that has not ended.
    pub watermark: Timestamp,
    /// The last completed checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointMetrics>,
    /// How many checkpoints this job has completed.
    pub checkpoints_completed: u64,
    /// The last checkpoints that failed, oldest first.
    pub failed_checkpoints: Vec<FailedCheckpoint>,
    /// How many checkpoints of this job have failed.
    pub checkpoints_failed: u64,
    /// How often the job was started again after a failure.
    pub restarts: u64,
    /// Time spent running since the job's start.
    pub running: Duration,
    /// Records that are known to lie ahead of the sources' readers, if they can tell: how far the job is behind.
    pub backlog: Option<u64>,
    /// How many workers the job has.
    pub workers: usize,
    /// How often a worker found a full channel before it, since the job's start: rises with backpressure.
    pub backpressured_steps: u64,
    /// Steps of all workers since the job's start.
    pub steps: u64,
}

impl Metrics {
    /// Of a job that has not been started.
    pub(crate) fn of_nothing() -> Metrics {
        Metrics {
            operators: Vec::new(),
            records_read: 0,
            late_records: 0,
            dead_letters: 0,
            watermark: Timestamp::MIN,
            checkpoints: Vec::new(),
            checkpoints_completed: 0,
            failed_checkpoints: Vec::new(),
            checkpoints_failed: 0,
            restarts: 0,
            running: Duration::ZERO,
            backlog: None,
            workers: 0,
            backpressured_steps: 0,
            steps: 0,
        }
    }

    /// The counters of one operator.
    pub fn operator(&self, name: &str) -> Option<&OperatorSnapshot> {
        self.operators.iter().find(|operator| operator.name == name)
    }

    /// How far event time is behind `now`: for a live job, how old its results are.
    pub fn watermark_lag(&self, now: Timestamp) -> Duration {
        Duration::from_millis(now.millis().saturating_sub(self.watermark.millis()).max(0) as u64)
    }
}

/// The last checkpoints of a job, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct CheckpointHistory {
    pub(crate) last: VecDeque<CheckpointMetrics>,
    pub(crate) completed: u64,
    pub(crate) last_failed: VecDeque<FailedCheckpoint>,
    pub(crate) failed: u64,
}

impl CheckpointHistory {
    pub(crate) fn complete(&mut self, checkpoint: CheckpointMetrics) {
        self.completed += 1;
        remember(&mut self.last, checkpoint, REMEMBERED_CHECKPOINTS);
    }

    pub(crate) fn fail(&mut self, checkpoint: FailedCheckpoint) {
        self.failed += 1;
        remember(&mut self.last_failed, checkpoint, REMEMBERED_FAILURES);
    }
}

fn remember<T>(last: &mut VecDeque<T>, one: T, most: usize) {
    if last.len() == most {
        last.pop_front();
    }
    last.push_back(one);
}
