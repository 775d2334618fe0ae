//! The generator, the floor and the engine, against what the specification says.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crashes;
mod engine;
mod latency;
mod specification;
