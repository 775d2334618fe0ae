//! An embeddable stream-processing engine for the Kappa architecture.
//!
//! One immutable, replayable log is the source of truth, and one pipeline computes everything derived from it, whether it reads years
//! of history or the last millisecond.
//!
//! 1. An [`Engine`] is a data directory and what runs on it: an embedded [`log`], checkpoints, state.
//! 2. A [`Flow`] describes what happens to records, from [`connectors`] through [`Stream`], [`KeyedStream`] and [`WindowedStream`] back
//!    to connectors. A [`ProcessFunction`] is one's own operator, with state and timers.
//! 3. [`Engine::start`] makes a [`Job`] of it, whose every result is exactly-once through crashes; [`simulation`] runs it under a seed
//!    instead, with crashes, for tests.
//!
//! ```
//! use rivermark::connectors::{Collect, FromVec};
//! use rivermark::{Engine, Flow, Timestamp, Watermarks, Windows, minutes, secs};
//!
//! # fn main() -> Result<(), rivermark::BoxError> {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! // Second and page: the last click is late for the first minute, which was over when 1:10 came.
//! let clicks = vec![(10, "/"), (70, "/"), (20, "/")];
//! let rows = Collect::new();
//!
//! let flow = Flow::new("clicks-per-minute");
//! flow.source(FromVec::new(clicks))
//!     .event_time(|(second, _)| Timestamp::from_secs(*second), Watermarks::bounded(secs(5)))
//!     .key_by(|(_, page)| page.to_string())
//!     .window(Windows::tumbling(minutes(1)))
//!     .count()
//!     .sink(rows.clone());
//! let metrics = Engine::open(directory)?.run(flow)?;
//!
//! assert_eq!(rows.rows().iter().map(|row| row.value).collect::<Vec<_>>(), [1, 1]);
//! assert_eq!(metrics.late_records, 1);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Savepoint`] is a checkpoint that is kept under a name. A job stops behind one, and another version of the flow goes on from it:
//!
//! ```
//! # use rivermark::connectors::{Collect, LogSource};
//! # use rivermark::log::{RecordBatch, TopicOptions};
//! # use rivermark::{Engine, Flow, StartFrom, Timestamp, Watermarks, Windows, minutes, secs};
//! # fn main() -> Result<(), rivermark::BoxError> {
//! # let directory = tempfile::tempdir()?;
//! # let engine = Engine::open(directory.path())?;
//! # let clicks = engine.log().create_topic("clicks", TopicOptions::new(1))?;
//! # let click = |second: i64| -> Result<(), rivermark::BoxError> {
//! #     let mut batch = RecordBatch::new();
//! #     batch.push(None, Some(&serde_json::to_vec(&second)?), 0);
//! #     clicks.append(0, &mut batch)?;
//! #     Ok(())
//! # };
//! # let rows = Collect::new();
//! # let flow = |version| {
//! #     let flow = Flow::new("clicks-per-minute").version(version);
//! #     flow.source(LogSource::<i64>::topic("clicks"))
//! #         .event_time(|second| Timestamp::from_secs(*second), Watermarks::bounded(secs(5)))
//! #         .key_by(|_| 0_u8)
//! #         .window(Windows::tumbling(minutes(1)))
//! #         .count()
//! #         .sink(rows.clone());
//! #     flow
//! # };
//! # click(10)?;
//! let job = engine.start(flow(1))?;
//! # job.wait_until(|job| job.metrics().records_read == 1);
//! job.stop_with_savepoint("before-version-2")?;
//!
//! # click(20)?;
//! let savepoint = engine.savepoint("clicks-per-minute", "before-version-2")?;
//! let job = engine.start_from(flow(2), StartFrom::SavepointAtFirst(savepoint))?;
//! # job.wait_until(|job| job.metrics().records_read == 1);
//! // Every source ends where it stands: the minute that was open closes, with both clicks.
//! job.drain();
//! job.wait()?;
//! assert_eq!(rows.rows().iter().map(|row| row.value).collect::<Vec<_>>(), [2]);
//! # Ok(())
//! # }
//! ```
//!
//! The README has the guarantees with the tests that hold them, the limits and measured figures; `examples/` is the tutorial, and
//! `ARCHITECTURE.md` the map.

pub use rivermark_connectors as connectors;
pub use rivermark_engine::{
    AtRest, CheckedState, Entries, OperatorEditor, OperatorState, SavepointCheck, SavepointEditor, Verdict,
};
pub use rivermark_engine::{
    Audit, AuditProgress, AuditReport, AuditRun, AuditedInput, AuditedOutput, AuditedPartition, Difference,
    DifferenceKind, RowText, Stage,
};
pub use rivermark_engine::{
    Becomes, CaughtUp, ComparedOutput, Comparison, Cut, Deployment, DeploymentPlan, Deployments,
    PartitionProgress, PlannedPartition, PlannedState, Progress, Replay, Sample, State, WeakDeployment,
};
pub use rivermark_engine::{
    CheckpointMetrics, Engine, Epoch, FailedCheckpoint, Job, Metrics, OperatorKind, OperatorSnapshot,
    Options, Restart, RestoreFrom, Savepoint, StartFrom, StateBackend, StateDescription, StateKind, Status,
};
pub use rivermark_engine::{
    CheckpointSummary, ComparedAtRest, DamagedFile, DataDirectory, DescribedEntry, DirectoryInUse,
    FilesVerified, OperatorSummary, PositionSummary, SinkSummary, StateSummary, StoredCheckpoint, Types,
};
pub use rivermark_engine::{Contribution, Explain, Explanation, Made, Place};
pub use rivermark_engine::{LatestQuery, PartitionOffset, Queried, Queries, Query, View, WindowQuery};
pub use rivermark_log as log;
pub use rivermark_operators::process::{Context, ProcessFunction, Side, States};
pub use rivermark_operators::{AfterMatch, Match, Pattern, PatternStream};
pub use rivermark_operators::{
    Aggregate, AsOfJoin, BoxError, Change, DeadLetter, Either, Error, Expiring, Flow, Interval, IntervalJoin,
    Keep, Key, KeyedStream, Late, List, LookUp, Map, Migrations, OnError, Pane, Paned, Punctuation,
    RateLimit, Reducing, Reply, Result, Retractable, StateValue, Stream, StreamTableJoin, Summand, Table,
    Timed, Timestamp, Timing, Trigger, TriggeredWindows, Ttl, Upsert, Value, WatermarkGenerator, Watermarks,
    Window, WindowJoin, Windowed, WindowedStream, Windows, days, hours, millis, minutes, secs,
};
pub use rivermark_operators::{dead_letters, join, pattern, process, sink, source, table, testing, window};

/// The state of running jobs over HTTP and JSON.
#[cfg(feature = "server")]
pub mod server {
    pub use rivermark_server::*;
}

/// A command line for pipelines: run, deploy, look at.
#[cfg(feature = "cli")]
pub mod cli {
    pub use rivermark_cli::*;
}

/// Running flows deterministically, under a seed, with crashes: for testing flows.
pub mod simulation {
    pub use rivermark_engine::simulation::*;
}

// Only in the documentation, where every name of its last column has to lead somewhere.
#[cfg(doc)]
#[doc = include_str!("../docs/from-flink-and-kafka-streams.md")]
pub mod from_flink_and_kafka_streams {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/testing-your-flow.md")]
struct TestingYourFlow;

#[cfg(doctest)]
#[doc = include_str!("../docs/audit-and-explain.md")]
struct AuditAndExplain;

#[cfg(doctest)]
#[doc = include_str!("../docs/savepoints.md")]
struct Savepoints;

#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../docs/command-line.md")]
struct CommandLine;
