//! The engine of Rivermark: makes a plan run.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `engine` | [`Engine`]: a data directory and the jobs on it; threads |
//! | `job` | [`Job`]: status, metrics, stop |
//! | `metrics` | [`Metrics`]: what a job has done, as numbers |
//! | `attempt` | one attempt to run a job: performs what the checkpoint coordinator decides |
//! | `worker` | one shard of every operator, as a machine that steps |
//! | `inlet`, `channels` | the exchange between workers |
//! | `environment`, `parts` | what workers are built from; what they add to a checkpoint |
//! | `deployment` | [`Deployment`]: versions of a flow beside each other, of which one is live |
//! | `audit` | [`Audit`]: whether what a version has published is what its log implies |
//! | `explain` | [`Explain`]: which records a published row was made of |
//! | `pulse` | whether a job's workers have come to rest |
//! | `earlier` | what a new version takes over from the one before |
//! | `directory`, `options` | the data directory's layout and lock; settings |
//! | `savepoint` | [`Savepoint`]: a checkpoint that is kept and carried; its state read, checked and edited without a job |
//! | `queries` | [`View`], [`Query`]: the state of a running job at an epoch, read beside its workers |
//! | `inspect` | [`DataDirectory`]: what lies in a data directory, read beside the process that uses it |
//! | `compatible` | whether a flow can continue from a manifest |
//! | `upkeep` | the thread that lets the log sync, forget and compact in time |
//! | [`simulation`] | the same workers, protocol, log and stores on one thread under a seed |
//!
//! Invariant: nothing here but `engine`, `upkeep`, `deployment`, `audit` and `queries` starts a thread, and nothing but those and `directory` reads a clock or the process's
//! environment; everything else is handed what it needs, which is why it can be simulated.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod attempt;
mod audit;
mod channels;
mod compatible;
mod deployment;
mod directory;
mod earlier;
mod endings;
mod engine;
mod environment;
mod explain;
mod inlet;
mod inspect;
mod job;
mod metrics;
mod options;
mod parts;
mod pulse;
mod queries;
mod savepoint;
pub mod simulation;
mod stops;
mod upkeep;
mod worker;

pub use audit::{
    Audit, AuditProgress, AuditReport, AuditRun, AuditedInput, AuditedOutput, AuditedPartition, Difference,
    DifferenceKind, RowText, Stage,
};
pub use deployment::{
    Becomes, CaughtUp, ComparedOutput, Comparison, Cut, Deployment, DeploymentPlan, Deployments, OutputCut,
    OutputTopic, PartitionProgress, PlannedPartition, PlannedState, Progress, Replay, Sample, Segment, State,
    Version, WeakDeployment,
};
pub use directory::DirectoryInUse;
pub use engine::Engine;
pub use explain::{Contribution, Explain, Explanation, Made, Place};
pub use inspect::{
    CheckpointSummary, ComparedAtRest, DamagedFile, DataDirectory, FilesVerified, OperatorSummary,
    PositionSummary, SinkSummary, StateSummary,
};
pub use job::{Job, Status};
pub use metrics::{CheckpointMetrics, FailedCheckpoint, Metrics, OperatorKind, OperatorSnapshot};
pub use options::{Options, Restart, StateBackend};
pub use queries::{LatestQuery, PartitionOffset, Queries, Query, View, WindowQuery};
pub use rivermark_checkpoint::Summary as StoredCheckpoint;
pub use rivermark_checkpoint::{Epoch, RestoreFrom};
pub use rivermark_state::{AtRest, DEFAULT_KEY_GROUPS, Queried, StateDescription, StateKind, Verdict};
pub use rivermark_state::{DescribedEntry, Types};
pub use savepoint::{
    CheckedState, Entries, OperatorEditor, OperatorState, Savepoint, SavepointCheck, SavepointEditor,
    StartFrom,
};
