//! The streams and operators of Rivermark: what happens to a record.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`stream`] | what a flow is described with: [`Flow`], [`Stream`], [`KeyedStream`], one file an operator |
//! | [`window`] | windows of event time and their aggregates |
//! | [`process`] | functions of the user's with state and timers |
//! | [`join`] | two keyed streams become one |
//! | [`look_up`] | asking a service outside about each record |
//! | [`dead_letters`] | what becomes of records on which functions fail |
//! | [`pattern`] | sequences of events that fit a pattern |
//! | [`table`] | keyed streams of upserts and deletes |
//! | [`source`], [`sink`] | what a connector implements |
//! | [`rate_limit`] | how fast a source may be read |
//! | [`time`], [`watermark`], [`frontier`] | event time and how it passes |
//! | [`batch`], [`edge`], [`exchange`] | how records travel |
//! | [`plan`], [`context`], [`partitions`], [`journal`], [`outstanding`] | what an engine needs to run a flow |
//! | [`testing`] | a harness for operators, driven by hand |
//!
//! The crate describes and computes; it opens no file, starts no thread and reads no clock. Programs use it through the facade
//! crate `rivermark`.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod batch;
mod clocks;
pub mod context;
pub mod dead_letters;
pub mod edge;
mod error;
pub mod exchange;
pub mod frontier;
pub mod holding;
pub mod join;
pub mod journal;
pub mod line;
pub mod look_up;
pub mod outstanding;
pub mod partitions;
pub mod pattern;
pub mod plan;
pub mod process;
pub mod rate_limit;
mod reached;
pub mod sink;
pub mod source;
pub mod stream;
pub mod table;
pub mod testing;
pub mod time;
pub mod trace;
pub mod watermark;
pub mod window;

pub use batch::{Batch, Origin, Stamp};
pub use dead_letters::{DeadLetter, OnError, RawRecord, SourceRecord};
pub use error::{Blame, BoxError, Error, Result, panic_message};
pub use join::{AsOfJoin, Either, Interval, IntervalJoin, StreamTableJoin, WindowJoin};
pub use look_up::{LookUp, Reply};
pub use pattern::{AfterMatch, Match, Pattern, PatternStream};
pub use rate_limit::RateLimit;
/// The encoding of keyed state, for formats that share it.
pub use rivermark_state::{CodecError, decode, encode_into, hash_key};
pub use rivermark_state::{Expiring, Key, List, Map, Migrations, Reducing, StateValue, Timed, Ttl, Value};
pub use stream::{Flow, Keep, KeyedStream, Stream};
pub use table::{Change, Retractable, Table, Upsert};
pub use time::{Timestamp, days, hours, millis, minutes, secs};
pub use watermark::{Punctuation, WatermarkGenerator, Watermarks};
pub use window::{
    Aggregate, Late, Pane, Paned, Summand, Timing, Trigger, TriggeredWindows, Window, Windowed,
    WindowedStream, Windows,
};
