#![doc = include_str!("../README.md")]

pub use rivermark_connectors as connectors;
pub use rivermark_engine::{
    CheckpointMetrics, Engine, Job, Metrics, OperatorSnapshot, Options, Restart, StateBackend, Status,
};
pub use rivermark_log as log;
pub use rivermark_operators::process::{Context, ProcessFunction};
pub use rivermark_operators::{
    Aggregate, BoxError, DeadLetter, Error, Flow, Key, KeyedStream, Late, List, Map, Reducing, Result,
    StateValue, Stream, Timestamp, Value, WatermarkGenerator, Watermarks, Window, Windowed, WindowedStream,
    Windows, days, hours, millis, minutes, secs,
};
pub use rivermark_operators::{sink, source};

/// Running flows deterministically, under a seed, with crashes: for testing flows.
pub mod simulation {
    pub use rivermark_engine::simulation::*;
}
