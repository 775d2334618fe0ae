//! Sources and sinks of Rivermark for the outside world.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`mod@format`] | how keys and values become bytes: JSON, bincode, text, raw |
//! | [`LogSource`], [`LogSink`] | topics of the embedded log; the sink is exactly-once by the log's transactions; both know tables, too |
//! | [`AliasSource`] | what a deployed flow writes, whichever version is live |
//! | [`CsvSource`], [`JsonLinesSource`] | files of rows |
//! | [`CsvSink`], [`JsonLinesSink`] | files that appear only when they are committed |
//! | [`blocking()`] | threads for look-ups whose client blocks |
//! | [`letters`] | dead letters in a topic: listed, and put in again exactly once |
//! | [`FromVec`], [`Collect`] | memory, for tests |
//! | [`conformance`] | what every source and sink must do, as tests that anyone can run on theirs |
//!
//! Invariant: nothing here knows how a flow is run; everything goes through the traits of `rivermark-operators`.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod alias_source;
mod blocking;
pub mod conformance;
mod files;
pub mod format;
pub mod letters;
mod log_sink;
mod log_source;
mod log_table;
mod log_topics;
mod memory;
mod part_files;

pub use alias_source::{AliasSource, AliasSourceReader};
pub use blocking::blocking;
pub use files::{CsvReader, CsvSource, JsonLinesReader, JsonLinesSource};
pub use letters::{DeadLetters, FiledLetter, Redrive, Redriven};
pub use log_sink::{LogSink, LogWriter};
pub use log_source::{LogReader, LogSource};
pub use log_table::{DecodeRecord, Upserts};
pub use memory::{Collect, CollectWriter, FromVec, FromVecReader};
pub use part_files::{CsvSink, JsonLinesSink, PartWriter, part_files};
