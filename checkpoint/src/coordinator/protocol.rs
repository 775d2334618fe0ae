//! What the coordinator hears and what it asks for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::manifest::{Manifest, Parts, Prepared};
use crate::{Epoch, Generation, TaskId};

/// What is being checkpointed; written into every manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// The flow's name.
    pub flow: String,
    /// The version of the flow that is deployed.
    pub version: u64,
    /// The number of tasks, which are `0..workers`.
    pub workers: NonZeroU32,
    /// The number of key groups, fixed for the flow's life.
    pub key_groups: u16,
    /// Milliseconds since 1970 at time zero of the coordinator's monotonic clock: manifests are stamped with the sum.
    pub origin_ms: i64,
}

/// When to take checkpoints and when to give up. [`Options::default`] states the values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Options {
    /// The time from the beginning of one checkpoint to the next; `None` takes them on demand only. Default: 10 s.
    pub interval: Option<Duration>,
    /// At least so long passes from storing a checkpoint to beginning the next periodic one, and from a failed one to
    /// beginning any. Default: 500 ms.
    pub min_pause: Duration,
    /// A checkpoint whose store has not begun after this long has failed. Default: 10 min.
    pub timeout: Duration,
    /// So many checkpoints in a row may fail; one more fails the job. Default: 3.
    pub tolerated_failures: u32,
    /// The first pause before a store in doubt or a refused commit is repeated; doubles up to [`Options::max_retry`].
    /// Default: 100 ms.
    pub min_retry: Duration,
    /// The longest pause between repetitions. Default: 5 s.
    pub max_retry: Duration,
    /// A store still in doubt after this long fails the job: recovery then finds out. Default: 2 min.
    pub store_timeout: Duration,
    /// A commit still outstanding after this long fails the job: recovery then commits again. Default: 2 min.
    pub commit_timeout: Duration,
}

/// What the coordinator hears.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The first event: recover, then run.
    Start,
    /// Time has passed. Due at [`crate::Coordinator::wake_at`]; earlier or later ones do no harm.
    Tick,
    /// [`Action::Fence`] is done: this process runs as `generation`, and no older one can store any more.
    Fenced {
        /// The generation claimed.
        generation: Generation,
    },
    /// [`Action::Read`] is done.
    Recovered {
        /// The checkpoint to continue from; `None` for a flow that has none yet.
        checkpoint: Option<Arc<Manifest>>,
        /// The first epoch number that no stored checkpoint has used.
        next_epoch: Epoch,
    },
    /// [`Action::Fence`] or [`Action::Read`] failed.
    RecoveryFailed {
        /// What went wrong.
        reason: String,
    },
    /// A task has performed [`Action::Restore`].
    Restored {
        /// The task.
        task: TaskId,
    },
    /// A task has aligned, taken its snapshot, uploaded it and prepared its sinks.
    Acknowledged {
        /// The task.
        task: TaskId,
        /// The epoch of the barrier.
        epoch: Epoch,
        /// Its share of the checkpoint.
        parts: Parts,
    },
    /// A task could not take its part of an epoch, yet goes on running.
    Declined {
        /// The task.
        task: TaskId,
        /// The epoch of the barrier.
        epoch: Epoch,
        /// What went wrong.
        reason: String,
    },
    /// A task has died.
    Failed {
        /// The task.
        task: TaskId,
        /// What went wrong.
        reason: String,
    },
    /// A task has processed everything there will ever be for it. It must still acknowledge barriers, at once.
    Finished {
        /// The task.
        task: TaskId,
    },
    /// The answer to [`Action::Store`].
    StoreReplied {
        /// The epoch of the manifest.
        epoch: Epoch,
        /// What became of it.
        reply: StoreReply,
    },
    /// A task has performed [`Action::Commit`].
    Committed {
        /// The task.
        task: TaskId,
        /// The epoch of the action.
        epoch: Epoch,
    },
    /// A task does not know whether it has performed [`Action::Commit`], or could not do so yet: it is asked again.
    CommitFailed {
        /// The task.
        task: TaskId,
        /// The epoch of the action.
        epoch: Epoch,
        /// What went wrong.
        reason: String,
    },
    /// A task can never perform [`Action::Commit`]: asking again is pointless, only a recovery can help.
    CommitRefused {
        /// The task.
        task: TaskId,
        /// The epoch of the action.
        epoch: Epoch,
        /// What went wrong.
        reason: String,
    },
    /// Somebody wants a checkpoint of now.
    CheckpointRequested {
        /// Names the request in [`Action::Answer`].
        request: u64,
    },
    /// Somebody wants the job to stop behind a checkpoint, with nothing left uncommitted.
    StopRequested {
        /// Names the request in [`Action::Answer`].
        request: u64,
    },
}

/// What became of a store. [`crate::Writer::store`] and [`crate::history::Append`] return it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreReply {
    /// The manifest is stored.
    Stored,
    /// It certainly was not and will not be, by this attempt.
    Refused {
        /// What went wrong.
        reason: String,
    },
    /// It may have been, or may yet be.
    Unknown {
        /// What went wrong.
        reason: String,
    },
    /// It was not and never will be: a newer generation has taken over.
    Fenced {
        /// The newer generation, where known.
        by: Option<Generation>,
    },
}

/// Why a barrier is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BarrierKind {
    /// Sources go on after it.
    Checkpoint,
    /// Sources emit nothing after it, unless the coordinator fails: the job ends when the epoch is committed. Another
    /// `Stop` barrier follows if the epoch fails.
    Stop,
    /// Every task has finished; this epoch covers the last results.
    Final,
}

/// What the coordinator asks of the driver. Actions are performed in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Claim the next generation. Answer: [`Event::Fenced`] or [`Event::RecoveryFailed`].
    Fence,
    /// Read the checkpoint to restore. Answer: [`Event::Recovered`] or [`Event::RecoveryFailed`].
    Read,
    /// Build every task anew from `checkpoint`; sinks abort whatever is prepared under an older generation and not
    /// among its tokens. Answer: [`Event::Restored`] from each task.
    Restore {
        /// The generation to open sinks with.
        generation: Generation,
        /// The checkpoint; `None` starts from nothing.
        checkpoint: Option<Arc<Manifest>>,
    },
    /// Every task is restored: let the sources run.
    Run,
    /// Inject a barrier into the sources of every task. Answer: [`Event::Acknowledged`] or [`Event::Declined`] from
    /// each task.
    Inject {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        kind: BarrierKind,
    },
    /// The epoch failed: every task releases the alignment and drops the snapshot. **Prepared output is kept**: the
    /// coordinator carries what was acknowledged into the next checkpoint, and a task hands what it prepared and has
    /// not acknowledged over with its next acknowledgement.
    Cancel {
        /// The epoch.
        epoch: Epoch,
        /// Why it failed.
        reason: String,
    },
    /// Store the manifest, always the same bytes for the same epoch. Answer: [`Event::StoreReplied`].
    Store {
        /// The manifest.
        manifest: Arc<Manifest>,
    },
    /// The epoch is stored: `task` makes `tokens` visible (again, if it did before) and may release what it kept for
    /// the epoch. Sent to every task, also without tokens. Answer: [`Event::Committed`], [`Event::CommitFailed`] or
    /// [`Event::CommitRefused`].
    Commit {
        /// The task.
        task: TaskId,
        /// The epoch that is stored.
        epoch: Epoch,
        /// Sink uid and token of what to commit.
        tokens: Vec<(String, Prepared)>,
    },
    /// Every task has committed the epoch: queries may move to it, old checkpoints may be collected.
    Completed {
        /// The epoch.
        epoch: Epoch,
    },
    /// The answer to a request.
    Answer {
        /// The request.
        request: u64,
        /// What became of it.
        outcome: Result<Epoch, String>,
    },
    /// The job is over, with everything committed. The coordinator does nothing more.
    Done {
        /// How.
        outcome: Outcome,
    },
    /// The job has failed: drop every task and this coordinator. Unless [`Failure::Fenced`], start a new one, which
    /// recovers. Nothing may be remembered across: a manifest may be on its way to the store.
    Fail {
        /// Why.
        failure: Failure,
    },
}

/// How a job ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every task had finished.
    Finished,
    /// It was asked to stop.
    Stopped,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// Another process runs the flow now; do not restart.
    #[error("fenced: another process runs this flow now{}", by_generation(*.by))]
    Fenced {
        /// Its generation, where known.
        by: Option<Generation>,
    },
    /// A task died.
    #[error("task {task} failed: {reason}")]
    Task {
        /// The task.
        task: TaskId,
        /// What went wrong.
        reason: String,
    },
    /// The store could not be fenced or read.
    #[error("cannot recover from the checkpoint store: {reason}")]
    Recovery {
        /// What went wrong.
        reason: String,
    },
    /// More checkpoints in a row failed than [`Options::tolerated_failures`].
    #[error("{failures} checkpoints in a row failed, the last one, epoch {epoch}, because {reason}")]
    TooManyFailedCheckpoints {
        /// How many.
        failures: u32,
        /// The last one.
        epoch: Epoch,
        /// Why it failed.
        reason: String,
    },
    /// [`Options::store_timeout`] passed and it is unknown whether the epoch is stored. Recovery finds out.
    #[error("whether checkpoint {epoch} is stored is still unknown at the store's time-out: {reason}")]
    StoreInDoubt {
        /// The epoch.
        epoch: Epoch,
        /// What the last attempt said.
        reason: String,
    },
    /// [`Options::commit_timeout`] passed. Recovery commits again.
    #[error("checkpoint {epoch} is stored, yet task {task} has not committed its output: {reason}")]
    CommitTimedOut {
        /// The epoch.
        epoch: Epoch,
        /// The first task that is missing.
        task: TaskId,
        /// What it said last.
        reason: String,
    },
    /// A task's sink can never commit what it prepared. Recovery takes the sink over and tries once more.
    #[error("checkpoint {epoch} is stored, yet task {task} cannot commit its output: {reason}")]
    CommitRefused {
        /// The epoch.
        epoch: Epoch,
        /// The task.
        task: TaskId,
        /// What it said.
        reason: String,
    },
    /// Tasks acknowledged an epoch with parts that contradict each other.
    #[error("checkpoint {epoch} contradicts itself: {reason}")]
    Contradiction {
        /// The epoch.
        epoch: Epoch,
        /// How.
        reason: String,
    },
}

fn by_generation(by: Option<Generation>) -> String {
    by.map_or_else(String::new, |generation| format!(" (generation {generation})"))
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(10)),
            min_pause: Duration::from_millis(500),
            timeout: Duration::from_secs(600),
            tolerated_failures: 3,
            min_retry: Duration::from_millis(100),
            max_retry: Duration::from_secs(5),
            store_timeout: Duration::from_secs(120),
            commit_timeout: Duration::from_secs(120),
        }
    }
}
