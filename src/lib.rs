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
//! The README has the guarantees with the tests that hold them, the limits and measured figures; `examples/` is the tutorial, and
//! `ARCHITECTURE.md` the map.

pub use rivermark_connectors as connectors;
pub use rivermark_engine::{
    CheckpointMetrics, Engine, Epoch, Job, Metrics, OperatorSnapshot, Options, Restart, RestoreFrom,
    StateBackend, Status,
};
pub use rivermark_log as log;
pub use rivermark_operators::process::{Context, ProcessFunction, Side};
pub use rivermark_operators::{
    Aggregate, AsOfJoin, BoxError, Change, DeadLetter, Either, Error, Flow, Interval, IntervalJoin, Key,
    KeyedStream, Late, List, Map, Reducing, Result, Retractable, StateValue, Stream, StreamTableJoin,
    Summand, Table, Timestamp, Upsert, Value, WatermarkGenerator, Watermarks, Window, WindowJoin, Windowed,
    WindowedStream, Windows, days, hours, millis, minutes, secs,
};
pub use rivermark_operators::{join, process, sink, source, table, testing, window};

/// Running flows deterministically, under a seed, with crashes: for testing flows.
pub mod simulation {
    pub use rivermark_engine::simulation::*;
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
