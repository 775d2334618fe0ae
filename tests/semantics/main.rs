//! Event time through the facade, held to models: what a naive loop over the log says is what the engine gives, with any number of workers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod branches;
mod case;
mod crashes;
mod dead_letters;
mod discovery;
mod durability;
mod ends;
mod extremes;
mod failures;
mod geometry;
mod keyed;
mod lateness;
mod look_ups;
mod model;
mod operators;
mod partitions;
mod processing_time;
mod replay;
mod simulated;
#[path = "../common/sips.rs"]
mod sips;
mod sources;
mod support;
mod tables;
mod top_n;
mod triggers;
#[path = "../common/vocabulary.rs"]
mod vocabulary;
mod window_joins;
mod windows;
